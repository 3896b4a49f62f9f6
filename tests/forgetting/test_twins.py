"""What stays with the same picture is told before anything is forgotten, and counted after."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pairs_at_hand import names, new_store, pairs, vectors

from asif_lance.forgetting import Waiver, load_document
from asif_lance.store.forget import forget, plan, verify_receipt
from asif_lance.store.pair_store import PairStore

IMAGE, TEXT = 64, 32
ANN, BY_HASH, BY_VECTOR, BY_CAPTION, ELSE = names(0, 5)


def batch(ids: Sequence[str], **columns: Any) -> pa.Table:
    return pairs(ids, image=IMAGE, text=TEXT, **columns)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def nearly(of: str) -> pa.Array:
    """A vector as another run of the encoder would make it."""
    vector = np.array(vectors([of], IMAGE)[0].as_py())
    vector += np.random.default_rng(0).normal(size=IMAGE) * 1e-3
    rounded = pa.array((vector / np.linalg.norm(vector)).astype(np.float16))
    return pa.FixedSizeListArray.from_arrays(rounded, IMAGE)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """v1: Ann, the same picture's file, nearly the same vector, the same caption, another pair."""
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(batch([ANN], image_sha256=[digest(ANN)]))
    store.add(batch([BY_HASH], image_sha256=[digest(ANN)]))
    store.add(batch([BY_VECTOR], image_vector=nearly(ANN)))
    store.add(batch([BY_CAPTION], caption=[f"a caption about {ANN}"]))
    store.add(batch([ELSE]))
    store.publish(command="ingest")
    return store


def test_the_plan_lists_what_stays_with_the_same_picture_or_caption(store: PairStore) -> None:
    twins = plan(store, [ANN]).twins
    assert twins is not None
    assert set(twins.same_picture) == {BY_HASH, BY_VECTOR}
    assert twins.same_caption == (BY_CAPTION,)


def test_pairs_that_are_forgotten_together_are_no_twins(store: PairStore) -> None:
    twins = plan(store, [ANN, BY_HASH, BY_VECTOR]).twins
    assert twins is not None
    assert twins.same_picture == ()


def test_twins_are_taken_along_when_asked_but_equal_words_are_not(store: PairStore) -> None:
    found = plan(store, [ANN], with_twins=True)
    assert set(found.pairs) == {ANN, BY_HASH, BY_VECTOR}
    receipt = forget(store, found.pairs, reason="asked for")
    assert receipt.twins == 0
    assert store.read()["pair_id"].to_pylist() == [BY_CAPTION, ELSE]


def test_the_receipt_says_how_many_stayed_and_is_signed_with_that(store: PairStore) -> None:
    receipt = forget(store, [ANN], reason="asked for")
    assert receipt.twins == 2
    document, _ = load_document(store.uri, receipt.receipt_id)
    assert document.receipt.twins == 2
    assert document.signed_by_its_signer()
    assert verify_receipt(store, receipt.receipt_id).clean


def test_looking_for_twins_can_be_left_out(store: PairStore) -> None:
    assert plan(store, [ANN], twins=False).twins is None
    assert forget(store, [ANN], reason="asked for", twins=False).twins is None


def test_twins_that_wait_at_head_are_seen_too(store: PairStore) -> None:
    store.add(batch(["unpublished"], image_sha256=[digest(ANN)]))
    twins = plan(store, [ANN]).twins
    assert twins is not None
    assert "unpublished" in twins.same_picture


def test_a_receipt_is_refuted_by_its_picture_under_another_id(tmp_path: Path) -> None:
    """By the hash or by the exact vector, but not by the words alone."""
    later = {
        "picture": {"image_sha256": [digest(ANN)]},
        "vector": {"image_vector": vectors([ANN], IMAGE)},
        "words": {"caption": [f"a caption about {ANN}"]},
    }
    for name, columns in later.items():
        (tmp_path / name).mkdir()
        store = new_store(tmp_path / name, IMAGE, TEXT)
        store.add(batch([ANN, ELSE], image_sha256=[digest(ANN), digest(ELSE)]))
        store.publish(command="ingest")
        receipt = forget(store, [ANN], reason="asked for")
        store.add(batch(["back"], **columns), waiver=Waiver("agreed again", allow_forgotten=True))
        assert verify_receipt(store, receipt.receipt_id).clean == (name == "words"), name
