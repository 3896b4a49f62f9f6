"""Vectors of one's own get their encoders' names afterwards, if a sample shows it is these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Cli, pairs_frame, picture

from asif_lance.encoders import (
    DEFAULT_IMAGE,
    DEFAULT_TEXT,
    encode_each,
    image_encoder,
    text_encoder,
)
from asif_lance.store import PairStore

pytestmark = pytest.mark.encoders

NAMES = ("--image-encoder", DEFAULT_IMAGE, "--text-encoder", DEFAULT_TEXT)


@pytest.fixture
def brought(cli: Cli, tmp_path: Path) -> Path:
    """Twelve pairs whose vectors the packaged encoders made, elsewhere."""
    files = [picture(tmp_path / "photos" / f"{number}.png", number) for number in range(12)]
    captions = [f"Picture number {number}, of noise." for number in range(12)]
    images = [np.asarray(v) for v in encode_each(image_encoder(), files)]
    frame = pl.DataFrame(
        {
            "image": list(map(str, files)),
            "caption": captions,
            "image_vector": pl.Series(np.stack(images)),
            "text_vector": pl.Series(text_encoder().encode(captions)),
        }
    )
    frame.write_parquet(tmp_path / "brought.parquet")
    done = cli("--db", "d", "ingest", tmp_path / "brought.parquet")
    assert "no encoder of the image and text vectors is named" in done.err
    return tmp_path


def test_the_encoders_that_made_them_are_named_and_then_pictures_and_texts_are_asked_with(
    cli: Cli, brought: Path
) -> None:
    assert cli("--db", "d", "info").out.count("no encoder is named") == 2
    assert "was brought" not in cli("--db", "d", "search", "noise").out
    assert cli("--db", "d", "search", "noise").status == 1
    named = cli("--db", "d", "encoders", *NAMES, "--format", "json")
    assert named.status == 0
    assert [(n["side"], n["compared"]) for n in named.objects] == [("image", 12), ("text", 12)]
    assert all(n["lowest"] > 0.999 for n in named.objects)
    assert cli("--db", "d", "search", "noise", "--top", "2").status == 0
    assert "no encoder is named" not in cli("--db", "d", "info").out
    picture(brought / "new" / "x.png", 99)
    (brought / "new" / "x.txt").write_text("Another one.")
    assert "added 1," in cli("--db", "d", "ingest", brought / "new").err


def test_a_name_outlives_a_rollback_and_old_versions_have_it(cli: Cli, brought: Path) -> None:
    store = PairStore.open("d")
    cli("--db", "d", "delete", store.read(columns=["pair_id"])["pair_id"][0].as_py())
    assert cli("--db", "d", "encoders", *NAMES).status == 0
    assert cli("--db", "d", "rollback", "v1").status == 0
    assert PairStore.open("d").text.name == DEFAULT_TEXT
    assert cli("--db", "d", "search", "noise", "--model", "v1").status == 0
    assert cli("--db", "d", "versions", "--format", "json").objects[0]["pairs"] == 12


def test_another_encoder_is_refused_with_the_cosines(cli: Cli, brought: Path) -> None:
    other = cli("--db", "d", "encoders", "--image-encoder", "timm/tf_efficientnet_lite2")
    assert other.status == 1
    assert "of 12 stored ones half have a cosine below" in other.err
    assert PairStore.open("d").image.name == "vectors"
    cli("--db", "d", "encoders", "--image-encoder", DEFAULT_IMAGE)
    again = cli("--db", "d", "encoders", "--image-encoder", "timm/tf_efficientnet_lite2")
    assert f"come from {DEFAULT_IMAGE}" in again.err


def test_what_cannot_be_compared_is_named_only_on_the_users_word(cli: Cli, brought: Path) -> None:
    (brought / "photos").rename(brought / "elsewhere")
    asked = ("--db", "d", "encoders", "--image-encoder", DEFAULT_IMAGE)
    refused = cli(*asked)
    assert refused.status == 1
    assert "no picture can be read, so nothing shows that" in refused.err
    found = cli(*asked, "--image-root", "elsewhere")
    assert "12 stored vectors compared" in found.err
    cli("--db", "e", "ingest", brought / "brought.parquet")
    taken = cli("--db", "e", "encoders", "--image-encoder", DEFAULT_IMAGE, "--unchecked")
    assert "nothing could be compared" in taken.err


def test_vectors_of_another_length_are_none_of_its(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    pairs_frame(3, rng).write_parquet(tmp_path / "p.parquet")
    cli("--db", "d", "ingest", tmp_path / "p.parquet")
    done = cli("--db", "d", "encoders", *NAMES, "--unchecked")
    assert done.status == 1
    assert "1280 dimensions instead of 16" in done.err
    assert cli("--db", "d", "encoders").out.count("no encoder is named") == 2
