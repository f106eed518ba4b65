"""Canonical JSON with a digest of itself, so that a flipped bit in a manifest shows."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from avfeat.errors import IntegrityError


def canonical(document: Any) -> str:
    """Return the one JSON text of `document`: sorted keys, no spaces, no NaN."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(document: Any) -> str:
    """Return the sha256 (hex) of the canonical JSON of `document`."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def seal(document: dict[str, Any]) -> bytes:
    """Serialise `document` with a ``digest`` field over everything else in it."""
    body = {key: value for key, value in document.items() if key != "digest"}
    text = json.dumps(
        {**body, "digest": digest(body)},
        indent=1,
        sort_keys=True,
        ensure_ascii=False,
        allow_nan=False,
    )
    return (text + "\n").encode()


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """Parse what `seal` wrote.

    Raises
    ------
    IntegrityError
        If `data` is not JSON or its digest does not match its content; `name` is in the message.
    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            raise IntegrityError(f"{name} is damaged: not a JSON object")
        intact = seal(document) == data
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{name} is damaged: not JSON ({error})") from error
    if not intact:
        raise IntegrityError(f"{name} is damaged: its content does not match its digest")
    return document
