"""Ingest against its floor: the bare encoders on what they eat, or the bare writing of vectors.

    python benchmarks/ingest.py [CAPTIONS [PRECISION [CSV]]]
    python benchmarks/ingest.py vectors [PAIRS] [IMAGE_DIMENSION] [TEXT_DIMENSION]
    python benchmarks/ingest.py forgotten [PAIRS] [FORGOTTEN] [IMAGE_DIMENSION] [TEXT_DIMENSION]

The first compares the whole of `ingest` (load, read, hash, decode, encode both sides, store) with
the two encoders alone on prepared tensors and captions, in the same batches: called one after the
other with all of torch's threads, and side by side as ingest calls them. Rounds alternate, and the
figure is the ratio of median times to those of the faster of both. What loading and decoding take
by themselves is told, too. Processor time tells what
threads lose that wait for each other, which is much where others want the processors too. The
pictures, with the first CAPTIONS captions of each (one by default), are those of the CSV, else the
development photos beside the checkout, else made. PRECISION is float32 or bfloat16.

With `vectors`, pairs whose vectors are given (by default a million of 64 numbers a side, and a
tenth of them) are ingested, and their columns are written with pylance alone, halved and in
fragments of the same size; each in a process of its own. The figures are ratios of processor time,
and how much more memory ten times as many pairs take. With `forgotten`, the same pairs are ingested
into a database that has forgotten others (by default 100,000) and into one that has not, in turns;
the least processor time of each counts, for others on the machine only add to it, and the time
within what looks them up, which is less than what two whole ingests differ by anyway.
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
from dataclasses import dataclass, replace
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
    DEFAULT_IMAGE,
    DEFAULT_TEXT,
    EncoderThreads,
    ImageEncoder,
    TextEncoder,
    decode_image,
    image_encoder,
    text_encoder,
)
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.ingest.destination import Destination
from asif_lance.ingest.preparation import Preparation
from asif_lance.search import describe_processor
from asif_lance.store import PairStore, pair_store
from asif_lance.store.forget import forget

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "flickr8k"
PICTURES, ROUNDS, BATCH = 1000, 3, 32
ENDINGS = {"float32": "", "bfloat16": "+bfloat16"}  # of encoders' names
DIMENSIONS, KEPT, TURNS = (64, 64), 1000, 4


def main() -> None:
    """Print the table that is asked for."""
    if sys.argv[1:2] != ["measure"]:
        print(describe_processor())
    match sys.argv[1:]:
        case ["vectors", *numbers]:
            compare_writing(*(int(number) for number in numbers))
        case ["forgotten", *numbers]:
            compare_forgotten(*(int(number) for number in numbers))
        case ["measure", step, source, target]:
            steps = {**STEPS, "look-up": _ingest_and_time_looking}
            print(json.dumps(_measure(steps[step], source, target)))
        case [count, *manifest] if count.isdigit():
            compare_encoding(int(count), *manifest)
        case _:
            compare_encoding()


def compare_encoding(
    captions: int = 1, precision: str = "float32", manifest: str | None = None
) -> None:
    """Print pictures per second, and their ratio to those of the faster of the bare ways."""
    table = Table("what", "pictures/s", "of the bare", "processor s", "of the bare")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = _captioned_pictures(folder, manifest).group_by("image", maintain_order=True)
        work = _Work.prepare(rows.head(captions), folder / "all.csv", ENDINGS[precision])
        table.title = f"{work}, {precision}; medians of {ROUNDS}"
        seconds = _alternating(list(WAYS.values()), work.part(2, folder / "part.csv"), work)
        least = [min(one) for one in zip(*seconds[:2], strict=True)]
        for what, (taken, busy) in zip(WAYS, seconds, strict=True):
            ratios = f"{least[0] / taken:.2f}", f"{least[1] / busy:.2f}"
            shown = ratios if what not in PARTS else ("", "")
            table.add_row(what, f"{work.count / taken:.1f}", shown[0], f"{busy:.1f}", shown[1])
    Console().print(table)


@dataclass(frozen=True)
class _Work:
    """Pictures with their captions, as ingest reads them and as the bare encoders do."""

    rows: pl.DataFrame
    manifest: Path
    images: ImageEncoder
    texts: TextEncoder
    batches: tuple[torch.Tensor, ...]

    @classmethod
    def prepare(cls, rows: pl.DataFrame, manifest: Path, ending: str) -> _Work:
        rows.write_csv(manifest)
        images, texts = image_encoder(DEFAULT_IMAGE + ending), text_encoder(DEFAULT_TEXT + ending)
        paths = rows["image"].unique(maintain_order=True)
        decoded = (decode_image(Path(path), min_side=images.min_side) for path in paths)
        tensors = torch.stack([images.prepare(picture) for picture in decoded])
        return cls(rows, manifest, images, texts, tensors.split(BATCH))

    def part(self, batches: int, manifest: Path) -> _Work:
        """What is in the first batches."""
        rows = self.rows.filter(pl.col("image").rle_id() < batches * BATCH)
        rows.write_csv(manifest)
        return replace(self, rows=rows, manifest=manifest, batches=self.batches[:batches])

    @property
    def count(self) -> int:
        """Of pictures."""
        return sum(map(len, self.batches))

    @property
    def captions(self) -> list[str]:
        """All of them."""
        return self.rows["caption"].to_list()

    def __str__(self) -> str:
        return f"{self.count:,} pictures, {len(self.rows):,} captions"


def _encode_in_turn(work: _Work) -> None:
    for batch in work.batches:
        work.images.encode(batch)
    work.texts.encode(work.captions)


def _encode_side_by_side(work: _Work) -> None:
    captions, step = work.captions, -(-len(work.rows) // len(work.batches))
    with EncoderThreads() as threads:
        begun = [threads.compute(work.images.encode, batch) for batch in work.batches]
        for start in range(0, len(captions), step):
            begun.append(threads.compute(work.texts.encode, captions[start : start + step]))
        for future in begun:
            future.result()


def _load(work: _Work) -> None:
    image_encoder(work.images.pin.name)
    text_encoder(work.texts.pin.name)


def _decode(work: _Work) -> None:
    for path in work.rows["image"].unique(maintain_order=True):
        work.images.prepare(decode_image(Path(path), min_side=work.images.min_side))


def _ingest(work: _Work) -> None:
    with tempfile.TemporaryDirectory() as fresh:
        options = IngestOptions(
            batch_size=BATCH,
            image_encoder=work.images.pin.name,
            text_encoder=work.texts.pin.name,
        )
        report = ingest_sources(f"{fresh}/t.lancedb", [work.manifest], options)
        assert report.added == work.count, report


# What ingest does besides, most of it.
PARTS = {"loading the encoders": _load, "decoding, on one thread": _decode}
WAYS = {
    "bare encoders, one after the other": _encode_in_turn,
    "bare encoders, side by side": _encode_side_by_side,
    "asif-lance ingest, loading included": _ingest,
    **PARTS,
}


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


def _captioned_pictures(folder: Path, manifest: str | None) -> pl.DataFrame:
    """Pictures with all their captions, neighbours in the table."""
    if manifest is not None:
        rows = pl.read_csv(manifest)
    elif SHARED.is_dir():
        rows = pl.read_csv(SHARED / "images-1000.csv")
        rows = rows.with_columns(image=str(SHARED / "images-1000") + "/" + pl.col("image"))
    else:
        rows = _made(folder)
    return rows.select("image", "caption").filter(pl.col("image").rle_id() < PICTURES)


def _made(folder: Path) -> pl.DataFrame:
    rng, rows = np.random.default_rng(0), list[dict[str, str]]()
    for i in range(PICTURES):
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        path = folder / f"{i}.jpg"
        small.resize((640, 480), Image.Resampling.BICUBIC).save(path)
        rows += [{"image": str(path), "caption": f"smooth noise {i}, view {n}"} for n in range(5)]
    return pl.DataFrame(rows)


def _alternating(
    ways: Sequence[Callable[[_Work], None]], part: _Work, work: _Work
) -> list[tuple[float, float]]:
    """Median seconds and processor seconds of each; all have done a part before."""
    for way in ways:
        way(part)
    seconds: list[list[tuple[float, float]]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, times in zip(ways, seconds, strict=True):
            start, busy = time.perf_counter(), time.process_time()
            way(work)
            times.append((time.perf_counter() - start, time.process_time() - busy))
    rounds = [list(zip(*times, strict=True)) for times in seconds]
    return [(statistics.median(wall), statistics.median(busy)) for wall, busy in rounds]


if __name__ == "__main__":
    main()
