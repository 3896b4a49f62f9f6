"""What forgetting costs: bytes written and growth against the fragments that it touches.

    python benchmarks/forget.py [--pairs 100000] [--versions 20,200] [--gone 1,1000] [--indices]
    python benchmarks/forget.py --history 100,1000

Synthetic unit vectors, 384 numbers a side; seconds are the processor's. The floor is to write each
touched fragment once; the ratio says how near it comes. What a user of plain LanceDB would do
(restore each version, delete, compact, tag again) is measured beside it with `--plain`.

With `--history`: processor seconds against the number of versions, each of which added ten pairs.
`next` is one version more, opened in a process that has the one before open: the median of 20;
some of them joined fragments, `largest` is the dearest.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import lance
import numpy as np
import pyarrow as pa

from asif_lance.forgetting import execution, obtain_keys
from asif_lance.model import Model, open_model
from asif_lance.records import EncoderPin
from asif_lance.search import describe_processor
from asif_lance.store import PairStore, info
from asif_lance.store.forget import forget, plan
from asif_lance.verifier import ScanReport

DIMENSION = 384
CHUNK = 10_000
MEGA = 1e6
NEXT_VERSIONS = 20

Result = TypeVar("Result")


def main() -> None:
    """Runs every combination and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--versions", default="20,200")
    parser.add_argument("--gone", default="1,1000")
    parser.add_argument("--indices", action="store_true", help="vector, text and scalar indices")
    parser.add_argument("--plain", action="store_true", help="plain LanceDB beside it")
    parser.add_argument("--history", help="numbers of versions that added ten pairs each")
    options = parser.parse_args()
    print(describe_processor())
    if options.history:
        report_histories([int(count) for count in options.history.split(",")])
        return
    print(
        f"{'way':>8} {'versions':>8} {'pairs':>6} {'seconds':>8} {'verify s':>8} "
        f"{'touched MB':>10} {'written MB':>10} {'ratio':>6} {'before MB':>9} {'after MB':>8} "
        f"{'clean':>5}"
    )
    for versions in map(int, options.versions.split(",")):
        for gone in map(int, options.gone.split(",")):
            with tempfile.TemporaryDirectory() as where:
                store = filled(Path(where) / "db", options.pairs, versions, options.indices)
                ids = chosen(options.pairs, gone)
                if options.plain:
                    copy = PairStore.open(shutil.copytree(store.uri, f"{where}/copy"))
                    report("plain", versions, copy, ids, plainly)
                report("asif", versions, store, ids, ours)


def filled(where: Path, pairs: int, versions: int, indices: bool) -> PairStore:
    """A database whose versions add what is missing bit by bit and delete a little each."""
    pins = EncoderPin("vectors", "", DIMENSION), EncoderPin("vectors", "", DIMENSION)
    store = PairStore.create(str(where), image=pins[0], text=pins[1])
    noise = np.random.default_rng(0)
    for start in range(0, pairs, CHUNK):
        store.add(batch(noise, start, min(start + CHUNK, pairs)))
    if indices:
        build_indices(f"{store.uri}/pairs.lance")
    store.publish(command="ingest")
    for number in range(1, versions):
        store.delete([pair_id(number * 7)])
        store.add(batch(noise, pairs + number, pairs + number + 1))
        store.publish(command="ingest")
    return store


def batch(noise: np.random.Generator, start: int, stop: int) -> pa.Table:
    """Pairs with random unit vectors."""
    vectors = {side: unit(noise, stop - start) for side in ("image_vector", "text_vector")}
    ids = [pair_id(number) for number in range(start, stop)]
    captions = [f"picture number {number} of a synthetic scene" for number in range(start, stop)]
    return pa.table({"pair_id": ids, "caption": captions, **vectors})


def unit(noise: np.random.Generator, count: int) -> pa.FixedSizeListArray:
    """Random directions as float16."""
    rows = noise.normal(size=(count, DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float16).ravel()), DIMENSION)


def pair_id(number: int) -> str:
    """As long as the hashes of real pairs."""
    return f"{number:064x}"


def chosen(pairs: int, count: int) -> list[str]:
    """Pairs spread over the whole table."""
    return [pair_id(int(number)) for number in np.linspace(5, pairs - 5, count)]


def build_indices(path: str) -> None:
    """One of each kind."""
    lance.dataset(path).create_index("image_vector", "IVF_FLAT", metric="cosine", num_partitions=64)
    lance.dataset(path).create_index("text_vector", "IVF_SQ", metric="cosine", num_partitions=64)
    lance.dataset(path).create_scalar_index("caption", "INVERTED")
    lance.dataset(path).create_scalar_index("pair_id", "BTREE")


Way = Callable[[PairStore, list[str]], tuple[int, float, bool]]


