"""manifest.json: what a store is, how it was made, and whether it is whole."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from avfeat.errors import IntegrityError
from avfeat.manifests import jsonfile
from avfeat.manifests.recipe import Recipe


class Layout(BaseModel):
    """How rows lie in the arrays.

    Attributes
    ----------
    clips, rows, dim
        Clips, rows of the longest clip (others are padded), features of a row or channels of a
        map: ``features`` is [clips, rows, dim], or [clips, rows, height, width, dim] for maps.
    unit_clips
        Clips per unit: the unit of work, of retry and of commit; one row of shards.
    chunk_rows
        Rows per inner chunk: one clip, or at most 256 rows of a long one, fewer of wide rows.
    shard_rows
        Rows per shard, a multiple of `chunk_rows`; long clips span several shards.
    map
        (height, width) of a row that is a map; None where a row is a vector.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clips: int = Field(ge=1)
    rows: int = Field(ge=1)
    dim: int = Field(ge=1)
    unit_clips: int = Field(ge=1)
    chunk_rows: int = Field(ge=1)
    shard_rows: int = Field(ge=1)
    map: tuple[PositiveInt, PositiveInt] | None = None

    @model_serializer(mode="wrap")
    def _leave_out_no_map(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write no ``map`` where there is none: stores of vectors keep the bytes they had."""
        document: dict[str, Any] = handler(self)
        if self.map is None:
            document.pop("map", None)
        return document

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a row: (dim,), or (height, width, dim) of a map."""
        return (*(self.map or ()), self.dim)

    @property
    def row_size(self) -> int:
        """Number of values in a row."""
        return math.prod(self.row_shape)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the dimensions of ``features``."""
        return ("clip", "time", *(("feature",) if self.map is None else ("y", "x", "channel")))

    @property
    def units(self) -> int:
        """Number of units."""
        return -(-self.clips // self.unit_clips)

    def unit_range(self, unit: int) -> range:
        """Indices of the clips of `unit`."""
        return range(unit * self.unit_clips, min((unit + 1) * self.unit_clips, self.clips))


class StoreManifest(BaseModel):
    """The content of manifest.json (store format 1). Nothing in it depends on when or where.

    Attributes
    ----------
    dataset
        Name, classes and what identifies its annotations.
    recipe, fingerprint
        How every row was made.
    sources
        Licence and citation of the weights, paper of the network.
    drift
        Library versions that later runs used instead, when that was allowed explicitly.
    counts
        Clips by status.
    complete
        True when no clip is pending.
    at_rest
        False while a run writes, and after one was killed: the ledger is then ahead of this file.
    files
        sha256 of each file that is not part of a unit.
    ledger
        Unit number to digest of its ledger file, for the units committed so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoding_type: Literal["avfeat.features"] = "avfeat.features"
    encoding_version: Literal[1] = 1
    dataset: dict[str, Any]
    recipe: Recipe
    fingerprint: str
    sources: dict[str, Any]
    drift: list[dict[str, str]] = []
    layout: Layout
    counts: dict[str, int]
    complete: bool
    at_rest: bool
    files: dict[str, str]
    ledger: dict[str, str]

    def to_bytes(self) -> bytes:
        """Serialise, with a digest over the content."""
        return jsonfile.seal(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> StoreManifest:
        """Parse and validate manifest.json.

        Raises
        ------
        IntegrityError
            If the bytes were changed, or hold no manifest of a known version.
        """
        document = jsonfile.unseal(data, name)
        document.pop("digest", None)
        try:
            manifest = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise IntegrityError(
                f"{name} is no manifest this version of avfeat can read: {where}: {first['msg']}"
            ) from error
        if manifest.recipe.fingerprint != manifest.fingerprint:
            raise IntegrityError(f"{name} is damaged: the fingerprint is not that of the recipe")
        return manifest
