"""What does it cost to know which recorded predictions a change of the pairs would flip?

    python benchmarks/whatif.py [--pairs 100000] [--images 10000] [--labels 100] [--change 100]
        [--recipe paper]

The floor is what everybody does instead: delete (or add) the pairs, open the new version and
classify all images again. Both begin with the base version open and end with the flips, and both
are checked to name the same ones. With ASIF_SHARED (the development data) pairs and images are
Flickr8k's: real vectors, and beyond 40,455 pairs such vectors with noise. Without it they are drawn
around centres; labels are captions in both.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

import asif_lance
from asif_lance.audit import recorder
from asif_lance.audit.replay import load_replay
from asif_lance.model import Model, Prediction
from asif_lance.records import EncoderPin
from asif_lance.search import describe_processor
from asif_lance.store import PairStore
from asif_lance.whatif import find_recorded_flips, with_pairs, without_pairs

Floats = NDArray[np.float32]

IMAGE, TEXT = 1280, 384
_NOISE = 0.3  # length of the noise beside a unit vector
_CENTRES = 300


def unit(vectors: Floats) -> Floats:
    """Normalise rows."""
    normal: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normal


def shared(root: Path) -> tuple[Floats, Floats]:
    """Read Flickr8k's pairs: image and caption vectors."""
    images = pl.read_parquet(root / "data" / "flickr8k" / "images.parquet")
    captions = pl.read_parquet(root / "data" / "flickr8k" / "captions.parquet")
    both = captions.join(images, on="image", how="inner")
    wide = (np.stack(both[f"{side}_vector"].to_list()) for side in ("image", "text"))
    image, text = (vectors.astype(np.float32) for vectors in wide)
    return image, text


def drawn(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw pairs of vectors around common centres."""
    which = rng.integers(_CENTRES, size=40_000)
    sides = []
    for width in (IMAGE, TEXT):
        centres = unit(rng.standard_normal((_CENTRES, width)).astype(np.float32))
        noise = rng.standard_normal((len(which), width)).astype(np.float32) / np.sqrt(width)
        sides.append(unit(centres[which] + noise))
    return sides[0], sides[1]


def more(vectors: Floats, count: int, rng: np.random.Generator) -> Floats:
    """As many vectors: the given ones in random order, then such with noise."""
    order = rng.permutation(len(vectors))
    rows = vectors[np.resize(order, count)]
    noise = rng.standard_normal(rows[len(vectors) :].shape).astype(np.float32)
    rows[len(vectors) :] += _NOISE * noise / np.sqrt(vectors.shape[1])
    return unit(rows)


def column(vectors: Floats) -> pa.FixedSizeListArray:
    """Make the column that the table stores."""
    flat = pa.array(vectors.astype(np.float16).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def rows(image: Floats, text: Floats, start: int) -> pa.Table:
    """Make pairs, numbered from `start`."""
    ids = [f"p{i:07d}" for i in range(start, start + len(image))]
    return pa.table(
        {
            "pair_id": ids,
            "caption": [f"caption {i}" for i in ids],
            "image_vector": column(image),
            "text_vector": column(text),
        }
    )


def main() -> None:
    """Prepare the vectors and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("pairs", 100_000), ("images", 10_000), ("labels", 100), ("change", 100)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--recipe", default="centred")
    asked = parser.parse_args()
    print(describe_processor())
    rng = np.random.default_rng(0)
    root = os.environ.get("ASIF_SHARED")
    image, text = shared(Path(root)) if root else drawn(rng)
    chosen = rng.choice(len(image), asked.labels, replace=False)
    labels = {f"label {i}": text[row] for i, row in enumerate(chosen)}
    order = np.random.default_rng(1)
    images = more(image, asked.images + len(image), order)[-asked.images :]
    total = asked.pairs + asked.change
    both = [more(side, total, np.random.default_rng(2)) for side in (image, text)]
    with tempfile.TemporaryDirectory() as folder:
        store = fill(f"{folder}/db", *(side[: asked.pairs] for side in both))
        new = rows(*(side[asked.pairs :] for side in both), asked.pairs)
        compare(store, Images(asked.recipe, images, labels), new)


def fill(uri: str, image: Floats, text: Floats) -> PairStore:
    """Make a database of these pairs."""
    pins = EncoderPin("timm/bench", "1", IMAGE), EncoderPin("sentence-transformers/b", "1", TEXT)
    store = PairStore.create(uri, image=pins[0], text=pins[1])
    for start in range(0, len(image), 10_000):
        at = slice(start, start + 10_000)
        store.add(rows(image[at], text[at], start))
    store.publish(command="ingest")
    return store


@dataclass
class Images:
    """What is classified, and how."""

    recipe: str
    vectors: Floats
    labels: dict[str, Floats]

    def open(self, store: PairStore) -> Model:
        """Open the newest version."""
        return asif_lance.open(store.uri, recipe=self.recipe, device="cpu")

    def classify(self, model: Model) -> Iterator[Prediction]:
        """Classify all of them."""
        names = [f"image {i}" for i in range(len(self.vectors))]
        return model.classify_vectors(names, self.vectors, model.label_vectors(self.labels))

    def best(self, model: Model) -> dict[str, str]:
        """Find the best label of each."""
        return {p.image: p.label for p in self.classify(model)}

    def record(self, model: Model) -> str:
        """Classify and record; returns the run's id."""
        labels = model.label_vectors(self.labels)
        with recorder.Recorder(model.store, labels, model.recipe) as run:
            for prediction in self.classify(model):
                run.add(prediction)
        return run.run_id


def compare(store: PairStore, images: Images, new: pa.Table) -> None:
    """Record a run, then delete and add, hypothetically and for real, and print the table."""
    model, begun = images.open(store), time.perf_counter()
    run_id = images.record(model)
    seconds, count = time.perf_counter() - begun, len(images.labels)
    print(
        f"{model.anchors.count:,} pairs, {len(images.vectors):,} images, {count} labels, ", end=""
    )
    print(f"{images.recipe}; classifying and recording took {seconds:.1f} s")
    before = images.best(model)
    ids = model.anchors.pair_ids.to_pylist()
    removed = np.random.default_rng(3).choice(ids, len(new), replace=False).tolist()
    print(f"{'':28}{'what-if':>9}{'for real':>10}{'ratio':>8}{'searched':>10}{'flips':>7}")
    for what in ("delete", "add"):
        begun = time.perf_counter()
        after, _ = without_pairs(model, removed) if what == "delete" else with_pairs(model, new)
        found = find_recorded_flips(model, after, load_replay(store, run_id, count))
        supposed = time.perf_counter() - begun
        begun = time.perf_counter()
        _ = store.delete(removed) if what == "delete" else store.add(new)
        store.publish(command=what)
        now = images.best(images.open(store))
        real = time.perf_counter() - begun
        flips = {i: (before[i], now[i]) for i in before if before[i] != now[i]}
        said = {c.before.image: (c.before.label, c.after.label) for c in found.flips}
        assert said == flips, "what-if and reality differ"
        print(f"{what + f' {len(new)} pairs':28}{supposed:8.2f}s{real:9.2f}s", end="")
        print(f"{supposed / real:8.1%}{found.searched:10,}{len(flips):7,}", flush=True)
        store.rollback("v1")


if __name__ == "__main__":
    main()
