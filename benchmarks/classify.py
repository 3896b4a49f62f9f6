"""What does classifying a folder of pictures cost beside encoding them?

    python benchmarks/classify.py [FOLDER] [--pairs 400000] [--pictures 512] [--labels 100]

Both read and decode the same files and run the same encoder, in turn; the first stops there, the
second classifies with a model of that many pairs (drawn vectors of the encoder's dimension, since
what they mean does not matter to the clock). Without a folder it takes the development photos
beside the checkout, or makes pictures.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

import asif_lance
from asif_lance.encoders import encode_images
from asif_lance.store import PairStore

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "flickr8k" / "images-1000"
CHUNK = 50_000


def build(uri: str, pairs: int, rng: np.random.Generator) -> None:
    """Make a database for the packaged encoders, with drawn vectors."""
    from asif_lance.encoders import image_encoder, text_encoder

    pins = image_encoder().pin, text_encoder().pin
    store = PairStore.create(uri, image=pins[0], text=pins[1])
    for start in range(0, pairs, CHUNK):
        size = min(CHUNK, pairs - start)
        ids = [f"p{i:08d}" for i in range(start, start + size)]
        columns = {"pair_id": pa.array(ids), "caption": pa.array(ids)}
        for side, pin in zip(("image", "text"), pins, strict=True):
            drawn = rng.standard_normal((size, pin.dimension), dtype=np.float32)
            drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
            flat = pa.array(drawn.astype(np.float16).ravel())
            columns[f"{side}_vector"] = pa.FixedSizeListArray.from_arrays(flat, pin.dimension)
        store.add(pa.table(columns))
    store.publish(command="ingest")


def pictures(folder: Path | None, count: int, made: Path) -> list[Path]:
    """Give the files to classify."""
    folder = folder or (SHARED if SHARED.is_dir() else None)
    if folder is not None:
        return sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".png"))[:count]
    rng, paths = np.random.default_rng(1), [made / f"{i}.jpg" for i in range(count)]
    for path in paths:
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        small.resize((640, 480), Image.Resampling.BICUBIC).save(path)
    return paths


def clock(task: Callable[[], object]) -> float:
    """Give the seconds that a task takes."""
    begun = time.perf_counter()
    task()
    return time.perf_counter() - begun


def main() -> None:
    """Build, take turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--pairs", type=int, default=400_000)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as home:
        build(f"{home}/db", asked.pairs, rng)
        files = pictures(asked.folder, asked.pictures, Path(home))
        model = asif_lance.open(f"{home}/db", device="cpu")
        width = model.store.text.dimension
        labels = model.label_vectors({str(i): rng.normal(size=width) for i in range(asked.labels)})
        times: list[tuple[float, float]] = []
        for _ in range(asked.rounds + 1):  # the first round warms up and does not count
            encoding = clock(lambda: list(encode_images(model.image_encoder, files)))
            times.append((encoding, clock(lambda: list(model.classify(files, labels)))))
        encoding, classifying = np.median(times[1:], axis=0)
        print(f"{len(files)} pictures, {asked.pairs:,} pairs, {asked.labels} labels")
        print(f"{'':24}{'ms/picture':>12}{'to encoder':>12}")
        for name, seconds in (("encoder alone", encoding), ("classify", classifying)):
            print(f"{name:24}{seconds / len(files) * 1e3:12.2f}{seconds / encoding:12.2f}")


if __name__ == "__main__":
    main()
