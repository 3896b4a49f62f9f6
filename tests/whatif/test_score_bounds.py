"""What-if's bounds hold: no score moves further than they say, whatever is removed and added."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pairs_at_hand import names, new_store, pairs

import asif_lance
from asif_lance.anchors import HypotheticalAnchors
from asif_lance.audit import recorder, replay
from asif_lance.model.labels import prompts_from_vectors
from asif_lance.relative.recipes import RECIPES
from asif_lance.store.pair_store import PairStore
from asif_lance.whatif.hypothetical import compile_for_both, with_pairs, without_pairs
from asif_lance.whatif.recorded_flips import ImageSides
from asif_lance.whatif.score_bounds import bound_scores, compare_prompts

COUNT, IMAGES = 2000, 60
LABELS = prompts_from_vectors(
    {
        f"label {i}": np.random.default_rng(i).normal(size=(1 + i % 2, 4)).astype(np.float32)
        for i in range(20)
    }
)
VECTORS = np.random.default_rng(9).normal(size=(IMAGES, 8)).astype(np.float32)
IDS = [f"image {i}" for i in range(IMAGES)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PairStore:
    store = new_store(tmp_path_factory.mktemp("settled"))
    store.add(pairs(names(0, COUNT)))
    store.publish(command="ingest")
    return store


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some changes touch the sample that whitenings are fitted on, some do not."""
    monkeypatch.setattr("asif_lance.anchors.whitened.SAMPLE", 12)


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_score_moves_further_than_its_bounds(store: PairStore, data: st.DataObject) -> None:
    k, p = data.draw(st.sampled_from([(50, 4), (200, 2), (100, 8.5)]))
    how = {"recipe": data.draw(st.sampled_from(sorted(RECIPES))), "k": k, "p": p}
    before = asif_lance.open(store.uri, "v1", device="cpu", **how)
    labels = before.compile(LABELS)
    with recorder.Recorder(store, labels, before.recipe) as run:
        for prediction in before.classify_vectors(IDS, VECTORS, labels):
            run.add(prediction)
    asked = replay.load_replay(store, run.run_id, len(LABELS.names))
    gone = sorted(data.draw(st.sets(st.integers(0, COUNT - 1), max_size=12)))
    new = pairs(names(COUNT, COUNT + data.draw(st.integers(0, 12))))
    after, _ = with_pairs(without_pairs(before, [names(0, COUNT)[i] for i in gone])[0], new)
    both = compile_for_both(before, after, asked.prompts)
    assert isinstance(after.anchors, HypotheticalAnchors)
    sides = ImageSides.of(before, after.anchors)
    assume(sides is not None)  # else nothing is bounded
    compared = sides.compare(asked, slice(None))
    images = compared.images
    old = replace(both[0].compiled.vectors(), n=len(after.anchors))
    change = compare_prompts(
        old, both[1].compiled.vectors(), both[0].owner, sides.removed, sides.added
    )
    similar = compared.before(slice(None), change.anchors)
    lower, upper = bound_scores(images, change, similar, before.recipe.p[0])
    for i, one in enumerate(after.classify_vectors(IDS, VECTORS, after.compile(LABELS))):
        nearest, first = one.evidence.similarities[0], images.similarities[i, 0]
        norm = images.weights[i] * (nearest / first) ** before.recipe.p[0]
        norm /= one.evidence.relative.values[0, 0]
        true = dict(one.ranking)
        scores = np.array([true[name] for name in LABELS.names]) * norm
        assert (scores <= upper[i] + 1e-6).all()
        assert scores[images.best[i]] >= lower[i, images.best[i]] - 1e-6
