"""Two sides of any kind: sounds and texts, through encoders of one's own, from end to end."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Cli

import asif_lance
from asif_lance.encoders import own_encoders, register_encoder
from asif_lance.errors import EncoderError, EncoderMismatchError, ImageError, InputError
from asif_lance.evaluation.accuracy import measure_accuracy
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.records import EncoderPin, Float32Array

RATE = 8000
TONES = {"low": (110, 165, 220), "middle": (1100, 1200, 1400), "high": (3100, 3200, 3400)}


class Spectrum:
    """Loudness of 8 bands of 500 Hz."""

    pin = EncoderPin("spectrum", "1", 8)

    def decode(self, content: bytes) -> Float32Array:
        try:
            with wave.open(io.BytesIO(content)) as sound:
                samples = np.frombuffer(sound.readframes(RATE), "<i2")
        except (wave.Error, EOFError) as error:
            raise ImageError("no WAV file") from error
        return (samples / 2**15).astype(np.float32)

    def prepare(self, samples: Any) -> torch.Tensor:
        bands = np.abs(np.fft.rfft(samples, RATE))[:4000].reshape(8, 500).sum(axis=1)
        return torch.from_numpy(np.log1p(bands)).float()

    def encode(self, batch: torch.Tensor) -> Float32Array:
        return torch.nn.functional.normalize(batch, dim=1).numpy()


class Letters:
    """How often each letter is in a text."""

    pin = EncoderPin("letters", "", 26)
    max_tokens = None

    def encode(self, texts: list[str]) -> Float32Array:
        counts = [[text.lower().count(chr(97 + i)) + 0.01 for i in range(26)] for text in texts]
        matrix = np.array(counts, np.float32).reshape(-1, 26)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)

    def count_cut(self, texts: list[str]) -> int:
        return 0


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    yield
    own_encoders._loaders.clear()


def write_tone(path: Path, hertz: float) -> Path:
    turns = hertz * np.arange(RATE) / RATE
    noise = np.random.default_rng(int(hertz)).normal(0, 300, RATE)
    samples = 2**13 * np.sin(2 * np.pi * turns) + noise
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, RATE, RATE, "NONE", ""))
        sound.writeframes(samples.astype("<i2").tobytes())
    return path


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A database of nine tones with captions, and a file that is none."""
    lines = ["image,caption"]
    for name, pitches in TONES.items():
        for hertz in pitches:
            write_tone(tmp_path / f"{name}{hertz}.wav", hertz)
            lines.append(f"{name}{hertz}.wav,A {name} tone.")
    (tmp_path / "noise.wav").write_bytes(b"no sound")
    (tmp_path / "tones.csv").write_text("\n".join([*lines, "noise.wav,Nothing."]))
    encoders = IngestOptions(image_encoder=Spectrum(), text_encoder=Letters())
    report = ingest_sources(tmp_path / "t.lancedb", [tmp_path / "tones.csv"], encoders)
    assert report.added == 9
    assert [reject.reason for reject in report.rejects] == ["no WAV file"]
    return tmp_path / "t.lancedb"


def test_sounds_are_classified_explained_searched_and_forgotten(
    sounds: Path, tmp_path: Path
) -> None:
    model = asif_lance.open(sounds, image_encoder=Spectrum(), text_encoder=Letters())
    unheard = {"low": 130, "middle": 1250, "high": 3300}
    files = [write_tone(tmp_path / f"new-{name}.wav", hertz) for name, hertz in unheard.items()]
    answers = list(model.classify(files, list(TONES), batch_size=2))
    assert measure_accuracy(answers, list(unheard)).top_1 == 1
    for answer, name in zip(answers, unheard, strict=True):
        assert answer.attributions(1)[0].caption == f"A {name} tone."
        assert sum(a.contribution for a in answer.attributions(9)) == pytest.approx(answer.score)
    assert model.search_image(files[2], top=1)[0].caption == "A high tone."
    assert "high" in model.search_text("A high tone.", top=1)[0].image_uri
    with pytest.raises(ImageError, match="no WAV file"):
        list(model.classify(tmp_path / "noise.wav", ["low"]))
    prepared = model.preprocess(files[0])
    assert model.encode_image(prepared[None]).shape == (1, 9)


