"""Store format 1, byte for byte: what is on users' disks stays readable, and stays what is written.

``python tests/stores/test_golden.py`` writes the golden store anew. Do that only together with a
new format version, or with a zarr release that spells metadata in another way.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from avfeat.manifests import jsonfile

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from storekit import make_clips, make_store, rows_of
from support import tree

from avfeat.manifests.clips import Clip, Event
from avfeat.stores.reader import open_store
from avfeat.stores.verify import verify

GOLDEN = Path(__file__).parent / "golden" / "format1"
LENGTHS = (4, 0, 300, -1, 2)


def golden_clips() -> tuple[Clip, ...]:
    """Clips that use every column of clips.parquet."""
    plain = make_clips(LENGTHS)
    events = (Event("audio", "Dog", 0.0, 0.5), Event("visual", "Cat", 0.25, 0.25))
    return (
        Clip(plain[0].id, 1.5, 2.0, "val", ("Dog", "Dog"), events),
        plain[1],
        plain[2],
        Clip(plain[3].id, float("nan"), float("nan"), "test", (), (), "line 5: 'é' is no label"),
        plain[4],
    )


def make_golden(folder: Path) -> None:
    """Write the store as this version does."""
    make_store(folder, LENGTHS, clips=golden_clips())
    shutil.rmtree(folder / "runs")


@pytest.fixture
def fresh(tmp_path: Path) -> dict[str, bytes]:
    """The store as this version writes it."""
    make_golden(tmp_path)
    return tree(tmp_path)


def test_every_file_has_the_bytes_it_always_had(fresh: dict[str, bytes]) -> None:
    """Apart from clips.parquet, whose bytes depend on the release of Arrow, and its digest."""
    golden = tree(GOLDEN)
    assert fresh.keys() == golden.keys()
    for name in fresh.keys() - {"clips.parquet", "manifest.json"}:
        assert fresh[name] == golden[name], name
    documents = [jsonfile.unseal(files["manifest.json"], "x") for files in (fresh, golden)]
    for document in documents:
        del document["digest"], document["files"]["clips.parquet"]
    assert documents[0] == documents[1]


def test_clips_parquet_has_the_content_it_always_had(fresh: dict[str, bytes]) -> None:
    now, then = (
        pq.read_table(io.BytesIO(files["clips.parquet"])) for files in (fresh, tree(GOLDEN))
    )
    assert now.schema.equals(then.schema, check_metadata=True)
    # By their text: NaN, which stands for an unknown time, is not equal to itself.
    assert str(now.to_pylist()) == str(then.to_pylist())


def test_the_golden_store_is_read(tmp_path: Path) -> None:
    report = verify(str(GOLDEN))
    assert report.ok, report.problems
    assert (report.units, report.clips, report.rows) == (2, 5, 306)
    store = open_store(GOLDEN)
    assert {clip_id: rows.shape for clip_id, rows in store.items()} == {
        "clip_00": (4, 3),
        "clip_02": (300, 3),
        "clip_04": (2, 3),
    }
    for clip_id, rows in store.items():
        features, times = rows_of(clip_id, len(rows))
        np.testing.assert_array_equal(rows, features)
        np.testing.assert_array_equal(store.times(clip_id), times)
    assert str([store.clip(f"clip_{n:02d}") for n in range(5)]) == str([*golden_clips()])
    assert store.outcome("clip_03").kind == "not_media"


def test_the_golden_store_is_small() -> None:
    assert sum(map(len, tree(GOLDEN).values())) < 50_000


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    make_golden(GOLDEN)
