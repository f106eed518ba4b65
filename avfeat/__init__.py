"""Audio-visual data sets in, traceable feature stores out.

The command ``avfeat extract`` makes stores; `open_store` reads them::

    store = avfeat.open_store("features/llp/resnet152")
    store["BjCEufrlXm4_20_30"].shape  # (80, 2048)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "open_store"]

if TYPE_CHECKING:
    from avfeat.stores import open_store


def __getattr__(name: str) -> Any:
    # Lazy, so that `avfeat --help` does not wait for numpy, pyarrow and zarr.
    if name == "open_store":
        from avfeat.stores import open_store

        return open_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
