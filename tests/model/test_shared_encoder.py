"""Pictures that other processes encode: the vectors, and the refusals, of one process."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import picture
from PIL import Image

from asif_lance.encoders import HeldPicture, encode_images, own_encoders, read_picture
from asif_lance.errors import EncoderMismatchError, EncoderUnavailableError
from asif_lance.evaluation import encode_labelled, read_labelled
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.model import Model, Together, open_model, share_model, shared_encoder
from asif_lance.model.shared_encoder import PictureBatch, SharedEncoder, encode_batch
from asif_lance.records import EncoderPin, Float32Array, Reject

pytestmark = pytest.mark.encoders


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photos, which are the pairs of a database beside them."""
    folder = tmp_path_factory.mktemp("shared")
    for number in range(10):
        photo = picture(folder / "photos" / f"{number}.png", number)
        photo.with_suffix(".txt").write_text(f"A cat, or dog number {number}.")
    ingest_sources(folder / "t.lancedb", [folder / "photos"])
    return folder


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with ProcessPoolExecutor(2, get_context("spawn")) as found:
            list(found.map(abs, range(2)))  # both are started, with this environment
            yield found


def read_all_kinds(folder: Path) -> list[Any]:
    """Pictures as files, bytes, pixels and callables, in archives; some cannot be used."""
    photos = sorted((folder / "photos").glob("*.png"))
    turned, exif = Image.open(photos[0]).convert("RGB"), Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned.save(folder / "turned.jpg", exif=exif)
    with zipfile.ZipFile(folder / "a.zip", "w") as zipped:
        zipped.write(photos[1], "1.png")
    with tarfile.open(folder / "b.tar", "w") as tar:
        tar.add(photos[2], "2.png")
    (folder / "empty.png").touch()
    (folder / "broken.png").write_bytes(photos[0].read_bytes()[:200])
    held = [
        HeldPicture(name, lambda name=name: read_picture(f"{folder / name}"))
        for name in ("a.zip#1.png", "b.tar#2.png", "c.zip#3.png")
    ]
    pixels = np.asarray(Image.open(photos[4]))
    gray = Image.open(photos[5]).convert("I;16")
    return [
        *(photos[3], str(photos[4]), photos[5].read_bytes(), b"no picture", folder / "gone.png"),
        *(*held, folder / "empty.png", folder / "broken.png", Image.open(folder / "turned.jpg")),
        *(pixels, torch.from_numpy(pixels.copy()).movedim(-1, 0), gray, np.zeros((3, 3, 9), "u1")),
        *(Image.open(photos[6]), io.BytesIO(photos[7].read_bytes()), folder / "turned.jpg"),
    ]


@pytest.mark.slow
def test_processes_encode_pictures_of_any_kind_as_one_does(
    folder: Path, pool: ProcessPoolExecutor, only_there: Callable[[], None]
) -> None:
    model = open_model(folder / "t.lancedb")
    alone, shared = list[Reject](), list[Reject]()
    names, expected = model.encode(read_all_kinds(folder), rejects=alone, batch_size=4)
    only_there()
    other = share_model(open_model(folder / "t.lancedb"), pool.map, 2)
    found = other.encode(read_all_kinds(folder), rejects=shared, batch_size=4)
    assert found[0] == names
    assert shared == alone
    assert len(names) == 12
    assert len(alone) == 6
    assert np.allclose(found[1], expected, atol=1e-5)  # rounded by how many threads there are
    turned = [place for place, name in enumerate(names) if name == str(folder / "turned.jpg")]
    assert np.allclose(*found[1][turned], atol=1e-5)  # as pixels that a program has, and as a file


