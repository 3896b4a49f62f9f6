"""What memory the process takes that asks shards of a version, as the version grows.

    python benchmarks/shared_search.py [PAIRS ...]

For each size a database of pairs with vectors of 16 + 16 numbers is made and opened by a process of
its own, which shares the model with two others, compiles labels, classifies, shows evidence and
retrieves. Printed is the most that the process took beyond what it had after its imports:
`peak` by the system, `arrays` what tracemalloc saw of NumPy and Python
in another run. `alone` is the peak of the same without shards. Bytes a pair are those between the
smallest and the largest version.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from versions import build

from asif_lance.model import Model, open_model, share_model
from asif_lance.model.retrieval import retrieve
from asif_lance.search import unit_queries

SIZES, RECIPES = (100_000, 1_000_000, 4_000_000), ("paper", "white")
WIDTH, SHARDS, LABELS, QUERIES = 16, 8, 100, 256


def main() -> None:
    """Measure the sizes that the arguments name, or one of them in this process."""
    if sys.argv[1:2] == ["probe"]:
        print(json.dumps(probe(*sys.argv[2:])))
        return
    sizes = [int(one) for one in sys.argv[1:]] or list(SIZES)
    print(f"{'pairs':>10} {'recipe':>8} {'peak MB':>9} {'arrays MB':>9} {'alone MB':>9} {'s':>6}")
    found = {size: measure_size(size) for size in sizes}
    least, most = min(sizes), max(sizes)
    for recipe in found[least] if most > least else ():
        each = zip(found[least][recipe], found[most][recipe], strict=True)
        slopes = [f"{(last - first) / (most - least):9.2f}" for first, last in each]
        print(f"{'bytes/pair':>10} {recipe:>8} {' '.join(slopes)}")


def measure_size(pairs: int) -> dict[str, list[float]]:
    """Bytes at the most by recipe: shared, shared as far as tracemalloc sees, and alone."""
    place = Path(tempfile.mkdtemp(prefix="shared-search-"))
    try:
        uri = str(place / "db.lancedb")
        build(uri, pairs, WIDTH, WIDTH)
        found = {}
        for recipe in RECIPES:
            shared, traced, alone = (
                run_probe(uri, recipe, how) for how in ("shared", "traced", "alone")
            )
            found[recipe] = [shared["peak"], traced["arrays"], alone["peak"]]
            figures = " ".join(f"{one / 1e6:9.1f}" for one in found[recipe])
            print(f"{pairs:>10,} {recipe:>8} {figures} {shared['seconds']:6.1f}", flush=True)
        return found
    finally:
        shutil.rmtree(place)


def run_probe(uri: str, recipe: str, how: str) -> dict[str, float]:
    """One probe in a process of its own."""
    command = [sys.executable, __file__, "probe", uri, recipe, how]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def probe(uri: str, recipe: str, how: str) -> dict[str, float]:
    """Ask the newest version of a database everything, and say what that took."""
    if how == "alone":
        return watch(lambda: answer(open_model(uri, recipe=recipe, device="cpu")), trace=False)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(len, [[], []]))  # they begin before it is measured

        def share() -> None:
            model = open_model(uri, recipe=recipe, device="cpu")
            answer(share_model(model, pool.map, SHARDS))

        return watch(share, trace=how == "traced")


def watch(act: Callable[[], None], *, trace: bool) -> dict[str, float]:
    """The most memory that a call took beyond what was there, and its seconds."""
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))
    if trace:
        tracemalloc.start()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began = status("VmRSS"), time.perf_counter()
    act()
    found = {"peak": status("VmHWM") - before, "seconds": time.perf_counter() - began}
    if trace:
        found["arrays"] = tracemalloc.get_traced_memory()[1]
    return found


def answer(model: Model) -> None:
    """Compile labels, classify, show evidence, retrieve."""
    rng = np.random.default_rng(7)
    names = {str(i): rng.normal(size=WIDTH).astype(np.float32) for i in range(LABELS)}
    labels = model.label_vectors(names)
    pictures = rng.normal(size=(QUERIES, WIDTH)).astype(np.float32)
    found = list(model.classify_vectors([str(i) for i in range(QUERIES)], pictures, labels))
    for one in found[:8]:
        one.attributions(10)
        one.evidence.contributions(one.label)
    asked = unit_queries(rng.normal(size=(1, WIDTH)))
    retrieve(model.anchors, model.recipe, "text", asked, 10)


def status(key: str) -> int:
    """A figure of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024


if __name__ == "__main__":
    main()
