"""A ranking is a tuple of labels and scores that is made when somebody asks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asif_lance.model.label_ranking import LabelRanking

NAMES = [f"label {i}" for i in range(40)]


@given(
    scores=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40),
    first=st.integers(0, 45),
    last=st.integers(-45, 45),
)
def test_it_is_the_tuple_in_every_way(scores: list[float], first: int, last: int) -> None:
    names = NAMES[: len(scores)]
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    expected = tuple((names[i], scores[i]) for i in order)
    ranking = LabelRanking(names, np.array(scores))
    assert ranking[0] == expected[0]
    assert (ranking[-1], ranking[first:last], ranking[:]) == (
        expected[-1],
        expected[first:last],
        expected,
    )
    assert tuple(ranking) == expected
    assert (len(ranking), dict(ranking)) == (len(expected), dict(expected))
    assert ranking == expected
    assert expected == ranking
    assert ranking == LabelRanking(names, np.array(scores))
    assert (hash(ranking), repr(ranking)) == (hash(expected), repr(expected))


def test_it_differs_from_other_scores_and_from_what_is_no_ranking() -> None:
    ranking = LabelRanking(["a", "b"], np.array([0.5, 0.25]))
    assert ranking != LabelRanking(["a", "b"], np.array([0.5, 0.125]))
    assert ranking != (("b", 0.5), ("a", 0.25))
    assert ranking != [("a", 0.5), ("b", 0.25)]


def test_the_best_label_is_found_without_ordering_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(np, "argsort", None)
    ranking = LabelRanking(["a", "b", "c"], np.array([0.25, 0.5, 0.5]))
    assert ranking[0] == ("b", 0.5)
    with pytest.raises(TypeError):
        ranking[:2]


def test_pickled_it_is_a_tuple_that_needs_no_scores() -> None:
    ranking = LabelRanking(["a", "b"], np.array([0.25, 0.5]))
    assert pickle.loads(pickle.dumps(ranking)) == (("b", 0.5), ("a", 0.25))
