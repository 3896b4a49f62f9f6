"""A service under load from a second process, beside the bare batched search in one process.

    python benchmarks/serve.py [--pairs 100000] [--only-changes]

Brought vectors, three labels, requests of 16 vectors from 8 clients on loopback. Throughput is that
of clients that ask again at once; how long requests take is measured at half of it. Both again
while a writer adds a hundred pairs, deletes one, forgets two, and so on, a second after each. The
bare search runs in turns with the service, so in the same minutes, and beside the same writer; its
time to open a version anew after a forget is not counted.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from running_service import RunningService, serve

import asif_lance
from asif_lance.errors import StaleModelError
from asif_lance.ingest import ingest_sources
from asif_lance.search import describe_processor

D, BATCH, CLIENTS, SECONDS, ROUNDS, PAUSE = 384, 16, 8, 5.0, 3, 1.0
JSON = {"content-type": "application/json"}

Floats = np.ndarray[Any, Any]


def write_pairs(file: Path, first: int, n: int) -> Path:
    """A file of n random pairs."""
    rng = np.random.default_rng(first)
    sides = {}
    for side in ("image", "text"):
        vectors = rng.standard_normal((n, D)).astype(np.float16)
        sides[f"{side}_vector"] = pa.FixedSizeListArray.from_arrays(vectors.ravel(), D)
    ids = [f"p{i}" for i in range(first, first + n)]
    pq.write_table(pa.table({"pair_id": ids, "caption": ids, **sides}), file)
    return file


def make_question() -> tuple[Floats, dict[str, Floats]]:
    """Vectors of pictures and of labels."""
    rng = np.random.default_rng(2)
    labels = {name: rng.standard_normal((1, D)).astype(np.float32) for name in "abc"}
    return rng.standard_normal((BATCH, D)).astype(np.float32), labels


def make_body(packed: bool) -> bytes:
    """The question as a request, its vectors as digits or packed."""
    vectors, labels = make_question()

    def told(rows: Floats) -> Any:
        if not packed:
            return rows.tolist()
        return {"dimension": D, "float32": base64.b64encode(rows.tobytes()).decode()}

    rows = {name: told(rows) for name, rows in labels.items()}
    return json.dumps({"vectors": told(vectors), "label_vectors": rows}).encode()


class BareSearch:
    """Searches as many pictures at once as the clients would ask for."""

    def __init__(self, database: Path) -> None:
        vectors, self.labels = make_question()
        self.vectors = np.concatenate([vectors] * CLIENTS)
        self.model = asif_lance.open(database)
        self.open()

    def open(self) -> None:
        """Open the version as it is now, and search once."""
        self.model = self.model.reopened()
        self.compiled = self.model.label_vectors(self.labels)
        self.search()

    def search(self) -> int:
        """Search once; how many pictures that was."""
        ids = [""] * len(self.vectors)
        return len(list(self.model.classify_vectors(ids, self.vectors, self.compiled)))

    def rate(self) -> float:
        """Pictures a second."""
        count, spent = 0, 0.0
        while spent < SECONDS:
            began = time.perf_counter()
            try:
                count += self.search()
                spent += time.perf_counter() - began
            except StaleModelError:
                self.open()
        return count / spent


_bare: dict[Path, BareSearch] = {}


def measure_bare(database: Path) -> float:
    """Pictures a second of the bare search in this process, which has opened the newest version."""
    if database not in _bare:
        _bare[database] = BareSearch(database)
    return _bare[database].rate()


def ask_for(address: str, body: bytes, rate: float | None = None) -> tuple[list[float], int]:
    """Seconds of each request, and how many failed; all clients at once, or at a rate a second."""
    took: list[float] = []
    failed: list[str] = []
    until, turns = time.perf_counter() + SECONDS, Queue[float]()

    def client() -> None:
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as http:
            http.get("/health")
            while time.perf_counter() < until:
                due = time.perf_counter() if rate is None else turns.get()
                answer = http.post("/api/classify", content=body, headers=JSON)
                took.append(time.perf_counter() - due)
                failed.extend([answer.text] * (answer.status_code != 200))

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    if rate is not None:
        due = time.perf_counter()
        while due < until + 1:
            turns.put(due)
            due += 1 / rate
            time.sleep(max(due - time.perf_counter(), 0))
    for _ in threads:
        turns.put(time.perf_counter())
    for thread in threads:
        thread.join()
    for one in set(failed):
        print("failed:", one[:200])
    return took, len(failed)


@contextmanager
def changes(service: RunningService, folder: Path, first: int) -> Iterator[list[str]]:
    """Add, delete and forget pairs, again and again, as long as this lasts; what was done."""
    made: list[str] = []
    done = threading.Event()
    database = str(folder / "t.lancedb")

    def note(kind: str, answer: httpx.Response | None = None) -> None:
        made.append(kind if answer is None or answer.status_code == 200 else "failed")
        done.wait(PAUSE)

    def change() -> None:
        with service.client() as http:
            for number in range(first, 2**30, 100):
                if done.is_set():
                    return
                ingest_sources(database, [str(write_pairs(folder / "more.parquet", number, 100))])
                note("added")
                note("deleted", http.post("/api/delete", json={"pairs": [f"p{number}"]}))
                pairs = {"pairs": [f"p{number + 1}", f"p{number - first}"]}
                plan = http.post("/api/forget/plan", json=pairs).json()
                body = {"pairs": pairs["pairs"], "confirm": plan["confirm"]}
                note("forgotten", http.post("/api/forget", json=body))

    writer = threading.Thread(target=change)
    writer.start()
    try:
        yield made
    finally:
        done.set()
        writer.join()


def report(name: str, address: str, body: bytes, bare: Callable[[], float]) -> None:
    """Measure throughput in turns with the bare search, then how long requests take at half."""
    rounds, requests, failed = [], 0, 0
    for _ in range(ROUNDS):
        floor = bare()
        took, wrong = ask_for(address, body)
        rounds.append((len(took) * BATCH / SECONDS, floor))
        requests, failed = requests + len(took), failed + wrong
    served, floor = np.median(np.array(rounds), axis=0)
    ratios = [one / other for one, other in rounds]
    waits, wrong = ask_for(address, body, served / BATCH / 2)
    p50, p99 = np.percentile(waits, [50, 99])
    print(
        f"{name:<22} {floor:6.0f} {served:6.0f} {np.median(ratios):6.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}) {p50 * 1e3:8.0f} {p99 * 1e3:8.0f} "
        f"{p99 / p50:8.1f} {failed + wrong:5d} of {requests + len(waits)}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--only-changes", action="store_true", help="the last line alone")
    asked = parser.parse_args()
    print(describe_processor())
    n = asked.pairs
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other,
    ):
        folder = Path(name)
        database = folder / "t.lancedb"
        ingest_sources(str(database), [str(write_pairs(folder / "pairs.parquet", 0, n))])

        def bare() -> float:
            return other.submit(measure_bare, database).result()

        print(f"{n:,} pairs, {D} dimensions, {CLIENTS} clients, {BATCH} vectors a request")
        print(
            "                         bare served    of bare              p50 ms   p99 ms  p99/p50"
        )
        with serve(database, "--allow", "forget", threads=None) as service:
            ask_for(service.address, make_body(packed=True))
            if not asked.only_changes:
                report("vectors as digits", service.address, make_body(packed=False), bare)
                report("packed", service.address, make_body(packed=True), bare)
            with changes(service, folder, n) as made:
                report("packed, with changes", service.address, make_body(packed=True), bare)
            print("changes:", ", ".join(f"{n} {kind}" for kind, n in Counter(made).items()))


if __name__ == "__main__":
    main()
