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
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from asif_lance.model import Model

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
        compare(folder, asked, images, labels, both[0], both[1])


def compare(
    folder: str,
    asked: argparse.Namespace,
    images: Floats,
    labels: dict[str, Floats],
    image: Floats,
    text: Floats,
) -> None:
    """Record a run, then delete and add, hypothetically and for real, and print the table."""
    import asif_lance
    from asif_lance.audit import recorder
    from asif_lance.audit.replay import load_replay
    from asif_lance.records import EncoderPin
    from asif_lance.store import PairStore
    from asif_lance.whatif import find_recorded_flips, with_pairs, without_pairs

    uri = f"{folder}/db"
    pins = EncoderPin("timm/bench", "1", IMAGE), EncoderPin("sentence-transformers/b", "1", TEXT)
    store = PairStore.create(uri, image=pins[0], text=pins[1])
    for start in range(0, asked.pairs, 10_000):
        at = slice(start, min(start + 10_000, asked.pairs))
        store.add(rows(image[at], text[at], start))
    store.publish(command="ingest")
    names = [f"image {i}" for i in range(len(images))]
    model = asif_lance.open(uri, recipe_name=asked.recipe, device="cpu")
    begun = time.perf_counter()
    with recorder.Recorder(store, model.label_vectors(labels), model.recipe) as run:
        for prediction in model.classify_vectors(names, images, model.label_vectors(labels)):
            run.add(prediction)
    print(
        f"{asked.pairs:,} pairs, {len(images):,} images, {len(labels)} labels, {asked.recipe}; ",
        end="",
    )
    print(f"classifying and recording took {time.perf_counter() - begun:.1f} s")
    was = label_of(model, names, images, labels)
    ids = [f"p{i:07d}" for i in range(asked.pairs)]
    removed = np.random.default_rng(3).choice(ids, asked.change, replace=False).tolist()
    new = rows(image[asked.pairs :], text[asked.pairs :], asked.pairs)
    print(f"{'':28}{'what-if':>9}{'for real':>10}{'ratio':>8}{'searched':>10}{'flips':>7}")
    for what in ("delete", "add"):
        begun = time.perf_counter()
        if what == "delete":
            after, _ = without_pairs(model, removed)
        else:
            after, _ = with_pairs(model, new)
        found = find_recorded_flips(model, after, load_replay(store, run.run_id, len(labels)))
        supposed = time.perf_counter() - begun
        begun = time.perf_counter()
        if what == "delete":
            store.delete(removed)
        else:
            store.add(new)
        store.publish(command=what)
        now = label_of(
            asif_lance.open(uri, recipe_name=asked.recipe, device="cpu"), names, images, labels
        )
        real = time.perf_counter() - begun
        flips = {i: (was[i], now[i]) for i in was if was[i] != now[i]}
        said = {c.before.image: (c.before.label, c.after.label) for c in found.flips}
        assert said == flips, "what-if and reality differ"
        print(f"{what + f' {asked.change} pairs':28}{supposed:8.2f}s{real:9.2f}s", end="")
        print(f"{supposed / real:8.1%}{found.searched:10,}{len(flips):7,}")
        store.rollback("v1")


def label_of(
    model: Model, names: list[str], images: Floats, labels: dict[str, Floats]
) -> dict[str, str]:
    """Classify all images: the best label of each."""
    compiled = model.label_vectors(labels)
    return {p.image: p.label for p in model.classify_vectors(names, images, compiled)}


if __name__ == "__main__":
    main()
