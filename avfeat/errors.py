"""Every error avfeat raises on purpose.

Each class has a stable, machine-readable ``kind`` and an exit code; its message names the file or
value at fault and says what to do next. The command line prints the message alone; ``-v`` adds the
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar

_LISTED = 12  # names in a message
_LIKENESS = 0.65  # of a name to be suggested; at 0.5 words are that only share some letters


class AvfeatError(Exception):
    """Base of all errors that a user can do something about."""

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the message, so that an error comes back whole from another process."""
        return type(self), (str(self),)


class UsageError(AvfeatError, ValueError):
    """A wrong name, option or combination of options."""

    kind = "usage"
    exit_code = 2


class UnknownNameError(UsageError):
    """A backbone, data set, clip or other name that is not registered.

    `note` says what else may be the reason.
    """

    kind = "unknown_name"

    def __init__(self, what: str, name: str, known: Iterable[str], note: str = "") -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=_LISTED, cutoff=_LIKENESS)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        # A dozen are shown as they are; of more, those that are like the name.
        listed = known if len(known) <= _LISTED else (sorted(near) or known)[:_LISTED]
        rest = len(known) - len(listed)
        more = f", … and {rest} more" if rest else ""
        end = f". Not loaded: {note}" if note else ""
        super().__init__(f"unknown {what} {name!r}.{hint} Known: {', '.join(listed)}{more}{end}")
        self._arguments = (what, name, known, note)

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str], str]]:
        return type(self), self._arguments


class UnknownClipError(UnknownNameError, KeyError):
    """A clip that a store does not list."""

    __str__ = Exception.__str__  # KeyError shows its message in quotes

    def __init__(self, clip_id: str, known: Iterable[str]) -> None:
        super().__init__("clip", clip_id, known)

    def __reduce__(self) -> tuple[type, tuple[str, list[str]]]:  # type: ignore[override]
        _, name, known, _ = self._arguments
        return type(self), (name, known)


class AnnotationError(UsageError):
    """Annotation files that are absent or cannot be read as the data set's official files."""

    kind = "annotations"


class MediaNotFoundError(UsageError, FileNotFoundError):
    """No media at all where the data set's media should be."""

    kind = "media_not_found"


class MediaError(AvfeatError):
    """One clip's media cannot give what is asked of it; ends as that clip's ``failed`` row.

    ``kind`` is per instance here: ``not_media``, ``empty_file``, ``truncated``, ``undecodable``,
    ``outside_media``, ``too_short``, ``io``, ``bad_annotation`` or ``non_finite``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind  # type: ignore[misc]

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.kind, str(self))


class DownloadError(AvfeatError, ConnectionError):
    """A file could not be fetched, or what came is not the file that was asked for."""

    kind = "download"
    exit_code = 2


class OfflineError(DownloadError):
    """A file would have to be fetched and the environment forbids connections."""

    kind = "offline"


class WeightsError(AvfeatError):
    """Weights that are unreachable, wrong, truncated or of another architecture."""

    kind = "weights"
    exit_code = 2


class EngineError(AvfeatError):
    """A network that an engine cannot run, or runs to other numbers than torch."""

    kind = "engine"
    exit_code = 2


class StoreError(AvfeatError):
    """A folder that is no store, or a store that cannot be used as asked."""

    kind = "store"
    exit_code = 2


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at the path."""

    kind = "store_not_found"


class StoreBusyError(StoreError):
    """Another process is writing to the store."""

    kind = "store_busy"


class RecipeMismatchError(StoreError):
    """The store holds rows of another recipe."""

    kind = "recipe_mismatch"


class RandomWeightsError(StoreError):
    """The store was made with random weights and the reader did not allow that."""

    kind = "random_weights"


class IntegrityError(AvfeatError):
    """Stored bytes are not the bytes that were written."""

    kind = "integrity"
    exit_code = 4


class ReadError(StoreError, OSError):
    """A file or folder of the store is there but cannot be read."""

    kind = "read"


class ProcessError(AvfeatError):
    """A process that decodes clips cannot be started: the machine's fault, not a clip's."""

    kind = "process"


class ClusterError(AvfeatError):
    """Workers of a cluster that cannot be reached, do not fit, or died."""

    kind = "cluster"
    exit_code = 1


class FeaturesError(AvfeatError, ValueError):
    """Features or labels that cannot be scored or trained on: NaN, or shapes that do not fit."""

    kind = "features"
    exit_code = 2


class CollocationError(UsageError):
    """Stores that cannot be compared: of different clips or recipes, or none of a modality."""

    kind = "collocation"


class TrainingError(AvfeatError):
    """A training that came to nothing: its probabilities are no numbers any more."""

    kind = "training"


class WriteError(AvfeatError, OSError):
    """The store could not be written: disk full, no permission, read-only."""

    kind = "write"
