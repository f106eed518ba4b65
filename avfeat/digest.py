"""Digests as publishers state them: of several kinds, sometimes only the first few digits."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

_DIGITS = {"sha256": 64, "sha1": 40, "git-blob": 40, "md5": 32}
_WORDS = {"sha256": "SHA-256", "sha1": "SHA-1", "git-blob": "git blob id", "md5": "MD5"}
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file's bytes must come to.

    Parameters
    ----------
    kind
        ``"sha256"``, ``"sha1"``, ``"md5"``, or ``"git-blob"``: the name git gives the file, which
        is the SHA-1 of its length and bytes.
    value
        Lower-case hex. Of SHA-256 a prefix of at least eight digits will do: some publishers state
        no more.
    """

    kind: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``kind:hex``.

        Raises
        ------
        ValueError
            Another kind, or not that many digits.

        Examples
        --------
        >>> Digest.parse("sha256:394f9c45")
        Digest(kind='sha256', value='394f9c45')
        """
        kind, _, value = text.partition(":")
        digits = _DIGITS.get(kind)
        if digits is None:
            raise ValueError(f"digest {text!r}: not of a known kind ({', '.join(_DIGITS)})")
        least = 8 if kind == "sha256" else digits
        if not re.fullmatch(rf"[0-9a-f]{{{least},{digits}}}", value):
            raise ValueError(f"digest {text!r}: not {digits} lower-case hexadecimal digits")
        return cls(kind, value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    def of(self, path: Path) -> tuple[str, str]:
        """Hash a file once: its digest of this kind, in full, and its SHA-256."""
        sha256 = hashlib.sha256()
        own = sha256 if self.kind == "sha256" else _hasher(self.kind, path.stat().st_size)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                sha256.update(chunk)
                if own is not sha256:
                    own.update(chunk)
        return own.hexdigest(), sha256.hexdigest()

    def difference(self, path: Path) -> tuple[str | None, str]:
        """How a file differs from this digest, in words, None if it does not; and its SHA-256."""
        found, sha256 = self.of(path)
        if found.startswith(self.value):
            return None, sha256
        begins = "to begin with " if len(self.value) < len(found) else ""
        return f"its {_WORDS[self.kind]} is {found}, expected {begins}{self.value}", sha256


ANY = Digest("sha256", "")
"""What every file comes to, as every SHA-256 starts with no digits."""


def _hasher(kind: str, size: int) -> _Hash:
    # These tell damage and mix-ups, as their publishers meant them to; avfeat adds a SHA-256.
    if kind == "md5":
        return hashlib.md5(usedforsecurity=False)
    hasher = hashlib.sha1(usedforsecurity=False)
    if kind == "git-blob":
        hasher.update(b"blob %d\0" % size)
    return hasher
