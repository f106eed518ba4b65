"""Whether a run may go on with a store that is there, and with which clips."""

from __future__ import annotations

from avfeat.errors import RecipeMismatchError, StoreError
from avfeat.manifests.clips import WITH_ROWS, Clip, ClipManifest
from avfeat.manifests.recipe import Recipe, differences
from avfeat.manifests.store import StoreManifest
from avfeat.stores.files import Files
from avfeat.stores.state import StoreState


def check_recipe(
    files: Files,
    stored: StoreManifest,
    recipe: Recipe,
    *,
    allow_drift: bool = False,
    ignore_weights: bool = False,
) -> dict[str, str] | None:
    """Refuse rows of another recipe than those of the store.

    Parameters
    ----------
    files, stored
        The store and its manifest.
    recipe
        How rows would be made now.
    allow_drift
        Accept other library versions.
    ignore_weights
        Do not compare the weights' sha256.

    Returns
    -------
    dict or None
        The library versions of now where they are not the stored ones, else None.

    Raises
    ------
    RecipeMismatchError
        Naming the fields that differ.
    """
    changed = differences(stored.recipe, recipe)
    if ignore_weights:
        changed = [change for change in changed if change[0] != "weights.sha256"]
    if not changed:
        return None
    only_libraries = all(field.startswith("libraries.") for field, _, _ in changed)
    if allow_drift and only_libraries:
        return dict(recipe.libraries)
    listed = "\n".join(
        f"  {field}: {old!r} in the store, {new!r} now" for field, old, new in changed
    )
    hint = (
        "choose another folder with --out, or pass --allow-drift to go on with other library "
        "versions (that is recorded)"
        if only_libraries
        else "choose another folder with --out, or repeat the options the store was made with"
    )
    raise RecipeMismatchError(
        f"{files} was made by another recipe; features of different recipes never mix:\n"
        f"{listed}\n{hint}"
    )


def check_content(
    files: Files, stored: StoreManifest, *, dataset: str, row_shape: tuple[int, ...]
) -> None:
    """Refuse rows of another data set, or of another shape, than those of the store.

    Parameters
    ----------
    files, stored
        The store and its manifest.
    dataset, row_shape
        Name of the data set, and shape of the rows that would be made now.

    Raises
    ------
    StoreError
        If the store holds something else.
    """
    if stored.dataset["name"] != dataset:
        raise StoreError(
            f"{files} holds features of the data set {stored.dataset['name']!r}, "
            f"not {dataset!r}; choose another folder with --out"
        )
    if stored.layout.row_shape != row_shape:
        raise StoreError(
            f"{files} holds rows of shape {stored.layout.row_shape}, not {row_shape}; "
            "choose another folder with --out"
        )


def merge_clips(
    files: Files, state: StoreState, manifest: ClipManifest
) -> tuple[tuple[Clip, ...], list[str]]:
    """Keep stored clips in their order, with today's labels; append the new ones.

    Returns
    -------
    clips, notes
        The store's clips from now on, and what was found to have changed: rows whose media file
        has another length today are kept as they are.

    Raises
    ------
    StoreError
        If the store is of other clips altogether, or annotated times of a clip with rows changed.
    """
    known = {clip.id: clip for clip in manifest.clips}
    if not any(clip.id in known for clip in state.clips):
        raise StoreError(
            f"{files} holds other clips (such as {state.clips[0].id}) and none of these; "
            "choose another folder with --out"
        )
    clips, notes = [], []
    for clip, outcome in zip(state.clips, state.outcomes, strict=True):
        now = known.pop(clip.id, clip)
        if outcome.status in WITH_ROWS and (clip.start, clip.end) != (now.start, now.end):
            what = (
                f"clip {clip.id} was extracted from {clip.start:g}-{clip.end:g} s, and is "
                f"{now.start:g}-{now.end:g} s now"
            )
            if manifest.annotated_times:
                raise StoreError(f"{files}: {what}; choose another folder with --out")
            notes.append(f"{what}: its file was changed; the rows of the old one are kept")
            now = clip
        clips.append(now)
    return (*clips, *known.values()), notes
