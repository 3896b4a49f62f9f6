"""Ingest against its floor: the bare encoders on what they eat, in one run.

    python benchmarks/ingest.py [FOLDER_OR_CSV]

Rounds alternate between the whole of `ingest` (read, hash, decode, encode both sides, store) and
the two encoders alone on prepared tensors and captions; the ratio of medians is the figure.
Without an argument it takes the development photos beside the checkout, or makes pictures.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from asif_lance.encoders import decode_image, image_encoder, text_encoder
from asif_lance.ingest import ingest_sources

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "flickr8k"
PICTURES, ROUNDS, BATCH = 1000, 3, 32


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = _manifest(Path(folder))
        rows = pl.read_csv(manifest)
        images, texts = image_encoder(), text_encoder()
        prepared = torch.stack(
            [images.prepare(decode_image(Path(p), min_side=images.min_side)) for p in rows["image"]]
        )

        def bare() -> None:
            for start in range(0, len(prepared), BATCH):
                images.encode(prepared[start : start + BATCH])
            texts.encode(rows["caption"].to_list())

        def ingest() -> None:
            with tempfile.TemporaryDirectory() as fresh:
                report = ingest_sources(f"{fresh}/t.lancedb", [manifest])
                assert report.added == len(rows), report

        _print(len(rows), *_alternating(bare, ingest))


def _manifest(folder: Path) -> Path:
    path = folder / "pairs.csv"
    if len(sys.argv) > 1:
        rows = pl.read_csv(sys.argv[1]).unique("image", maintain_order=True)
    elif SHARED.is_dir():
        rows = pl.read_csv(SHARED / "images-1000.csv").unique("image", maintain_order=True)
        rows = rows.with_columns(image=str(SHARED / "images-1000") + "/" + pl.col("image"))
    else:
        rows = _made(folder)
    rows.head(PICTURES).write_csv(path)
    return path


def _made(folder: Path) -> pl.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for i in range(PICTURES):
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        path = folder / f"{i}.jpg"
        small.resize((640, 480), Image.Resampling.BICUBIC).save(path)
        rows.append({"image": str(path), "caption": f"smooth noise, picture number {i}"})
    return pl.DataFrame(rows)


def _alternating(*steps: Callable[[], None]) -> list[float]:
    """Median seconds of each step; the first round warms up and does not count."""
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(ROUNDS + 1):
        for step, times in zip(steps, seconds, strict=True):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in seconds]


def _print(count: int, bare: float, ingest: float) -> None:
    table = Table("what", "pairs/s", "of the bare encoders", title=f"{count} pairs, medians")
    table.add_row("bare encoders (both)", f"{count / bare:.1f}", "1.00")
    table.add_row(
        "asif-lance ingest, loading included", f"{count / ingest:.1f}", f"{bare / ingest:.2f}"
    )
    Console().print(table)


if __name__ == "__main__":
    main()
