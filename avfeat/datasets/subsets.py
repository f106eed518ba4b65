"""Training sets of fewer classes (Wu et al., Information Sciences 2022, Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence

from avfeat.errors import UsageError
from avfeat.manifests.clips import Clip


def class_subset(clips: Sequence[Clip], classes: Sequence[str], *, keep: int) -> tuple[Clip, ...]:
    """Take the clips of the first classes.

    The paper extracts 25, 20, 15 and 10 classes of LLP "orderly" and says no more. Here every
    clip is left out in which any other class occurs, in canonical order: of LLP's 10,000 training
    clips 10,000, 8,513, 6,707 and 3,360 stay. Background clips stay.

    Parameters
    ----------
    clips
        Usually those of the training split: val and test stay as they are.
    classes
        In the order that counts: canonical, or by frequency.
    keep
        How many classes stay.

    Returns
    -------
    tuple of Clip
        In order.

    Raises
    ------
    UsageError
        If `keep` is not in 1...len(classes).
    """
    if not 1 <= keep <= len(classes):
        raise UsageError(f"{keep} of {len(classes)} classes cannot be kept")
    kept = frozenset(classes[:keep])
    return tuple(clip for clip in clips if kept.issuperset(_present(clip)))


def _present(clip: Clip) -> set[str]:
    # Some LLP clips have events of classes that their weak labels lack.
    return {*clip.labels, *(event.label for event in clip.events)}
