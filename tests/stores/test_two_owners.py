"""A unit that two workers commit at once, one of them thought lost: it always ends whole."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storekit import fill_unit, make_clips, make_writer, rows_of
from support import KilledError, die_at_write

from avfeat.errors import StoreBusyError
from avfeat.manifests.clips import Outcome
from avfeat.stores.files import Files, sha256
from avfeat.stores.ledger import LedgerEntry, commit, has_journal, read_ledger, recover
from avfeat.stores.verify import verify

STEPS = 8  # writes and copies of a commit: two shards and the entry, laid down and put in place
SHARDS = ("features.zarr/features/c/7/0/0", "features.zarr/time/c/7/0")
OLD, ONE, OTHER = (
    {SHARDS[0]: b"old", SHARDS[1]: b"old times", "features.zarr/features/c/7/1/0": b"more"},
    dict.fromkeys(SHARDS, b"of one worker"),
    {SHARDS[0]: b"of the other", "features.zarr/features/c/7/2/0": b"and further"},
)
FIRST = pytest.mark.parametrize("first", [True, False], ids=["first", "rewrite"])


def write(files: Files, shards: dict[str, bytes]) -> None:
    entry = LedgerEntry(7, "f" * 64, (("a", Outcome("ok", rows=3)),), {})
    commit(files, entry, list(shards.items()))


def assert_whole(files: Files, *, any_of: list[dict[str, bytes]]) -> None:
    """What the ledger says is there, and is what one of the owners wrote."""
    (entry,) = read_ledger(files).values()
    stored = {name: files.read(name) for name in entry.files}
    assert {name: sha256(data) for name, data in stored.items()} == entry.files
    assert stored in any_of


@pytest.fixture(params=["local", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path, first: bool) -> Files:
    """An empty store, or one with unit 7 committed."""
    files = Files(tmp_path if request.param == "local" else f"memory://owners{tmp_path}")
    if not first:
        write(files, OLD)
    return files


def before_each(patch: pytest.MonkeyPatch, action: Callable[[], None], *names: str) -> None:
    """Do something before each of the store's operations of these names."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def operation(self: Files, *args: object) -> Any:
            action()
            return original(self, *args)

        return operation

    for name in names:
        patch.setattr(Files, name, wrap(getattr(Files, name)))


def at_step(patch: pytest.MonkeyPatch, step: int, action: Callable[[], None]) -> None:
    """Do something just before the store's operation number `step`, once."""
    operations = iter(range(10**6))

    def count() -> None:
        if next(operations) == step:
            action()

    before_each(patch, count, "write", "copy", "remove")


@FIRST
@pytest.mark.parametrize("step", range(STEPS))
def test_another_owner_comes_between_and_may_die(
    files: Files, monkeypatch: pytest.MonkeyPatch, first: bool, step: int
) -> None:
    """At `step` of one commit the other begins, and dies at each of its writes, or does not."""
    for death in (*range(STEPS), None) if files.local is None else (0, 4, None):
        for name in files.list():
            files.remove(name)
        if not first:
            write(files, OLD)

        def other(death: int | None = death) -> None:
            with monkeypatch.context() as inner:
                if death is not None:
                    die_at_write(inner, death)
                with contextlib.suppress(KilledError):
                    write(files, OTHER)

        with monkeypatch.context() as patch:
            at_step(patch, step, other)
            write(files, ONE)
        if death is None or not has_journal(files):
            assert_whole(files, any_of=[ONE, OTHER])
        recover(files)
        assert_whole(files, any_of=[ONE, OTHER])
        assert not has_journal(files)


@FIRST
@pytest.mark.parametrize("step", range(STEPS))
def test_both_owners_die(
    files: Files, monkeypatch: pytest.MonkeyPatch, first: bool, step: int
) -> None:
    """One dies at `step`, the other does the unit again and dies: the next run mends the unit."""
    for death in range(STEPS) if files.local is None else (2, 4, 5):
        for name in files.list():
            files.remove(name)
        if not first:
            write(files, OLD)
        for shards, when in ((ONE, step), (OTHER, death)):
            with monkeypatch.context() as patch:
                die_at_write(patch, when)
                with contextlib.suppress(KilledError):
                    write(files, shards)
        recover(files)
        assert not has_journal(files)
        if files.list("ledger"):
            assert_whole(files, any_of=[OLD, ONE, OTHER])
        else:
            assert first
            assert step < 3
            assert death < 3


class Turns:
    """Lets threads go on one store operation at a time, in an order drawn by chance."""

    def __init__(self, seed: int, deaths: dict[str, int]) -> None:
        self._random = random.Random(seed)
        self._deaths = deaths
        self._waiting: set[str] = set()
        self._alive = {"one", "other"}
        self._turn: str | None = None
        self._changed = threading.Condition()

    def take(self) -> None:
        """Wait for a turn; die if it was the last."""
        name = threading.current_thread().name
        if name not in self._alive:
            return
        with self._changed:
            if self._turn == name:
                self._turn = None
            self._waiting.add(name)
            self._draw()
            assert self._changed.wait_for(lambda: self._turn == name, timeout=60)
        self._deaths[name] = self._deaths.get(name, 10**6) - 1
        if self._deaths[name] < 0:
            raise KilledError

    def leave(self) -> None:
        with self._changed:
            name = threading.current_thread().name
            self._alive.discard(name)
            if self._turn == name:
                self._turn = None
            self._draw()

    def _draw(self) -> None:
        if self._turn is None and self._waiting and self._waiting == self._alive:
            self._turn = self._random.choice(sorted(self._waiting))
            self._waiting.discard(self._turn)
        self._changed.notify_all()


