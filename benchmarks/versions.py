"""How long until a model version answers: at first, after adding 100 pairs, after deleting 100?

    python benchmarks/versions.py [--pairs 1600000] [--image 384] [--text 384] [--labels 100]
        [--recipe paper]

Every figure is the median over rounds of a fresh process that opens the version, compiles the
labels and classifies one image vector; imports are not counted. `full load` is what a version costs
that reads its vectors into memory, as everybody does who searches a Lance column with torch or
FAISS: scan both columns into arrays, search them once. `reading the file` reads the data files'
bytes of one side with plain reads. Peak memory is that of the process at its end, beside the bytes
of the vectors; `file` is the part that is mapped from files, which the system drops when it needs
the room.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from asif_lance.search import describe_processor

K = 800
CHUNK = 100_000

#: Runs in a process of its own: what, database, version, labels, memory limit.
PROBE = """
import json, sys, time
import numpy as np, torch, lance
import asif_lance
from asif_lance.search import exact_top_k, unit_queries
from asif_lance.model import open_model
what, uri, version, labels, limit, recipe = sys.argv[1:7]
rng = np.random.default_rng(7)
how = {"recipe": recipe, "device": "cpu", "memory_limit": int(limit) or None}
model = open_model(uri, version, **how)
names = {str(i): rng.normal(size=model.store.text.dimension) for i in range(int(labels))}
image = unit_queries(rng.normal(size=(1, model.store.image.dimension)))
torch.mm(torch.ones(64, 64), torch.ones(64, 64))
def status(key):
    return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) * 1024
before = status("VmRSS")
start = time.perf_counter()
if what == "read":
    table = model.store.dataset(version).to_table(columns=["image_vector", "text_vector"])
    sides = []
    for name in table.column_names:
        column = table[name].combine_chunks()
        flat = column.flatten().to_numpy().reshape(len(column), -1)
        sides.append(torch.from_numpy(flat.copy()))
    loaded = time.perf_counter() - start
    exact_top_k(unit_queries(np.stack(list(names.values()))), sides[1], 800)
    exact_top_k(image, sides[0], 800)
else:
    model = open_model(uri, version, **how)
    anchors = model.anchors; anchors.image, anchors.text
    loaded = time.perf_counter() - start
    compiled = model.label_vectors(names)
    next(iter(model.classify_vectors(["x"], image, compiled)))
print(json.dumps({"loaded": loaded, "answered": time.perf_counter() - start,
    "peak": status("VmHWM") - before, "file": status("RssFile")}))
"""


def build(uri: str, pairs: int, image: int, text: int) -> list[Path]:
    """Make versions v1 (all pairs), v2 (100 more) and v3 (100 fewer); give v1's data files."""
    from asif_lance.records import EncoderPin
    from asif_lance.store import PairStore

    pins = (
        EncoderPin("timm/bench", "1", image),
        EncoderPin("sentence-transformers/bench", "1", text),
    )
    store = PairStore.create(uri, image=pins[0], text=pins[1])
    rng = np.random.default_rng(0)
    for start in range(0, pairs, CHUNK):
        store.add(rows(rng, start, min(start + CHUNK, pairs), image, text))
    store.publish(command="ingest")
    files = list((Path(uri) / "pairs.lance" / "data").iterdir())
    store.add(rows(rng, pairs, pairs + 100, image, text))
    store.publish(command="ingest")
    store.delete([identity(i * 7) for i in range(100)])
    store.publish(command="delete")
    return files


def identity(number: int) -> str:
    """Name a pair."""
    return f"pair-{number:09d}"


