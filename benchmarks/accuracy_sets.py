"""The models and labelled pictures that `accuracy.py` measures on, all from real pictures.

- Stamps: Debian's Tux Paint stamps (as in the demo), 17 classes; five folds, each classified by a
  model of the other four, so that every labelled picture is tested once.
- GCompris: photos of six classes in Debian's `gcompris-qt-data` (fish, monument, tool, dam, solar
  panel, windmill), classified by models that have never seen the collection.
- Flickr8k and the CIFAR-10 sample of the development data, where ASIF_SHARED names them.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

import asif_lance
from asif_lance.encoders import DEFAULT_IMAGE, DEFAULT_TEXT, TextEncoder, encode_images
from asif_lance.encoders import image_encoder as load_image_encoder
from asif_lance.evaluation import Labelled, read_labelled
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.ingest import tuxpaint as stamps
from asif_lance.model import Model

Floats = NDArray[np.float32]
FOLDS = 5

_GCOMPRIS = "gcompris-qt-data"
_PHOTOS = "activities/categorization/resource/images/"
_GCOMPRIS_CLASSES = {
    "fishes/": "fish",
    "monuments/": "monument",
    "tools/": "tool",
    "renewable/dam": "dam",
    "renewable/solar": "solar panel",
    "renewable/windmill": "windmill",
}


@dataclass(frozen=True, eq=False)
class Part:
    """A model and pictures that it has not seen."""

    model: Model
    labelled: Labelled
    labels: tuple[str, ...]


@dataclass(frozen=True)
class TestSet:
    """Pictures that are counted together: one part, or one per fold."""

    name: str
    parts: tuple[Part, ...]

    @property
    def pictures(self) -> int:
        """How many are tested."""
        return sum(len(part.labelled.names) for part in self.parts)


class Workshop:
    """Makes models in one folder, all with the packaged encoders."""

    def __init__(self, folder: Path, cache: Path, text: TextEncoder) -> None:
        self.folder, self.cache, self.text = folder, cache, text

    def model(self, name: str, frame: pl.DataFrame) -> Model:
        """A database of these pairs (caption, image_vector, text_vector, source)."""
        path, uri = self.folder / f"{name}.parquet", self.folder / f"{name}.lancedb"
        frame.write_parquet(path)
        options = IngestOptions(image_encoder=DEFAULT_IMAGE, text_encoder=DEFAULT_TEXT)
        ingest_sources(str(uri), [str(path)], options)
        model = asif_lance.open(uri)
        model.__dict__["text_encoder"] = self.text  # loaded once for all models
        return model

    def stamps_frame(self, encoder_name: str = DEFAULT_IMAGE) -> pl.DataFrame:
        """All captioned stamps with vectors, their class (or none) and fold."""
        root = stamps.fetch(self.cache / "stamps")
        pictures = stamps.find_stamp_pictures(root)
        names = [p.path.relative_to(root).as_posix() for p in pictures]
        return pl.DataFrame(
            {
                "pair_id": names,
                "caption": [p.caption for p in pictures],
                "source": ["stamps"] * len(pictures),
                "label": [p.label for p in pictures],
                "fold": [int(hashlib.sha256(n.encode()).hexdigest(), 16) % FOLDS for n in names],
                "image_vector": image_vectors([p.path for p in pictures], encoder_name),
                "text_vector": self.text.encode([p.caption for p in pictures]),
            }
        )

    def folds(self, name: str, frame: pl.DataFrame) -> TestSet:
        """The stamps, each fold by a model of the others."""
        labels = tuple(sorted(set(frame["label"]) - {""}))
        parts = []
        for fold in range(FOLDS):
            model = self.model(f"{name}-{fold}", pairs(frame.filter(pl.col("fold") != fold)))
            kept = frame.filter((pl.col("fold") == fold) & (pl.col("label") != ""))
            parts.append(Part(model, labelled(kept), labels))
        return TestSet("stamps, five folds", tuple(parts))

    def gcompris(self, encoder_name: str = DEFAULT_IMAGE) -> pl.DataFrame:
        """The photos with vectors and classes."""
        folder = self.cache / "gcompris"
        if not folder.is_dir():
            _unpack(self.cache, folder)
        paths = sorted(folder.rglob("*.webp"))
        return pl.DataFrame(
            {
                "pair_id": [f"{p.parent.name}/{p.name}" for p in paths],
                "label": [p.parent.name for p in paths],
                "image_vector": image_vectors(paths, encoder_name),
            }
        )

    def photos(self, root: Path, encoder_name: str) -> pl.DataFrame:
        """The Flickr8k photos that are there as files, each with its first caption."""
        folder = root / "data" / "flickr8k"
        captions = (
            pl.read_csv(folder / "images-1000.csv").unique("image", keep="first").sort("image")
        )
        return captions.with_columns(
            pl.col("image").alias("pair_id"),
            pl.lit("flickr8k").alias("source"),
            image_vector=image_vectors(
                [folder / "images-1000" / name for name in captions["image"]], encoder_name
            ),
            text_vector=self.text.encode(captions["caption"].to_list()),
        )

    def tiny(self, root: Path, encoder_name: str) -> pl.DataFrame:
        """The CIFAR-10 sample's pictures with vectors and classes."""
        found = read_labelled(root / "data" / "cifar10" / "images")
        return pl.DataFrame(
            {
                "pair_id": found.names,
                "label": found.truths,
                "image_vector": image_vectors([Path(name) for name in found.names], encoder_name),
            }
        )


def pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns that become pairs."""
    return frame.select("pair_id", "caption", "source", "image_vector", "text_vector")


def tested(name: str, model: Model, frame: pl.DataFrame) -> TestSet:
    """The labelled pictures of a frame, all classified by one model."""
    kept = frame.filter(pl.col("label") != "")
    labels = tuple(sorted(set(kept["label"])))
    return TestSet(name, (Part(model, labelled(kept), labels),))


def labelled(frame: pl.DataFrame) -> Labelled:
    """Rows with a label as labelled vectors."""
    vectors = frame["image_vector"].to_numpy().astype(np.float32)
    names, truths = frame["pair_id"].to_list(), frame["label"].to_list()
    return Labelled(tuple(names), tuple(truths), vectors=vectors)


def image_vectors(paths: Sequence[Path], encoder_name: str) -> Floats:
    """(m, d) embeddings of readable pictures."""
    batches = encode_images(load_image_encoder(encoder_name), paths)
    return np.concatenate([batch.vectors for batch in batches])


def flickr(root: Path) -> pl.DataFrame:
    """Flickr8k's pairs: five captions per photo, `first` marks one of each."""
    folder = root / "data" / "flickr8k"
    captions = pl.read_parquet(folder / "captions.parquet")
    both = captions.join(pl.read_parquet(folder / "images.parquet"), on="image", how="inner")
    number = pl.int_range(pl.len()).over("image")
    return both.with_columns(
        pl.format("{}#{}", "image", number).alias("pair_id"),
        (number == 0).alias("first"),
        pl.lit("flickr8k").alias("source"),
    )


def mean_captions(frame: pl.DataFrame) -> pl.DataFrame:
    """One pair per photo, its caption vector the mean of the captions' vectors."""
    texts = frame["text_vector"].to_numpy().astype(np.float32)
    images = frame["image"].to_numpy()
    names, place = np.unique(images, return_inverse=True)
    sums = np.zeros((len(names), texts.shape[1]))
    np.add.at(sums, place, texts)
    means = pl.DataFrame({"image": names, "mean": sums.astype(np.float32)})
    first = frame.filter("first").join(means, on="image")
    return first.drop("text_vector").rename({"mean": "text_vector"})


def cifar(root: Path) -> Labelled:
    """The CIFAR-10 sample."""
    return read_labelled(root / "data" / "cifar10" / "test-sample.parquet")


def _unpack(cache: Path, folder: Path) -> None:
    """Debian's package, its Qt resource files, their photos in folders named after classes."""
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", _GCOMPRIS], cwd=cache, check=True, capture_output=True)
    (archive,) = cache.glob(f"{_GCOMPRIS}_*.deb")
    out = cache / "gcompris-package"
    subprocess.run(["dpkg-deb", "-x", str(archive), str(out)], check=True)
    resource = out / "usr/share/gcompris-qt/rcc/categorization.rcc"
    for name, content in _resources(resource.read_bytes()):
        label = next((c for p, c in _GCOMPRIS_CLASSES.items() if _PHOTOS + p in name), None)
        if label is not None and name.endswith(".webp"):
            (folder / label).mkdir(parents=True, exist_ok=True)
            (folder / label / Path(name).name).write_bytes(content)


def _resources(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a Qt resource file (`rcc`, format 2 or later)."""
    version, tree, contents, names = struct.unpack(">4I", data[4:20])
    size = 22 if version >= 2 else 14

    def walk(node: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * size
        name, flags = struct.unpack(">IH", data[at : at + 6])
        length = struct.unpack(">H", data[names + name : names + name + 2])[0]
        text = data[names + name + 6 : names + name + 6 + 2 * length].decode("utf-16-be")
        path = f"{prefix}/{text}" if node else ""
        if flags & 2:  # a folder: how many children, and the first one's number
            count, first = struct.unpack(">II", data[at + 6 : at + 14])
            for child in range(first, first + count):
                yield from walk(child, path)
            return
        start = contents + struct.unpack(">I", data[at + 10 : at + 14])[0]
        stored = data[start + 4 : start + 4 + struct.unpack(">I", data[start : start + 4])[0]]
        yield path, zlib.decompress(stored[4:]) if flags & 1 else stored

    yield from walk(0, "")
