"""Confidence: probabilities, conformal sets and "none of these", exact after deletion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Cli
from four_things import KINDS, things
from hypothesis import given, settings
from hypothesis import strategies as st

import asif_lance
from asif_lance.errors import InputError
from asif_lance.evaluation import (
    Calibration,
    calibrate_by_pictures,
    calibrate_by_self_test,
    compare_kinds,
    report_confidence,
)
from asif_lance.evaluation.confidence import fit_sharpness, limit_exactness, log_losses
from asif_lance.evaluation.labelled_pictures import LEAST_PICTURES
from asif_lance.evaluation.self_test import LEAST_PAIRS, MOST_PICTURES
from asif_lance.model import Model, Prediction

DB = ("--db", "t.lancedb")


def calibration(true: list[float], best: list[float] | None = None) -> Calibration:
    """One of given probabilities and best scores."""
    high = np.sort(np.array(best or true))
    return Calibration("labelled pictures", 10.0, 0.0, np.sort(np.array(true)), high, high)


def test_sharpness_makes_the_truth_most_likely(rng: np.random.Generator) -> None:
    scores = rng.random((400, 5))
    weights = np.exp(12 * scores)
    truths = np.array([rng.choice(5, p=row / row.sum()) for row in weights])
    found = fit_sharpness(scores, truths)
    assert found == pytest.approx(12, abs=2.5)
    for other in (0.9 * found, 1.1 * found):
        assert log_losses(scores, truths, other).mean() > log_losses(scores, truths, found).mean()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_sets_cover_the_stated_share_whatever_is_calibrated(
    n: int, stated: float, seed: int
) -> None:
    """With n + 1 exchangeable pictures, each left out in turn, at least that share is covered."""
    shares = np.random.default_rng(seed).random(n + 1).round(1)  # with ties
    covered = [
        shares[i] >= calibration(np.delete(shares, i).tolist()).threshold(stated)
        for i in range(n + 1)
    ]
    assert np.mean(covered) >= stated - 1e-9
    low = [
        calibration([0.5] * n, np.delete(shares, i).tolist()).share_as_low(shares[i : i + 1])[0]
        for i in range(n + 1)
    ]
    assert np.mean(np.array(low) <= 1 - stated) <= 1 - stated + 1e-9


def test_labelled_pictures_and_the_self_test_need_as_many() -> None:
    assert LEAST_PICTURES == LEAST_PAIRS


def test_too_few_pictures_make_every_label_possible() -> None:
    assert calibration([0.9] * 8).threshold(0.9) == 0
    assert calibration([0.9] * 9).threshold(0.9) == 0.9


@pytest.mark.parametrize("coverage", [0, 1, -0.5, 90, float("nan")])
def test_a_coverage_lies_between_0_and_1(coverage: float) -> None:
    with pytest.raises(InputError, match="a coverage lies between 0 and 1"):
        calibration([0.5]).threshold(coverage)


@pytest.fixture
def built(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> tuple[Model, dict, np.ndarray]:
    """A model of 200 pairs about four things, prompts, and 120 pictures of the same kind."""
    frame, labels = things(rng, 320)
    frame[:200].write_parquet(tmp_path / "pairs.parquet")
    cli(*DB, "ingest", "pairs.parquet")
    vectors = np.array(frame["image_vector"][200:].to_list(), dtype=np.float32)
    return asif_lance.open(tmp_path / "t.lancedb"), labels, vectors


def predict(model: Model, labels: dict, vectors: np.ndarray) -> list[Prediction]:
    names = [f"{i}" for i in range(len(vectors))]
    return list(model.classify_vectors(names, vectors, model.label_vectors(labels)))


def test_an_answer_says_how_probable_it_is_and_what_else_is_possible(
    built: tuple[Model, dict, np.ndarray],
) -> None:
    model, labels, vectors = built
    found = calibrate_by_self_test(model, model.label_vectors(labels))
    assert (found.source, found.pictures) == ("self-test", 10 * KINDS)
    answers = predict(model, labels, vectors)
    for answer in answers[:20]:
        said = found.assess(answer, 0.8)
        assert sum(said.probabilities) == pytest.approx(1)
        assert list(said.probabilities) == sorted(said.probabilities, reverse=True)
        assert said.possible == tuple(n for n, _ in answer.ranking)[: len(said.possible)]
    noise = np.random.default_rng(1).standard_normal((40, vectors.shape[1])).astype(np.float32)
    strange = [found.assess(answer).none for answer in predict(model, labels, noise)]
    usual = [found.assess(answer).none for answer in answers]
    assert np.mean(strange) > 0.5 > np.mean(usual)


def test_a_calibration_after_deletion_and_forgetting_is_that_of_the_pairs_left(
    built: tuple[Model, dict, np.ndarray], cli: Cli, tmp_path: Path
) -> None:
    model, labels, _ = built
    before = calibrate_by_self_test(model, model.label_vectors(labels))
    cli(*DB, "delete", "p3")
    cli(*DB, "forget", "p8", "p12", "--yes")
    left = asif_lance.open(tmp_path / "t.lancedb")
    frame = left.store.dataset("latest").to_table()
    pq.write_table(frame, tmp_path / "rest.parquet")
    cli("--db", "fresh.lancedb", "ingest", "rest.parquet")
    fresh = asif_lance.open(tmp_path / "fresh.lancedb")
    mine, new = (calibrate_by_self_test(m, m.label_vectors(labels)) for m in (left, fresh))
    for name in ("sharpness", "spread"):
        assert getattr(mine, name) == getattr(new, name) != getattr(before, name)
    for name in ("true", "best", "nearest"):
        assert getattr(mine, name).tolist() == getattr(new, name).tolist()


def test_labelled_pictures_calibrate_for_others_of_their_kind(
    built: tuple[Model, dict, np.ndarray],
) -> None:
    model, labels, vectors = built
    answers = predict(model, labels, vectors)
    truths = [f"c{i % KINDS}" for i in range(len(vectors))]
    by_pictures = calibrate_by_pictures(answers, truths)
    assert (by_pictures.source, by_pictures.pictures) == ("labelled pictures", 120)
    by_self_test, by_halves = report_confidence(model, answers, truths, 0.8)
    assert (by_self_test.calibrated_on, by_halves.calibrated_on) == (40, 60)
    assert by_halves.pictures == by_self_test.pictures == 120
    assert by_halves.covered == pytest.approx(0.8, abs=0.1)
    assert by_halves.right == np.mean([a.label == t for a, t in zip(answers, truths, strict=True)])
    assert not by_halves.kind.is_another
    for n in (0, 1, 19):
        with pytest.raises(InputError, match=rf"{n} labelled pictures? (is|are) too few"):
            calibrate_by_pictures(answers[:n], truths[:n])


def test_a_few_right_answers_state_no_more_than_the_rule_of_succession(
    built: tuple[Model, dict, np.ndarray],
) -> None:
    model, labels, vectors = built
    answers = predict(model, labels, vectors)
    truths = [f"c{i % KINDS}" for i in range(len(vectors))]
    right = [i for i, (a, t) in enumerate(zip(answers, truths, strict=True)) if a.label == t][:20]
    found = calibrate_by_pictures([answers[i] for i in right], [truths[i] for i in right])
    for answer in answers:
        shares = found.assess(answer).probabilities
        assert sum(shares) == pytest.approx(1)
        assert max(shares) <= 21 / 22 + 1e-12
        assert min(shares) >= 1 / (22 * (KINDS - 1)) - 1e-12


@given(st.integers(20, 500), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_limited_probabilities_keep_their_order_and_their_sum(
    pictures: int, labels: int, seed: int
) -> None:
    logs = 50 * np.random.default_rng(seed).standard_normal((5, labels))
    whole = np.exp(logs - logs.max(axis=1, keepdims=True))
    whole /= whole.sum(axis=1, keepdims=True)
    found = limit_exactness(whole, pictures)
    assert np.allclose(found.sum(axis=1), 1)
    assert (np.diff(np.take_along_axis(found, np.argsort(whole, axis=1), axis=1)) >= 0).all()
    if labels > 1:
        assert found.max() <= (pictures + 1) / (pictures + 2) + 1e-12
        assert found.min() >= 1 / ((pictures + 2) * (labels - 1)) - 1e-12
    likely = whole >= 0.1
    assert (found[likely] >= whole[likely] * (pictures + 1) / (pictures + 2) - 1e-12).all()


def test_pictures_whose_best_scores_are_low_are_of_another_kind() -> None:
    known = calibration([0.5] * 20, [i / 20 for i in range(20)])
    assert compare_kinds(known, np.full(9, 0.01), np.full(9, 0.9)).is_another
    for few in (1, 2):  # a tenth of all pictures of the same kind score as low
        assert not compare_kinds(known, np.full(few, 0.01), np.full(few, 0.9)).is_another
    usual = compare_kinds(known, np.full(9, 0.5), np.full(9, 0.01))
    assert (usual.low, usual.far, usual.is_another) == (0, 1, False)


def test_of_very_many_labels_some_stand_for_all(built: tuple[Model, dict, np.ndarray]) -> None:
    model, _, _ = built
    rng = np.random.default_rng(0)
    dimension = model.store.text.dimension
    many = {f"l{i}": v for i, v in enumerate(rng.standard_normal((MOST_PICTURES + 9, dimension)))}
    found = calibrate_by_self_test(model, model.label_vectors(many))
    assert found.pictures == MOST_PICTURES
