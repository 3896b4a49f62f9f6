from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import lance
import lancedb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pairs_at_hand import IMAGE, TEXT, names, new_store, pairs

from asif_lance.database.lock import WriteLock
from asif_lance.database.pair_rows import ROWS_PER_FRAGMENT
from asif_lance.database.versions import Ledger
from asif_lance.errors import (
    DatabaseBusyError,
    DatabaseExistsError,
    DatabaseNotFoundError,
    DimensionError,
    EncoderMismatchError,
    InputError,
    InvalidNameError,
    StorageError,
    VersionNotFoundError,
)
from asif_lance.records import Reject
from asif_lance.store.pair_store import PairStore


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    return new_store(tmp_path)


@pytest.fixture
def filled(store: PairStore) -> PairStore:
    """v1: pairs 0-9; v2: 0-14; v3: 5-14."""
    store.add(pairs(names(0, 10)))
    store.publish(command="ingest", message="first")
    store.add(pairs(names(10, 15)))
    store.publish(command="ingest", message="second")
    store.delete(names(0, 5))
    store.publish(command="delete", message="third")
    return store


def ids(store: PairStore, version: str = "latest") -> list[str]:
    return sorted(store.read(version, ["pair_id"])["pair_id"].to_pylist())


def test_an_address_that_is_not_utf_8_is_one_line_and_makes_nothing(tmp_path: Path) -> None:
    address = os.fsdecode(os.fsencode(tmp_path) + b"/x\xe9/db")
    for attempt in (PairStore.open, lambda uri: new_store(Path(uri).parent)):
        with pytest.raises(StorageError, match=r"/x\\xe9/db: the address .* UTF-8$"):
            attempt(address)
    assert not list(tmp_path.iterdir())


# Opening


def test_what_was_created_opens_with_its_pins(store: PairStore) -> None:
    assert PairStore.open(store.uri) == store
    assert (store.image, store.text) == (IMAGE, TEXT)


