"""Prompts' vectors are kept: who asks the same again needs no text encoder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Cli, picture
from pairs_at_hand import names, new_store, pairs

from asif_lance.model import EncodedTexts, prompt_vectors
from asif_lance.model.prompt_vectors import encode_prompts
from asif_lance.records import EncoderPin, Float32Array
from asif_lance.store import PairStore
from asif_lance.store.forget import forget

TEXTS = ["a bird", "a dish", "a very long fish"]


class CountedEncoder:
    """An encoder that notes how many texts it was asked for at a time; it reads three words."""

    max_tokens = 3

    def __init__(self, pin: EncoderPin) -> None:
        self.pin = pin
        self.asked: list[int] = []

    def encode(self, texts: Sequence[str]) -> Float32Array:
        self.asked.append(len(texts))
        seeds = [sum(text.encode()) for text in texts]
        rows = [np.random.default_rng(seed).normal(size=self.pin.dimension) for seed in seeds]
        return np.array(rows, dtype=np.float32)

    def count_cut(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) > self.max_tokens for text in texts)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path, image=32, text=32)
    store.add(pairs(names(0, 50), image=32, text=32))
    store.publish(command="ingest")
    return store


@pytest.fixture
def encoder(store: PairStore) -> CountedEncoder:
    return CountedEncoder(store.text)


def encoded(store: PairStore, encoder: CountedEncoder, texts: Sequence[str]) -> EncodedTexts:
    return encode_prompts(store.uri, store.text, lambda: encoder, texts)


def files(store: PairStore) -> list[Path]:
    return sorted((Path(store.uri) / "prompt_vectors").glob("*"))


def test_the_same_texts_are_encoded_once(store: PairStore, encoder: CountedEncoder) -> None:
    first, second = (encoded(store, encoder, TEXTS) for _ in range(2))
    assert encoder.asked == [3]
    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert (first.cut, first.max_tokens) == (second.cut, second.max_tokens) == (1, 3)
    encoded(store, encoder, TEXTS[::-1])
    encoded(store, encoder, TEXTS[:2])
    assert encoder.asked == [3, 3, 2]


def test_no_text_is_written_down(store: PairStore, encoder: CountedEncoder) -> None:
    encoded(store, encoder, TEXTS)
    (file,) = files(store)
    assert not any(text.encode() in file.read_bytes() for text in TEXTS)


def test_vectors_of_other_weights_are_not_kept(store: PairStore, encoder: CountedEncoder) -> None:
    encoder.pin = replace(store.text, revision="newer")
    encoded(store, encoder, TEXTS)
    assert files(store) == []
    unknown = replace(store.text, revision="")
    encode_prompts(store.uri, unknown, lambda: CountedEncoder(unknown), TEXTS)
    assert files(store) == []


def test_many_texts_are_encoded_some_at_a_time(
    store: PairStore, encoder: CountedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encoded(store, CountedEncoder(replace(store.text, revision="")), TEXTS)
    monkeypatch.setattr(prompt_vectors, "_TEXTS_AT_ONCE", 2)
    parts = encoded(store, encoder, TEXTS)
    assert encoder.asked == [2, 1]
    np.testing.assert_array_equal(parts.vectors, whole.vectors)
    assert parts.cut == 1


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a file"])
def test_a_damaged_file_is_made_again(
    store: PairStore, encoder: CountedEncoder, damage: bytes
) -> None:
    first = encoded(store, encoder, TEXTS)
    files(store)[0].write_bytes(damage)
    np.testing.assert_array_equal(encoded(store, encoder, TEXTS).vectors, first.vectors)
    assert encoder.asked == [3, 3]


def test_forgetting_leaves_no_vector_of_a_prompt(store: PairStore, encoder: CountedEncoder) -> None:
    encoded(store, encoder, TEXTS)
    receipt = forget(store, names(0, 1), reason="a caption that a prompt may quote")
    assert receipt.clean
    assert receipt.elsewhere["prompt vectors"] == 1
    assert files(store) == []


@pytest.mark.encoders
def test_texts_that_the_encoder_cuts_are_told_with_their_number(cli: Cli, tmp_path: Path) -> None:
    picture(tmp_path / "0.png", 0)
    pl.DataFrame([{"image": "0.png", "caption": "a bird"}]).write_csv(tmp_path / "a.csv")
    cli("--db", "db", "ingest", "a.csv")
    long = "bird " * 300
    told = "longer than the encoder reads (256 tokens):"
    for _ in range(2):  # encoded, then kept
        asked = ["--labels", f"dog,{long},cat {long}"]
        notes = cli("--db", "db", "classify", "0.png", *asked).err.splitlines()
        assert notes[0] == f"{told} 2 prompts, of which the rest is not used"
        assert sum(told in line for line in notes) == 1
    notes = cli("--db", "db", "search", long).err.splitlines()
    assert notes[0] == f"{told} 1 text, of which the rest is not used"
    assert told not in cli("--db", "db", "search", "a bird").err


@pytest.mark.encoders
def test_kept_prompts_need_no_text_encoder_and_pictures_no_compiler(
    cli: Cli, tmp_path: Path
) -> None:
    picture(tmp_path / "0.png", 0)
    pl.DataFrame([{"image": "0.png", "caption": "a bird"}]).write_csv(tmp_path / "a.csv")
    cli("--db", "db", "ingest", "a.csv")
    asked = ["--db", "db", "classify", "0.png", "--labels", "dog,bird"]
    expected = cli(*asked).out
    code = f"""if True:
        import sys
        from asif_lance.cli import main
        main({asked!r}, standalone_mode=False)
        heavy = ("transformers", "sentence_transformers", "torch._dynamo", "lancedb")
        print([module for module in heavy if module in sys.modules])
        from torchvision.ops.roi_align import is_compile_supported
        print(is_compile_supported("cpu"), "torch._dynamo" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{expected}[]\nTrue True\n"
