"""Store format 1, byte for byte: what is on users' disks stays readable, and stays what is written.

``python tests/stores/test_golden.py`` writes the golden stores anew. Do that only together with a
new format version, or with a zarr release that spells metadata in another way.
"""

from __future__ import annotations

import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest

from avfeat.manifests import jsonfile

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from storekit import Map, make_clips, make_store, rows_of
from support import tree

from avfeat.manifests.clips import Clip, Event
from avfeat.stores import arrays
from avfeat.stores.reader import open_store
from avfeat.stores.verify import verify


@dataclass(frozen=True)
class Golden:
    """A store as the first version that could write it left it."""

    name: str
    lengths: tuple[int, ...]
    map: Map = None
    max_shard_bytes: int = arrays.MAX_SHARD_BYTES

    @property
    def path(self) -> Path:
        return Path(__file__).parent / "golden" / self.name

    def make(self, folder: Path) -> None:
        """Write the store as this version does."""
        with mock.patch.object(arrays, "MAX_SHARD_BYTES", self.max_shard_bytes):
            make_store(folder, self.lengths, clips=golden_clips(self.lengths), map=self.map)
        shutil.rmtree(folder / "runs")


GOLDEN = (
    Golden("format1", (4, 0, 300, -1, 2)),
    # Shards of 4 rows of 2 x 4 x 3 values of 3 clips: the third clip spans two.
    Golden("format1-maps", (4, 0, 7, -1, 2), map=(2, 4), max_shard_bytes=4 * 24 * 4 * 3),
)


def golden_clips(lengths: tuple[int, ...]) -> tuple[Clip, ...]:
    """Clips that use every column of clips.parquet."""
    plain = make_clips(lengths)
    events = (Event("audio", "Dog", 0.0, 0.5), Event("visual", "Cat", 0.25, 0.25))
    return (
        Clip(plain[0].id, 1.5, 2.0, "val", ("Dog", "Dog"), events),
        plain[1],
        plain[2],
        Clip(plain[3].id, float("nan"), float("nan"), "test", (), (), "line 5: 'é' is no label"),
        plain[4],
    )


@pytest.fixture(params=GOLDEN, ids=lambda golden: golden.name)
def golden(request: pytest.FixtureRequest) -> Golden:
    """Each of the golden stores."""
    store: Golden = request.param
    return store


@pytest.fixture
def fresh(golden: Golden, tmp_path: Path) -> dict[str, bytes]:
    """The store as this version writes it."""
    golden.make(tmp_path)
    return tree(tmp_path)


def test_every_file_has_the_bytes_it_always_had(golden: Golden, fresh: dict[str, bytes]) -> None:
    """Apart from clips.parquet, whose bytes depend on the release of Arrow, and its digest."""
    then = tree(golden.path)
    assert fresh.keys() == then.keys()
    for name in fresh.keys() - {"clips.parquet", "manifest.json"}:
        assert fresh[name] == then[name], name
    documents = [jsonfile.unseal(files["manifest.json"], "x") for files in (fresh, then)]
    for document in documents:
        del document["digest"], document["files"]["clips.parquet"]
    assert documents[0] == documents[1]
    assert documents[0]["layout"].get("map", "absent") == (
        [*golden.map] if golden.map else "absent"
    )


def test_clips_parquet_has_the_content_it_always_had(
    golden: Golden, fresh: dict[str, bytes]
) -> None:
    now, then = (
        pq.read_table(io.BytesIO(files["clips.parquet"])) for files in (fresh, tree(golden.path))
    )
    assert now.schema.equals(then.schema, check_metadata=True)
    # By their text: NaN, which stands for an unknown time, is not equal to itself.
    assert str(now.to_pylist()) == str(then.to_pylist())


def test_the_golden_store_is_read(golden: Golden) -> None:
    report = verify(str(golden.path))
    assert report.ok, report.problems
    counts = {f"clip_{n:02d}": length for n, length in enumerate(golden.lengths) if length > 0}
    assert (report.units, report.clips, report.rows) == (2, 5, sum(counts.values()))
    store = open_store(golden.path)
    assert {clip_id: rows.shape for clip_id, rows in store.items()} == {
        clip_id: (length, *(golden.map or ()), 3) for clip_id, length in counts.items()
    }
    for clip_id, rows in store.items():
        features, times = rows_of(clip_id, len(rows), map=golden.map)
        np.testing.assert_array_equal(rows, features)
        np.testing.assert_array_equal(store.times(clip_id), times)
    assert str([store.clip(f"clip_{n:02d}") for n in range(5)]) == str(
        [*golden_clips(golden.lengths)]
    )
    assert store.outcome("clip_03").kind == "not_media"


def test_the_golden_store_is_small(golden: Golden) -> None:
    assert sum(map(len, tree(golden.path).values())) < 50_000


if __name__ == "__main__":
    for store in GOLDEN:
        shutil.rmtree(store.path, ignore_errors=True)
        store.make(store.path)
