"""Audio-visual data sets in, traceable feature stores out."""

__version__ = "0.1.0"
