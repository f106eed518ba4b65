"""The ledger and its journal: a unit is wholly old or wholly new."""

from __future__ import annotations

from pathlib import Path

import pytest

from avfeat.errors import IntegrityError
from avfeat.manifests.clips import Outcome
from avfeat.stores.files import Files, sha256
from avfeat.stores.ledger import LedgerEntry, commit, has_journal, read_ledger, recover

OLD = {"features.zarr/features/c/7/0/0": b"old", "features.zarr/time/c/7/0": b"old times"}
NEW = {"features.zarr/features/c/7/0/0": b"new", "features.zarr/features/c/7/1/0": b"more"}


def entry(shards: dict[str, bytes], status: str = "ok") -> LedgerEntry:
    clips = (("a", Outcome(status, rows=3)), ("b", Outcome("missing")))  # type: ignore[arg-type]
    return LedgerEntry(7, "f" * 64, clips, {name: sha256(data) for name, data in shards.items()})


def state(files: Files) -> dict[str, bytes]:
    return {name: files.read(name) for name in files.list()}


def expected(shards: dict[str, bytes], status: str = "ok") -> dict[str, bytes]:
    return {**shards, "ledger/000007.json": entry(shards, status).to_bytes()}


@pytest.fixture(params=["local", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """A store's files with unit 7 committed."""
    files = Files(tmp_path if request.param == "local" else f"memory://ledger{tmp_path}")
    commit(files, entry(OLD), list(OLD.items()))
    assert state(files) == expected(OLD)
    return files


def lay_down(files: Files, *names: str) -> None:
    """What a run that died while it wrote the journal leaves."""
    contents = {**NEW, "entry.json": entry(NEW, "degraded").to_bytes()}
    for name in names:
        files.write(f"journal/000007/{name}", contents[name])


def test_a_unit_that_is_committed_again_is_replaced(files: Files) -> None:
    commit(files, entry(NEW, "degraded"), list(NEW.items()))
    assert state(files) == expected(NEW, "degraded")
    assert not has_journal(files)


def test_a_journal_without_its_entry_is_dropped(files: Files) -> None:
    lay_down(files, *NEW)
    assert has_journal(files)
    recover(files)
    assert state(files) == expected(OLD)


def test_a_journal_with_its_entry_is_carried_out(files: Files) -> None:
    lay_down(files, *NEW, "entry.json")
    assert read_ledger(files)[7] == entry(OLD)
    recover(files)
    assert state(files) == expected(NEW, "degraded")
    recover(files)
    assert state(files) == expected(NEW, "degraded")


def test_a_journal_half_carried_out_is_finished(files: Files) -> None:
    lay_down(files, *NEW, "entry.json")
    first = next(iter(NEW))
    files.copy(f"journal/000007/{first}", first)
    files.remove(f"journal/000007/{first}")
    recover(files)
    assert state(files) == expected(NEW, "degraded")


def test_a_damaged_journal_is_said_and_touches_nothing(files: Files) -> None:
    lay_down(files, *NEW, "entry.json")
    data = files.read("journal/000007/entry.json")
    files.write("journal/000007/entry.json", data.replace(b"degraded", b"degradex"))
    with pytest.raises(IntegrityError, match=r"journal/000007/entry\.json is damaged"):
        recover(files)
    assert {name: files.read(name) for name in expected(OLD)} == expected(OLD)


def test_scratch_of_killed_writers_is_cleared(files: Files) -> None:
    files.write("runs/tmp/123-0", b"half a file")
    recover(files)
    assert state(files) == expected(OLD)


def test_an_entry_comes_back_as_it_was() -> None:
    outcome = Outcome(
        "degraded", "short", "é\n\t\"'", 3, "ü/x.mp4", 10**12, "ab", 1 / 3, 2, float(2**-40)
    )
    written = LedgerEntry(10**6, "f", (("日本", outcome), ("-", Outcome())), {"x": "y"})
    assert LedgerEntry.from_bytes(written.to_bytes(), "x") == written
    assert written.name == "ledger/1000000.json"


def test_units_beyond_a_million_are_read(tmp_path: Path) -> None:
    files = Files(tmp_path)
    for unit in (5, 10**6):
        commit(files, LedgerEntry(unit, "f", (), {}), [])
    files.write("ledger/notes.txt", b"mine")
    assert sorted(read_ledger(files)) == [5, 10**6]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"rows": 3', b'"rows": 4'),
        lambda text: text.replace(b'"unit": 7', b'"unit": 8'),
        lambda text: text + b" ",
        lambda text: b"[" * 100_000,
        lambda text: b"[]",
        lambda text: b"",
        lambda text: b"\xff\xfe",
        lambda text: text.replace(b'"rows": 3', b'"rows": NaN'),
        lambda text: text.replace(b'"rows": 3', b'"rows": 1e999'),
        lambda text: text.replace(b'"a"', b'"\\ud800"'),
        lambda text: text.replace(b'"unit": 7', b'"unit": 6, "unit": 7'),
    ],
)
def test_any_other_text_is_no_entry(change: object) -> None:
    with pytest.raises(IntegrityError, match="the entry is damaged"):
        LedgerEntry.from_bytes(change(entry(OLD).to_bytes()), "the entry")  # type: ignore[operator]


def test_bytes_that_the_manifest_knows_are_not_looked_at_again() -> None:
    data = entry(OLD).to_bytes()
    assert LedgerEntry.from_bytes(data, "7", known=sha256(data)) == entry(OLD)
    changed = data.replace(b'"rows": 3', b'"rows": 4')
    assert changed != data
    with pytest.raises(IntegrityError, match="does not match its digest"):
        LedgerEntry.from_bytes(changed, "7", known=sha256(data))
    for nonsense in (b"{", b"\xff", b"{}", b"[]"):
        with pytest.raises(IntegrityError, match="7 is damaged"):
            LedgerEntry.from_bytes(nonsense, "7", known=sha256(nonsense))
