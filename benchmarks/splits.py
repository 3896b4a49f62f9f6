"""The demo's accuracy on several splits of its pictures, each made by a hash of the file names.

    python benchmarks/splits.py [--splits 5] [--stamps FOLDER]

Every picture is encoded once, and each split is ingested, held out and classified as the demo
does it: the first split (no salt) is the demo's own. Prints each accuracy, the mean and the
standard deviation over the splits.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import asif_lance
from asif_lance.encoders import encode_images, image_encoder, text_encoder
from asif_lance.ingest import ingest_sources
from asif_lance.ingest import tuxpaint as stamps
from asif_lance.model import DEFAULT_TEMPLATES

Vectors = dict[str, NDArray[np.float32]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--stamps", type=Path, default=Path("asif-demo/stamps"))
    options = parser.parse_args()
    root = stamps.fetch(options.stamps)
    pictures = stamps.find_stamp_pictures(root)
    images, prompts = encoded_images(pictures), _prompts(stamps.split(pictures, root).labels)
    captions = text_encoder().encode([p.caption for p in pictures])
    texts = {str(p.path): vector for p, vector in zip(pictures, captions, strict=True)}
    table, shares = Table("salt", "pairs", "held out", "right"), []
    for number in range(options.splits):
        salt = str(number) if number else ""
        split = stamps.split(pictures, root, salt=salt)
        shares.append(_accuracy(split, images, texts, prompts))
        counts = (str(len(split.anchors)), str(len(split.held_out)))
        table.add_row(salt or "none (the demo's)", *counts, f"{shares[-1]:.1%}")
    Console().print(table)
    spread = statistics.stdev(shares) if len(shares) > 1 else 0.0
    print(f"mean {statistics.mean(shares):.1%}, standard deviation {100 * spread:.1f} points")


def encoded_images(pictures: Sequence[stamps.StampPicture]) -> Vectors:
    """Embed pictures with the default encoder: path -> (d,); without those that cannot be read."""
    encoder = image_encoder()
    vectors: Vectors = {}
    rest = iter(pictures)
    for batch in encode_images(encoder, [p.path for p in pictures], batch_size=32):
        for row, picture in zip(batch.rows, rest, strict=False):
            if isinstance(row, int):
                vectors[str(picture.path)] = batch.vectors[row]
    return vectors


def _prompts(labels: Sequence[str]) -> Vectors:
    encoder = text_encoder()
    return {name: encoder.encode([t.format(name) for t in DEFAULT_TEMPLATES]) for name in labels}


def _accuracy(split: stamps.Split, images: Vectors, texts: Vectors, prompts: Vectors) -> float:
    anchors = [p for p in split.anchors if str(p.path) in images]
    with tempfile.TemporaryDirectory() as folder:
        _write_pairs(anchors, images, texts, Path(folder, "pairs.parquet"))
        uri = f"{folder}/split.lancedb"
        ingest_sources(uri, [f"{folder}/pairs.parquet"])
        model = asif_lance.open(uri)
        asked = [p for p in split.held_out if str(p.path) in images]
        names, queries = (
            [str(p.path) for p in asked],
            np.stack([images[str(p.path)] for p in asked]),
        )
        found = model.classify_vectors(names, queries, model.label_vectors(prompts))
        right = sum(p.label == f.label for p, f in zip(asked, found, strict=True))
    return right / len(split.held_out)


def _write_pairs(
    pictures: Sequence[stamps.StampPicture], images: Vectors, texts: Vectors, path: Path
) -> None:
    names = [str(p.path) for p in pictures]
    frame = {"pair_id": names, "caption": [p.caption for p in pictures]}
    vectors = {"image_vector": [images[n] for n in names], "text_vector": [texts[n] for n in names]}
    pl.DataFrame({**frame, **vectors}).write_parquet(path)


if __name__ == "__main__":
    main()
