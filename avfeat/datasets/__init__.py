"""Data sets: one module per corpus, each turning annotation files and media into clips."""

from avfeat.datasets.base import Dataset, get, names, register

__all__ = ["Dataset", "get", "names", "register"]
