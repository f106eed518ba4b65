"""manifest.json and clips.parquet: what is written comes back, and nothing else is read."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from storekit import make_recipe

from avfeat.errors import IntegrityError
from avfeat.manifests import jsonfile
from avfeat.manifests.clips import (
    SCHEMA,
    STATUSES,
    Clip,
    Event,
    Outcome,
    count_statuses,
    from_table,
    to_table,
)
from avfeat.manifests.store import Layout, StoreManifest


def layout(**sizes: int) -> Layout:
    whole = {"clips": 5, "rows": 7, "dim": 2, "unit_clips": 2, "chunk_rows": 7, "shard_rows": 7}
    return Layout(**{**whole, **sizes})


def manifest() -> StoreManifest:
    recipe = make_recipe()
    return StoreManifest(
        dataset={"name": "d", "classes": ["a", "é"]},
        recipe=recipe,
        fingerprint=recipe.fingerprint,
        sources={"paper": "p"},
        layout=layout(),
        counts={"ok": 5},
        complete=True,
        at_rest=True,
        files={"clips.parquet": "ab"},
        ledger={"000000": "cd"},
    )


def test_a_manifest_comes_back() -> None:
    written = manifest()
    data = written.to_bytes()
    assert StoreManifest.from_bytes(data, "x") == written
    assert StoreManifest.from_bytes(data, "x").to_bytes() == data


def resealed(**changes: Any) -> bytes:
    """A manifest whose seal is right and whose content is not."""
    return jsonfile.seal({**manifest().model_dump(mode="json"), **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding_version": 2}, "no manifest this version of avfeat can read: encoding_version"),
        ({"encoding_type": "other"}, "encoding_type: Input should be 'avfeat.features'"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"counts": {"ok": "many"}}, r"counts\.ok: "),
        ({"layout": {"clips": 0}}, r"layout\.clips: "),
        ({"recipe": {}}, r"recipe\.backbone: Field required"),
        ({"fingerprint": "ab"}, "the fingerprint is not that of the recipe"),
        ({"files": None}, "files: "),
    ],
)
def test_a_manifest_of_another_shape_is_refused_by_field(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(IntegrityError, match=words) as caught:
        StoreManifest.from_bytes(resealed(**changes), "features/manifest.json")
    assert "features/manifest.json" in str(caught.value)


def test_units_cover_every_clip_once() -> None:
    for clips in range(1, 8):
        for unit_clips in range(1, 5):
            plan = layout(clips=clips, unit_clips=unit_clips)
            units = [plan.unit_range(unit) for unit in range(plan.units)]
            assert [index for unit in units for index in unit] == list(range(clips))
            assert {len(unit) for unit in units[:-1]} <= {unit_clips}
            assert len(units[-1]) >= 1


CLIPS = (
    Clip("BjCEufrlXm4_20_30", 20.0, 30.0, "train", ("Speech", "Dog")),
    Clip("-x_1.5_11.5", 1.5, 11.5, "val", ("Clapping", "Clapping")),
    Clip("dir/日本 é\u0301 \U0001f3b5", 0.0, 1 / 3, "all"),
    Clip(
        "events",
        0.0,
        10.0,
        "test",
        ("Cat",),
        (
            Event("audio", "Cat", 9.0, 9.0),
            Event("audio", "Cat", 9.0, 0.0),
            Event("visual", "Cat", 0.1, 0.30000000000000004),
            Event("visual", "Cat", 0.1, 0.30000000000000004),
        ),
    ),
    Clip("unknown", math.nan, math.nan, "all", problem="line 3: 'x'\n\t is no label"),
    Clip("", 0.0, 0.0, "", ("",), problem=""),
)
OUTCOMES = (
    Outcome("ok", rows=80, media="a.mp4", media_bytes=2**40, media_sha256="ab", short=0.25),
    Outcome("degraded", "short", "é", 3, "ü.mp4", 1, "cd", 1 / 3, 5, 2.5),
    Outcome("missing"),
    Outcome("failed", "not_media", "it is HTML"),
    Outcome("failed", "bad_annotation", "line 3"),
    Outcome(),
)


def test_the_clip_table_comes_back_through_parquet() -> None:
    buffer = io.BytesIO()
    pq.write_table(to_table(CLIPS, OUTCOMES), buffer)
    table = pq.read_table(io.BytesIO(buffer.getvalue()))
    assert table.schema == SCHEMA
    assert table.schema.metadata == SCHEMA.metadata
    assert table.column("index").to_pylist() == list(range(len(CLIPS)))
    clips, outcomes = from_table(table)
    assert outcomes == OUTCOMES
    assert repr(clips) == repr(CLIPS)  # NaN is not equal to itself
    known = [index for index, clip in enumerate(CLIPS) if not math.isnan(clip.start)]
    assert [clips[index] for index in known] == [CLIPS[index] for index in known]


def test_the_clip_table_may_be_empty_of_labels() -> None:
    table = to_table(CLIPS[2:3], OUTCOMES[2:3])
    assert table.column("labels").type == pa.list_(pa.string())
    assert from_table(table) == (CLIPS[2:3], OUTCOMES[2:3])


def test_clips_without_an_outcome_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        to_table(CLIPS, OUTCOMES[1:])


def test_the_ledger_stores_what_differs_from_the_defaults() -> None:
    assert Outcome().to_dict() == {}
    assert Outcome("ok", rows=3).to_dict() == {"status": "ok", "rows": 3}
    for outcome in OUTCOMES:
        assert Outcome(**outcome.to_dict()) == outcome
    assert set(OUTCOMES[1].to_dict()) == {field.name for field in dataclasses.fields(Outcome)}


def test_counts_are_in_the_order_of_the_statuses() -> None:
    assert list(count_statuses(map(Outcome, reversed(STATUSES)))) == list(STATUSES)
    assert count_statuses(OUTCOMES) == {
        "ok": 1,
        "degraded": 1,
        "missing": 1,
        "failed": 2,
        "pending": 1,
    }
    assert count_statuses([]) == {}
