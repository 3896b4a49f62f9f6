"""Quick hashes rule out what was not forgotten, change no answer, and tell nobody else anything."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pairs_at_hand import names, new_store, pairs, vectors

from asif_lance.errors import KeysError
from asif_lance.forgetting import ForgottenPairs, Waiver, obtain_keys
from asif_lance.forgetting.quick_hashes import HashSet, hash_column
from asif_lance.forgetting.sealed_hashes import load_hashes, save_hashes
from asif_lance.store.forget import forget, verify_receipt
from asif_lance.store.pair_store import PairStore

IMAGE, TEXT = 16, 16
GONE = names(3, 6)
Alter = Callable[[list[int]], list[int]]


def batch(ids: list[str], **columns: object) -> pa.Table:
    columns.setdefault("image_sha256", [f"hash of {i}" for i in ids])
    columns.setdefault("thumbnail", [f"small {i}".encode() * 50 for i in ids])
    return pairs(ids, image=IMAGE, text=TEXT, **columns)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(batch(names(0, 20)))
    store.publish(command="ingest")
    forget(store, GONE, reason="asked for")
    return store


def rewrite(store: PairStore, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    """The rows of the table of hashes as somebody else may leave them."""
    table = lance.dataset(f"{store.uri}/sealed_hashes.lance")
    rows = [change(row) for row in table.to_table().to_pylist()]
    lance.write_dataset(pa.Table.from_pylist(rows, table.schema), table.uri, mode="overwrite")


def drop(store: PairStore) -> None:
    lance.dataset(f"{store.uri}/sealed_hashes.lance").delete("true")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many receipts were read, each time."""
    from asif_lance.forgetting import forgotten_pairs

    load, counts = forgotten_pairs._load_receipts, []

    def count(uri: str, ids: list[str]) -> object:
        counts.append(len(ids))
        return load(uri, ids)

    monkeypatch.setattr(forgotten_pairs, "_load_receipts", count)
    return counts  # type: ignore[return-value]


def test_new_pairs_are_looked_up_without_reading_a_receipt(
    store: PairStore, reads: list[int]
) -> None:
    assert store.add(batch(names(30, 60))) == 30
    assert reads == []
    assert set(ForgottenPairs(store.uri).find(batch([*GONE, "new"]))) == set(GONE)
    assert reads == [1]


PINNED = [
    [0, 16963172392499251142, 9359248425299891168, 9034791704895492752, 1533152188014638354],
    [15402953682756317881, 17816990438037984940],
]

