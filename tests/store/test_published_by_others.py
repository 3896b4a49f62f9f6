"""Rows that plain LanceDB wrote into our pairs: looked at, told of, and published by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from conftest import Cli
from pairs_at_hand import names, new_store, pairs

import asif_lance.encoders  # noqa: F401  # registers the functions that the table names
from asif_lance.database import open_table
from asif_lance.errors import BadRowsError, DatabaseError, ForgottenPairError
from asif_lance.store import PairStore, forget


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 20)))
    store.publish(command="ingest")
    return store


def theirs(store: PairStore) -> Any:
    """The pairs as plain LanceDB has them."""
    return lancedb.connect(store.uri).open_table("pairs")


def whole(store: PairStore, rows: pa.Table) -> pa.Table:
    """The rows with all columns of the table, as plain LanceDB has to give them."""
    schema = open_table(store.uri, "pairs").schema
    now = pa.scalar(0, pa.timestamp("us", "UTC"))
    given = rows.append_column("ingested_at", pa.repeat(now, len(rows)))
    columns = [
        given[f.name].cast(f.type) if f.name in given.schema.names else pa.nulls(len(rows), f.type)
        for f in schema
    ]
    return pa.table(columns, schema=schema)


def test_added_changed_and_deleted_rows_become_a_version_by_name(store: PairStore) -> None:
    table = theirs(store)
    table.add(whole(store, pairs(names(20, 25))))
    table.delete(f"pair_id = '{names(0, 1)[0]}'")
    table.update(where=f"pair_id = '{names(1, 2)[0]}'", values={"license": "CC0"})
    assert store.version().name == "v1"
    found = store.unpublished()
    assert (len(found.added), len(found.removed), len(found.changed)) == (5, 1, 1)
    version = store.publish(command="publish", message="by hand")
    assert version is not None
    assert (version.name, version.pairs, version.added, version.removed) == ("v2", 24, 6, 2)
    assert len(store.unpublished()) == 0
    assert store.publish(command="publish") is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pair_id": [""]}, "it has no id"),
        ({"pair_id": names(3, 4)}, "its id is there already"),
        ({"pair_id": ["a\0b"]}, "its pair_id holds a NUL character"),
        ({"caption": ["a\0b"]}, "its caption holds a NUL character"),
    ],
)
def test_rows_that_cannot_be_pairs_make_no_version(
    store: PairStore, change: dict[str, list[str]], reason: str
) -> None:
    rows = pairs(names(20, 21))
    for name, value in change.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(value))
    lance.write_dataset(whole(store, rows), open_table(store.uri, "pairs"), mode="append")
    with pytest.raises(BadRowsError, match=reason):
        store.publish(command="delete")
    assert store.version().name == "v1"
    (dropped,) = store.drop_bad_rows()
    assert dropped.reason == reason
    assert store.publish(command="publish") is None
    assert store.version().pairs == 20


@pytest.mark.parametrize("factor", [0.0, 2.0, np.nan])
def test_vectors_have_the_length_1(store: PairStore, factor: float) -> None:
    rows = pairs(names(20, 21))
    numbers = rows["text_vector"].combine_chunks().flatten().to_numpy() * np.float16(factor)
    vector = pa.FixedSizeListArray.from_arrays(pa.array(numbers.astype(np.float16)), 4)
    rows = rows.set_column(rows.schema.get_field_index("text_vector"), "text_vector", vector)
    good = whole(store, pa.concat_tables([rows, pairs(names(21, 23))]))
    lance.write_dataset(good, open_table(store.uri, "pairs"), mode="append")
    with pytest.raises(BadRowsError, match="its text_vector has not the length 1"):
        store.publish(command="publish")
    assert len(store.drop_bad_rows()) == 1
    version = store.publish(command="publish")
    assert version is not None
    assert version.added == 2


def test_an_empty_caption_is_one_as_in_what_we_ingest(store: PairStore) -> None:
    rows = pairs(names(20, 21), caption=[""])
    lance.write_dataset(whole(store, rows), open_table(store.uri, "pairs"), mode="append")
    version = store.publish(command="publish")
    assert version is not None
    assert version.added == 1


def test_of_rows_with_one_id_the_first_stays(store: PairStore) -> None:
    again = pa.concat_tables([pairs(names(20, 21)), pairs(names(20, 21)), pairs(names(5, 6))])
    lance.write_dataset(whole(store, again), open_table(store.uri, "pairs"), mode="append")
    assert [row.pair_id for row in store.drop_bad_rows()] == [*names(20, 21), *names(5, 6)]
    version = store.publish(command="publish")
    assert version is not None
    assert (version.pairs, version.added) == (21, 1)


def test_a_repeated_id_is_found_among_many_rows(store: PairStore) -> None:
    again = pa.concat_tables([pairs(names(20, 30_000)), pairs(names(7, 8)), pairs(names(25, 26))])
    lance.write_dataset(whole(store, again), open_table(store.uri, "pairs"), mode="append")
    assert [row.pair_id for row in store.drop_bad_rows()] == [*names(7, 8), *names(25, 26)]


def test_columns_of_others_change_no_pair(store: PairStore) -> None:
    before = store.read()
    theirs(store).add_columns(pa.field("stars", pa.int64()))
    assert len(store.unpublished()) == 0
    assert store.publish(command="publish") is None
    store.add(pairs(names(20, 21)))
    theirs(store).update(where="pair_id = 'none'", values={"stars": "3"})
    version = store.publish(command="ingest")
    assert version is not None
    assert (version.added, version.removed) == (1, 0)
    receipt = forget.forget(store, names(2, 3), reason="asked")
    assert receipt.clean
    assert store.version().pairs == 20
    assert store.read().select(before.schema.names).schema.names == before.schema.names


def test_forgotten_pairs_do_not_come_back_through_publish(store: PairStore) -> None:
    forget.forget(store, names(2, 3), reason="asked")
    theirs(store).add(whole(store, pairs(names(2, 3))))
    with pytest.raises(ForgottenPairError):
        store.publish(command="publish")


def test_every_command_says_once_what_is_not_published(store: PairStore, cli: Cli) -> None:
    db = ("--db", store.uri)
    assert "not published" not in cli(*db, "versions").err
    theirs(store).add(whole(store, pairs(names(20, 25))))
    for command in (["versions"], ["audit", "SELECT count(*) FROM pairs"], ["diff", "v1", "v1"]):
        done = cli(*db, *command)
        assert done.err.count("not published: ") == 1, command
        assert "(5 added)" in done.err
    done = cli(*db, "publish", "--message", "by hand")
    assert done.status == 0
    assert done.err == "v2: 5 added, 0 removed\n"
    assert "not published" not in cli(*db, "versions").err
    assert cli(*db, "publish").err.startswith("nothing to publish")
    theirs(store).add(whole(store, pairs(names(5, 6))))
    refused = cli(*db, "publish")
    assert refused.status == 1
    assert "its id is there already" in refused.err
    dropped = cli(*db, "publish", "--drop", "--format", "json")
    assert [row["pair_id"] for row in dropped.objects[0]["dropped"]] == names(5, 6)


def test_a_column_that_every_row_must_fill_is_told_before_anything_is_encoded(
    store: PairStore,
) -> None:
    path = f"{store.uri}/pairs.lance"
    lance.dataset(path).add_columns({"stars": "cast(3 as int)"})
    lance.dataset(path).alter_columns({"path": "stars", "nullable": False})
    told = r"the column 'stars' of another program must not be null.*'nullable': True"
    with pytest.raises(DatabaseError, match=told):
        store.check_addable()
    with pytest.raises(DatabaseError, match=told):
        store.add(pairs(names(20, 22)))
    lance.dataset(path).alter_columns({"path": "stars", "nullable": True})
    assert store.add(pairs(names(20, 22))) == 2


def test_a_column_of_ours_that_was_dropped_is_told_before_anything_is_encoded(
    store: PairStore,
) -> None:
    table = lance.dataset(f"{store.uri}/pairs.lance")
    table.drop_columns(["license"])
    with pytest.raises(DatabaseError, match="another program dropped the column 'license'"):
        store.check_addable()
    table.add_columns({"license": "cast(null as string)"})
    assert store.add(pairs(names(20, 22))) == 2