def test_opening_nothing_says_so_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DatabaseNotFoundError, match="`asif-lance ingest` makes one"):
        PairStore.open(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_creating_twice_is_refused(store: PairStore) -> None:
    with pytest.raises(DatabaseExistsError, match="there is a database at"):
        PairStore.create(store.uri, image=IMAGE, text=TEXT)


def test_a_pairs_table_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    lancedb.connect(tmp_path).create_table("pairs", pa.table({"x": [1, 2]}))
    with pytest.raises(DatabaseExistsError):
        PairStore.create(str(tmp_path), image=IMAGE, text=TEXT)
    assert lancedb.connect(tmp_path).open_table("pairs").count_rows() == 2


def test_a_relative_address_stays_good_when_the_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = PairStore.create("db", image=IMAGE, text=TEXT)
    monkeypatch.chdir("/")
    assert store.add(pairs(names(0, 2))) == 2


def test_other_encoders_are_refused(store: PairStore) -> None:
    store.check_encoders(IMAGE, TEXT)
    store.check_encoders(replace(IMAGE, revision=""), TEXT)
    with pytest.raises(
        EncoderMismatchError, match=r"image vectors come from timm/test_vit@abc123, not x"
    ):
        store.check_encoders(replace(IMAGE, name="x"), TEXT)
    with pytest.raises(EncoderMismatchError, match="text vectors come from"):
        store.check_encoders(IMAGE, replace(TEXT, revision="other"))
    with pytest.raises(DimensionError, match="image vectors: expected 8 dimensions, got 9"):
        store.check_encoders(replace(IMAGE, dimension=9), TEXT)


# Pairs


def test_adding_counts_what_was_new(store: PairStore) -> None:
    assert store.add(pairs(names(0, 10))) == 10
    assert store.add(pairs(names(5, 15))) == 5
    assert store.existing(names(12, 20)) == set(names(12, 15))


def test_adding_what_is_there_makes_no_commit(store: PairStore) -> None:
    store.add(pairs(names(0, 10)))
    before = head_version(store)
    assert store.add(pairs(names(0, 10))) == 0
    assert store.add(pairs([])) == 0
    assert store.delete(["nobody"]) == 0
    assert head_version(store) == before


def test_an_id_twice_in_one_batch_goes_in_once_as_it_came_first(store: PairStore) -> None:
    batch = pa.concat_tables([pairs(["a", "b"]), pairs(["a"], caption=["another"])])
    assert store.add(batch) == 2
    store.publish(command="ingest")
    assert store.read().filter(pc.field("pair_id") == "a")["caption"].to_pylist() == [
        "a caption about a"
    ]


def test_fragments_hold_ten_thousand_rows(store: PairStore) -> None:
    store.add(pairs(names(0, ROWS_PER_FRAGMENT + 10)))
    assert [f.count_rows() for f in head(store).get_fragments()] == [ROWS_PER_FRAGMENT, 10]


def test_vectors_come_back_bit_for_bit(store: PairStore) -> None:
    given = pairs(names(0, 20))
    store.add(given)
    store.publish(command="ingest")
    got = store.read().sort_by("pair_id")
    for column in ("image_vector", "text_vector"):
        assert got[column].combine_chunks().equals(given[column].combine_chunks())


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (pairs(["a"], image=9), DimensionError, "image_vector: expected 8 dimensions, got 9"),
        (pairs(["a"]).drop_columns("caption"), InputError, "pairs need a column 'caption'"),
        (
            pairs(["a"], colour=["red"]),
            InputError,
            "pairs have no column 'colour'; there are: pair_id,",
        ),
        (
            pairs(["a"], pair_id=pa.array([None], pa.string())),
            InputError,
            "the column 'pair_id' of pairs has empty values",
        ),
        (
            pairs(["a"], text_vector=["x"]),
            InputError,
            "'text_vector' of pairs must be fixed_size_list",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused_as_a_whole(
    store: PairStore, batch: pa.Table, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        store.add(batch)
    assert head(store).count_rows() == 0


def test_deleting_leaves_no_id_in_the_log(store: PairStore) -> None:
    store.add(pairs(names(0, 10)))
    assert store.delete([*names(3, 6), "nobody"]) == 3
    log = head(store).read_transaction(head_version(store))
    assert log.operation.predicate == "false"
    assert store.existing(names(0, 10)) == set(names(0, 3) + names(6, 10))


def test_deleting_everything_leaves_an_empty_table(store: PairStore) -> None:
    store.add(pairs(names(0, 10)))
    assert store.delete(names(0, 10)) == 10
    assert head(store).count_rows() == 0


# Versions


def test_versions_tell_what_they_are(filled: PairStore) -> None:
    told = [
        (v.name, v.number, v.command, v.message, v.pairs, v.added, v.removed)
        for v in filled.versions()
    ]
    assert told == [
        ("v1", 1, "ingest", "first", 10, 10, 0),
        ("v2", 2, "ingest", "second", 15, 5, 0),
        ("v3", 3, "delete", "third", 10, 0, 5),
    ]
    assert filled.version() == filled.versions()[-1]


def test_publishing_nothing_new_makes_no_version(filled: PairStore) -> None:
    assert filled.publish(command="ingest", message="again") is None
    filled.add(pairs(names(20, 21)))
    filled.delete(names(20, 21))
    assert filled.publish(command="ingest", message="there and back") is None
    assert len(filled.versions()) == 3


def test_an_empty_database_has_no_version(store: PairStore) -> None:
    assert store.publish(command="ingest") is None
    assert store.versions() == []
    with pytest.raises(VersionNotFoundError, match=r"^there is no model version yet: "):
        store.version()


def test_a_changed_pair_makes_a_version(filled: PairStore) -> None:
    filled.delete(names(7, 8))
    filled.add(pairs(names(7, 8), caption=["quite another"]))
    version = filled.publish(command="ingest")
    assert version is not None
    assert (version.pairs, version.added, version.removed) == (10, 1, 1)


def test_old_versions_keep_their_pairs(filled: PairStore) -> None:
    assert ids(filled, "v1") == names(0, 10)
    assert ids(filled, "v2") == names(0, 15)
    assert ids(filled, "v3") == ids(filled) == names(5, 15)


def test_readers_do_not_see_what_is_not_published(filled: PairStore) -> None:
    filled.add(pairs(names(30, 40)))
    assert ids(filled) == names(5, 15)
    assert filled.dataset().count_rows() == 10


def test_an_unknown_version_is_named_with_the_known_ones(filled: PairStore) -> None:
    with pytest.raises(VersionNotFoundError, match="no model version 'v9'; there are: v1, v2, v3"):
        filled.dataset("v9")


def test_versions_are_found_by_time(filled: PairStore) -> None:
    first, second, _ = filled.versions()
    assert filled.version_as_of(second.created_at).name == "v2"
    assert filled.version_as_of(second.created_at - timedelta(microseconds=1)).name == "v1"
    assert filled.version_as_of(datetime.now(UTC)).name == "v3"
    with pytest.raises(VersionNotFoundError, match=r"is as old as 20.*Z: v1 was made at "):
        filled.version_as_of(first.created_at - timedelta(seconds=1))


def test_an_alias_is_one_version_and_can_move(filled: PairStore) -> None:
    filled.tag("prod", "v1")
    filled.tag("2024.best", "prod")
    assert ids(filled, "prod") == names(0, 10)
    assert filled.version("prod").aliases == ("2024.best", "prod")
    filled.tag("prod", "latest")
    assert filled.version("prod").name == "v3"
    assert [v.aliases for v in filled.versions()] == [("2024.best",), (), ("prod",)]
    filled.untag("prod")
    with pytest.raises(VersionNotFoundError):
        filled.version("prod")
    with pytest.raises(InvalidNameError, match=r"no alias 'prod'; there are: 2024\.best"):
        filled.untag("prod")


@pytest.mark.parametrize("alias", ["v7", "V7", "latest", "Latest"])
def test_the_names_of_versions_are_reserved(filled: PairStore, alias: str) -> None:
    with pytest.raises(InvalidNameError, match="is reserved for the versions themselves"):
        filled.tag(alias, "v1")
    with pytest.raises(InvalidNameError):
        filled.untag(alias)


@pytest.mark.parametrize(
    "alias", ["", "a b", "a/b", "../a", "a..b", ".a", "a.", "é", "x.lock", "-a", "a" * 101, "a\n"]
)
def test_an_alias_that_would_harm_is_refused(filled: PairStore, alias: str) -> None:
    with pytest.raises(InvalidNameError, match="cannot be an alias"):
        filled.tag(alias, "v1")


def test_rolling_back_makes_a_new_version_with_the_old_pairs(filled: PairStore) -> None:
    version = filled.rollback("v1")
    assert (version.name, version.message, version.pairs) == ("v4", "back to v1", 10)
    assert (version.added, version.removed) == (5, 5)
    assert ids(filled) == names(0, 10)
    assert ids(filled, "v3") == names(5, 15)


def test_rolling_back_to_what_is_there_makes_no_version(filled: PairStore) -> None:
    assert filled.rollback("latest").name == "v3"
    assert filled.rollback("v1").name == "v4"
    assert filled.rollback("v1").name == "v4"


def test_versions_are_read_while_bookkeeping_is_compacted(store: PairStore) -> None:
    for number in range(40):
        store.add(pairs(names(number, number + 1)))
        store.publish(command="ingest", message=f"number {number}")
    assert [v.message for v in store.versions()] == [f"number {n}" for n in range(40)]
    assert ids(store, "v7") == names(0, 7)


def test_plain_lancedb_and_duckdb_read_the_database(filled: PairStore) -> None:
    table = lancedb.connect(filled.uri).open_table("pairs")
    assert table.count_rows() == 10
    table.checkout("v1")
    assert table.count_rows() == 10
    assert table.to_arrow()["pair_id"].to_pylist() == names(0, 10)
    table.checkout("latest")
    assert table.count_rows() == 10
    filled.delete(names(5, 15))
    filled.add(pairs(["x"], attributes=[json.dumps({"camera": "Zenit"})]))
    filled.publish(command="ingest")
    # DuckDB has no float16: it gets the columns without the vectors.
    now = filled.read(columns=["attributes"])
    assert duckdb.sql("SELECT attributes->>'camera' FROM now").fetchall() == [("Zenit",)]
    assert len(now) == 1


# Rejects


def test_rejects_are_kept_by_ingest(store: PairStore) -> None:
    store.add_rejects("one", [Reject("s.csv", "row 17", "empty caption")])
    store.add_rejects("two", [Reject("s.csv", f"row {n}", "no image") for n in range(3)])
    store.add_rejects("three", [])
    assert store.rejects().num_rows == 4
    assert store.rejects("one").drop_columns(["created_at"]).to_pylist() == [
        {"ingest_id": "one", "source": "s.csv", "item": "row 17", "reason": "empty caption"}
    ]


# Crashes, crowds and bad disks


def test_a_publication_cut_short_is_completed_by_the_next(
    filled: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    filled.add(pairs(names(20, 25)))
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            filled.publish(command="ingest", message="lost")
    assert filled.version().name == "v3"
    filled.add(pairs(names(25, 26)))
    version = filled.publish(command="ingest", message="kept")
    assert version is not None
    assert (version.name, version.added) == ("v4", 6)
    assert ids(filled, "v4") == names(5, 15) + names(20, 26)


def test_a_writer_that_waits_in_vain_is_told_for_whom(store: PairStore) -> None:
    hasty = replace(store, lock_timeout=0.1)
    with (
        WriteLock(store.uri).hold("ingest"),
        pytest.raises(DatabaseBusyError, match=rf"in use by `ingest` \(process {os.getpid()}\)"),
    ):
        hasty.add(pairs(["a"]))
    assert hasty.add(pairs(["a"])) == 1


def test_the_lock_of_a_killed_process_is_free(store: PairStore) -> None:
    code = (
        "import os, sys; from asif_lance.database import WriteLock\n"
        "with WriteLock(sys.argv[1]).hold('x'): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, store.uri], check=False).returncode == -9
    assert replace(store, lock_timeout=0.0).add(pairs(["a"])) == 1


def test_threads_that_add_the_same_pairs_add_them_once(store: PairStore) -> None:
    added: list[int] = []
    in_threads(6, lambda: added.append(store.add(pairs(names(0, 50)))))
    assert sorted(added) == [0, 0, 0, 0, 0, 50]
    assert head(store).count_rows() == 50


def _ingest(uri: str, start: int) -> None:
    store = PairStore.open(uri)
    for chunk in range(start, start + 100, 10):
        store.add(pairs(names(chunk, chunk + 10)))
    store.publish(command="ingest")


def test_processes_that_ingest_overlapping_pairs_lose_and_double_none(store: PairStore) -> None:
    spawn = multiprocessing.get_context("spawn")
    work = [spawn.Process(target=_ingest, args=(store.uri, start)) for start in (0, 50)]
    for process in work:
        process.start()
    for process in work:
        process.join()
    assert ids(store) == names(0, 150)


def test_a_lost_data_file_is_one_line(filled: PairStore) -> None:
    shutil.rmtree(Path(filled.uri) / "pairs.lance" / "data")
    with pytest.raises(StorageError, match="Not found: ") as caught:
        filled.read()
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StorageError, match="Not a directory"):
        PairStore.create(str(tmp_path / "file" / "db"), image=IMAGE, text=TEXT)


FULL_DISK = """
import resource, signal, sys
from pairs_at_hand import names, pairs
from asif_lance.errors import StorageError
from asif_lance.store import PairStore
store = PairStore.open(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    store.add(pairs(names(0, 5_000)))
except StorageError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_is_one_line_and_changes_nothing(filled: PairStore) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, filled.uri],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.strip() == f"{filled.uri}: File too large (os error 27)"
    assert head(filled).count_rows() == 10
    assert filled.add(pairs(names(0, 5_000))) == 4_990


def in_threads(count: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def head(store: PairStore) -> lance.LanceDataset:
    return lance.dataset(f"{store.uri}/pairs.lance")


def head_version(store: PairStore) -> int:
    return int(head(store).version)
