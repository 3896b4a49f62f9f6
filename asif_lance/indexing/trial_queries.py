"""Queries and labels to try an approximate search on, none of them from the searched pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asif_lance.anchors import Anchors
from asif_lance.audit import replay, runs
from asif_lance.errors import DimensionError, InputError, format_count
from asif_lance.model import Model, Prompts
from asif_lance.records import Float32Array, Int64Array
from asif_lance.search import unit_queries

#: How many of the table's own rows are asked, and how many captions serve as labels.
QUERIES, LABELS = 300, 100

_MAX_COPIES = 64  # of one picture that are left out with it
_SAME_PICTURE = 0.999  # least cosine of one picture's stored vectors, rounded to float16


@dataclass(frozen=True, slots=True)
class TrialQueries:
    """Queries and labels.

    Attributes:
        queries: (m, d) float32 unit vectors.
        prompts: the labels.
        left_out: ids of the pairs that must not be anchors meanwhile: they hold the answers.
        asked: where all that came from, for people.
    """

    queries: Float32Array
    prompts: Prompts
    left_out: tuple[str, ...]
    asked: str


def make_trial_queries(
    model: Model,
    queries: Float32Array | None = None,
    prompts: Prompts | None = None,
    *,
    count: int = QUERIES,
) -> TrialQueries:
    """Take what the user has, and pairs of the table, left out of it, for what is missing.

    Args:
        model: the version that is to be searched.
        queries: (m, d) image vectors; None for those of `count` of its own pairs, drawn at random,
            the same each time.
        prompts: labels; None for the captions of 100 pairs.
        count: see `queries`.

    Raises:
        InputError: too few pairs to draw from.
        DimensionError: vectors of another size.
    """
    anchors = model.anchors
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(anchors.live))
    drawn = drawn[: min(max(count, LABELS), anchors.count // 4)]
    if (queries is None or prompts is None) and not len(drawn):
        raise InputError("too few pairs to try a search on some of them: give --queries and labels")
    left_out, asked = np.zeros(0, dtype=np.int64), []
    if queries is None:
        queries = anchors.vectors("image", drawn[:count])
        left_out = _find_copies(anchors, unit_queries(queries))
        asked.append(f"{len(queries)} of its own pictures, left out of it")
    else:
        asked.append(format_count(len(queries), "given picture"))
    if queries.shape[1] != model.store.image.dimension:
        raise DimensionError("queries", model.store.image.dimension, queries.shape[1])
    if prompts is None:
        own = drawn[:LABELS]
        left_out = np.union1d(left_out, own)
        vectors = unit_queries(anchors.vectors("text", own))
        names = tuple(anchors.ids(own))
        prompts = Prompts(names, np.arange(len(own)), vectors)
        asked.append(f"{len(own)} of its own captions as labels, left out of it")
    else:
        asked.append(format_count(len(prompts.names), "given label"))
    ids = tuple(anchors.ids(left_out))
    return TrialQueries(unit_queries(queries), prompts, ids, "; ".join(asked))


def replayed_queries(model: Model, run_id: str) -> TrialQueries:
    """Ask again what a recorded run asked.

    Raises:
        InputError: there is no such run, or it recorded nothing that can be asked again.
    """
    run = runs.find_run(model.store, run_id)
    asked = replay.load_replay(model.store, run.run_id, run.labels)
    source = (
        f"the {format_count(len(asked.queries), 'picture')} and "
        f"{format_count(run.labels, 'label')} of run {run.run_id}"
    )
    return TrialQueries(asked.queries, asked.prompts, (), source)


def _find_copies(anchors: Anchors, queries: Float32Array) -> Int64Array:
    """Positions of the pairs whose picture is one of the queries: five captions are five pairs."""
    near = anchors.top_k("image", queries, _MAX_COPIES)
    return np.unique(near.indices[near.similarities >= _SAME_PICTURE])
