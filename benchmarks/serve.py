"""A service under load from a second process, beside the bare batched search in one process.

    python benchmarks/serve.py [PAIRS]

Brought vectors, three labels, requests of 16 vectors from 8 clients on loopback. The first table is
throughput; the second how long single requests take at half of that load.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from running_service import serve

import asif_lance
from asif_lance.ingest import ingest_sources
from asif_lance.search import describe_processor

D, BATCH, CLIENTS, SECONDS = 384, 16, 8, 15.0


def make_database(folder: Path, n: int) -> Path:
    """A database of n random pairs."""
    rng = np.random.default_rng(1)
    sides = {}
    for side in ("image", "text"):
        vectors = rng.standard_normal((n, D)).astype(np.float16)
        sides[f"{side}_vector"] = pa.FixedSizeListArray.from_arrays(vectors.ravel(), D)
    ids = [f"p{i}" for i in range(n)]
    pq.write_table(pa.table({"pair_id": ids, "caption": ids, **sides}), folder / "pairs.parquet")
    ingest_sources(str(folder / "t.lancedb"), [str(folder / "pairs.parquet")])
    return folder / "t.lancedb"


def make_question() -> tuple[np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]]]:
    """Vectors of pictures and of labels."""
    rng = np.random.default_rng(2)
    labels = {name: rng.standard_normal((1, D)).astype(np.float32) for name in "abc"}
    return rng.standard_normal((BATCH, D)).astype(np.float32), labels


def measure_bare(database: Path) -> float:
    """Pictures a second of one process, as many at once as the clients would ask for."""
    model = asif_lance.open(database)
    vectors, labels = make_question()
    compiled = model.label_vectors(labels)
    many = np.concatenate([vectors] * CLIENTS)
    list(model.classify_vectors([""] * len(many), many, compiled))
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        count += len(list(model.classify_vectors([""] * len(many), many, compiled)))
    return count / (time.perf_counter() - began)


def ask_for(address: str, rate: float | None) -> tuple[list[float], int]:
    """Seconds of each request, and how many failed; all clients at once, or at a rate a second."""
    vectors, labels = make_question()
    body = {
        "vectors": vectors.tolist(),
        "label_vectors": {name: rows.tolist() for name, rows in labels.items()},
    }
    took: list[float] = []
    failed: list[int] = []
    until, turns = time.perf_counter() + SECONDS, Queue[float]()

    def client() -> None:
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as http:
            http.post("/api/classify", json=body)
            while time.perf_counter() < until:
                due = time.perf_counter() if rate is None else turns.get()
                answer = http.post("/api/classify", json=body)
                took.append(time.perf_counter() - due)
                failed.extend([1] * (answer.status_code != 200))

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
    return took, len(failed)


def main() -> None:
    """Print both tables."""
    print(describe_processor())
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        database = make_database(Path(folder), n)
        bare = measure_bare(database)
        with serve(database, threads=None) as service:
            ask_for(service.address, None)
            took, failed = ask_for(service.address, None)
            served = len(took) * BATCH / SECONDS
            print(f"{n:,} pairs, {D} dimensions, {CLIENTS} clients, {BATCH} vectors a request")
            print(f"bare search    {bare:8.0f} pictures/s")
            print(f"service        {served:8.0f} pictures/s  {served / bare:.2f} of bare")
            print(f"               {failed} of {len(took)} requests failed")
            took, failed = ask_for(service.address, served / BATCH / 2)
    p50, p99 = np.percentile(took, [50, 99])
    print(f"at half load   p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, {p99 / p50:.1f} x")
    print(f"               {failed} of {len(took)} requests failed")


if __name__ == "__main__":
    main()
