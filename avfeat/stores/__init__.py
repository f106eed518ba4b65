"""Feature stores: written whole unit by unit, read by clip id, verified to the last bit."""

from avfeat.stores.reader import FeatureStore, open_store

__all__ = ["FeatureStore", "open_store"]
