"""How much memory do compiling a large label set and classifying with it take?

    python benchmarks/labels.py [--labels 10000] [--templates 80] [--pairs 8000] [--ensemble max]

Prints the process's peak memory and processor time after each step. Pairs are drawn around
centres. Encoding 800,000 prompts would take longer than all else together, so a stand-in for the
text encoder makes a unit vector of two captions' for each prompt; all other steps are the
product's. `--real` takes the real text encoder.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pyarrow as pa
from whatif import Floats, column, drawn, more, unit

import asif_lance
from asif_lance.records import EncoderPin, Float32Array
from asif_lance.search import describe_processor
from asif_lance.store import PairStore

DEFAULT_TEXT = EncoderPin("sentence-transformers/all-MiniLM-L6-v2", "", 384)


class DrawnTexts:
    """Stands in for a text encoder: the same text has the same vector."""

    pin, max_tokens = DEFAULT_TEXT, None

    def __init__(self, captions: Floats) -> None:
        self._captions = captions

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """A vector near some caption, for each text."""
        seeds = np.array([zlib.crc32(text.encode()) for text in texts])
        near, far = (self._captions[seeds // by % len(self._captions)] for by in (1, 99_991))
        return unit(near + 0.7 * far).astype("f4")

    def count_cut(self, texts: Sequence[str]) -> int:
        """None is cut."""
        return 0


def build(uri: str, pairs: int) -> Floats:
    """Make a database of drawn pairs, and give its caption vectors."""
    image, text = (
        more(side, pairs, np.random.default_rng(0)) for side in drawn(np.random.default_rng(0))
    )
    store = PairStore.create(
        uri, image=EncoderPin("timm/drawn", "", image.shape[1]), text=DEFAULT_TEXT
    )
    ids = pa.array([f"p{i:08d}" for i in range(pairs)])
    columns = {"pair_id": ids, "caption": ids}
    sides = {"image_vector": column(unit(image)), "text_vector": column(unit(text))}
    store.add(pa.table(columns | sides))
    store.publish(command="ingest")
    return text


def tell(step: str, begun: float) -> None:
    """Print what the process has needed so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = f"{usage.ru_utime + usage.ru_stime:9.0f}{time.perf_counter() - begun:9.0f}"
    print(f"{step:34}{usage.ru_maxrss / 2**20:9.2f}{spent}", flush=True)


def main() -> None:
    """Build, compile, classify, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=10_000)
    parser.add_argument("--templates", type=int, default=80)
    parser.add_argument("--pairs", type=int, default=8_000)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--ensemble", choices=["max", "mean-embedding", "mean-relative"])
    parser.add_argument("--real", action="store_true", help="with the real text encoder")
    asked = parser.parse_args()
    print(describe_processor())
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        with ProcessPoolExecutor(1, get_context("spawn")) as other:  # its memory does not count
            text = other.submit(build, f"{home}/db", asked.pairs).result()
        model = asif_lance.open(f"{home}/db", device="cpu")
        if not asked.real:
            model.text_encoder = DrawnTexts(text)
        prompts = f"{asked.labels:,} labels x {asked.templates} templates"
        print(f"{prompts}, {asked.pairs:,} pairs, {asked.ensemble or model.ensemble}")
        print(f"{'after':34}{'peak GiB':>9}{'CPU s':>9}{'wall s':>9}")
        tell("opening the database", begun)
        names = [f"label number {i}" for i in range(asked.labels)]
        given = model.prompts(
            names, [f"picture {i} of {{}}." for i in range(asked.templates)], asked.ensemble
        )
        tell("prompts", begun)
        labels = model.compile(given)
        tell("label set", begun)
        queries = model.anchors.vectors("image", np.arange(asked.pictures))
        for _ in model.classify_vectors([str(i) for i in range(len(queries))], queries, labels):
            pass
        tell(f"classifying {asked.pictures} pictures", begun)


if __name__ == "__main__":
    main()