@pytest.mark.slow
def test_a_shared_model_answers_from_pictures_as_one_process(
    folder: Path, pool: ProcessPoolExecutor, only_there: Callable[[], None]
) -> None:
    model, photos = open_model(folder / "t.lancedb"), sorted((folder / "photos").glob("*.png"))
    labels = model.labels(["cat", "dog"])
    expected = [describe(one.ranking) for one in model.classify(photos, labels)]
    matches = [(m.pair_id, round(m.score, 4)) for m in model.search_image(photos[3], top=5)]
    joint = Together({"a": model, "b": model.under(model.recipe)})
    together = list(joint.classify(photos, joint.labels(["cat", "dog"])))
    only_there()
    shared = share_model(open_model(folder / "t.lancedb"), pool.map, 3)
    found = shared.classify(photos, shared.labels(["cat", "dog"]), batch_size=3)
    assert [describe(one.ranking) for one in found] == expected
    asked = [(m.pair_id, round(m.score, 4)) for m in shared.search_image(photos[3], top=5)]
    assert asked == matches
    both = Together({"a": shared, "b": shared.under(shared.recipe)})
    answers = list(both.classify(photos, both.labels(["cat", "dog"])))
    assert [describe(one.ranking) for one in answers] == [describe(o.ranking) for o in together]


def describe(ranking: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(label, round(float(score), 4)) for label, score in ranking]


@pytest.mark.slow
def test_labelled_pictures_inside_parquet_are_encoded_elsewhere(
    folder: Path, pool: ProcessPoolExecutor, only_there: Callable[[], None]
) -> None:
    contents = [path.read_bytes() for path in sorted((folder / "photos").glob("*.png"))]
    table = pa.table({"image": [*contents, b"none"], "label": ["cat", "dog"] * 5 + ["cat"]})
    pq.write_table(table, folder / "labelled.parquet")
    labelled, model = read_labelled(folder / "labelled.parquet"), open_model(folder / "t.lancedb")
    alone, shared = list[Reject](), list[Reject]()
    size = model.store.image.dimension
    expected = encode_labelled(labelled, lambda: model.image_encoder, size, alone)
    only_there()
    other = share_model(open_model(folder / "t.lancedb"), pool.map, 2)
    found = encode_labelled(labelled, lambda: other.image_encoder, size, shared)
    assert np.allclose(found.embeddings, expected.embeddings, atol=1e-5)
    assert (found.truths, found.digests, shared) == (expected.truths, expected.digests, alone)
    assert len(alone) == 1


class Spy:
    """Maps in this process, and notes which batches came in each call."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def map(self, function: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
        asked = list(values)
        if asked and isinstance(asked[0], PictureBatch):
            self.calls.append([len(batch.pictures) for batch in asked])
        return list(map(function, asked))


def test_batches_are_those_of_one_process_and_go_out_in_groups(folder: Path) -> None:
    model, spy = open_model(folder / "t.lancedb"), Spy()
    photos = [*sorted((folder / "photos").glob("*.png")), folder / "gone.png"]
    expected = model.encode(photos, rejects=[], batch_size=3)
    found = share_model(model, spy.map, 3).encode(photos, rejects=[], batch_size=3)
    assert spy.calls == [[3, 3, 3], [1]]
    assert found[0] == expected[0]
    assert np.allclose(found[1], expected[1], atol=1e-5)


def test_no_more_is_sent_at_once_than_fits_into_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = sorted((folder / "photos").glob("*.png"))
    size = max(photo.stat().st_size for photo in photos)
    monkeypatch.setattr(shared_encoder, "_GROUP_BYTES", 3 * size)
    spy = Spy()
    share_model(open_model(folder / "t.lancedb"), spy.map, 9).encode(photos, batch_size=2)
    assert spy.calls == [[2, 2], [2, 2], [2]]


def test_pictures_are_read_only_a_little_ahead_of_what_is_used(folder: Path) -> None:
    content, read = (folder / "photos" / "0.png").read_bytes(), list[int]()

    def read_one() -> bytes:
        read.append(1)
        return content

    shared = share_model(open_model(folder / "t.lancedb"), Spy().map, 2)
    items = (HeldPicture(str(number), read_one) for number in range(1000))
    answers = iter(shared.classify(items, shared.labels(["cat", "dog"]), batch_size=2))
    for _ in range(4):
        next(answers)
    assert len(read) <= 3 * 2 * 2


def test_who_stops_asking_does_not_wait_for_what_is_not_encoded_yet(folder: Path) -> None:
    model, go_on = open_model(folder / "t.lancedb"), threading.Event()
    calls = []

    def map_slowly(function: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
        calls.append(1)
        if len(calls) > 1:
            go_on.wait()
        return list(map(function, values))

    encoder = SharedEncoder(model.store.image, lambda: model.image_encoder, map_slowly, 1)
    photos = sorted((folder / "photos").glob("*.png"))
    batches = encode_images(encoder, photos, batch_size=2)
    assert next(batches).vectors.shape == (2, model.store.image.dimension)
    batches.close()
    go_on.set()


def test_the_clip_interface_prepares_and_encodes_in_the_process_that_asks(folder: Path) -> None:
    model, photo = open_model(folder / "t.lancedb"), folder / "photos" / "4.png"
    shared = share_model(model, map, 3)
    prepared = shared.preprocess(photo)
    assert torch.equal(prepared, model.preprocess(photo))
    assert torch.equal(shared.encode_image(prepared[None]), model.encode_image(prepared[None]))


def test_another_revision_of_an_encoder_is_refused_where_it_is_loaded(folder: Path) -> None:
    pin = open_model(folder / "t.lancedb").store.image
    with pytest.raises(EncoderMismatchError):
        encode_batch(PictureBatch(EncoderPin(pin.name, "another", pin.dimension), ()))
    with pytest.raises(EncoderUnavailableError, match="somebody's own"):
        encode_batch(PictureBatch(EncoderPin("mine", "", 3), ()))


class Colours:
    """The mean colour of a picture's file, which it decodes itself."""

    pin = EncoderPin("colours", "1", 3)

    def decode(self, content: bytes) -> Image.Image:
        return Image.open(io.BytesIO(content)).convert("RGB")

    def prepare(self, image: Any) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image).reshape(-1, 3).mean(axis=0)).float()

    def encode(self, batch: torch.Tensor) -> Float32Array:
        return torch.nn.functional.normalize(batch + 1, dim=1).numpy()


