"""Metrics of the published tasks: video parsing, event localisation, action localisation.

One module per task, for numpy arrays or plain records, without model or store: `avvp` (LLP), `avel`
(AVE) and `detection` (THUMOS14, ActivityNet). All values are percentages.
"""
