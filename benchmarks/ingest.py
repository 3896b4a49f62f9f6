"""Ingest against its floor: the bare encoders on what they eat, or the bare writing of vectors.

    python benchmarks/ingest.py [CSV]
    python benchmarks/ingest.py vectors [PAIRS] [IMAGE_DIMENSION] [TEXT_DIMENSION]
    python benchmarks/ingest.py forgotten [PAIRS] [FORGOTTEN] [IMAGE_DIMENSION] [TEXT_DIMENSION]

With `vectors`, pairs whose vectors are given (by default a million of 64 numbers a side, and a
tenth of them) are ingested, and their columns are written with pylance alone, halved and in
fragments of the same size; each in a process of its own. The figures are ratios of processor time,
and how much more memory ten times as many pairs take. With `forgotten`, the same pairs are ingested
into a database that has forgotten others (by default 100,000) and into one that has not, in turns;
the least processor time of each counts, for others on the machine only add to it, and the time
within what looks them up, which is less than what two whole ingests differ by anyway. Otherwise
rounds alternate between the whole of `ingest` (load, read, hash, decode, encode both sides, store)
and the two encoders alone on prepared tensors and captions, in the same batches and layout, called
one after the other with all of torch's threads, and then side by side as ingest calls them; the
ratio of medians is the figure, once with the first caption of each picture and once with all of
them. Processor time tells what threads lose that wait for each other, which is much where others
want the processors too. Without an argument it takes the development photos beside the checkout, or
makes pictures.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from asif_lance.database import ROWS_PER_FRAGMENT
from asif_lance.encoders import (
    EncoderThreads,
    ImageEncoder,
    TextEncoder,
    decode_image,
    image_encoder,
    text_encoder,
)
from asif_lance.ingest import ingest_sources
from asif_lance.ingest.destination import Destination
from asif_lance.ingest.preparation import Preparation
from asif_lance.store import PairStore, pair_store
from asif_lance.store.forget import forget

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "flickr8k"
PICTURES, ROUNDS, BATCH = 1000, 3, 32
DIMENSIONS, KEPT, TURNS = (64, 64), 1000, 4


def main() -> None:
    """Print the table that is asked for."""
    match sys.argv[1:]:
        case ["vectors", *numbers]:
            compare_writing(*(int(number) for number in numbers))
        case ["forgotten", *numbers]:
            compare_forgotten(*(int(number) for number in numbers))
        case ["measure", step, source, target]:
            steps = {**STEPS, "look-up": _ingest_and_time_looking}
            print(json.dumps(_measure(steps[step], source, target)))
        case _:
            compare_encoding()


def compare_encoding() -> None:
    """Print pictures per second, and their ratio to those of the bare encoders."""
    table = Table("captions", "what", "pictures/s", "of the bare", "processor s", "of the bare")
    table.title = _processor()
    with tempfile.TemporaryDirectory() as folder:
        rows = _captioned_pictures(Path(folder))
        paths = rows["image"].unique(maintain_order=True)
        images, texts = image_encoder(), text_encoder()
        prepared = [
            images.prepare(decode_image(Path(path), min_side=images.min_side)) for path in paths
        ]
        batches = torch.stack(prepared).split(BATCH)
        for chosen in (rows.unique("image", keep="first", maintain_order=True), rows):
            manifest = Path(folder, f"{len(chosen)}.csv")
            chosen.write_csv(manifest)
            steps = _encoding_steps(images, texts, batches, chosen["caption"].to_list(), manifest)
            seconds = _alternating(*steps.values())
            for what, (taken, busy) in zip(steps, seconds, strict=True):
                ratios = f"{seconds[0][0] / taken:.2f}", f"{seconds[0][1] / busy:.2f}"
                speed, count = f"{len(paths) / taken:.1f}", f"{len(chosen):,}"
                table.add_row(count, what, speed, ratios[0], f"{busy:.1f}", ratios[1])
    Console().print(table)


def _encoding_steps(
    images: ImageEncoder,
    texts: TextEncoder,
    batches: Sequence[torch.Tensor],
    captions: list[str],
    manifest: Path,
) -> dict[str, Callable[[], None]]:
    count = sum(map(len, batches))

    def bare() -> None:
        for batch in batches:
            images.encode(batch)
        texts.encode(captions)

    def side_by_side() -> None:
        with EncoderThreads() as threads:
            begun = [threads.compute(images.encode, batch) for batch in batches]
            step = -(-len(captions) // len(batches))
            pieces = [captions[start : start + step] for start in range(0, len(captions), step)]
            begun += [threads.compute(texts.encode, piece) for piece in pieces]
            for future in begun:
                future.result()

    def ingest() -> None:
        with tempfile.TemporaryDirectory() as fresh:
            report = ingest_sources(f"{fresh}/t.lancedb", [manifest])
            assert report.added == count, report

    return {
        "bare encoders, one after the other": bare,
        "bare encoders, side by side": side_by_side,
        "asif-lance ingest, loading included": ingest,
    }


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else 'processor'}, {os.cpu_count()} cores, medians of {ROUNDS}"


def compare_writing(
    pairs: int = 1_000_000,
    image_dimension: int = DIMENSIONS[0],
    text_dimension: int = DIMENSIONS[1],
) -> None:
    """Print processor seconds and memory of ingesting given vectors and of writing them."""
    table = Table("pairs", "what", "processor s", "of writing", "of a tenth", "most memory, MB")
    with tempfile.TemporaryDirectory() as folder:
        before: dict[str, float] = {}
        for count in (pairs // 10, pairs):
            source = Path(folder, f"{count}.parquet")
            _write_pairs(source, count, (image_dimension, text_dimension))
            seconds: dict[str, float] = {}
            for step in STEPS:
                done = _run(step, source, Path(folder, f"{step}{count}"))
                seconds[step] = done["seconds"]
                tenth = f"{seconds[step] / before[step]:.1f}" if before else ""
                ratio = f"{seconds[step] / seconds['write']:.1f}"
                memory = f"{done['megabytes']:,.0f}"
                table.add_row(f"{count:,}", step, f"{seconds[step]:.1f}", ratio, tenth, memory)
            before = seconds
    Console().print(table)


def compare_forgotten(
    pairs: int = 1_000_000,
    forgotten: int = 100_000,
    image_dimension: int = DIMENSIONS[0],
    text_dimension: int = DIMENSIONS[1],
) -> None:
    """Print processor seconds of ingesting given vectors where others were forgotten and not."""
    table = Table("pairs", "nothing forgotten, s", f"{forgotten:,} forgotten, s", "looking up, s")
    table.add_column("share")
    with tempfile.TemporaryDirectory() as name:
        folder, dimensions = Path(name), (image_dimension, text_dimension)
        os.environ["ASIF_LANCE_KEYS"] = f"{folder}/keys"
        _make_forgetful(folder, forgotten, dimensions)
        for count in (pairs // 10, pairs):
            _write_pairs(folder / "pairs.parquet", count, dimensions)
            before, after, looking = _least_seconds(folder)
            figures = (f"{seconds:.3f}" for seconds in (before, after, looking))
            table.add_row(f"{count:,}", *figures, f"{looking / after:.1%}")
    Console().print(table)


def _make_forgetful(folder: Path, forgotten: int, dimensions: tuple[int, int]) -> None:
    for database, gone in (("without", 0), ("with", forgotten)):
        _write_pairs(folder / "some.parquet", KEPT + gone, dimensions, seed=1)
        _ingest_vectors(f"{folder}/some.parquet", f"{folder}/{database}")
    store = PairStore.open(f"{folder}/with")
    ids = store.read(columns=["pair_id"])["pair_id"].to_pylist()
    forget(store, ids[KEPT:], reason="a benchmark", twins=False)


def _least_seconds(folder: Path) -> tuple[float, ...]:
    """Of ingesting the same pairs into both databases, each time in a process of its own."""
    least = dict.fromkeys(("without", "with", "looking"), float("inf"))
    for turn in range(TURNS):
        for database in ("without", "with") if turn % 2 else ("with", "without"):
            shutil.copytree(folder / database, folder / "copy")
            done = _run("look-up", folder / "pairs.parquet", folder / "copy")
            shutil.rmtree(folder / "copy")
            least[database] = min(least[database], done["seconds"])
            if database == "with":
                least["looking"] = min(least["looking"], done["looking"])
    return tuple(least.values())


def _run(step: str, source: Path, target: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "measure", step, str(source), str(target)]
    done: dict[str, float] = json.loads(subprocess.check_output(command))
    return done


def _measure(step: Callable[[str, str], None], source: str, target: str) -> dict[str, float]:
    begun = time.process_time()
    step(source, target)
    seconds = time.process_time() - begun
    # `getrusage` would also count what the parent had when it started this process.
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return {"seconds": seconds, "megabytes": int(peak) / 1e3, "looking": sum(_looking)}


_looking: list[float] = []


def _timed(method: Callable[..., object], clock: Callable[[], float]) -> Callable[..., object]:
    """The same, and what it took is noted."""

    def run(*args: object, **options: object) -> object:
        begun = clock()
        try:
            return method(*args, **options)
        finally:
            _looking.append(clock() - begun)

    return run


def _ingest_and_time_looking(source: str, target: str) -> None:
    for owner, name, clock in LOOKING:
        setattr(owner, name, _timed(getattr(owner, name), clock))
    _ingest_vectors(source, target)


# Pairs are looked up by one thread, while others read and write. Opening the receipts comes before
# that, and takes what all threads take.
LOOKING = (
    (Destination, "look_up_forgotten", time.process_time),
    (Preparation, "_remembered", time.thread_time),
    (Preparation, "_not_forgotten", time.thread_time),
    (pair_store, "check_added", time.thread_time),
    (pair_store, "check_unpublished", time.thread_time),
)


def _ingest_vectors(source: str, target: str) -> None:
    report = ingest_sources(target, [source])
    assert not report.rejects, report


def _write_vectors(source: str, target: str) -> None:
    file = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
    schema = pa.schema([field.with_type(_halved(field.type)) for field in file.schema_arrow])
    batches: Iterator[pa.RecordBatch] = (
        batch.cast(schema) for batch in file.iter_batches(ROWS_PER_FRAGMENT)
    )
    rows = pa.RecordBatchReader.from_batches(schema, batches)
    lance.write_dataset(rows, target, max_rows_per_file=ROWS_PER_FRAGMENT)


def _halved(type_: pa.DataType) -> pa.DataType:
    """Vectors as the database stores them."""
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(pa.float16(), type_.list_size)
    return type_


STEPS = {"write": _write_vectors, "ingest": _ingest_vectors}


def _write_pairs(path: Path, count: int, dimensions: tuple[int, int], seed: int = 0) -> None:
    rng, step = np.random.default_rng(seed), 50_000
    writer: pq.ParquetWriter | None = None
    for start in range(0, count, step):
        numbers = range(start, min(start + step, count))
        image, text = (
            pa.FixedSizeListArray.from_arrays(
                pa.array(rng.standard_normal(len(numbers) * dimension, dtype=np.float32)), dimension
            )
            for dimension in dimensions
        )
        columns = {
            "caption": [f"a photo of thing {n} on a table" for n in numbers],
            "license": ["CC-BY" if n % 2 else "CC0" for n in numbers],
            "camera": [f"camera {n % 7}" for n in numbers],
            "width": list(numbers),
            "image_vector": image,
            "text_vector": text,
        }
        rows = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, rows.schema)
        writer.write_table(rows)
    if writer is not None:
        writer.close()


def _captioned_pictures(folder: Path) -> pl.DataFrame:
    """Pictures with all their captions, neighbours in the table."""
    if len(sys.argv) > 1:
        rows = pl.read_csv(sys.argv[1])
    elif SHARED.is_dir():
        rows = pl.read_csv(SHARED / "images-1000.csv")
        rows = rows.with_columns(image=str(SHARED / "images-1000") + "/" + pl.col("image"))
    else:
        rows = _made(folder)
    return rows.filter(pl.col("image").rle_id() < PICTURES)


def _made(folder: Path) -> pl.DataFrame:
    rng, rows = np.random.default_rng(0), list[dict[str, str]]()
    for i in range(PICTURES):
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        path = folder / f"{i}.jpg"
        small.resize((640, 480), Image.Resampling.BICUBIC).save(path)
        rows += [{"image": str(path), "caption": f"smooth noise {i}, view {n}"} for n in range(5)]
    return pl.DataFrame(rows)


def _alternating(*steps: Callable[[], None]) -> list[tuple[float, float]]:
    """Median seconds and processor seconds of each; the first round warms up, uncounted."""
    seconds: list[list[tuple[float, float]]] = [[] for _ in steps]
    for _ in range(ROUNDS + 1):
        for step, times in zip(steps, seconds, strict=True):
            start, busy = time.perf_counter(), time.process_time()
            step()
            times.append((time.perf_counter() - start, time.process_time() - busy))
    rounds = [list(zip(*times[1:], strict=True)) for times in seconds]
    return [(statistics.median(wall), statistics.median(busy)) for wall, busy in rounds]


if __name__ == "__main__":
    main()