def test_an_encoder_that_did_not_make_the_vectors_is_refused(sounds: Path) -> None:
    class Other(Spectrum):
        pin = EncoderPin("spectrum", "2", 8)

    with pytest.raises(EncoderMismatchError):
        asif_lance.open(sounds, image_encoder=Other())
    with pytest.raises(EncoderMismatchError):
        ingest_sources(sounds, [sounds.parent / "tones.csv"], IngestOptions(image_encoder=Other()))
    with pytest.raises(InputError, match="Letters is no image encoder: it has no prepare"):
        asif_lance.open(sounds, image_encoder=Letters())  # type: ignore[arg-type]


def test_a_registered_name_serves_every_command_of_the_process(
    sounds: Path, cli: Cli, tmp_path: Path
) -> None:
    own_encoders._loaders.clear()
    file = write_tone(tmp_path / "new.wav", 3300)
    asked = "--db", sounds, "classify", file, "--labels", "low,high", "--top", 1
    missing = cli(*asked)
    assert missing.status == 1
    assert "made by 'spectrum', an encoder of somebody's own" in missing.err
    register_encoder("image", "spectrum", lambda device: Spectrum())
    register_encoder("text", "letters", lambda device: Letters())
    assert "high" in cli(*asked).out
    assert cli("--db", sounds, "ingest", "tones.csv").status == 0


class Broken(Spectrum):
    """Makes something else than its pin says."""

    pin = EncoderPin("broken", "", 8)

    def __init__(self, made: Callable[[int], Any]) -> None:
        self.made = made

    def encode(self, batch: torch.Tensor) -> Any:
        return self.made(len(batch))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda count: np.ones((count, 9)), "broken made vectors of shape"),
        (lambda count: np.ones((1, 8)), "broken made vectors of shape"),
        (lambda count: ["a"] * count, "broken made list, not vectors"),
    ],
)
def test_what_an_encoder_makes_has_to_be_what_its_pin_says(
    sounds: Path, made: Callable[[int], Any], told: str
) -> None:
    encoders = IngestOptions(image_encoder=Broken(made), text_encoder=Letters())
    with pytest.raises(EncoderError, match=told):
        ingest_sources(sounds.parent / "broken.lancedb", [sounds.parent / "tones.csv"], encoders)


def test_items_that_an_encoder_makes_nothing_of_cost_only_themselves(sounds: Path) -> None:
    def half(count: int) -> Any:
        vectors = np.ones((count, 8))
        vectors[::2] = np.nan
        vectors[1] = 0
        return vectors

    encoders = IngestOptions(image_encoder=Broken(half), text_encoder=Letters())
    report = ingest_sources(sounds.parent / "half.lancedb", [sounds.parent / "tones.csv"], encoders)
    assert report.added == 3
    reasons = [reject.reason for reject in report.rejects]
    assert sum("makes NaN, infinity or nothing but zeros" in reason for reason in reasons) == 6


def test_an_encoder_of_ones_own_is_not_called_as_a_librarys(sounds: Path) -> None:
    class Mine(Spectrum):
        pin = EncoderPin("timm/mine", "", 8)

    class Unpinned(Spectrum):
        pin = "spectrum"

    with pytest.raises(InputError, match="belongs to a library"):
        asif_lance.open(sounds, image_encoder=Mine())
    with pytest.raises(InputError, match="the pin of Unpinned is no"):
        asif_lance.open(sounds, image_encoder=Unpinned())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "vectors", "timm/mine", "a+bfloat16", " a"])
def test_a_name_that_could_be_mistaken_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        register_encoder("image", name, lambda device: Spectrum())


def test_brought_vectors_of_sounds_need_no_encoder(tmp_path: Path) -> None:
    import polars as pl

    encoder, letters = Spectrum(), Letters()
    rows = []
    for name, pitches in TONES.items():
        for hertz in pitches:
            content = write_tone(tmp_path / "tone.wav", hertz).read_bytes()
            vector = encoder.encode(encoder.prepare(encoder.decode(content))[None])[0]
            rows.append((f"{name}{hertz}", f"A {name} tone.", vector))
    ids, captions, vectors = zip(*rows, strict=True)
    frame = pl.DataFrame({"pair_id": ids, "caption": captions, "image_vector": np.stack(vectors)})
    texts = letters.encode(list(captions))
    frame.with_columns(pl.Series("text_vector", texts)).write_parquet(tmp_path / "v.parquet")
    ingest_sources(tmp_path / "t.lancedb", [tmp_path / "v.parquet"])
    model = asif_lance.open(tmp_path / "t.lancedb")
    labels = model.label_vectors(dict(zip(TONES, letters.encode(list(TONES)), strict=True)))
    (answer,) = model.classify_vectors(["new"], vectors[0][None], labels)
    assert answer.label == "low"
