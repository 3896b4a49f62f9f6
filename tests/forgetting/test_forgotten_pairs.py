"""What was forgotten stays out, whichever way it comes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pairs_at_hand import names, new_store, pairs, vectors

from asif_lance.errors import ForgottenPairError, InputError, KeysError
from asif_lance.forgetting import ForgottenPairs, Waiver, list_waivers, load_receipts, obtain_keys
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.store.forget import forget, verify_receipt
from asif_lance.store.pair_store import PairStore

IMAGE, TEXT = 64, 32
ALL = names(0, 30)
GONE = ALL[3:6]
SAID = Waiver("the author agreed again", allow_forgotten=True)


def batch(ids: Sequence[str], **columns: Any) -> pa.Table:
    return pairs(ids, image=IMAGE, text=TEXT, **columns)


def hashes(ids: Sequence[str]) -> list[str]:
    return [hashlib.sha256(i.encode()).hexdigest() for i in ids]


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """v1 with thirty pairs, of which three were forgotten."""
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(batch(ALL, image_sha256=hashes(ALL)))
    store.publish(command="ingest")
    forget(store, GONE, reason="asked for")
    return store


def put(store: PairStore, rows: pa.Table) -> None:
    """As somebody without this package does: plain Lance."""
    head = lance.dataset(f"{store.uri}/pairs.lance")
    moments = pa.array([0] * len(rows), pa.timestamp("us", "UTC"))
    rows = rows.append_column("ingested_at", moments)
    missing = [f for f in head.schema if f.name not in rows.schema.names]
    for field in missing:
        rows = rows.append_column(field.name, pa.nulls(len(rows), field.type))
    lance.write_dataset(rows.select(head.schema.names).cast(head.schema), head, mode="append")


def test_a_forgotten_pair_is_refused_where_it_is_added(store: PairStore) -> None:
    receipt = load_receipts(store.uri)[0]
    with pytest.raises(
        ForgottenPairError, match=f"{receipt.receipt_id}.*--allow-forgotten"
    ) as told:
        store.add(batch([*names(30, 32), GONE[0]]))
    assert told.value.count == 1
    assert f"forgotten on {receipt.created_at:%Y-%m-%d}" in str(told.value)
    assert store.existing(names(30, 32)) == set()


@pytest.mark.parametrize(
    "columns",
    [
        {"image_sha256": hashes(GONE[:1])},
        {"image_vector": vectors(GONE[:1], IMAGE)},
        {"image_vector": vectors(GONE[:1], IMAGE), "caption": [f"a caption about {GONE[0]}"]},
    ],
    ids=["picture", "vector", "vector and caption"],
)
def test_its_content_is_refused_under_another_id(store: PairStore, columns: dict[str, Any]) -> None:
    with pytest.raises(ForgottenPairError):
        store.add(batch(["another"], **columns))


@pytest.mark.parametrize(
    "columns",
    [
        {"caption": [f"a caption about {GONE[0]}"]},
        {"caption": [f"a caption about {GONE[0]}"], "text_vector": vectors(GONE[:1], TEXT)},
        {"image_uri": [f"photos/{GONE[0]}.jpg"]},
    ],
    ids=["caption", "caption with its vector", "address"],
)
def test_equal_words_alone_are_no_sign(store: PairStore, columns: dict[str, Any]) -> None:
    assert store.add(batch(["another"], **columns)) == 1


def test_other_pairs_of_a_picture_go_in_but_not_the_forgotten_one(tmp_path: Path) -> None:
    """Five captions of one picture, of which one was forgotten."""
    five = names(0, 5)
    same = {"image_vector": vectors(["one"] * 5, IMAGE), "image_sha256": hashes(["one"] * 5)}
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(batch(five, **same))
    store.publish(command="ingest")
    forget(store, five[:1], reason="asked for")
    one = {name: column[:1] for name, column in same.items()}
    with pytest.raises(ForgottenPairError):
        store.add(batch(["another"], **one, caption=[f"a caption about {five[0]}"]))
    with pytest.raises(ForgottenPairError):
        store.add(batch(["another"], **one, text_vector=vectors(five[:1], TEXT)))
    assert store.add(batch(["sixth"], **one)) == 1
    store.delete(five[1:2])
    assert store.add(batch(five[1:2], **one)) == 1


def test_what_others_put_at_head_is_not_published(store: PairStore) -> None:
    put(store, batch([*GONE[:1], *names(40, 42)]))
    before = store.versions()
    with pytest.raises(ForgottenPairError):
        store.publish(command="ingest")
    assert store.versions() == before
    store.delete(GONE[:1])
    published = store.publish(command="ingest")
    assert published is not None
    assert published.added == 2


def test_a_forgotten_pair_comes_back_by_a_waiver_that_is_kept(store: PairStore) -> None:
    rows = batch([*GONE[:2], *names(30, 32)])
    assert store.add(rows, waiver=SAID) == 4
    assert store.publish(command="ingest") is not None
    [kept] = list_waivers(store.uri)
    assert (kept.allows, kept.reason, kept.pairs) == ("forgotten pairs", SAID.reason, 2)
    with pytest.raises(ForgottenPairError):
        store.add(batch(GONE[2:]))


def test_what_a_waiver_let_in_may_come_again_until_it_is_forgotten_again(store: PairStore) -> None:
    store.add(batch(GONE[:1]), waiver=SAID)
    store.delete(GONE[:1])
    assert store.add(batch(GONE[:1])) == 1
    forget(store, GONE[:1], reason="asked for again")
    with pytest.raises(ForgottenPairError):
        store.add(batch(GONE[:1]))


def test_a_waiver_that_lets_nothing_in_leaves_no_record(store: PairStore) -> None:
    store.add(batch(["another"]), waiver=SAID)
    assert list_waivers(store.uri) == []


def test_the_reason_of_a_waiver_quotes_nothing_forgotten(store: PairStore) -> None:
    quoting = Waiver(f"{GONE[0]} is fine again", allow_forgotten=True)
    with pytest.raises(InputError, match="say it in other words"):
        store.add(batch(GONE[:1]), waiver=quoting)
    assert store.existing(GONE) == set()


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_waiver_needs_a_reason(reason: str) -> None:
    with pytest.raises(InputError, match="reason"):
        Waiver(reason, allow_forgotten=True)


def test_without_the_key_nothing_is_added_unless_that_is_waived(
    store: PairStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASIF_LANCE_KEYS", str(tmp_path / "none"))
    with pytest.raises(KeysError, match=r"cannot be told which.*--keys.*--without-key"):
        store.add(batch(["another"]))
    assert store.add(batch(ALL[:3])) == 0  # nothing to be written, nothing to be asked
    waiver = Waiver("the key is lost", without_key=True)
    assert store.add(batch(["another"]), waiver=waiver) == 1
    assert store.publish(command="ingest", waiver=waiver) is not None
    assert {(w.allows, w.reason, w.pairs) for w in list_waivers(store.uri)} == {
        ("without key", "the key is lost", 0)
    }


def test_deleting_needs_no_key(
    store: PairStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASIF_LANCE_KEYS", str(tmp_path / "none"))
    store.delete(ALL[:1])
    assert store.publish(command="delete") is not None
    assert store.rollback("v1").pairs == len(ALL) - len(GONE)


def test_a_database_without_receipts_needs_no_key_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASIF_LANCE_KEYS", str(tmp_path / "none"))
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(batch(ALL))
    assert store.publish(command="ingest") is not None
    assert not (tmp_path / "none").exists()


def test_a_key_that_new_keys_replaced_still_tells(
    store: PairStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = obtain_keys(store.uri)
    monkeypatch.setenv("ASIF_LANCE_KEYS", str(tmp_path / "new"))
    forget(store, ALL[:1], reason="with new keys")
    with pytest.raises(KeysError, match="1 of 2 receipts"):
        store.add(batch(["another"]))
    (tmp_path / "new" / "earlier.key").write_text(old.fingerprint.hex())
    for pair_id in (GONE[0], ALL[0]):
        with pytest.raises(ForgottenPairError):
            store.add(batch([pair_id]))


def test_pairs_forgotten_after_the_look_are_refused_all_the_same(store: PairStore) -> None:
    looked_up = ForgottenPairs(store.uri)
    rows = batch(ALL[7:8])
    assert looked_up.find(rows) == {}
    forget(store, ALL[7:8], reason="asked for meanwhile")
    with pytest.raises(ForgottenPairError):
        store.add(rows, looked_up=looked_up)


def source(folder: Path, rows: pa.Table) -> Path:
    path = folder / "source.parquet"
    floats = [
        (name, rows[name].cast(pa.list_(pa.float32(), rows[name].type.list_size)))
        for name in ("image_vector", "text_vector")
    ]
    for name, column in floats:
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    pq.write_table(rows, path)
    return path


@pytest.fixture
def ingested(tmp_path: Path) -> PairStore:
    """The same pairs as an ingest brought them."""
    uri = str(tmp_path / "ingested")
    ingest_sources(uri, [source(tmp_path, batch(ALL))])
    store = PairStore.open(uri)
    forget(store, GONE, reason="asked for")
    return store


def test_ingest_rejects_what_was_forgotten_and_takes_the_rest(
    ingested: PairStore, tmp_path: Path
) -> None:
    path = source(tmp_path, batch([*ALL, *names(30, 33)]))
    report = ingest_sources(ingested.uri, [path])
    receipt = load_receipts(ingested.uri)[0]
    assert report.added == 3
    assert len(report.rejects) == len(GONE)
    for reject in report.rejects:
        told = f"forgotten on {receipt.created_at:%Y-%m-%d}, receipt {receipt.receipt_id}"
        assert reject.reason == told
    assert set(ingested.rejects()["item"].to_pylist()) == {"[forgotten]"}
    assert verify_receipt(ingested, receipt.receipt_id).clean


def test_ingest_rejects_forgotten_vectors_under_other_ids(
    ingested: PairStore, tmp_path: Path
) -> None:
    renamed = batch(GONE).set_column(0, "pair_id", pa.array(["x1", "x2", "x3"]))
    report = ingest_sources(ingested.uri, [source(tmp_path, renamed)])
    assert (report.added, len(report.rejects)) == (0, 3)
    options = IngestOptions(waiver=SAID)
    assert ingest_sources(ingested.uri, [source(tmp_path, renamed)], options).added == 3
    [kept] = list_waivers(ingested.uri)
    assert kept.pairs == 3


def test_ingest_asks_for_the_key_before_it_does_anything(
    ingested: PairStore, tmp_path: Path
) -> None:
    path = source(tmp_path, batch(names(30, 33)))
    options = IngestOptions(keys_folder=tmp_path / "none")
    with pytest.raises(KeysError, match="cannot be told"):
        ingest_sources(ingested.uri, [path], options)
    waived = replace(options, waiver=Waiver("no key at hand", without_key=True))
    assert ingest_sources(ingested.uri, [path], waived).added == 3


WAYS = ["add", "ingest", "put"]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_was_forgotten_stays_out_and_its_neighbors_do_not(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    ids = names(0, 12)
    pictures = data.draw(st.lists(st.sampled_from("abcdef"), min_size=12, max_size=12))
    rows = batch(ids, image_vector=vectors(pictures, IMAGE))
    ingest_sources(folder / "db", [source(folder, rows)])
    store = PairStore.open(str(folder / "db"))
    stored = store.read().drop_columns(["ingested_at"])
    gone = data.draw(st.sets(st.sampled_from(ids), min_size=1, max_size=6))
    forget(store, sorted(gone), reason="asked for")
    renamed = data.draw(st.booleans())
    way = data.draw(st.sampled_from(WAYS))
    if way != "ingest":
        rows = stored
    is_gone = np.isin(rows["pair_id"].to_pylist(), sorted(gone))
    back, near = rows.filter(pa.array(is_gone)), rows.filter(pa.array(~is_gone))
    if renamed:
        back = back.set_column(
            0, rows.schema.field(0), pa.array([f"new-{i}" for i in range(len(back))])
        )
    kept = near["pair_id"].to_pylist()
    store.delete(kept)
    if way == "ingest":
        both = pa.concat_tables([near, back])
        report = ingest_sources(store.uri, [source(folder, both)])
        assert (report.added, len(report.rejects)) == (len(kept), len(gone))
    elif way == "add":
        with pytest.raises(ForgottenPairError) as told:
            store.add(pa.concat_tables([near, back]))
        assert told.value.count == len(gone)
        assert store.add(near) == len(kept)
    else:
        put(store, back)
        with pytest.raises(ForgottenPairError):
            store.publish(command="ingest")
    assert store.existing(kept) == (set() if way == "put" else set(kept))
