"""What sharing an ingest costs, and what the one process at its end has to do.

    python benchmarks/shared_ingest.py [ROWS]         brought vectors: naming, writing, committing
    python benchmarks/shared_ingest.py pictures [N]   pictures: one process, one worker, two workers
    python benchmarks/shared_ingest.py memory [ROWS ...]  what the driver takes, as rows grow

The last ingests pairs of 16 + 16 numbers, into an empty database and into one that has as many. The
others print processor seconds, which say the same on a machine that others use too, and for
pictures how much faster two workers of one thread are than one, which only a quiet machine of two
cores tells.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from asif_lance.cluster import commit, list_tasks, plan_ingest, run_task
from asif_lance.ingest import ingest_sources

ROWS, PICTURES, IMAGE, TEXT = 100_000, 192, 1280, 384
SHARDS, ROUNDS = 8, 3
SIZES = (100_000, 1_000_000, 3_000_000)


def main() -> None:
    """Measure what the arguments say."""
    place = Path(tempfile.mkdtemp(prefix="shared-ingest-"))
    try:
        if sys.argv[1:2] == ["drive"]:
            print(json.dumps(drive(*sys.argv[2:])))
        elif sys.argv[1:2] == ["memory"]:
            measure_memory(place, [int(one) for one in sys.argv[2:]] or list(SIZES))
        elif sys.argv[1:2] == ["pictures"]:
            measure_pictures(place, int((sys.argv[2:] or [PICTURES])[0]))
        else:
            measure_rows(place, int((sys.argv[1:] or [ROWS])[0]))
    finally:
        shutil.rmtree(place)


def measure_rows(place: Path, rows: int) -> None:
    """One process against shards, task by task, with vectors that need no encoder."""
    source = write_vectors(place / "pairs.parquet", rows)
    alone = spent(lambda: ingest_sources(place / "alone.lancedb", [source])) / rows
    print(f"{rows:,} rows of {IMAGE} + {TEXT} numbers, in µs of processor a row")
    print(f"one process: {alone * 1e6:.1f}")
    plan = plan_ingest(place / "t.lancedb", [source])
    while tasks := list_tasks(plan):
        each = spent(lambda tasks=tasks: [run_task(task) for task in tasks]) / rows
        print(f"{tasks[0].kind}: {each * 1e6:.1f}")
    last = spent(lambda: commit(plan))
    print(f"commit of {len(plan.shards)} shards: {last / rows * 1e6:.1f}, {last:.2f} s in all")
    size = sum(f.stat().st_size for f in (place / "t.lancedb").rglob("*") if f.is_file())
    print(f"database: {size / rows:,.0f} bytes a row")


def measure_memory(place: Path, sizes: list[int]) -> None:
    """The most memory of the process that plans, settles and commits, beyond its imports."""
    print(f"{'rows':>10} {'there':>10} {'plan':>9} {'tasks':>9} {'commit':>9} {'worker':>9}  (MB)")
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for rows in sizes:
        uri = str(place / f"{rows}.lancedb")
        for again in (False, True):
            source = write_vectors(place / f"{rows}-{again}.parquet", rows, (16, 16), rows * again)
            command = [sys.executable, __file__, "drive", uri, str(source)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[again].append(json.loads(done.stdout))
            figures = " ".join(f"{one / 1e6:9.1f}" for one in found[again][-1].values())
            print(f"{rows:>10,} {rows * again:>10,} {figures}", flush=True)
            source.unlink()
    for again, each in found.items():
        slopes = [(each[-1][key] - each[0][key]) / max(sizes[-1] - sizes[0], 1) for key in each[0]]
        slopes = " ".join(f"{one:9.2f}" for one in slopes)
        print(f"bytes/row {'as many' if again else 'none':>11} {slopes}")


def drive(uri: str, source: str) -> dict[str, float]:
    """An ingest with one worker beside this process, and the memory that each step takes."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        list(pool.map(len, [[]]))
        took: dict[str, float] = {}
        before = resident("VmRSS")

        def watch(step: str, act: Callable[[], Any]) -> Any:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            answer = act()
            took[step] = max(took.get(step, 0), resident("VmHWM") - before)
            return answer

        plan = watch("plan", lambda: plan_ingest(uri, [source]))
        while tasks := watch("tasks", lambda: list_tasks(plan)):
            list(pool.map(run_task, tasks))
        watch("commit", lambda: commit(plan))
        took["worker"] = pool.submit(resident, "VmHWM").result()
        return took


