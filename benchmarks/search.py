"""Compares exact search with the bare matrix product, and with what people use instead.

    python benchmarks/search.py [--anchors 400000] [--dimension 384] [--data isotropic] …

Every contender runs once per round, in turn, so that a busy machine slows all of them; the table
shows medians over the rounds and ratios to `exact_top_k`'s floor: for a batch the fastest blocked
float32 product found (float16 anchors widened into a small buffer), for one query reading the
float16 anchors once. `exact_top_k` gets them in as many blocks as a table has fragments. Where the
processor multiplies bfloat16, that bare product is a row too: `exact_top_k` finds candidates by
it, but alone it is right to two digits only. FAISS and usearch are optional
(`pip install faiss-cpu usearch`). On a busy machine `--threads 1 --cpu` counts processor time
instead of waiting for the clock on the wall. `--indexed` adds approximate peers, FAISS IVF-PQ with
re-ranking and LanceDB's IVF_RQ, which take minutes to build; the last column says which share of
the k nearest each contender finds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import torch
from lancedb.index import IvfRq
from numpy.typing import NDArray

from asif_lance.database import ROWS_PER_FRAGMENT
from asif_lance.relative import (
    SAMPLE,
    BlockDistances,
    BlockSums,
    Centre,
    Whitening,
    make_centre,
    mean_of,
)
from asif_lance.search import Blocks, Scale, exact_top_k, unit_queries
from asif_lance.search.fast_products import product_types

try:
    import faiss
except ImportError:
    faiss = None  # type: ignore[assignment]  # optional
try:
    import usearch.index as usearch
except ImportError:
    usearch = None  # type: ignore[assignment]  # optional

DATA = ("isotropic", "clustered", "sorted", "fivefold", "equal", "crowded")
UNRANKED = (  # have no neighbors, or other ones
    *("bare product", "bare bfloat16 product", "reading the bytes"),
    *("exact_top_k, centred", "mean, once a version"),
    *("exact_top_k, white", "metric, once a sample", "scales, once a sample"),
)
PROBES = 32  # partitions that the indices look into, of about n / 4096
REFINED = 2  # times k: candidates that are ranked by their own vectors

Found = NDArray[np.int64]
Task = Callable[[], object]


def make_anchors(kind: str, n: int, d: int, rng: np.random.Generator) -> NDArray[np.float16]:
    """Make (n, d) unit anchors, a slice at a time to spare memory."""
    anchors = np.empty((n, d), dtype=np.float16)
    centres = rng.standard_normal((200, d), dtype=np.float32)
    for start in range(0, n, 50_000):
        part = rng.standard_normal((min(50_000, n - start), d), dtype=np.float32)
        if kind == "clustered":  # 200 narrow clusters, each a run of rows
            part = centres[np.arange(start, start + len(part)) * 200 // n] + 0.7 * part
        if kind == "fivefold":  # photos with five captions
            part = part[np.arange(len(part)) // 5]
        if kind == "crowded":  # around one mean, as pictures are
            part += 0.7 * centres[0]
        if kind == "equal":
            part[:] = centres[0]
        anchors[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return anchors


def make_queries(
    kind: str, m: int, anchors: NDArray[np.float16], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Make (m, d) unit queries; those over clusters lie near anchors, as real ones do."""
    noise = rng.standard_normal((m, anchors.shape[1]), dtype=np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    near = anchors[rng.integers(len(anchors), size=m)].astype(np.float32)
    return unit_queries(noise if kind in ("isotropic", "sorted") else near + 0.5 * noise)


def bare_product(
    anchors: torch.Tensor, queries: torch.Tensor, rows: int, kind: torch.dtype = torch.float32
) -> Task:
    """Multiply block by block and keep nothing."""
    weights = queries.T.to(kind).contiguous()
    wide = torch.empty(rows, anchors.shape[1])
    narrow, scores = wide.to(kind), torch.empty(rows, len(queries), dtype=kind)

    def run() -> None:
        for part in torch.split(anchors, rows):
            size = part.shape[0]
            part = wide[:size].copy_(part)
            part = part if kind == torch.float32 else narrow[:size].copy_(part)
            torch.mm(part, weights, out=scores[:size])

    return run


def fastest_product(
    anchors: torch.Tensor, queries: torch.Tensor, kind: torch.dtype = torch.float32
) -> Task:
    """Pick the best block size for this machine on an eighth of the anchors."""
    some = anchors[: max(len(anchors) // 8, 8192)]
    sizes = (512, 1024, 2048, 4096, 8192)
    tasks = [bare_product(some, queries, size, kind) for size in sizes]
    times = [min(clock(task) for _ in range(3)) for task in tasks]
    return bare_product(anchors, queries, sizes[int(np.argmin(times))], kind)


def lance_table(anchors: NDArray[np.float16], at: str) -> Any:
    """Make a LanceDB table without an index."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(anchors.ravel()), anchors.shape[1])
    return lancedb.connect(at).create_table("anchors", pa.table({"vector": vectors}))


def lance_search(
    table: Any, queries: NDArray[np.float32], k: int, refine: int | None = None
) -> Task:
    """Search a LanceDB table, through its index if `refine` says how many k to look at again."""
    given = queries.astype(np.float16) if len(queries) > 1 else queries[0].astype(np.float16)
    sizes = [fragment.count_rows() for fragment in table.to_lance().get_fragments()]
    starts = np.cumsum([0, *sizes[:-1]])

    def run() -> Found:
        search = table.search(given, vector_column_name="vector").distance_type("dot")
        if refine is None:
            search = search.bypass_vector_index()
        else:
            search = search.nprobes(PROBES).refine_factor(refine)
        found = search.limit(k).select(["_distance"]).with_row_id(True).to_arrow()
        address = found["_rowid"].to_numpy().astype(np.int64).reshape(len(queries), -1)
        return starts[address >> 32] + (address & 0xFFFFFFFF)

    return run


def peers(
    anchors: NDArray[np.float16], queries: NDArray[np.float32], options: argparse.Namespace, at: str
) -> dict[str, Task]:
    """What people use instead, exact."""
    given, wide, k = torch.from_numpy(queries), torch.from_numpy(anchors).float(), options.k
    table = lance_table(anchors, at)
    tasks: dict[str, Task] = {
        "torch.topk(q @ a.T)": lambda: torch.topk(given @ wide.T, k).indices.numpy()
    }
    if faiss is not None:
        index = faiss.IndexFlatIP(anchors.shape[1])
        index.add(wide.numpy())
        tasks["FAISS IndexFlatIP"] = lambda: index.search(queries, k)[1]
    if usearch is not None:
        narrow = queries.astype(np.float16)
        tasks["usearch exact, float16"] = lambda: usearch.search(
            anchors, narrow, k, usearch.MetricKind.IP, exact=True, threads=options.threads
        ).keys.reshape(len(queries), -1)
    tasks["LanceDB flat"] = lance_search(table, queries, k)
    if options.indexed:
        tasks.update(indexed_peers(wide, table, queries, k))
    return tasks


def indexed_peers(
    wide: torch.Tensor, table: Any, queries: NDArray[np.float32], k: int
) -> dict[str, Task]:
    """The same with indices: approximate."""
    n, d = wide.shape
    lists = max(n // 4096, 1)
    tasks: dict[str, Task] = {}
    if faiss is not None:
        described = f"IVF{lists},PQ{d // 8},RFlat"
        index = faiss.index_factory(d, described, faiss.METRIC_INNER_PRODUCT)
        index.train(wide.numpy())
        index.add(wide.numpy())
        index.k_factor = float(REFINED)
        faiss.extract_index_ivf(index.base_index).nprobe = PROBES
        tasks["FAISS IVF-PQ, refined"] = lambda: index.search(queries, k)[1]
    table.create_index("vector", config=IvfRq("dot", num_partitions=lists, num_bits=5))
    tasks["LanceDB IVF_RQ, refined"] = lance_search(table, queries, k, REFINED)
    return tasks


def recall(found: object, exact: Found) -> float:
    """The share of the k nearest that were found."""
    both = zip(np.asarray(found), exact, strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in both]))


def clock(task: Task, now: Callable[[], float] = time.perf_counter) -> float:
    """Give the seconds that a task takes."""
    start = now()
    task()
    return now() - start


def contenders(
    anchors: NDArray[np.float16], queries: NDArray[np.float32], options: argparse.Namespace, at: str
) -> dict[str, Task]:
    """What is compared, by name; the first is the floor, the second ours."""
    narrow, given, k = torch.from_numpy(anchors), torch.from_numpy(queries), options.k
    words, blocks = narrow.view(-1).view(torch.int64), torch.split(narrow, ROWS_PER_FRAGMENT)
    tasks: dict[str, Task] = {
        "bare product": fastest_product(narrow, given),
        "exact_top_k": lambda: exact_top_k(queries, blocks, k).indices,
    }
    if len(queries) == 1:
        tasks = {"reading the bytes": lambda: words.sum(), "exact_top_k": tasks["exact_top_k"]}
    elif torch.bfloat16 in product_types(len(queries), Blocks(narrow), narrow.device):
        tasks["bare bfloat16 product"] = fastest_product(narrow, given, torch.bfloat16)
    if options.recipe_terms:
        tasks |= centred(blocks, queries, k) | white(blocks, queries, k)
    if not options.lean:
        tasks.update(peers(anchors, queries, options, at))
    return tasks


def centred(
    blocks: Sequence[torch.Tensor], queries: NDArray[np.float32], k: int
) -> dict[str, Task]:
    """Search by cosines of differences from the mean; the mean is found once per version."""

    def find() -> Centre:
        live = np.ones(sum(map(len, blocks)), dtype=np.bool_)
        sums = [BlockSums.of(block) for block in blocks]
        mean = mean_of(blocks, sums, live)
        both = zip(blocks, sums, strict=True)
        distances = [BlockDistances.of(block, known, mean) for block, known in both]
        return make_centre(mean, sums, distances, live)

    centre = find()

    def run() -> object:
        turned, offset = centre.turn_queries(queries)
        return exact_top_k(turned, blocks, k, offset=offset, scale=centre.scale)

    return {"exact_top_k, centred": run, "mean, once a version": find}


def white(blocks: Sequence[torch.Tensor], queries: NDArray[np.float32], k: int) -> dict[str, Task]:
    """Search by whitened cosines; metric and scales hold as long as the sample stays."""
    sample = torch.cat(list(blocks))[:SAMPLE]

    def fit() -> Whitening:
        return Whitening.of(sample)

    def measure() -> Scale:
        return Scale(np.concatenate([whitening.inverse_distances(block) for block in blocks]))

    whitening = fit()
    scale = measure()

    def run() -> object:
        turned, offset = whitening.turn_queries(queries)
        return exact_top_k(turned, blocks, k, offset=offset, scale=scale)

    return {
        "exact_top_k, white": run,
        "metric, once a sample": fit,
        "scales, once a sample": measure,
    }


def compare(tasks: dict[str, Task], options: argparse.Namespace, m: int) -> None:
    """Time the tasks in turn and print the table."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(options.rounds):
        for name, task in tasks.items():
            times[name].append(clock(task, time.process_time if options.cpu else time.perf_counter))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    floor, ours = list(medians.values())[:2]
    exact = np.asarray(tasks["exact_top_k"]())
    print(
        f"{'':24}{'ms/query':>10}{'best':>10}{'to floor':>10}{'exact_top_k to it':>19}{'recall':>8}"
    )
    for name, median in medians.items():
        best = min(times[name]) / m * 1e3
        ratios = f"{median / floor:10.2f}{ours / median:19.2f}"
        found = recall(tasks[name](), exact) if name not in UNRANKED else None
        share = "" if found is None else f"{found:8.3f}"
        print(f"{name:24}{median / m * 1e3:10.2f}{best:10.2f}{ratios}{share}")


def main() -> None:
    """Parse options and compare batch by batch."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--anchors", type=int, default=400_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--k", type=int, default=800)
    parser.add_argument("--data", choices=DATA, default="isotropic")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--lean", action="store_true", help="only the floor and exact_top_k")
    parser.add_argument("--indexed", action="store_true", help="approximate peers too")
    parser.add_argument("--recipe-terms", action="store_true", help="search centred and white, too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu", action="store_true", help="processor time, of all threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if faiss is not None:
        faiss.omp_set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    anchors = make_anchors(options.data, options.anchors, options.dimension, rng)
    for m in options.batch:
        queries = make_queries(options.data, m, anchors, rng)
        if options.data == "sorted":  # every anchor better than the last, for the first query
            anchors = anchors[np.argsort(anchors.astype(np.float32) @ queries[0])]
        shape = f"n = {options.anchors:,}, d = {options.dimension}, k = {options.k}"
        print(f"\n{m} queries, {shape}, {options.data}, {options.threads} threads")
        with tempfile.TemporaryDirectory() as at:
            compare(contenders(anchors, queries, options, str(Path(at))), options, m)


if __name__ == "__main__":
    main()
