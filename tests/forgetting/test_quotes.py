"""A reason is kept for good: it may not quote what is to be forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from pairs_at_hand import new_store, pairs

from asif_lance.errors import InputError
from asif_lance.forgetting import interrupted
from asif_lance.store.forget import forget
from asif_lance.store.pair_store import PairStore

ANN = {
    "caption": ["Ann Smith at home", "A dog."],
    "image_uri": ["photos/ann smith.jpg", "photos/2.jpg"],
    "attributes": ['{"who": {"mail": ["ann@home.example"]}}', "no JSON"],
}


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path, 8, 8)
    store.add(pairs(["ann-1", "2"], image=8, text=8, **ANN))
    store.publish(command="ingest")
    return store


@pytest.mark.parametrize(
    "reason",
    [
        "it shows: ann smith AT HOME!",
        "ann-1 asked",
        "the file photos/ann smith.jpg",
        "ann smith.jpg, withdrawn",
        "mail of ann@home.example",
    ],
)
def test_a_reason_that_quotes_is_refused_before_anything_happens(
    store: PairStore, reason: str
) -> None:
    with pytest.raises(InputError, match="the reason is kept for good"):
        forget(store, ["ann-1"], reason=reason)
    assert not interrupted(store.uri)
    assert store.read("v1", ["pair_id"]).num_rows == 2


@pytest.mark.parametrize("reason", ["asked on 2026-11-30, case 2", "a dog owner's", "ann-12", ""])
def test_other_words_are_no_quotation(store: PairStore, reason: str) -> None:
    assert forget(store, ["ann-1" if "case" not in reason else "2"], reason=reason).clean
