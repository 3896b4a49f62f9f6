"""What it takes to ask a recorded prediction again of other pairs: its query and its label set.

Table `queries`, one row per prediction: the image's unit vector; how many `neighbors` it had;
`similarities`, that of the nearest and those at `ranks` around the last; the relative `weight` of
the nearest, from which that of any other anchor follows; and the best labels (places in the label
set) with their scores.
Table `prompts`: the run's label set as vectors, and how many `pairs` the model had: fewer
since, and something was forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from asif_lance.audit.runs import Run
from asif_lance.database import read_table
from asif_lance.errors import InputError
from asif_lance.records import SPARE, Float32Array, Float64Array, Int64Array
from asif_lance.relative import Recipe, make_recipe
from asif_lance.store import PairStore

if TYPE_CHECKING:  # readers of the tables need no torch
    from asif_lance.model import Prediction, Prompts

#: Labels whose scores are kept per prediction, best first: the others score less than the last.
LABELS = 16


@dataclass(frozen=True, slots=True)
class ReplayRecords:
    """The recorded predictions of one run: m images, `c` labels.

    Attributes:
        ids: m prediction ids.
        images: m names.
        queries: (m, d) float32, unit vectors on the grid of `search.unit_queries`.
        neighbors: how many neighbors each image had.
        similarities: (m, 1 + r) float64 cosines: the nearest anchor's, then those at `ranks`.
        ranks: (r,) int64, descending; empty if an older release recorded the run.
        weights: (m,) float64, the value of the nearest neighbor in the image's relative vector.
        best: (m,) int64, the chosen label's place in the label set.
        scores: (m, c) float64; of labels that were not recorded, at least their score.
        prompts: the label set.
        pairs: how many the model had.
    """

    ids: tuple[str, ...]
    images: tuple[str, ...]
    queries: Float32Array
    neighbors: int
    similarities: Float64Array
    ranks: Int64Array
    weights: Float64Array
    best: Int64Array
    scores: Float64Array
    prompts: Prompts
    pairs: int


def choose_ranks(neighbors: int, found: int) -> Int64Array:
    """The ranks, from 0, whose similarities are kept: up to SPARE on both sides of the last one's.

    Pairs that come push out the last ones, and for pairs that go the next ones enter: the k-th
    similarity is among these for up to SPARE of them.
    """
    return np.arange(found - 1, max(neighbors - 1 - SPARE, 0) - 1, -1)


def make_query_row(prediction_id: str, prediction: Prediction) -> dict[str, Any]:
    """One row of `queries`.

    Raises:
        InputError: the prediction was not made by exact search.
    """
    made_of = prediction.evidence
    if not len(made_of.similarities):
        raise InputError("only predictions of exact search are recorded: what-if relies on them")
    near, count = made_of.similarities, made_of.relative.indices.shape[1]
    place = {name: i for i, name in enumerate(made_of.labels.names)}
    best = prediction.ranking[:LABELS]
    return {
        "prediction_id": prediction_id,
        "vector": made_of.vector,
        "neighbors": count,
        "similarities": near[[0, *choose_ranks(count, len(near))]].astype(np.float64),
        "weight": float(made_of.relative.values[0, 0]),
        "labels": [place[name] for name, _ in best],
        "scores": [score for _, score in best],
    }


def make_prompt_rows(run_id: str, prompts: Prompts, pairs: int) -> list[dict[str, Any]]:
    """The rows of `prompts` of one run."""
    # Compiled, each class has one embedding already; averaging it again could round it anew.
    ensemble = "max" if prompts.ensemble == "mean-embedding" else prompts.ensemble
    return [
        {"run_id": run_id, "position": i, "label": prompts.names[owner], "vector": vector}
        | {"ensemble": ensemble, "pairs": pairs}
        for i, (owner, vector) in enumerate(zip(prompts.owner, prompts.vectors, strict=True))
    ]


def load_replay(store: PairStore, run_id: str, labels: int) -> ReplayRecords:
    """What a run recorded.

    Raises:
        InputError: it recorded nothing of this kind, or it was forgotten.
    """
    mine, first = f"starts_with(prediction_id, '{run_id}-')", f"run_id = '{run_id}' AND rank = 1"
    queries = read_table(store.uri, "queries", where=mine)
    images = read_table(store.uri, "predictions", ["prediction_id", "image"], first)
    prompts = read_table(store.uri, "prompts", where=f"run_id = '{run_id}'")
    asked = _make_prompts(prompts, run_id, labels)
    named = dict(zip(images["prediction_id"].to_pylist(), images["image"].to_pylist(), strict=True))
    ids = tuple(queries["prediction_id"].to_pylist())
    if not ids:
        raise InputError(f"run {run_id} has no prediction left that could be asked again")
    count = int(queries["neighbors"][0].as_py())
    places = _to_matrix(queries["labels"], np.int64)
    known = _to_matrix(queries["scores"], np.float64)
    similarities, pairs = (
        _to_matrix(queries["similarities"], np.float64),
        prompts["pairs"][0].as_py(),
    )
    kept = choose_ranks(count, min(count + SPARE, pairs))
    scores = np.repeat(known[:, -1:], labels, axis=1)
    np.put_along_axis(scores, places, known, axis=1)
    return ReplayRecords(
        ids=ids,
        images=tuple(named[i] for i in ids),
        queries=_to_matrix(queries["vector"], np.float32),
        neighbors=count,
        similarities=similarities,
        ranks=kept if similarities.shape[1] == 1 + len(kept) else kept[:0],
        weights=queries["weight"].to_numpy(),
        best=places[:, 0],
        scores=scores,
        prompts=asked,
        pairs=pairs,
    )


def recipe_of(store: PairStore, run: Run) -> Recipe:
    """The recipe that a run was made with, k and p included."""
    rows = read_table(store.uri, "predictions", ["k", "p"], f"run_id = '{run.run_id}'", limit=1)
    if not len(rows):
        raise InputError(f"run {run.run_id} has no predictions left")
    k, p = (rows[name][0].as_py().split(",") for name in ("k", "p"))
    return make_recipe(run.recipe, k=(int(k[0]), int(k[-1])), p=(float(p[0]), float(p[-1])))


def _make_prompts(rows: pa.Table, run_id: str, labels: int) -> Prompts:
    from asif_lance.model import Prompts

    rows = rows.sort_by("position")
    names = tuple(dict.fromkeys(rows["label"].to_pylist()))
    if not names or len(names) != labels:
        raise InputError(
            f"run {run_id} does not have its prompts (an older release recorded it, or a "
            "caption among them was forgotten): name the images and labels, or record again"
        )
    place = {name: i for i, name in enumerate(names)}
    owner = np.array([place[name] for name in rows["label"].to_pylist()], dtype=np.int64)
    ensemble = rows["ensemble"][0].as_py()
    return Prompts(names, owner, _to_matrix(rows["vector"], np.float32), ensemble)


def _to_matrix(column: pa.ChunkedArray, dtype: Any) -> Any:
    """Lists of equal length as a matrix."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.array(flat.reshape(len(column), -1), dtype=dtype)


def to_table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """One or more rows, whose vectors are arrays, as Arrow.

    Pyarrow's own `from_pylist` reads arrays number by number.
    """
    columns = [_to_array([row[field.name] for row in rows], field.type) for field in schema]
    return pa.table(columns, schema=schema)


def _to_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(np.concatenate(values), kind.list_size)
    return pa.array(values, kind)
