"""The log of trainings.

A record is one small JSON file, named by a hash over everything that the training depends on, and
written whole when it ends. So a search that was stopped finds what it did before.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

from avfeat.errors import IntegrityError, WriteError
from avfeat.manifests.jsonfile import seal, unseal
from avfeat.stores.files import Files

Record = dict[str, Any]


class Log:
    """The records below a folder or URL."""

    def __init__(self, url: str) -> None:
        self._files = Files(url)

    def check(self) -> None:
        """Write a file and delete it, before hours are spent on what is to be kept.

        Raises
        ------
        WriteError
            If nothing can be written.
        """
        name = f"trainings/{uuid.uuid4().hex}.check"
        try:
            self._files.write(name, b"")
        except WriteError as error:
            # The hint of what writes stores names another option.
            raise WriteError(str(error).replace("--out", "--log")) from error
        with suppress(WriteError):  # not everybody who may write may delete
            self._files.remove(name)

    def find(self, key: str) -> Record | None:
        """Return a training's record; None if there is none, or it is damaged."""
        try:
            record = unseal(self._files.read(self._name(key)), key)
            return record if record.get("key") == key else None
        except (FileNotFoundError, IntegrityError):
            return None

    def keep(self, record: Record) -> None:
        """Write a training's record."""
        self._files.write(self._name(record["key"]), seal(record))

    @staticmethod
    def _name(key: str) -> str:
        return f"trainings/{key[:32]}.json"