def report(name: str, versions: int, store: PairStore, ids: list[str], way: Way) -> None:
    """Times one way and prints its line."""
    touched, before, start = plan(store, ids).bytes, size(store.uri), time.process_time()
    written, verifying, clean = way(store, ids)
    seconds = time.process_time() - start - verifying
    print(
        f"{name:>8} {versions:>8} {len(ids):>6} {seconds:>8.2f} {verifying:>8.2f} "
        f"{touched / MEGA:>10.1f} {written / MEGA:>10.1f} {written / touched:>6.2f} "
        f"{before / MEGA:>9.1f} {size(store.uri) / MEGA:>8.1f} {clean!s:>5}",
        flush=True,
    )


def ours(store: PairStore, ids: list[str]) -> tuple[int, float, bool]:
    """Forgets, and tells the verifier's time from the rest."""
    seconds, search = [], execution.scan

    def timed(*args: Any, **kwargs: Any) -> ScanReport:
        start = time.process_time()
        result = search(*args, **kwargs)
        seconds.append(time.process_time() - start)
        return result

    execution.scan = timed
    keys = obtain_keys(store.uri, Path(store.uri).parent / "keys")
    receipt = forget(store, ids, reason="benchmark", keys=keys)
    execution.scan = search
    return receipt.bytes_written, sum(seconds), receipt.clean


def plainly(store: PairStore, ids: list[str]) -> tuple[int, float, bool]:
    """One compaction per version, with Lance's own commands; indices are not cared for."""
    path = f"{store.uri}/pairs.lance"
    head, written = lance.dataset(path).version, 0
    predicate = f"pair_id IN ({', '.join(repr(i) for i in ids)})"
    tags = {name: tag["version"] for name, tag in lance.dataset(path).tags.list().items()}
    for version in sorted({*tags.values(), head}):
        known = set(Path(path).glob("data/*"))
        table = lance.dataset(path, version=version)
        table.restore()
        table.delete(predicate)
        whole = [f.fragment_id for f in table.get_fragments() if not f.num_deletions]
        table.optimize.compact_files(
            materialize_deletions_threshold=0.0, excluded_fragment_ids=whole
        )
        for name in (name for name, old in tags.items() if old == version):
            table.tags.update(name, lance.dataset(path).version)
        written += sum(f.stat().st_size for f in set(Path(path).glob("data/*")) - known)
    lance.dataset(path).cleanup_old_versions(
        timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False
    )
    return written, 0.0, False


HISTORY = ("publish", "versions", "info", "open", "next", "largest", "forget", "fragments", "MB")


def report_histories(counts: list[int]) -> None:
    """Prints what grows with the number of versions, and the last line's ratio to the first."""
    print(f"{'history':>8}" + "".join(f"{name:>10}" for name in HISTORY))
    lines = []
    for count in counts:
        with tempfile.TemporaryDirectory() as where:
            lines.append(measure_history(f"{where}/db", count))
        print(f"{count:>8}" + "".join(f"{value:>10.3f}" for value in lines[-1]), flush=True)
    print(f"{'ratio':>8}" + "".join(f"{v:>10.1f}" for v in np.divide(lines[-1], lines[0])))


def measure_history(uri: str, count: int) -> list[float]:
    """Processor seconds and sizes for a database with this many versions, see `HISTORY`."""
    pin = EncoderPin("vectors", "", DIMENSION)
    store, noise = PairStore.create(uri, image=pin, text=pin), np.random.default_rng(0)
    publishing = [spend(add_version, store, noise, number)[0] for number in range(count)]
    fragments, megabytes = len(store.dataset().get_fragments()), size(uri) / MEGA
    listing, about = spend(store.versions)[0], spend(info, store)[0]
    labels = {str(i): vector for i, vector in enumerate(noise.normal(size=(20, DIMENSION)))}
    opening, model = spend(open_newest, uri, labels)
    steps = []
    for number in range(count, count + NEXT_VERSIONS):
        add_version(store, noise, number)
        seconds, model = spend(open_newest, uri, labels)
        steps.append(seconds)
    del model  # held until now, as by a server: the next version shares its fragments
    forgetting = spend(forget, store, [pair_id(5)], reason="benchmark")[0]
    publish, following = float(np.mean(publishing[-100:])), float(np.median(steps))
    seconds = [publish, listing, about, opening, following, max(steps), forgetting]
    return [*seconds, fragments, megabytes]


def spend(call: Callable[..., Result], *args: Any, **options: Any) -> tuple[float, Result]:
    """Processor seconds of a call, and what it returns."""
    start = time.process_time()
    result = call(*args, **options)
    return time.process_time() - start, result


def add_version(store: PairStore, noise: np.random.Generator, number: int) -> None:
    """One more version, of ten pairs."""
    store.add(batch(noise, number * 10, number * 10 + 10))
    store.publish(command="ingest")


def open_newest(uri: str, labels: dict[str, np.ndarray]) -> Model:
    """The newest version, its labels compiled and one picture classified."""
    model = open_model(uri, recipe="centred", device="cpu")
    image = np.ones((1, DIMENSION), np.float32)
    next(iter(model.classify_vectors(["x"], image, model.label_vectors(labels))))
    return model


def size(uri: str) -> int:
    """Bytes of all files of a database."""
    return sum(path.stat().st_size for path in Path(uri).rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