LOOKS = {
    "id": {"ids": [GONE[0], "new"], "columns": {}},
    "hash": {"ids": ["x", "new"], "columns": {"image_sha256": [f"hash of {GONE[0]}", None]}},
    "thumbnail": {
        "ids": ["x", "new"],
        "columns": {"thumbnail": [f"small {GONE[0]}".encode() * 50, None]},
    },
    "vector": {"ids": ["x", "new"], "columns": {"image_vector": vectors([GONE[0], "n"], IMAGE)}},
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_all_that_a_receipt_knows_is_found_by_the_hashes(
    store: PairStore, look: dict[str, object], reads: list[int]
) -> None:
    rows = batch(look["ids"], **look["columns"])  # type: ignore[arg-type]
    [found] = ForgottenPairs(store.uri).find(rows)
    assert found == look["ids"][0]  # type: ignore[index]
    assert reads == [1]


ALTERED: dict[str, Alter] = {
    "a bit": lambda words: [words[0], words[1], words[2] ^ 1, *words[3:]],
    "cut off": lambda words: words[:-1],
    "emptied": lambda _: [],
    "made up": lambda words: [secrets.randbits(64) for _ in words],
}


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_hashes_that_somebody_altered_count_for_nothing(
    store: PairStore, alter: Alter, reads: list[int]
) -> None:
    rewrite(store, lambda row: {**row, "sealed": alter(row["sealed"])})  # type: ignore[arg-type]
    assert set(ForgottenPairs(store.uri).find(batch(GONE))) == set(GONE)
    assert reads == [1]


def test_hashes_of_one_receipt_are_not_taken_for_those_of_another(
    store: PairStore, reads: list[int]
) -> None:
    forget(store, names(8, 9), reason="asked for")
    table = lance.dataset(f"{store.uri}/sealed_hashes.lance").to_table().to_pylist()
    one, other = (row["receipt_id"] for row in table)
    sealed = {row["receipt_id"]: row["sealed"] for row in table}
    others = {one: sealed[other], other: sealed[one]}
    rewrite(store, lambda row: {**row, "sealed": others[row["receipt_id"]]})  # type: ignore[index]
    assert set(ForgottenPairs(store.uri).find(batch([*GONE, *names(8, 9)]))) == {
        *GONE,
        *names(8, 9),
    }
    assert reads == [2]


def test_with_another_key_nobody_can_tell(store: PairStore, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert obtain_keys(store.uri, other)
    assert load_hashes(store.uri, other) == {}
    with pytest.raises(KeysError, match="cannot be told which"):
        ForgottenPairs(store.uri, other)
    ForgottenPairs(store.uri, other, Waiver("lost it", without_key=True))


def test_a_row_for_a_key_that_is_not_its_own_opens_nothing(
    store: PairStore, tmp_path: Path
) -> None:
    other = obtain_keys(store.uri, tmp_path / "other")
    rewrite(store, lambda row: {**row, "key_id": other.key_id})
    assert load_hashes(store.uri, tmp_path / "other") == {}


def test_what_may_be_forgotten_by_a_damaged_receipt_cannot_be_told(store: PairStore) -> None:
    table = lance.dataset(f"{store.uri}/receipts.lance")
    [row] = table.to_table().to_pylist()
    damaged = pa.Table.from_pylist([{**row, "body": "{"}], schema=table.schema)
    lance.write_dataset(damaged, table.uri, mode="overwrite")
    assert store.add(batch(names(30, 32))) == 2
    with pytest.raises(KeysError, match="1 of 1 receipts of forgetting are damaged"):
        store.add(batch(GONE))


def test_the_hashes_confirm_no_guess_without_the_key(store: PairStore) -> None:
    [row] = lance.dataset(f"{store.uri}/sealed_hashes.lance").to_table().to_pylist()
    guesses = hash_column(pa.array(names(0, 20)))
    assert not set(guesses.tolist()) & set(row["sealed"])
    save_hashes(store.uri, row["receipt_id"], batch(GONE), obtain_keys(store.uri).fingerprint)
    [again] = lance.dataset(f"{store.uri}/sealed_hashes.lance").to_table().to_pylist()
    assert not set(again["sealed"]) & set(row["sealed"])


def test_verifying_a_receipt_takes_the_hashes_for_nothing_else(store: PairStore) -> None:
    [receipt_id] = load_hashes(store.uri, None)
    assert verify_receipt(store, receipt_id).clean


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_what_is_refused_is_the_same_with_and_without_the_hashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store, ids = new_store(tmp_path_factory.mktemp("any"), IMAGE, TEXT), names(0, 8)

    def draw_rows(ids: list[str]) -> pa.Table:
        some = st.lists(st.sampled_from("abcde"), min_size=len(ids), max_size=len(ids))
        images, words, hashes = (data.draw(some) for _ in range(3))
        return batch(
            ids,
            image_vector=vectors(images, IMAGE),
            text_vector=vectors(words, TEXT),
            caption=words,
            image_sha256=[None if h == "e" else f"hash {h}" for h in hashes],
        )

    store.add(draw_rows(ids))
    store.publish(command="ingest")
    for gone in (ids[:2], ids[2:3]):
        forget(store, gone, reason="asked for")
    asked = [draw_rows([*ids[:3], "x", "y", "z"]) for _ in range(20)]

    def ask() -> list[dict[str, str]]:
        forgotten = ForgottenPairs(store.uri)
        return [forgotten.find(rows) for rows in asked]

    answers = ask()
    assert any(answers)
    first = lance.dataset(f"{store.uri}/sealed_hashes.lance").to_table()["receipt_id"][0]
    lance.dataset(f"{store.uri}/sealed_hashes.lance").delete(f"receipt_id = '{first}'")
    assert ask() == answers
    drop(store)
    assert ask() == answers


# The hashes themselves


def test_hashes_are_those_of_every_release() -> None:
    """Databases hold them: whoever changes one of these numbers makes them useless."""
    texts = pa.array(["", "p-1", "a longer name of a pair.jpg", "é" * 20, "x" * 300])
    matrix = np.arange(32, dtype=np.float16).reshape(2, 16)
    both = [
        hash_column(texts),
        hash_column(pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), 16)),
    ]
    assert [hashes.tolist() for hashes in both] == PINNED


@given(texts=st.lists(st.text(max_size=40) | st.text(min_size=250, max_size=270), max_size=20))
def test_a_text_has_one_hash_wherever_it_stands(texts: list[str]) -> None:
    whole = hash_column(pa.array(texts, pa.string()))
    alone = [hash_column(pa.array([text], pa.large_string()))[0] for text in texts]
    binary = hash_column(pa.array([text.encode() for text in texts], pa.binary()))
    late = hash_column(pa.array(["another", *texts], pa.string()).slice(1))
    assert whole.tolist() == alone == binary.tolist() == late.tolist()
    assert len(set(whole.tolist())) == len(set(texts))


@pytest.mark.parametrize("width", [1, 3, 4, 7, 33, 100])
def test_a_vector_has_one_hash_wherever_it_stands(width: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((50, width)).astype(np.float16)
    column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), width)
    whole = hash_column(column)
    assert whole.tolist() == [int(hash_column(column.slice(i, 1))[0]) for i in range(50)]
    assert len(np.unique(whole)) == len(np.unique(matrix, axis=0))


@given(
    held=st.sets(st.integers(0, 200), max_size=60),
    sought=st.lists(st.none() | st.integers(0, 200), max_size=60),
)
def test_a_set_of_hashes_finds_what_it_has_and_nothing_else(
    held: set[int], sought: list[int | None]
) -> None:
    some = HashSet(hash_column(pa.array(map(str, held), pa.string())))
    column = pa.array([None if i is None else str(i) for i in sought], pa.string())
    assert some.find(column).tolist() == [at for at, i in enumerate(sought) if i in held]


def test_names_that_differ_in_a_letter_have_other_hashes() -> None:
    ids = [f"{a:08d}-{b:08d}.jpg" for a in range(300) for b in range(300)]
    assert len(np.unique(hash_column(pa.array(ids)))) == len(ids)