@FIRST
def test_any_order_of_two_commits(
    files: Files, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    for seed in range(60 if files.local is None else 10):
        for name in files.list():
            files.remove(name)
        if not first:
            write(files, OLD)
        rng = random.Random(seed)
        # One may die; who lives ends whole, or says that the next run has to finish.
        deaths = {"one": rng.randrange(25)} if seed % 2 else {}
        turns, busy = Turns(seed, deaths), []

        def run(
            shards: dict[str, bytes], turns: Turns = turns, busy: list[Exception] = busy
        ) -> None:
            try:
                write(files, shards)
            except KilledError:
                pass
            except StoreBusyError as error:
                busy.append(error)
            finally:
                turns.leave()

        with monkeypatch.context() as patch:
            before_each(patch, turns.take, "write", "copy", "remove", "read", "exists")
            threads = [
                threading.Thread(target=run, args=(ONE,), name="one"),
                threading.Thread(target=run, args=(OTHER,), name="other"),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if not busy and not has_journal(files):
            assert_whole(files, any_of=[ONE, OTHER])
        recover(files)
        assert_whole(files, any_of=[ONE, OTHER])
        assert not has_journal(files)


def test_a_journal_that_is_not_whole_is_dropped(tmp_path: Path) -> None:
    files = Files(tmp_path)
    write(files, OLD)
    new = {name: sha256(data) for name, data in ONE.items()}
    entry = LedgerEntry(7, "f" * 64, (("a", Outcome("ok", rows=3)),), new)
    files.write(f"journal/000007/{SHARDS[0]}", ONE[SHARDS[0]])  # the other shard is gone
    files.write("journal/000007/entry.json", entry.to_bytes())
    recover(files)
    assert_whole(files, any_of=[OLD])
    for name, data in ONE.items():
        files.write(f"journal/000007/{name}", data + b" changed")
    files.write("journal/000007/entry.json", entry.to_bytes())
    recover(files)
    assert_whole(files, any_of=[OLD])


def test_a_journal_of_before_another_commit_does_not_undo_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path)
    with monkeypatch.context() as patch:
        die_at_write(patch, 3)  # all is laid down, nothing is in place
        with pytest.raises(KilledError):
            write(files, ONE)
    write(files, OTHER)
    recover(files)
    assert_whole(files, any_of=[OTHER])


def test_a_worker_of_a_run_that_is_over_commits_nothing(tmp_path: Path) -> None:
    clips = make_clips((4, 2, 7, 3))
    with make_writer(tmp_path, clips) as writer:
        writer.open()
        late = writer.unit(0)
    over = pytest.raises(StoreBusyError, match="the run that this unit belongs to is over")
    with over, late.rows() as rows:
        late.commit(rows, {0: Outcome("failed", "io", "the run was aborted")})
    with make_writer(tmp_path, clips) as writer:
        writer.open()
        fill_unit(writer, 0, {0: 4, 1: 2, 2: 7})
        with pytest.raises(StoreBusyError), late.rows() as rows:
            late.commit(rows, {0: Outcome("failed", "io", "the run was aborted")})
        mine = writer.unit(1)
        fill_unit(writer, 1, {3: 3})
        writer.finish()
        with pytest.raises(StoreBusyError), mine.rows() as rows:
            mine.commit(rows, {})
    report = verify(str(tmp_path))
    assert (report.ok, report.notes, report.rows) == (True, [], 16)


def test_a_unit_done_twice_in_a_run_is_in_the_manifest_as_it_stands(tmp_path: Path) -> None:
    with make_writer(tmp_path, make_clips((4, 2, 7))) as writer:
        writer.open()
        lost = writer.unit(0)
        fill_unit(writer, 0, {0: 4, 1: 2, 2: 7})
        with lost.rows() as rows:  # done by both, and late by the one that was thought lost
            lost.commit(rows, {index: Outcome("missing") for index in range(3)})
        writer.finish()
        assert [outcome.status for outcome in writer.outcomes] == ["missing"] * 3
    report = verify(str(tmp_path))
    assert (report.ok, report.notes) == (True, [])


def test_what_a_worker_left_half_done_is_finished_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_writer(tmp_path, make_clips((4, 2, 7))) as writer:
        writer.open()
        lost = writer.unit(0)
        fill_unit(writer, 0, {0: 4, 1: 2, 2: 7})
        with monkeypatch.context() as patch, lost.rows() as rows:
            rows.append(0, *rows_of("clip_01", 3))
            die_at_write(patch, 5)  # the first shard is in place, and of no entry
            with pytest.raises(KilledError):
                lost.commit(rows, {0: Outcome("ok", rows=3)})
        assert not verify(str(tmp_path)).ok
        writer.finish()
    report = verify(str(tmp_path))
    assert (report.ok, report.notes, report.rows) == (
        True,
        ["2 of 3 clips are not extracted yet"],
        3,
    )
    assert not (tmp_path / "journal").exists()
