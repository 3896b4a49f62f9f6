"""What sharing an ingest costs, and what the one process at its end has to do.

    python benchmarks/shared_ingest.py [ROWS]         brought vectors: naming, writing, committing
    python benchmarks/shared_ingest.py pictures [N]   pictures: one process, one worker, two workers

Prints seconds and ratios inside one run. A worker computes with one thread.
"""

from __future__ import annotations

import io
import resource
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from asif_lance.cluster import commit, list_tasks, plan_ingest, run_task
from asif_lance.ingest import ingest_sources

ROWS, PICTURES, IMAGE, TEXT = 100_000, 192, 1280, 384
SHARDS = 8


def main() -> None:
    """Measure what the arguments say."""
    place = Path(tempfile.mkdtemp(prefix="shared-ingest-"))
    try:
        if sys.argv[1:2] == ["pictures"]:
            measure_pictures(place, int((sys.argv[2:] or [PICTURES])[0]))
        else:
            measure_rows(place, int((sys.argv[1:] or [ROWS])[0]))
    finally:
        shutil.rmtree(place)


def measure_rows(place: Path, rows: int) -> None:
    """One process against shards, task by task, with vectors that need no encoder."""
    source = write_vectors(place / "pairs.parquet", rows)
    alone = timed(lambda: ingest_sources(place / "alone.lancedb", [source]))
    print(f"{rows:,} rows of {IMAGE} + {TEXT} numbers; one process: {alone:.1f} s")
    began = time.perf_counter()
    plan = plan_ingest(place / "t.lancedb", [source])
    print(f"plan of {len(plan.shards)} shards: {time.perf_counter() - began:.2f} s")
    while tasks := list_tasks(plan):
        kind = tasks[0].kind
        seconds = timed(lambda tasks=tasks: [run_task(task) for task in tasks])
        print(f"{kind}: {seconds / alone:.2f} × one process, {seconds / rows * 1e6:.1f} µs a row")
    seconds = timed(lambda: commit(plan))
    print(f"commit: {seconds / alone:.2f} × one process, {seconds:.2f} s")
    size = sum(f.stat().st_size for f in (place / "t.lancedb").rglob("*") if f.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"database: {size / rows:,.0f} bytes a row; peak of this process: {peak:,.0f} MB")


def measure_pictures(place: Path, count: int) -> None:
    """One process with all threads, and workers with one thread each."""
    folder = write_pictures(place / "photos", count)
    alone = timed(lambda: ingest_sources(place / "alone.lancedb", [folder]))
    print(f"{count} photos; one process: {alone / count * 1e3:.0f} ms a photo")
    took = {workers: run_shared(place, folder, workers, count) for workers in (1, 2)}
    for workers, seconds in took.items():
        told = ", ".join(f"{kind} {1e3 * one:.1f} ms a photo" for kind, one in seconds.items())
        print(
            f"{workers} workers: {told}; {sum(seconds.values()) * count / alone:.2f} × one process"
        )
    print(f"two workers encode {took[1]['encode'] / took[2]['encode']:.2f} × as fast as one")


def run_shared(place: Path, folder: Path, workers: int, count: int) -> dict[str, float]:
    """Seconds a photo by kind of task, without each worker's first, in which it loads."""
    took: dict[str, float] = {}
    rows = max(count // SHARDS, 1)
    plan = plan_ingest(place / f"{workers}.lancedb", [folder], shard_rows=rows)
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        while tasks := list_tasks(plan):
            first, rest = tasks[:workers], tasks[workers:]
            list(pool.map(run_task, first))
            seconds = timed(lambda rest=rest: list(pool.map(run_task, rest)))
            took[tasks[0].kind] = seconds / (rows * len(rest))
    commit(plan)
    return took


def timed(act: object) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    act()  # type: ignore[operator]
    return time.perf_counter() - began


def write_vectors(path: Path, rows: int) -> Path:
    """Parquet in row groups of a thousand."""
    rng = np.random.default_rng(1)
    with pq.ParquetWriter(path, vectors_table(rng, 0, 1).schema) as writer:
        for start in range(0, rows, 1000):
            writer.write_table(vectors_table(rng, start, min(1000, rows - start)))
    return path


def vectors_table(rng: np.random.Generator, start: int, count: int) -> pa.Table:
    """Pairs with vectors of both sides."""
    columns = {
        "image_uri": [f"https://example.org/{n}.jpg" for n in range(start, start + count)],
        "caption": [f"a photo of something, number {n}" for n in range(start, start + count)],
    }
    for side, dimension in (("image", IMAGE), ("text", TEXT)):
        flat = pa.array(rng.standard_normal(count * dimension, dtype=np.float32))
        columns[f"{side}_vector"] = pa.FixedSizeListArray.from_arrays(flat, dimension)
    return pa.table(columns)


def write_pictures(folder: Path, count: int) -> Path:
    """JPEGs of 640 × 480 with captions beside them."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        stream = io.BytesIO()
        small.resize((640, 480), Image.Resampling.BICUBIC).save(stream, "JPEG")
        (folder / f"{number}.jpg").write_bytes(stream.getvalue())
        (folder / f"{number}.txt").write_text(f"A picture of noise, number {number}.")
    return folder


if __name__ == "__main__":
    main()
