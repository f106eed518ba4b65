"""Which run may commit units: the workers of a run that is over may still be at work."""

from __future__ import annotations

import json
import uuid

from avfeat.errors import StoreBusyError
from avfeat.stores.files import Files

_TOKEN = "runs/writer.json"


def claim(files: Files) -> str:
    """Let a new run, and no other, commit units.

    Returns
    -------
    str
        The run's id, for `check`.
    """
    run = uuid.uuid4().hex
    files.write(_TOKEN, json.dumps({"run": run}).encode())
    return run


def withdraw(files: Files) -> None:
    """Let no run commit units."""
    files.remove(_TOKEN)


def check(files: Files, run: str) -> None:
    """Refuse the units of a run that is over.

    Raises
    ------
    StoreBusyError
        If the run ended, or another one has taken over.
    """
    try:
        current = json.loads(files.read(_TOKEN))["run"]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        current = None
    if current != run:
        raise StoreBusyError(
            f"the run that this unit belongs to is over, or another one has taken {files} over; "
            "the unit is not committed"
        )
