"""What does recording predictions cost beside making them?

    python benchmarks/record.py [--pairs 40000] [--images 400] [--labels 100] [--rounds 5]

Image vectors are classified, and the predictions then written down as `classify --record` does,
commits included: the best five labels of each, with the twenty pairs that add most to each score.
With ASIF_SHARED (the development data) pairs and images are Flickr8k's, without it vectors are
drawn around centres; labels are captions in both. The table shows medians per picture under each
recipe, and what recording costs as a multiple of classifying.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from whatif import IMAGE, TEXT, Floats, drawn, more, rows, shared

import asif_lance
from asif_lance.audit.recorder import Recorder
from asif_lance.model import LabelSet, Model, Prediction
from asif_lance.records import EncoderPin
from asif_lance.search import describe_processor
from asif_lance.store import PairStore

CHUNK = 10_000
RECIPES = ("paper", "centred", "white")


def build(uri: str, image: Floats, text: Floats) -> PairStore:
    """Make a database of pairs with these vectors."""
    pins = EncoderPin("timm/bench", "1", IMAGE), EncoderPin("sentence-transformers/b", "1", TEXT)
    store = PairStore.create(uri, image=pins[0], text=pins[1])
    for start in range(0, len(image), CHUNK):
        at = slice(start, start + CHUNK)
        pairs = rows(image[at], text[at], start)
        ids = [f"{i:064x}" for i in range(start, start + len(pairs))]  # as long as real ones
        store.add(pairs.set_column(0, "pair_id", pa.array(ids)))
    store.publish(command="ingest")
    return store


def measure(model: Model, labels: LabelSet, images: Floats) -> tuple[float, float]:
    """Give the seconds that classifying takes, and those that recording the answers takes."""
    names = [f"image {i}" for i in range(len(images))]
    begun = time.perf_counter()
    predictions = list(model.classify_vectors(names, images, labels))
    between = time.perf_counter()
    record(model, labels, predictions)
    return between - begun, time.perf_counter() - between


def record(model: Model, labels: LabelSet, predictions: list[Prediction]) -> None:
    """Write one run."""
    with Recorder(model.store, labels, model.recipe) as run:
        for prediction in predictions:
            run.add(prediction)


def main() -> None:
    """Build, measure in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40_000)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    print(describe_processor())
    rng, root = np.random.default_rng(0), os.environ.get("ASIF_SHARED")
    image, text = shared(Path(root)) if root else drawn(rng)
    chosen = rng.choice(len(text), asked.labels, replace=False).tolist()
    images = more(image, asked.images + len(image), np.random.default_rng(1))[-asked.images :]
    data = "Flickr8k" if root else "drawn vectors"
    print(f"{asked.pairs:,} pairs, {asked.images} images, {asked.labels} labels, {data}")
    print(f"{'recipe':12}{'classify ms':>12}{'record ms':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as home:
        sides = (more(side, asked.pairs, np.random.default_rng(2)) for side in (image, text))
        uri = build(f"{home}/db", *sides).uri
        for recipe in RECIPES:
            model = asif_lance.open(uri, recipe=recipe, device="cpu")
            labels = model.label_vectors({f"label {i}": text[i] for i in chosen})
            measure(model, labels, images)  # warms up
            times = [measure(model, labels, images) for _ in range(asked.rounds)]
            classify, recording = np.median(times, axis=0) / len(images) * 1e3
            ratio = recording / classify
            print(f"{recipe:12}{classify:12.2f}{recording:12.2f}{ratio:8.1f}", flush=True)


if __name__ == "__main__":
    main()