class Installed:
    """An entry point of a package that brings `Colours`."""

    @staticmethod
    def load() -> Callable[[str], Colours]:
        return lambda device: Colours()


@pytest.fixture
def colours(folder: Path, tmp_path: Path) -> Iterator[Path]:
    options = IngestOptions(image_encoder=Colours())
    ingest_sources(tmp_path / "t.lancedb", [folder / "photos"], options)
    own_encoders._loaders.clear()
    yield tmp_path / "t.lancedb"
    own_encoders._loaders.clear()
    shared_encoder._load_encoder.cache_clear()


def encode_shared(model: Model, folder: Path, spy: Spy) -> tuple[list[str], Float32Array]:
    found = share_model(model, spy.map, 2).encode(folder / "photos", batch_size=5)
    expected = model.encode(folder / "photos")
    assert found[0] == expected[0]
    assert np.array_equal(found[1], expected[1])
    return found


def test_an_encoder_that_a_program_gives_encodes_in_that_program(
    folder: Path, colours: Path
) -> None:
    spy = Spy()
    encode_shared(open_model(colours, image_encoder=Colours()), folder, spy)
    assert spy.calls == []


def test_an_encoder_of_an_installed_package_encodes_elsewhere(
    folder: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy()
    monkeypatch.setattr(own_encoders, "_installed", lambda: {("image", "colours"): Installed})
    encode_shared(open_model(colours), folder, spy)
    assert spy.calls == [[5, 5]]
    rejects: list[Reject] = []
    shared = share_model(open_model(colours), map, 2)
    shared.encode([b"none", Image.new("RGB", (4, 4))], rejects=rejects)
    assert "unreadable" in rejects[0].reason
    assert "takes files or bytes, not pictures" in rejects[1].reason
    assert shared.preprocess(folder / "photos" / "0.png").shape == (3,)


def test_an_encoder_that_nobody_knows_is_missed_as_in_one_process(
    folder: Path, colours: Path
) -> None:
    shared = share_model(open_model(colours), map, 2)
    with pytest.raises(EncoderUnavailableError, match="somebody's own"):
        shared.encode(folder / "photos")
