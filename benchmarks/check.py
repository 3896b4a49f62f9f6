"""Checking a database beside bare reading of the same files, and what digests cost elsewhere.

    python benchmarks/check.py [--pairs 400000] [--image 1280] [--text 384] [--rounds 5]

A database of pairs with drawn vectors is made once. Rounds alternate between reading its files with
`read` and nothing else, in as many threads as a check has, and the check; with the files in the
system's cache ("warm"), and after it was asked to drop them ("cold"; where it may). The second
table has what making digests took of adding and publishing the pairs, and what comparing the files
that say which rows there are takes of opening a version.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from asif_lance.anchors import Anchors
from asif_lance.database import check, check_naming_tables, check_opened, digests, record_digests
from asif_lance.records import EncoderPin
from asif_lance.search import describe_processor
from asif_lance.store import PairStore

ROWS, CHUNK, THREADS = 20_000, 2**18, 2


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=400_000)
    parser.add_argument("--image", type=int, default=1280)
    parser.add_argument("--text", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    print(describe_processor())
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        store = build(f"{folder}/db", chosen.pairs, (chosen.image, chosen.text))
        written = time.perf_counter() - begun
        compare(store, chosen.rounds)
        tell_costs(store, written)


def build(uri: str, count: int, dimensions: tuple[int, int]) -> PairStore:
    """Make a database of pairs with drawn vectors of unit length."""
    image, text = dimensions
    pins = EncoderPin("timm/bench", "1", image), EncoderPin("sentence-transformers/b", "1", text)
    store = PairStore.create(uri, image=pins[0], text=pins[1])
    rng = np.random.default_rng(0)
    for start in range(0, count, ROWS):
        numbers = range(start, min(start + ROWS, count))
        columns = {
            "pair_id": [f"{i:032x}" for i in numbers],
            "caption": [f"a photo of thing {i} on a table" for i in numbers],
            "image_vector": draw(rng, len(numbers), image),
            "text_vector": draw(rng, len(numbers), text),
        }
        store.add(pa.table(columns))
    store.publish(command="ingest")
    return store


def draw(rng: np.random.Generator, count: int, width: int) -> pa.Array:
    """Unit vectors as float16."""
    rows = rng.standard_normal((count, width), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    flat = pa.array(rows.astype(np.float16).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, width)


def compare(store: PairStore, rounds: int) -> None:
    """Print gigabytes per second of reading and of checking, medians of alternating rounds.

    And the ratio of their processor times, which depends less on who else is at work.
    """
    root = Path(store.uri)
    files = [root / file for file in digests.read_digests(root)]
    gigabytes = sum(path.stat().st_size for path in files) / 1e9
    table = Table("files", "bare reading, GB/s", "check, GB/s", "of bare reading", "by processor")
    for state in ("warm", "cold"):
        before = (lambda: drop(files)) if state == "cold" else (lambda: None)
        seconds: dict[str, list[float]] = {"read": [], "check": []}
        processor: dict[str, list[float]] = {"read": [], "check": []}
        for _ in range(rounds + 1):
            for name, work in (("read", lambda: read(files)), ("check", lambda: look(store))):
                before()
                begun = time.process_time()
                seconds[name].append(clock(work))
                processor[name].append(time.process_time() - begun)
        rates = [gigabytes / statistics.median(times[1:]) for times in seconds.values()]
        busy = [statistics.median(times[1:]) for times in processor.values()]
        ratios = (rates[1] / rates[0], busy[0] / busy[1])
        figures = (f"{figure:.2f}" for figure in (*rates, *ratios))
        table.add_row(f"{gigabytes:.2f} GB, {state}", *figures)
    Console().print(table)


def read(files: list[Path]) -> None:
    """Read files and do nothing with them."""

    def read_one(path: Path) -> None:
        buffer = bytearray(CHUNK)
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read_one, files))


def look(store: PairStore) -> None:
    """Check everything."""
    assert check(store.uri).ok


def drop(files: list[Path]) -> None:
    """Ask the system to forget what it has of files in memory."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def tell_costs(store: PairStore, written: float) -> None:
    """Print what digests take of making the database, and of opening a version of it."""

    def renew() -> None:
        for path in digests.digests_path(Path(store.uri)).rglob("*"):
            if path.is_file():
                path.unlink()
        record_digests(store.uri)

    made, version = clock(renew), store.dataset()
    compared = statistics.median(
        clock(lambda: (check_naming_tables(store.uri), check_opened(version))) for _ in range(9)
    )
    opened = clock(lambda: Anchors(version).centre("image"))
    table = Table("what", "seconds", "of", "share")
    table.add_row(
        "digests of all files", f"{made:.3f}", f"writing, {written:.1f} s", f"{made / written:.1%}"
    )
    opening = f"first use of a version, {opened:.2f} s"
    table.add_row("comparing at opening", f"{compared:.4f}", opening, f"{compared / opened:.1%}")
    Console().print(table)


def clock(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
