"""Compares exact search with the bare matrix product, and with what people use instead.

    python benchmarks/search.py [--anchors 400000] [--dimension 384] [--data isotropic] …

Every contender runs once per round, in turn, so that a busy machine slows all of them; the table
shows medians over the rounds and ratios to the floor. That is the larger of two times: of reading
the float16 anchors once, and of multiplying them in the type that the processor is fastest at, once
they are of that type. The bare product is the fastest blocked float32 product found, the float16
anchors widened into a small buffer. `exact_top_k` gets them in as many blocks as a table has
fragments. FAISS and usearch are optional (`pip install faiss-cpu usearch`). On a busy machine
`--threads 1 --cpu` counts processor time instead of waiting for the clock on the wall. `--indexed`
adds approximate peers, FAISS IVF-PQ with re-ranking and LanceDB's IVF_RQ, which take minutes to
build; the last column says which share of the k nearest each contender finds.

`--device cuda` searches on a GPU that holds the anchors, side by side as a model has them, with its
fused kernel and without, beside the same floor, which is the GPU's roofline as it was measured, and
the dense formula there. `--dimension`, `--anchors` and `--batch` tell how it grows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import lancedb
import numpy as np
import pyarrow as pa
import torch
from lancedb.index import IvfRq
from numpy.typing import NDArray

from asif_lance.database import ROWS_PER_FRAGMENT
from asif_lance.devices import is_accelerator
from asif_lance.relative import (
    SAMPLE,
    BlockDistances,
    BlockSums,
    Centre,
    Whitening,
    make_centre,
    mean_of,
)
from asif_lance.search import (
    Blocks,
    Scale,
    describe_processor,
    exact_top_k,
    fast_products,
    unit_queries,
)
from asif_lance.search.fast_products import product_types
from asif_lance.search.kernel_loading import load_fused

try:
    import faiss
except ImportError:
    faiss = None  # type: ignore[assignment]  # optional
try:
    import usearch.index as usearch
except ImportError:
    usearch = None  # type: ignore[assignment]  # optional

DATA = ("isotropic", "clustered", "sorted", "fivefold", "equal", "crowded")
FLOOR = "reading the bytes", "product alone"  # the larger is the floor
UNRANKED = (  # have no neighbors, or other ones
    *FLOOR,
    "bare float32 product",
    *("exact_top_k, centred", "mean, once a version"),
    *("exact_top_k, white", "metric, once a sample", "scales, once a sample"),
)
WARMING = 5  # searches that do not count: a process loads the compiled loops in the first ones
PROBES = 32  # partitions that the indices look into, of about n / 4096
REFINED = 2  # times k: candidates that are ranked by their own vectors

PEERS = {"faiss": faiss is not None, "torch": True, "usearch": usearch is not None, "lancedb": True}

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
    anchors: torch.Tensor, queries: torch.Tensor, rows: int, kind: torch.dtype
) -> Task:
    """Multiply block by block in a type, and keep nothing; anchors of another are converted."""
    weights = queries.T.to(anchors.device, kind).contiguous()
    buffer = torch.empty_like(anchors[:rows], dtype=kind)
    scores = torch.empty((rows, len(queries)), dtype=kind, device=anchors.device)

    def run() -> None:
        for part in torch.split(anchors, rows):
            size = part.shape[0]
            part = part if part.dtype == kind else buffer[:size].copy_(part)
            torch.mm(part, weights, out=scores[:size])

    return run


def fastest_product(anchors: torch.Tensor, queries: torch.Tensor, kind: torch.dtype) -> Task:
    """Pick the best block size for this machine on an eighth of the anchors."""
    some = anchors[: max(len(anchors) // 8, 8192)]
    sizes = (512, 1024, 2048, 4096, 8192, 16384, len(some))
    tasks = [bare_product(some, queries, size, kind) for size in sizes]
    times = [min(clock(task)[0] for _ in range(3)) for task in tasks]
    best = sizes[int(np.argmin(times))]
    return bare_product(anchors, queries, len(anchors) if best == len(some) else best, kind)


def product_alone(anchors: torch.Tensor, queries: torch.Tensor, kind: torch.dtype) -> Task:
    """Multiply anchors that are of the type already: eight times an eighth, to spare memory."""
    part = fastest_product(anchors[: -(-len(anchors) // 8)].to(kind), queries, kind)
    return lambda: [part() for _ in range(8)]


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
    given, k = torch.from_numpy(queries), options.k
    tasks: dict[str, Task] = {}
    if "faiss" in options.peers:
        index = faiss_index(anchors)
        tasks["FAISS IndexFlatIP"] = lambda: index.search(queries, k)[1]
    if "torch" in options.peers:
        wide = shared_rows(index) if "faiss" in options.peers else torch.from_numpy(anchors).float()
        tasks["torch.topk(q @ a.T)"] = lambda: torch.topk(given @ wide.T, k).indices.numpy()
    if "usearch" in options.peers:
        narrow = queries.astype(np.float16)
        tasks["usearch exact, float16"] = lambda: usearch.search(
            anchors, narrow, k, usearch.MetricKind.IP, exact=True, threads=options.threads
        ).keys.reshape(len(queries), -1)
    if "lancedb" in options.peers:
        tasks["LanceDB flat"] = lance_search(lance_table(anchors, at), queries, k)
    if options.indexed:
        table, all_wide = lance_table(anchors, f"{at}/indexed"), torch.from_numpy(anchors).float()
        tasks.update(indexed_peers(all_wide, table, queries, k))
    return tasks


def faiss_index(anchors: NDArray[np.float16]) -> Any:
    """Make a flat index, a slice at a time to spare memory."""
    index = faiss.IndexFlatIP(anchors.shape[1])
    for start in range(0, len(anchors), 50_000):
        index.add(anchors[start : start + 50_000].astype(np.float32))
    return index


def shared_rows(index: Any) -> torch.Tensor:
    """The float32 anchors that a flat index holds, without a copy."""
    return torch.from_numpy(faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)).view(
        index.ntotal, index.d
    )


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


def clock(task: Task, processor_time: bool = False) -> tuple[float, object]:
    """Give the seconds that a task takes, on a GPU too, and what it returns."""
    now = time.process_time if processor_time else time.perf_counter
    start = now()
    found = task()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return now() - start, found


def contenders(
    anchors: NDArray[np.float16], queries: NDArray[np.float32], options: argparse.Namespace, at: str
) -> dict[str, Task]:
    """What is compared, by name; among them the parts of the floor."""
    narrow, k = torch.from_numpy(anchors).to(options.device), options.k
    given = torch.from_numpy(queries).to(options.device)
    words, split = narrow.view(-1).view(torch.int64), torch.split(narrow, ROWS_PER_FRAGMENT)
    on_cpu = not is_accelerator(narrow.device)
    # Apart from one another, as mapped fragments are; a device has them side by side.
    blocks = [block.clone() for block in split] if on_cpu else list(split)
    tasks: dict[str, Task] = {
        "reading the bytes": words.sum,
        "exact_top_k": lambda: exact_top_k(given, blocks, k).indices,
    }
    if len(queries) > 1:
        kind = product_types(len(queries), Blocks(narrow), narrow.device)[0]
        tasks["product alone"] = product_alone(narrow, given, kind)
        tasks["bare float32 product"] = fastest_product(narrow, given, torch.float32)
    if not on_cpu:
        return tasks | on_device(narrow, given, k)
    if options.recipe_terms:
        tasks |= centred(blocks, queries, k) | white(blocks, queries, k)
    tasks.update(peers(anchors, queries, options, at))
    return tasks


def on_device(anchors: torch.Tensor, queries: torch.Tensor, k: int) -> dict[str, Task]:
    """The search without its fused kernel, and the dense formula."""
    like = queries.to(anchors.dtype)

    def search_unfused() -> Found:
        with mock.patch.object(fast_products, "load_fused", return_value=None):
            return exact_top_k(queries, anchors, k).indices

    return {
        "exact_top_k, not fused": search_unfused,
        "torch.topk(a @ q.T)": lambda: torch.topk(anchors @ like.T, k, dim=0).indices.T.cpu(),
    }


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
    found: dict[str, object] = {}
    for _ in range(WARMING):
        tasks["exact_top_k"]()
    for _ in range(options.rounds):
        for name, task in tasks.items():
            seconds, found[name] = clock(task, options.cpu)
            times[name].append(seconds)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    floor, ours = max(medians.get(name, 0.0) for name in FLOOR), medians["exact_top_k"]
    exact = np.asarray(found["exact_top_k"])
    read = 2 * options.anchors * options.dimension
    rates = [f"read at {read / medians[FLOOR[0]] / 1e9:.0f} GB/s"]
    if FLOOR[1] in medians:
        rates.append(f"multiplied at {m * read / medians[FLOOR[1]] / 1e9:,.0f} GFLOP/s")
    print(", ".join(rates))
    print(
        f"{'':24}{'ms/query':>10}{'best':>10}{'to floor':>10}{'exact_top_k to it':>19}{'recall':>8}"
    )
    for name, median in medians.items():
        best = min(times[name]) / m * 1e3
        ratios = f"{median / floor:10.2f}{ours / median:19.2f}"
        share = "" if name in UNRANKED else f"{recall(found[name], exact):8.3f}"
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
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(filter(PEERS.get, PEERS)))
    parser.add_argument("--indexed", action="store_true", help="approximate peers too")
    parser.add_argument("--recipe-terms", action="store_true", help="search centred and white, too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu", action="store_true", help="processor time, of all threads")
    parser.add_argument("--device", default="cpu", help="cuda searches on a GPU, without peers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(describe_processor())
    if options.device.startswith("cuda"):
        fused = "with" if load_fused(torch.device(options.device)) else "without"
        print(f"{torch.cuda.get_device_name(options.device)}, {fused} the fused kernel")
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
