"""What there is to say about a store, as plain data."""

from __future__ import annotations

from typing import Any

from avfeat.errors import StoreNotFoundError
from avfeat.manifests.clips import count_statuses
from avfeat.stores.files import Files
from avfeat.stores.state import CLIPS, MANIFEST, load_state


def find_stores(url: str) -> list[str]:
    """List the stores at or below a path: ``features``, ``features/llp`` or one store.

    Raises
    ------
    StoreNotFoundError
        If there is none.
    """
    files = Files(url)
    # A store whose manifest.json is gone is one still, and not to be passed over.
    marks = (MANIFEST, CLIPS)
    if any(files.exists(mark) for mark in marks):
        return [url]
    folders = {name.rpartition("/")[::2] for name in files.list(depth=3)}
    found = sorted({f"{url.rstrip('/')}/{folder}" for folder, name in folders if name in marks})
    name = url.rstrip("/").rpartition("/")[2]
    if not found and name in marks:
        store = url.rstrip("/").removesuffix(name).rstrip("/") or "."
        raise StoreNotFoundError(f"{url} is a file of a store; name the store, {store}")
    if not found:
        raise StoreNotFoundError(f"there is no feature store at {url}; `avfeat extract` makes one")
    return found


def summarise(url: str) -> dict[str, Any]:
    """Describe a store: recipe, counts, shapes, and every clip that has no rows but should.

    Raises
    ------
    StoreNotFoundError, IntegrityError
        If there is no store, or its manifest, clip table or ledger is damaged.
    """
    state = load_state(Files(url))
    manifest = state.manifest
    failed = [
        {"id": clip.id, "kind": outcome.kind, "message": outcome.message}
        for clip, outcome in zip(state.clips, state.outcomes, strict=True)
        if outcome.status == "failed"
    ]
    degraded = [
        {"id": clip.id, "kind": outcome.kind, "message": outcome.message}
        for clip, outcome in zip(state.clips, state.outcomes, strict=True)
        if outcome.status == "degraded"
    ]
    counts = count_statuses(state.outcomes)
    return {
        "store": url,
        "dataset": manifest.dataset["name"],
        "backbone": manifest.recipe.backbone["name"],
        "fingerprint": manifest.fingerprint,
        "complete": "pending" not in counts,
        "at_rest": manifest.at_rest,
        "counts": counts,
        "splits": {
            split: sum(clip.split == split for clip in state.clips)
            for split in dict.fromkeys(clip.split for clip in state.clips)
        },
        "rows": sum(outcome.rows for outcome in state.outcomes),
        "clip_rows": sorted({outcome.rows for outcome in state.outcomes if outcome.rows}),
        "shape": [manifest.layout.clips, manifest.layout.rows, *manifest.layout.row_shape],
        "dimensions": list(manifest.layout.dimensions),
        "dtype": manifest.recipe.store["dtype"],
        "units": {"committed": len(state.ledger), "all": manifest.layout.units},
        "recipe": manifest.recipe.model_dump(mode="json"),
        "sources": manifest.sources,
        "drift": manifest.drift,
        "failed": failed,
        "degraded": degraded,
    }
