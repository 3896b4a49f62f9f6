"""What does classifying a folder of pictures cost beside encoding them?

    python benchmarks/classify.py [FOLDER] [--pairs 400000] [--pictures 512] [--labels 100]

Both read and decode the same files and run the same encoder, in turn; the first stops there, the
second classifies with a model of that many pairs. With the development data beside the checkout
these are Flickr8k's, whose pictures the same encoder saw, beyond 40,455 pairs with noise, and its
photos are what is classified; without it vectors are drawn around centres, and pictures made.
Labels are captions of the table. What classifying takes beyond the encoder is shown by its parts,
with vectors that are there already: the search, and the bare product in the type that the
processor multiplies fastest. `--sampled` adds a model that compares with fewer pairs, as `index
build --kind sampled` chose it for an agreement of 99 % on pictures of the table.

    python benchmarks/classify.py --encoder vit_small_patch16_224

takes that architecture of timm instead, with random weights: what it says means nothing, but it
takes as long. Vectors are drawn then.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from search import product_alone
from whatif import Floats, column, drawn, more, shared, unit

import asif_lance
from asif_lance.encoders import encode_images
from asif_lance.indexing import index_tuning as indices
from asif_lance.indexing import make_trial_queries
from asif_lance.model import LabelSet
from asif_lance.search import Blocks, describe_processor, unit_queries
from asif_lance.search.fast_products import product_types
from asif_lance.store import PairStore

Task = Callable[[], object]

BATCH = 256  # pictures that are searched together
SHARED = Path(__file__).parents[1].parent / "shared"
PHOTOS = SHARED / "data" / "flickr8k" / "images-1000"
CHUNK = 50_000


def random_weights(architecture: str, folder: Path) -> str:
    """Save an untrained network as timm does; the name by which the product loads it."""
    import timm
    from timm.models import save_for_hf

    save_for_hf(timm.create_model(architecture), folder, safe_serialization=True)
    return f"timm/{folder}"


def build(uri: str, pairs: int, encoder: str | None, rng: np.random.Generator) -> Floats:
    """Make a database, and give the caption vectors that it began with."""
    from asif_lance.encoders import image_encoder, text_encoder

    pin = image_encoder(encoder).pin
    store = PairStore.create(uri, image=pin, text=text_encoder().pin)
    real = PHOTOS.is_dir() and encoder is None
    image, captions = shared(SHARED) if real else drawn(rng)
    image = unit(image[:, : pin.dimension])
    image, text = (more(side, pairs, np.random.default_rng(0)) for side in (image, captions))
    for start in range(0, pairs, CHUNK):
        at = slice(start, min(start + CHUNK, pairs))
        ids = pa.array([f"p{i:08d}" for i in range(at.start, at.stop)])
        columns = {"pair_id": ids, "caption": ids}
        sides = {"image_vector": column(image[at]), "text_vector": column(text[at])}
        store.add(pa.table(columns | sides))
    store.publish(command="ingest")
    return captions


def pictures(folder: Path | None, count: int, made: Path) -> list[Path]:
    """Give the files to classify."""
    folder = folder or (PHOTOS if PHOTOS.is_dir() else None)
    if folder is not None:
        return sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".png"))[:count]
    rng, paths = np.random.default_rng(1), [made / f"{i}.jpg" for i in range(count)]
    for path in paths:
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        small.resize((640, 480), Image.Resampling.BICUBIC).save(path)
    return paths


def parts(model: asif_lance.Model, files: list[Path], labels: LabelSet) -> dict[str, Task]:
    """Give what is left of classifying once pictures are encoded."""
    names, vectors = model.encode(files)
    queries = unit_queries(vectors)
    batches = [queries[at : at + BATCH] for at in range(0, len(queries), BATCH)]
    anchors, given = torch.cat(model.anchors.image), torch.from_numpy(batches[0])
    kind = product_types(len(given), Blocks(anchors), anchors.device)[0]
    multiply = product_alone(anchors, given, kind)
    return {
        "of it: search and scores": lambda: list(model.classify_vectors(names, vectors, labels)),
        "of it: the search": lambda: [model.neighbors(batch) for batch in batches],
        f"of it: {str(kind).removeprefix('torch.')} product": lambda: [multiply() for _ in batches],
    }


def clock(task: Callable[[], object]) -> float:
    """Give the seconds that a task takes."""
    begun = time.perf_counter()
    task()
    return time.perf_counter() - begun


def main() -> None:
    """Build, take turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--encoder", metavar="NAME", help="an architecture of timm")
    parser.add_argument("--pairs", type=int, default=400_000)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sampled", action="store_true", help="a sampled model, too")
    asked = parser.parse_args()
    print(describe_processor())
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as home:
        encoder = asked.encoder and random_weights(asked.encoder, Path(home) / "encoder")
        captions = build(f"{home}/db", asked.pairs, encoder, rng)
        files = pictures(asked.folder, asked.pictures, Path(home))
        model = asif_lance.open(f"{home}/db", device="cpu")
        chosen = rng.choice(len(captions), asked.labels, replace=False)
        labels = model.label_vectors({f"label {i}": captions[i] for i in chosen.tolist()})
        tasks: dict[str, Task] = {
            "encoder alone": lambda: list(encode_images(model.image_encoder, files)),
            "classify": lambda: list(model.classify(files, labels)),
            **parts(model, files, labels),
        }
        if asked.sampled:
            indices.build_index(model, make_trial_queries(model), kind="sampled", keep=True)
            sampled = asif_lance.open(f"{home}/db", device="cpu", search="sampled")
            tasks["classify, sampled"] = lambda: list(sampled.classify(files, labels))
        times: list[list[float]] = []
        for _ in range(asked.rounds + 1):  # the first round warms up and does not count
            times.append([clock(task) for task in tasks.values()])
        medians = np.median(times[1:], axis=0)
        data = "Flickr8k and noise" if PHOTOS.is_dir() and not asked.encoder else "drawn vectors"
        pin = model.store.image
        print(f"{asked.encoder or pin.name}, d = {pin.dimension}: ", end="")
        print(f"{len(files)} pictures, {asked.pairs:,} pairs, {asked.labels} labels, {data}")
        print(f"{'':28}{'ms/picture':>12}{'to encoder':>12}")
        for name, seconds in zip(tasks, medians, strict=True):
            print(f"{name:28}{seconds / len(files) * 1e3:12.2f}{seconds / medians[0]:12.2f}")


if __name__ == "__main__":
    main()
