"""A refused forget leaves nothing; a killed one is finished wherever the database lies then."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from pairs_at_hand import names, neutral, new_store, pairs

from asif_lance.database import TABLES
from asif_lance.errors import (
    AsifError,
    CorruptDatabaseError,
    DatabaseError,
    InputError,
    KeysError,
    StorageError,
)
from asif_lance.forgetting import execution, journal, obtain_keys
from asif_lance.forgetting.content import Content
from asif_lance.forgetting.receipts import load_receipts
from asif_lance.store.forget import forget, plan
from asif_lance.store.pair_store import PairStore
from asif_lance.verifier import scan

GONE = names(3, 6)
LOCK = ".asif-lock"


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path, 64, 32)
    store.add(pairs(names(0, 20), image=64, text=32))
    store.publish(command="ingest")
    return store


def read_files(store: PairStore) -> dict[Path, bytes]:
    files = {path: path.read_bytes() for path in Path(store.uri).rglob("*") if path.is_file()}
    lock = files.pop(Path(store.uri, LOCK))
    assert not any(pair_id.encode() in lock for pair_id in GONE)
    return files


def sought(store: PairStore) -> Content:
    rows = store.read("v1")
    return Content(b"some salt", rows.filter([i in GONE for i in rows["pair_id"].to_pylist()]))


# Refused


def quote(_: PairStore) -> dict[str, object]:
    return {"pair_ids": GONE, "reason": f"somebody wants {GONE[0]} away"}


def name_unknown_pairs(_: PairStore) -> dict[str, object]:
    return {"pair_ids": names(500, 502), "reason": "asked to"}


def damage_the_keys(_: PairStore) -> dict[str, object]:
    keys = Path(os.environ["ASIF_LANCE_KEYS"])
    obtain_keys("", keys)
    (keys / "signing.pem").write_text("no key")
    return {"pair_ids": GONE, "reason": "asked to"}


def make_a_branch(store: PairStore) -> dict[str, object]:
    lance.dataset(f"{store.uri}/pairs.lance").create_branch("exp")
    return {"pair_ids": GONE, "reason": "asked to"}


@pytest.mark.parametrize(
    ("arrange", "error"),
    [
        (quote, InputError),
        (name_unknown_pairs, InputError),
        (damage_the_keys, KeysError),
        (make_a_branch, DatabaseError),
    ],
)
def test_a_refused_forget_changes_no_file_and_leaves_none(
    store: PairStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[[PairStore], dict[str, object]],
    error: type[AsifError],
) -> None:
    monkeypatch.setenv("ASIF_LANCE_KEYS", str(tmp_path / "keys"))
    arguments = arrange(store)
    before = read_files(store)
    with pytest.raises(error):
        execution.execute(store.uri, **arguments)
    assert read_files(store) == before
    assert not journal.interrupted(store.uri)


def refuse_writing(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """As a file system that is mounted read-only does; to root, permissions say nothing."""
    real = os.open

    def guarded(path: str, flags: int, *rest: int, **named: int) -> int:
        if str(path).startswith(folder) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", guarded)


def test_a_read_only_directory_is_refused_in_one_line(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_files(store)
    with monkeypatch.context() as patch:
        refuse_writing(patch, store.uri)
        with pytest.raises(StorageError, match=r"cannot write to .*: Read-only file system"):
            forget(store, GONE, reason="asked to")
        assert plan(store, GONE).pairs == tuple(GONE)
    assert read_files(store) == before


@pytest.mark.parametrize("refused", ["_write", "_sync"])
def test_a_disk_without_room_for_the_journal_is_refused_and_left_as_it_was(
    store: PairStore, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = read_files(store)
    with monkeypatch.context() as patch:
        calls = itertools.count()
        real = getattr(journal, refused)
        # The content is written first; clearing up afterwards syncs, too.
        patch.setattr(journal, refused, lambda *a: real(*a) if next(calls) else full())
        with pytest.raises(StorageError, match="No space left on device"):
            forget(store, GONE, reason="asked to")
    assert read_files(store) == before
    assert PairStore.open(store.uri).notice is None


# Killed

KILLED = """
import os, signal, sys
from pairs_at_hand import names
from asif_lance.forgetting import execution, journal
from asif_lance.store import PairStore
from asif_lance.store.forget import forget

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv[2]
if where == "content":
    real = journal.Journal.keep_content
    journal.Journal.keep_content = lambda *a: (real(*a), die())
elif where == "draft":
    real = journal._write
    journal._write = lambda *a: (real(*a), die())
else:
    real = execution.Purge.run if where == "purge" else journal.Journal.start
    owner, name = (execution.Purge, "run") if where == "purge" else (journal.Journal, "start")
    setattr(owner, name, lambda *a: (real(*a), die()))
