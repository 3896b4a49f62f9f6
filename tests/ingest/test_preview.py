"""A preview says what an ingest would do, and does nothing of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.compute as pc
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, pairs_frame

from asif_lance.errors import EncoderMismatchError
from asif_lance.ingest import IngestOptions, TableSource, ingest_sources, read_pairs
from asif_lance.store import PairStore


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> PairStore:
    ingest_sources(tmp_path / "t.lancedb", [TableSource("first", pairs_frame(5, rng))])
    return PairStore.open(str(tmp_path / "t.lancedb"))


def without_ids(rng: np.random.Generator) -> pl.DataFrame:
    """Forty usable pairs, one of them twice, and one that has no direction."""
    frame = pairs_frame(42, rng, start=100).drop("pair_id")
    zero = frame[:1].with_columns(image_vector=pl.Series(np.zeros((1, IMAGE_DIM), np.float32)))
    return pl.concat([zero, frame[1:41], frame[40:41]])


def test_a_preview_is_what_an_ingest_adds_and_refuses(
    store: PairStore, rng: np.random.Generator
) -> None:
    sources, options = [TableSource("more", without_ids(rng))], IngestOptions(license="CC0")
    pairs, rejects = read_pairs(store, sources, options)
    assert [(r.item, r.reason) for r in rejects] == [
        ("row 1", "image_vector is all zeros"),
        ("row 42", "duplicate of an earlier item"),
    ]
    assert store.read().num_rows == 5
    report = ingest_sources(store.uri, sources, options)
    assert (report.added, report.rejects) == (40, rejects)
    added = (
        store.read()
        .filter(pc.field("source") == "more")
        .drop_columns("ingested_at")
        .sort_by("pair_id")
    )
    assert pairs.drop_columns("ingested_at").sort_by("pair_id").equals(added)


def test_a_preview_tells_pairs_that_are_there_already(
    store: PairStore, rng: np.random.Generator
) -> None:
    again = TableSource("first", pairs_frame(6, rng))
    pairs, _ = read_pairs(store, [again], IngestOptions())
    assert pairs["pair_id"].to_pylist() == [f"p{i}" for i in range(6)]


def test_a_preview_refuses_vectors_of_another_size_as_an_ingest_does(
    store: PairStore, rng: np.random.Generator
) -> None:
    wide = rng.standard_normal((3, IMAGE_DIM + 1)).astype(np.float32)
    source = TableSource("wide", pairs_frame(3, rng).with_columns(image_vector=wide))
    pairs, rejects = read_pairs(store, [source], IngestOptions())
    assert pairs.num_rows == 0
    assert rejects == ingest_sources(store.uri, [source]).rejects
    assert {r.reason for r in rejects} == {
        f"image_vector has {IMAGE_DIM + 1} dimensions instead of {IMAGE_DIM}"
    }


def test_pictures_do_not_go_beside_vectors_whose_encoder_nobody_named(
    store: PairStore, tmp_path: Path
) -> None:
    (tmp_path / "0.png").write_bytes(b"a picture")
    rows = {"caption": ["a picture"], "image": [str(tmp_path / "0.png")]}
    texts = np.ones((1, TEXT_DIM), np.float32)
    source = TableSource("pictures", pl.DataFrame(rows).with_columns(text_vector=texts))
    for ingest in (
        lambda: read_pairs(store, [source], IngestOptions()),
        lambda: ingest_sources(store.uri, [source]),
    ):
        with pytest.raises(EncoderMismatchError, match="brought along"):
            ingest()