def resident(key: str) -> int:
    """A figure of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024


def measure_pictures(place: Path, count: int) -> None:
    """What a photo takes, and how much faster two workers are than one."""
    folder = write_pictures(place / "photos", count)
    torch.set_num_threads(1)
    plan = plan_ingest(place / "one.lancedb", [folder], shard_rows=count // SHARDS)
    print(f"{count} photos of 640 × 480, in ms of processor a photo")
    while tasks := list_tasks(plan):
        run_task(tasks[0])  # in which encoders load
        each = spent(lambda tasks=tasks: [run_task(task) for task in tasks[1:]])
        print(f"{tasks[0].kind}: {each / (len(tasks) - 1) / (count // SHARDS) * 1e3:.1f}")
    commit(plan)
    rounds = [compare_workers(place, folder, count) for _ in range(ROUNDS)]
    for what in rounds[0]:
        found = sorted(one[what] for one in rounds)
        print(f"{what}: {found[len(found) // 2]:.2f} × ({found[0]:.2f} to {found[-1]:.2f})")


def compare_workers(place: Path, folder: Path, count: int) -> dict[str, float]:
    """How much faster two workers are than one, and two ingests that share nothing than one."""
    one, two = (run_shared(place / str(n), folder, n, count) for n in (1, 2))
    with ThreadPoolExecutor(2) as threads:
        alone = [place / name for name in ("a", "b")]
        apart = list(threads.map(lambda uri: run_shared(uri, folder, 1, count), alone))
    for used in (*alone, place / "1", place / "2"):
        shutil.rmtree(used)
    slower = max(found["encode"] for found in apart)
    return {
        "two workers, whole ingest": sum(one.values()) / sum(two.values()),
        "two workers, naming": one["name"] / two["name"],
        "two workers, encoding": one["encode"] / two["encode"],
        "two ingests that share nothing, encoding": 2 * one["encode"] / slower,
    }


def run_shared(uri: Path, folder: Path, workers: int, count: int) -> dict[str, float]:
    """Seconds a photo by step, without each worker's first task, in which it loads."""
    rows = max(count // SHARDS, 1)
    took = dict.fromkeys(("plan", "name", "encode", "settle and commit"), 0.0)
    began = time.perf_counter()
    plan = plan_ingest(uri, [folder], shard_rows=rows)
    took["plan"] = (time.perf_counter() - began) / count
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        while True:
            began = time.perf_counter()
            tasks = list_tasks(plan)
            took["settle and commit"] += (time.perf_counter() - began) / count
            if not tasks:
                break
            first, rest = tasks[:workers], tasks[workers:]
            list(pool.map(run_task, first))
            seconds = timed(lambda rest=rest: list(pool.map(run_task, rest)))
            took[tasks[0].kind] = seconds / (rows * len(rest))
    took["settle and commit"] += timed(lambda: commit(plan)) / count
    return took


def timed(act: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def spent(act: Callable[[], object]) -> float:
    """Processor seconds that a call takes in this process."""
    began = time.process_time()
    act()
    return time.process_time() - began


def write_vectors(
    path: Path, rows: int, widths: tuple[int, int] = (IMAGE, TEXT), first: int = 0
) -> Path:
    """Parquet in row groups of a thousand."""
    rng = np.random.default_rng(1)
    with pq.ParquetWriter(path, vectors_table(rng, 0, 1, widths).schema) as writer:
        for start in range(first, first + rows, 1000):
            writer.write_table(vectors_table(rng, start, min(1000, first + rows - start), widths))
    return path


def vectors_table(
    rng: np.random.Generator, start: int, count: int, widths: tuple[int, int]
) -> pa.Table:
    """Pairs with vectors of both sides."""
    columns = {
        "image_uri": [f"https://example.org/{n}.jpg" for n in range(start, start + count)],
        "caption": [f"a photo of something, number {n}" for n in range(start, start + count)],
    }
    for side, dimension in zip(("image", "text"), widths, strict=True):
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
