"""What does it cost to find the fewest pairs that flip an answer?

    python benchmarks/fewest.py [--pairs 100000] [--pictures 20] [--labels 10] [--recipe white]

Vectors are those of `whatif.py`. As the service asks: up to 30 pairs, and smaller sets are tried as
far as 300 tries go. The unit is one classification of one picture.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from whatif import drawn, fill, more, shared

import asif_lance
from asif_lance.model import prompts_from_vectors
from asif_lance.whatif import find_fewest_flip


def main() -> None:
    """Print how long it takes, and how many pairs it finds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("pairs", 100_000), ("pictures", 20), ("labels", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--recipe", default="white")
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    root = os.environ.get("ASIF_SHARED")
    image, text = shared(Path(root)) if root else drawn(rng)
    labels = {f"label {i}": text[i] for i in rng.choice(len(text), asked.labels, replace=False)}
    pictures = more(image, asked.pictures + len(image), rng)[-asked.pictures :]
    both = [more(side, asked.pairs, np.random.default_rng(2)) for side in (image, text)]
    with tempfile.TemporaryDirectory() as folder:
        store = fill(f"{folder}/db", *both)
        measure(store.uri, asked.recipe, pictures, labels)


def measure(uri: str, recipe: str, pictures: np.ndarray, labels: dict[str, np.ndarray]) -> None:
    """Ask about each picture, after a first one."""
    model, prompts = asif_lance.open(uri, recipe=recipe), prompts_from_vectors(labels)
    compiled = model.compile(prompts)
    find_fewest_flip(model, pictures[0], prompts, most=30, tries=300)
    alone, took, sizes, least, told, exact = [], [], [], [], [], 0
    for vector in pictures:
        began = time.perf_counter()
        list(model.classify_vectors([""], vector[None], compiled))
        alone.append(time.perf_counter() - began)
        began = time.perf_counter()
        found = find_fewest_flip(model, vector, prompts, most=30, tries=300)
        took.append(time.perf_counter() - began)
        if found is not None:
            sizes.append(len(found.pair_ids))
            least.append(found.at_least / sizes[-1])
            exact += found.exact
        told.append((took[-1], str(sizes[-1]) + " pairs" if found is not None else "none found"))
    one, median, most = np.median(alone), np.median(took), max(took)
    print(f"{model.version.pairs:,} pairs, {len(labels)} labels, {recipe}: one classification")
    print(f"{one * 1e3:.0f} ms; the fewest pairs {median:.2f} s (median), {most:.2f} s (most),")
    print(f"{median / one:.0f} and {most / one:.0f} classifications")
    print("slowest:", ", ".join(f"{s:.1f} s ({what})" for s, what in sorted(told)[:-4:-1]))
    many = f"{min(sizes)} to {max(sizes)} pairs, median {np.median(sizes):.0f}" if sizes else ""
    proved = f"; the bound is {np.median(least):.0%} of that (median)" if sizes else ""
    print(
        f"found for {len(sizes)} of {len(pictures)} pictures: {many}{proved}; certain for {exact}"
    )


if __name__ == "__main__":
    main()
