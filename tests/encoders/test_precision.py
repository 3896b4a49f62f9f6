"""Half precision belongs to an encoder's name, so vectors of two precisions are never mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, picture

from asif_lance.encoders import (
    DEFAULT_IMAGE,
    DEFAULT_TEXT,
    encode_images,
    image_encoder,
    read_card,
    text_encoder,
)
from asif_lance.store import PairStore

pytestmark = pytest.mark.encoders

HALF_IMAGE, HALF_TEXT = f"{DEFAULT_IMAGE}+bfloat16", f"{DEFAULT_TEXT}+bfloat16"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for seed, name in enumerate(("one", "two")):
        picture(folder / f"{name}.png", seed)
        (folder / f"{name}.txt").write_text(f"Picture {name}.")
    return folder


def test_half_precision_makes_nearly_the_same_unit_vectors(photos: Path) -> None:
    files = sorted(photos.glob("*.png"))
    whole, half = (
        next(encode_images(image_encoder(name, device="cpu"), files)).vectors
        for name in (DEFAULT_IMAGE, HALF_IMAGE)
    )
    captions = ["a cat", "two dogs on a beach " * 20, ""]
    texts = [text_encoder(name, device="cpu").encode(captions) for name in (None, HALF_TEXT)]
    for exact, near in ((whole, half), texts):
        assert near.dtype == np.float32
        assert np.allclose(np.linalg.norm(near, axis=1), 1, atol=1e-6)
        assert np.sum(exact * near, axis=1).min() > 0.99
        assert not np.array_equal(exact, near)


def test_the_pin_has_the_precision_and_the_weights_are_the_same() -> None:
    for load, name in ((image_encoder, DEFAULT_IMAGE), (text_encoder, DEFAULT_TEXT)):
        whole, half = load(name).pin, load(f"{name}+bfloat16").pin
        assert half.name == f"{whole.name}+bfloat16"
        assert (half.revision, half.dimension) == (whole.revision, whole.dimension)
        assert read_card(half).license == read_card(whole).license != ""


def test_a_database_keeps_to_the_precision_it_began_with(cli: Cli, photos: Path) -> None:
    half = ("--image-encoder", HALF_IMAGE, "--text-encoder", HALF_TEXT)
    assert "added 2" in cli("--db", "half", "ingest", photos, *half).err
    store = PairStore.open("half")
    assert (store.image.name, store.text.name) == (HALF_IMAGE, HALF_TEXT)
    picture(photos / "three.png", 3)
    (photos / "three.txt").write_text("A third one.")
    refused = cli("--db", "half", "ingest", photos, "--image-encoder", DEFAULT_IMAGE)
    assert refused.status == 1
    assert HALF_IMAGE in refused.err
    assert "added 1" in cli("--db", "half", "ingest", photos).err
    said = cli(
        "--db", "half", "classify", photos / "one.png", "--labels", "a,b", "--format", "json"
    )
    assert said.status == 0
    assert len(said.objects) == 1


def test_a_database_in_single_precision_refuses_half(cli: Cli, photos: Path) -> None:
    assert cli("--db", "whole", "ingest", photos).status == 0
    refused = cli("--db", "whole", "ingest", photos, "--text-encoder", HALF_TEXT)
    assert refused.status == 1
    assert HALF_TEXT in refused.err