forget(PairStore.open(sys.argv[1]), names(3, 6), reason="asked to")
"""


def kill(store: PairStore, where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, store.uri, where], cwd=Path(__file__).parents[1]
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("where", ["content", "draft"])
def test_a_forget_killed_before_its_journal_was_there_leaves_nothing_once_opened(
    store: PairStore, where: str
) -> None:
    before = read_files(store)
    kill(store, where)
    left = read_files(store).keys() - before.keys()
    assert {path.name[:13] for path in left} == {".asif-forget."}
    assert PairStore.open(store.uri).notice is None
    assert read_files(store) == before


def test_a_writer_that_is_open_already_removes_what_a_killed_forget_left(
    store: PairStore,
) -> None:
    kill(store, "draft")
    store.add(pairs(names(90, 91), image=64, text=32))
    assert not list(Path(store.uri).glob(".asif-forget*"))
    assert store.existing(GONE) == set(GONE)


@pytest.mark.parametrize("where", ["start", "purge"])
def test_a_killed_forget_is_finished_where_the_directory_was_moved_and_in_each_copy(
    store: PairStore, tmp_path: Path, where: str
) -> None:
    content = sought(store)
    kill(store, where)
    copy, moved = tmp_path / "copy", tmp_path / "elsewhere" / "moved"
    shutil.copytree(store.uri, copy)
    moved.parent.mkdir()
    Path(store.uri).rename(moved)
    for place in (copy, moved):
        opened = PairStore.open(str(place))
        assert (opened.notice or "").startswith("finished an interrupted forget of 3 pairs")
        assert len(opened.read("v1")) == 17
        assert not scan(place, content).hits
        assert [receipt.clean for receipt in load_receipts(str(place))] == [True]
        assert not list(place.glob(".asif-forget*"))


def damage_table(store: PairStore, table: str) -> str:
    """Empties a data file of a table; returns its path in the database."""
    path = Path(store.uri, f"{table}.lance")
    dataset = lance.dataset(str(path))
    rows = [{field.name: neutral(field) for field in dataset.schema}]
    lance.write_dataset(pa.Table.from_pylist(rows, schema=dataset.schema), dataset, mode="append")
    newest = max(path.glob("data/*.lance"), key=lambda file: file.stat().st_mtime_ns)
    newest.write_bytes(b"")
    return newest.relative_to(store.uri).as_posix()


DAMAGEABLE = [table.name for table in TABLES if table.name not in ("digests", "migrations")]


@pytest.mark.parametrize("table", DAMAGEABLE)
def test_a_damaged_file_of_any_table_is_named_before_anything_is_done(
    store: PairStore, table: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = damage_table(store, table)
    before = read_files(store)
    for act in (lambda: plan(store, GONE), lambda: forget(store, GONE, reason="asked to")):
        with pytest.raises(CorruptDatabaseError) as caught:
            act()
        assert caught.value.file == file
    assert read_files(store) == before
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("table", ["runs", "predictions", "rejects", "queries"])
def test_a_table_that_is_gone_is_named_before_anything_is_done(
    store: PairStore, table: str
) -> None:
    shutil.rmtree(Path(store.uri, f"{table}.lance/_versions"))
    before = read_files(store)
    with pytest.raises(CorruptDatabaseError, match=f"{table}.lance is damaged"):
        forget(store, GONE, reason="asked to")
    assert read_files(store) == before


def test_damage_met_by_an_unfinished_forget_is_told_and_stops_only_writers(
    store: PairStore, capfd: pytest.CaptureFixture[str]
) -> None:
    kill(store, "start")
    file = damage_table(store, "runs")
    opened = PairStore.open(store.uri)
    assert str(opened.notice).startswith("an interrupted forget could not be finished yet: ")
    assert file in str(opened.notice)
    assert len(opened.read("v1")) == 20
    with pytest.raises(CorruptDatabaseError, match=file):
        opened.add(pairs(names(50, 51), image=64, text=32))
    assert "panicked" not in capfd.readouterr().err


def test_where_it_cannot_be_written_readers_go_on_and_are_told(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(store, "start")
    before = read_files(store)
    with monkeypatch.context() as patch:
        refuse_writing(patch, store.uri)
        opened = PairStore.open(store.uri)
        assert opened.notice == (
            "an interrupted forget could not be finished yet: "
            f"cannot write to {store.uri}: Read-only file system"
        )
        assert len(opened.read("v1")) == 20
        with pytest.raises(StorageError, match="Read-only file system"):
            opened.delete(GONE)
    assert read_files(store) == before
    assert PairStore.open(store.uri).notice is not None
    assert len(store.read("v1")) == 17
