"""What a writer to an object store has begun who lost its lease does not come in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import lance
import numpy as np
import pyarrow as pa
import pytest
from conftest import IMAGE_DIM, TEXT_DIM
from lance import LanceOperation
from lance.fragment import write_fragments

from asif_lance.database import (
    DISTANCES,
    WriteLock,
    clean_up,
    ingest_folder,
    lease,
    load_cache,
    object_cleanup,
    open_table,
    pair_rows,
    save_cache,
    schemas,
)
from asif_lance.database.commits import EPOCH_PROPERTY
from asif_lance.forgetting.journal import Journal
from asif_lance.forgetting.receipts import load_receipts
from asif_lance.object_stores import (
    create_object,
    list_sizes,
    open_path,
    read_marked,
    replace_object,
)
from asif_lance.records import EncoderPin
from asif_lance.store import PairStore
from asif_lance.store.forget import forget, verify_receipt
from asif_lance.store.maintenance import optimize
from asif_lance.verifier import JOURNAL_FILE

pytestmark = pytest.mark.slow

_DYING = """
import os
from asif_lance.database import WriteLock
with WriteLock({uri!r}).hold("die"):
    os._exit(9)
"""


def pairs(count: int, start: int = 0) -> pa.Table:
    """Rows of the pairs table, with vectors of length 1."""
    rng = np.random.default_rng(start)
    columns: dict[str, object] = {
        "pair_id": [f"p{n}" for n in range(start, start + count)],
        "caption": [f"caption {n}" for n in range(start, start + count)],
    }
    for side, width in (("image", IMAGE_DIM), ("text", TEXT_DIM)):
        vectors = rng.standard_normal((count, width))
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        columns[f"{side}_vector"] = pa.FixedSizeListArray.from_arrays(
            unit.astype(np.float16).ravel(), width
        )
    rows = pair_rows.add_ingest_time(pa.table(columns))
    return pair_rows.conform(rows, schemas.pairs_schema(IMAGE_DIM, TEXT_DIM))


@pytest.fixture
def store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> PairStore:
    """A database with two versions."""
    monkeypatch.setattr(lease, "LASTING", 2.0)
    pins = (EncoderPin("vectors", "", width) for width in (IMAGE_DIM, TEXT_DIM))
    store = PairStore.create(f"{bucket}/t.lancedb", image=next(pins), text=next(pins))
    for start in (0, 30):
        store.add(pairs(30, start))
        store.publish(command="ingest")
    return store


def overtake(store: PairStore) -> None:
    """A writer dies, and another takes its lease over."""
    code = _DYING.format(uri=store.uri)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with WriteLock(store.uri).hold("go on"):
        pass


def append(head: lance.LanceDataset) -> None:
    new = write_fragments(pairs(1, 90), head, mode="append")
    lance.LanceDataset.commit(head, LanceOperation.Append(new), read_version=head.version)


def delete(head: lance.LanceDataset) -> None:
    left = head.get_fragments()[0].delete_rows([1])
    operation = LanceOperation.Delete([left], [], "false")
    lance.LanceDataset.commit(head, operation, read_version=head.version)


BEGUN = {
    "append": append,
    "delete": delete,
    "index": lambda head: head.create_scalar_index("pair_id", "BTREE"),
    "compact": lambda head: head.optimize.compact_files(),
    "columns": lambda head: head.add_columns(pa.field("note", pa.string())),
    "schema": lambda head: head.update_schema_metadata({"a": "b"}),
}


@pytest.mark.parametrize("name", BEGUN)
def test_a_commit_that_was_begun_before_a_lease_was_taken_over_fails(
    store: PairStore, name: str
) -> None:
    begun: Callable[[lance.LanceDataset], object] = BEGUN[name]
    head = open_table(store.uri, "pairs")
    overtake(store)
    with pytest.raises((OSError, ValueError, RuntimeError), match="incompatible"):
        begun(head)
    assert store.read("v2", ["pair_id"]).num_rows == 60


@pytest.mark.parametrize("table", ["pairs", "versions"])
def test_nor_does_one_go_together_with_what_is_left_after_cleaning_up(
    store: PairStore, table: str
) -> None:
    head = open_table(store.uri, table)
    begun = write_fragments(head.to_table(), head, mode="append")
    overtake(store)
    store.add(pairs(1, 60))
    store.publish(command="ingest")
    with WriteLock(store.uri).hold("optimize"):
        clean_up(store.uri, table)
    with pytest.raises(OSError, match="incompatible"):
        lance.LanceDataset.commit(head, LanceOperation.Append(begun), read_version=head.version)
    assert [version.pairs for version in store.versions()] == [30, 60, 61]


def test_a_state_that_an_overtaken_writer_restored_is_taken_back_by_the_next_change(
    store: PairStore,
) -> None:
    overtake(store)
    head = open_table(store.uri, "pairs")
    older = store.version("v1").lance_version
    named = {EPOCH_PROPERTY: "1"}
    restore = lance.Transaction(
        head.version, LanceOperation.Restore(older), transaction_properties=named
    )
    assert lance.LanceDataset.commit(head, restore).count_rows() == 30
    assert store.publish(command="publish") is None
    assert open_table(store.uri, "pairs").count_rows() == 60


def test_a_tag_moves_only_as_it_was_while_the_lease_was_held(store: PairStore) -> None:
    name = "pairs.lance/_refs/tags/v1.json"
    before = read_marked(store.uri, name)
    assert before is not None
    overtake(store)
    assert replace_object(store.uri, name, before[0], before[1]) is None
    assert [version.pairs for version in store.versions()] == [30, 60]


def test_cleaning_up_leaves_what_came_after_it_had_listed_the_files(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(name: str) -> None:
        create_object(f"{store.uri}/pairs.lance/data", name, b"rows")

    def list_and_write(root: object) -> dict[str, int]:
        listed = list_sizes(root)  # type: ignore[arg-type]
        write("later.lance")
        return listed

    write("earlier.lance")
    monkeypatch.setattr(object_cleanup, "list_sizes", list_and_write)
    with WriteLock(store.uri).hold("optimize"):
        clean_up(store.uri)
    there = list_sizes(open_path(store.uri), "pairs.lance/data")
    assert "pairs.lance/data/later.lance" in there
    assert "pairs.lance/data/earlier.lance" not in there
    assert [len(store.read(name, ["pair_id"])) for name in ("v1", "v2")] == [30, 60]


def test_what_an_open_ingest_has_written_stays_however_old_it_is(store: PairStore) -> None:
    folder = ingest_folder(store.uri, "open")
    create_object(str(folder), "plan.json", b"{}")
    create_object(f"{store.uri}/pairs.lance/data", "written.lance", b"rows")
    with WriteLock(store.uri).hold("optimize"):
        clean_up(store.uri)
    assert "pairs.lance/data/written.lance" in list_sizes(open_path(store.uri), "pairs.lance/data")


def test_a_journal_that_arrives_when_its_forget_had_ended_is_dropped(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals, start = [], Journal.start

    def start_and_read(journal: Journal, intent: dict[str, object], rows: pa.Table) -> None:
        start(journal, intent, rows)
        journals.append((journal.directory / JOURNAL_FILE).read_bytes())

    monkeypatch.setattr(Journal, "start", start_and_read)
    receipt = forget(store, ["p7"], reason="asked to")
    assert create_object(store.uri, JOURNAL_FILE, journals[0])
    opened = PairStore.open(store.uri)
    assert opened.notice is None
    assert JOURNAL_FILE not in list_sizes(open_path(store.uri))
    assert [version.pairs for version in opened.versions()] == [29, 59]
    assert [one.receipt_id for one in load_receipts(store.uri)] == [receipt.receipt_id]
    assert not verify_receipt(opened, receipt.receipt_id).findings


def test_a_cache_that_arrives_after_a_forget_is_never_read_and_goes_with_the_next_upkeep(
    store: PairStore,
) -> None:
    save_cache(store.uri, DISTANCES, "sums", {"of": np.ones(3)}, (), since=store.epoch())
    (name,) = list_sizes(open_path(store.uri), DISTANCES)
    late = (open_path(store.uri) / name).read_bytes()
    forget(store, ["p7"], reason="asked to")
    assert create_object(store.uri, name, late)
    assert load_cache(store.uri, DISTANCES, "sums", ["of"]) is None
    optimize(store)
    assert not list_sizes(open_path(store.uri), DISTANCES)
