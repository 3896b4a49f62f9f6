"""Damaged vectors are noticed when they are used, where the damage shows in their length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pairs_at_hand import names, new_store, pairs

from asif_lance.database import check
from asif_lance.errors import CorruptDatabaseError
from asif_lance.model import Model, open_model
from asif_lance.records import Float32Array
from asif_lance.store import PairStore
from asif_lance.store.changes import name_head

ROWS, WIDTH = 400, 64


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path, image=WIDTH, text=32)
    store.add(pairs(names(0, ROWS), image=WIDTH, text=32))
    store.publish(command="ingest")
    return store


def vector_place(store: PairStore, row: int) -> tuple[Path, int]:
    """The data file, and where in it a row's image vector begins."""
    (path,) = Path(store.uri).glob("pairs.lance/data/*")
    vectors = pairs(names(row, row + 1), image=WIDTH)["image_vector"].combine_chunks()
    return path, path.read_bytes().index(vectors.flatten().to_numpy().tobytes())


def answer(model: Model) -> list[tuple[str, float]]:
    rng = np.random.default_rng(3)
    queries: Float32Array = rng.normal(size=(50, WIDTH)).astype(np.float32)
    labels = {f"label {i}": rng.normal(size=(1, 32)).astype(np.float32) for i in range(10)}
    compiled = model.label_vectors(labels)
    found = model.classify_vectors([str(i) for i in range(50)], queries, compiled)
    return [(prediction.label, prediction.score) for prediction in found]


HARM: dict[str, Callable[[bytearray, int], None]] = {
    "an exponent bit": lambda data, at: data.__setitem__(at + 1, data[at + 1] ^ 0x40),
    "NaN": lambda data, at: data.__setitem__(slice(at, at + 2), b"\x00\x7e"),
    "a block of zeros": lambda data, at: data.__setitem__(slice(at, at + 4096), bytes(4096)),
    "other bytes": lambda data, at: data.__setitem__(
        slice(at, at + 4096), np.random.default_rng(1).bytes(4096)
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_vector_that_lost_its_length_is_noticed_under_the_default_recipe(
    store: PairStore, harm: str
) -> None:
    path, at = vector_place(store, 101)
    data = bytearray(path.read_bytes())
    HARM[harm](data, at)
    path.write_bytes(data)
    with pytest.raises(CorruptDatabaseError) as caught:
        answer(open_model(store.uri))
    assert caught.value.file == path.relative_to(store.uri).as_posix()


def test_a_fragment_of_zeros_is_noticed_under_any_recipe(store: PairStore) -> None:
    path, at = vector_place(store, 0)
    data = bytearray(path.read_bytes())
    data[at : at + 2 * WIDTH * ROWS] = bytes(2 * WIDTH * ROWS)
    path.write_bytes(data)
    with pytest.raises(CorruptDatabaseError):
        answer(open_model(store.uri, recipe="paper"))


def test_a_truncated_file_is_named(store: PairStore) -> None:
    path, _ = vector_place(store, 0)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptDatabaseError) as caught:
        answer(open_model(store.uri))
    assert caught.value.file == path.relative_to(store.uri).as_posix()


def test_vectors_that_were_stored_with_another_length_are_used_as_they_are(tmp_path: Path) -> None:
    store = new_store(tmp_path, image=WIDTH, text=32)
    long = pairs(names(0, 50), image=WIDTH, text=32)
    flat = long["image_vector"].combine_chunks().flatten().to_numpy() * np.float16(2)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat), WIDTH)
    at = long.schema.get_field_index("image_vector")
    store.add(long.set_column(at, "image_vector", column))
    name_head(store.uri, None, "ingest", "")  # as releases did that did not look at others' rows
    assert check(store.uri).ok
    assert len(answer(open_model(store.uri))) == 50
