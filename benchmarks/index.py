"""How much less time do an index and a sample take than exact search, at what agreement?

    python benchmarks/index.py [--pairs 400000] [--dimension 1280] [--labels 10] [--kinds …]

Pictures are searched one by one, beside exact search in the same run, on queries that are not in
the table. Each kind's rows are its curve, up to the first setting that reaches the agreement asked
for; the last line is the setting that is kept. With ASIF_SHARED (the development data) pairs and
queries are Flickr8k's, beyond 39,000 pairs with noise, and labels are words put to the default text
encoder; without it all is drawn around centres. With `--dimension 384` caption vectors stand in for
pictures. On a busy machine `OMP_NUM_THREADS=1` and `--threads 1` help, though times stay wall time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from whatif import TEXT, column, drawn, shared, unit

import asif_lance
from asif_lance.anchors import MeasuredSetting
from asif_lance.errors import DatabaseError
from asif_lance.indexing import TrialQueries, make_trial_queries
from asif_lance.indexing import index_tuning as indices
from asif_lance.model import Model, prompts_from_vectors
from asif_lance.records import EncoderPin
from asif_lance.search import describe_processor
from asif_lance.store import PairStore

Floats = NDArray[np.float32]

NOISE = 0.3  # length of the noise beside a unit vector
HELD_OUT = 300  # photos, with their five captions each
WORDS = """
dog man woman child baby beach snow mountain water bicycle motorcycle car street grass ball football
skateboard surfboard climber horse bird boat river forest city building bench guitar crowd hat tent
rock desert night playground slide swing frisbee fence bridge train restaurant kitchen park flower
tree parade race hockey baseball
"""


def main() -> None:
    """Prepare the vectors and measure kind by kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=400_000)
    parser.add_argument("--dimension", type=int, choices=(384, 1280), default=1280)
    parser.add_argument("--labels", type=int, default=10, help="at most 50")
    parser.add_argument("--queries", type=int, default=200, help=f"at most {HELD_OUT}")
    parser.add_argument("--agreement", type=float, default=0.99)
    parser.add_argument("--kinds", nargs="+", default=["ivf-rq", "ivf-pq", "ivf-sq", "sampled"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(describe_processor())
    root = os.environ.get("ASIF_SHARED")
    image, text = shared(Path(root)) if root else drawn(np.random.default_rng(0))
    image = text if options.dimension == TEXT else image
    queries = image[-5 * HELD_OUT :: 5][: options.queries]
    labels = words(options.labels) if root else text[-options.labels :]
    image, text = image[: -5 * HELD_OUT], text[: -5 * HELD_OUT]
    with tempfile.TemporaryDirectory() as folder:
        store = fill(f"{folder}/db", image, text, options.pairs)
        model = asif_lance.open(store.uri, device="cpu")
        named = {f"label {i}": vector for i, vector in enumerate(labels)}
        asked = make_trial_queries(model, queries, prompts_from_vectors(named))
        shape = f"{options.pairs:,} pairs, d = {options.dimension}, k = 800"
        print(f"{shape}, {len(labels)} labels, {len(queries)} queries, {options.threads} threads")
        for kind in options.kinds:
            curve(model, asked, kind, options.agreement)


def words(count: int) -> Floats:
    """Embed labels as a user's would be."""
    from asif_lance.encoders import DEFAULT_TEXT, text_encoder

    prompts = [f"a photo of a {word}." for word in WORDS.split()[:count]]
    return np.asarray(text_encoder(DEFAULT_TEXT, device="cpu").encode(prompts))


def fill(uri: str, image: Floats, text: Floats, count: int) -> PairStore:
    """Make a database of so many pairs, a part at a time to spare memory."""
    import pyarrow as pa

    pins = (
        EncoderPin("timm/bench", "1", image.shape[1]),
        EncoderPin("sentence-transformers/bench", "1", text.shape[1]),
    )
    store = PairStore.create(uri, image=pins[0], text=pins[1])
    order = np.random.default_rng(1).permutation(len(image))
    for start in range(0, count, 10_000):
        places = np.arange(start, min(start + 10_000, count))
        ids = [f"p{i:07d}" for i in places]
        sides = [part(side, order, places) for side in (image, text)]
        columns = {"image_vector": column(sides[0]), "text_vector": column(sides[1])}
        store.add(pa.table({"pair_id": ids, "caption": ids, **columns}))
    store.publish(command="ingest")
    return store


def part(vectors: Floats, order: NDArray[np.int64], places: NDArray[np.int64]) -> Floats:
    """Rows of an endless table: the given vectors, then such with noise."""
    rows = vectors[order[places % len(vectors)]]
    again = places >= len(vectors)
    rng = np.random.default_rng([int(places[0]), vectors.shape[1]])
    noise = rng.standard_normal((int(again.sum()), vectors.shape[1])).astype(np.float32)
    rows[again] += NOISE * noise / np.sqrt(vectors.shape[1])
    return unit(rows)


def curve(model: Model, asked: TrialQueries, kind: str, target: float) -> None:
    """Build one kind of index and print what each of its settings gives."""
    print(
        f"\n{kind:14}{'nprobes':>8}{'cand.':>6}{'sample':>8}{'recall@k':>10}{'agreement':>11}"
        f"{'ms':>8}{'to exact':>10}"
    )
    tried: list[MeasuredSetting] = []
    try:
        choice = indices.build_index(model, asked, kind=kind, target=target, keep=True, tried=tried)
    except DatabaseError as error:
        print(error)
        return
    finally:
        for measured in tried:
            show(measured)
    print(f"{'kept':14}", end="")
    show(choice.measured, indent=0)
    (built,) = [s for s in indices.index_status(model.store, "latest") if s.choice == choice]
    each = built.bytes / max(built.rows, 1)
    print(
        f"built in {choice.seconds:.0f} s, {each:,.0f} bytes a row, {choice.measured.ratio:.1f} x"
    )
    indices.drop_index(model.store)


def show(measured: MeasuredSetting, indent: int = 14) -> None:
    """Print one setting."""
    at = measured.setting
    print(
        f"{'':{indent}}{at.nprobes or '':>8}{at.candidates or '':>6}{at.fraction or '':>8}"
        f"{measured.recall:10.3f}{measured.agreement:11.3f}{measured.milliseconds:8.1f}"
        f"{1 / measured.ratio:10.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