def rows(rng: np.random.Generator, start: int, stop: int, image: int, text: int) -> pa.Table:
    """Make pairs of random unit vectors."""
    sides = {}
    for name, d in (("image_vector", image), ("text_vector", text)):
        part = rng.standard_normal((stop - start, d), dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        flat = pa.array(part.astype(np.float16).ravel())
        sides[name] = pa.FixedSizeListArray.from_arrays(flat, d)
    ids = [identity(i) for i in range(start, stop)]
    texts = {"pair_id": ids, "caption": ids, "image_uri": ids, "source": ["bench"] * len(ids)}
    return pa.table({**texts, **sides})


def probe(
    what: str, uri: str, version: str, options: argparse.Namespace, limit: int = 0
) -> dict[str, float]:
    """Run one probe in a fresh process."""
    asked = [str(options.labels), str(limit), options.recipe]
    command = [sys.executable, "-c", PROBE, what, uri, version, *asked]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def median(rounds: list[dict[str, float]], key: str) -> float:
    """Give the median of one figure."""
    return float(np.median([figures[key] for figures in rounds]))


def reading(files: list[Path]) -> float:
    """Read files with plain reads into one small buffer; seconds."""
    buffer = bytearray(2**22)
    start = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def emptied() -> bool:
    """Empty the system's page cache; False where that is not allowed."""
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def from_disk(uri: str, files: list[Path], options: argparse.Namespace) -> tuple[float, float]:
    """Seconds to read the files from disk, and of a first answer beyond what it takes later."""
    bare, ours = [], []
    for _ in range(options.rounds):
        emptied()
        bare.append(reading(files))
        forget_compiled(uri)
        warm = probe("ours", uri, "v1", options)["answered"]
        forget_compiled(uri)
        emptied()
        ours.append(probe("ours", uri, "v1", options)["answered"] - warm)
    return float(np.median(bare)), float(np.median(ours))


def in_memory(uri: str, options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Time versions in a process that already has v1 open and the labels compiled."""
    from asif_lance.model import open_model

    rng, how = np.random.default_rng(7), {"recipe": options.recipe, "device": "cpu"}
    seconds: dict[str, list[tuple[float, float]]] = {"v2": [], "v3": []}
    first = open_model(uri, "v1", **how)
    prompts = {str(i): rng.normal(size=first.store.text.dimension) for i in range(options.labels)}
    image = rng.normal(size=(1, first.store.image.dimension)).astype(np.float32)
    held = first.label_vectors(prompts)
    next(iter(first.classify_vectors(["x"], image, held)))
    for _ in range(options.rounds):
        for version in ("v2", "v3"):
            forget_compiled(uri)
            first.label_vectors(prompts)  # as the version before left it
            if version == "v3":
                open_model(uri, "v2", **how).label_vectors(prompts)
            start = time.perf_counter()
            model = open_model(uri, version, **how)
            compiled = model.label_vectors(prompts)
            ready = time.perf_counter() - start
            next(iter(model.classify_vectors(["x"], image, compiled)))
            seconds[version].append((ready, time.perf_counter() - start))
    return seconds


def forget_compiled(uri: str) -> None:
    """Remove what is kept of label sets and distances."""
    from asif_lance.database import DISTANCES, LABEL_SETS, drop_caches

    drop_caches(uri, LABEL_SETS)
    drop_caches(uri, DISTANCES)


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=1_600_000)
    parser.add_argument("--image", type=int, default=384)
    parser.add_argument("--text", type=int, default=384)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--recipe", default="white")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(describe_processor())
    with tempfile.TemporaryDirectory() as at:
        report(f"{at}/db", options)


def report(uri: str, options: argparse.Namespace) -> None:
    """Print the tables."""
    files = build(uri, options.pairs, options.image, options.text)
    vectors = options.pairs * (options.image + options.text) * 2
    print(
        f"{options.pairs:,} pairs, d = {options.image} and {options.text}, "
        f"{options.labels} labels, {options.recipe}"
    )
    full = [probe("read", uri, "v1", options) for _ in range(options.rounds)]
    cold: list[dict[str, float]] = []
    for _ in range(options.rounds):
        forget_compiled(uri)
        cold.append(probe("ours", uri, "v1", options))
    kept = [probe("ours", uri, "v1", options) for _ in range(options.rounds)]
    limited = [probe("ours", uri, "v1", options, 2**20) for _ in range(options.rounds)]
    bare = float(np.median([reading(files) for _ in range(options.rounds)]))
    steps = in_memory(uri, options)
    base, load = median(full, "answered"), median(full, "loaded")
    print(f"{'':44}{'ms':>9}{'to full load':>14}")

    def line(name: str, seconds: float) -> None:
        print(f"{name:44}{seconds * 1e3:9.1f}{seconds / load:14.3f}")

    line("full load (both columns into arrays)", load)
    line("full load, labels and first answer", base)
    line("reading the files' bytes (page cache)", bare)
    line("ours: vectors ready, new process", median(cold, "loaded"))
    line("ours: first answer of all", median(cold, "answered"))
    line("ours: first answer, labels used before", median(kept, "answered"))
    for version, step in (("v2", "added"), ("v3", "deleted")):
        ready, answered = np.median(steps[version], axis=0)
        line(f"ours: 100 pairs {step}, open and compile", ready)
        line(f"ours: 100 pairs {step}, first answer", answered)
    if emptied():
        read, extra = from_disk(uri, files, options)
        line("reading the files' bytes from disk", read)
        line("ours: what a first answer from disk adds", extra)
    print(f"{'':44}{'peak MB':>9}{'to vectors':>14}")
    for name, rounds in (("full load", full), ("ours", cold), ("ours, memory limit 1 MB", limited)):
        peak = median(rounds, "peak")
        print(f"{name:44}{peak / 1e6:9.0f}{peak / vectors:14.2f}")


if __name__ == "__main__":
    main()
