"""The fewest pairs that flip an answer: no fewer do, tried one set after another."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, Cli, pairs_frame

import asif_lance
from asif_lance.model import Model, Prompts, prompts_from_vectors
from asif_lance.whatif import find_fewest_flip, without_pairs

N = 9


def fewest_by_trying_all(model: Model, vector: np.ndarray, prompts: Prompts) -> int | None:
    """How few pairs flip the label, by classifying with every smaller model."""
    (before,) = model.classify_vectors([""], vector[None], model.compile(prompts))
    ids = [f"p{i}" for i in range(N)]
    for size in range(1, N):
        for gone in combinations(ids, size):
            smaller, _ = without_pairs(model, gone)
            (after,) = smaller.classify_vectors([""], vector[None], smaller.compile(prompts))
            if after.label != before.label:
                return size
    return None


@pytest.mark.parametrize("recipe", ["paper", "centred"])
@pytest.mark.parametrize("k", [3, 800])
@pytest.mark.parametrize("seed", range(4))
def test_no_fewer_pairs_flip_the_answer(
    cli: Cli, tmp_path: Path, recipe: str, k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pairs_frame(N, rng).write_parquet(tmp_path / "pairs.parquet")
    assert cli("--db", "t.lancedb", "ingest", "pairs.parquet").status == 0
    model = asif_lance.open("t.lancedb", recipe=recipe, k=k)
    vector = rng.standard_normal(IMAGE_DIM).astype(np.float32)
    labels = rng.standard_normal((3, TEXT_DIM)).astype(np.float32)
    prompts = prompts_from_vectors(dict(zip("abc", labels, strict=True)))
    found = find_fewest_flip(model, vector, prompts, tries=2**N)
    fewest = fewest_by_trying_all(model, vector, prompts)
    quick = find_fewest_flip(model, vector, prompts, tries=0)
    if quick is not None and fewest is not None:
        assert quick.at_least <= len(quick.pair_ids)
        assert not quick.exact or len(quick.pair_ids) == fewest
        assert recipe != "paper" or quick.at_least <= fewest
    assert (None if found is None else len(found.pair_ids)) == fewest
    if found is None:
        return
    assert found.exact
    smaller, _ = without_pairs(model, found.pair_ids)
    (after,) = smaller.classify_vectors([""], vector[None], smaller.compile(prompts))
    assert after.label == found.change.after.label != found.change.before.label


def test_without_tries_it_does_not_say_that_it_is_exact(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pairs_frame(60, rng).write_parquet(tmp_path / "pairs.parquet")
    assert cli("--db", "t.lancedb", "ingest", "pairs.parquet").status == 0
    model = asif_lance.open("t.lancedb")
    labels = rng.standard_normal((3, TEXT_DIM)).astype(np.float32)
    prompts = prompts_from_vectors(dict(zip("abc", labels, strict=True)))
    for _ in range(5):
        vector = rng.standard_normal(IMAGE_DIM).astype(np.float32)
        found = find_fewest_flip(model, vector, prompts, tries=0)
        if found is not None:
            assert found.exact == (len(found.pair_ids) == 1)
            assert found.change.flips
