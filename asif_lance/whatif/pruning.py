"""Pairs that can go while recorded predictions keep their labels.

Those that recorded attributions give least weight are taken first. Attributions are capped (see
`runs.PAIRS`), so a pair that is in none may still have had a small share: how far that matters is
measured, by asking every recorded prediction of the model without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from asif_lance.audit import Run, find_run, list_runs
from asif_lance.audit.replay import ReplayRecords, load_replay, recipe_of
from asif_lance.database import read_table
from asif_lance.errors import InputError, format_count
from asif_lance.model import Model
from asif_lance.progress import step
from asif_lance.store import PairStore
from asif_lance.whatif.changes import compare_states
from asif_lance.whatif.hypothetical import without_pairs
from asif_lance.whatif.recorded_flips import find_recorded_flips

_STEPS = 100  # the number of pairs is found to this part of all


@dataclass(frozen=True, slots=True)
class Pruning:
    """What can go.

    Attributes:
        version: the model version that was asked.
        pairs: how many pairs it has.
        removable: the ids of those that can go.
        unused: how many are in no recorded attribution.
        coverage: the mean share of the chosen labels' scores that recorded attributions add up to.
        predictions: how many were asked again.
        agreement: the share of them that keep their label without the pairs.
    """

    version: str
    pairs: int
    removable: tuple[str, ...]
    unused: int
    coverage: float
    predictions: int
    agreement: float


def prunable_pairs(
    store: PairStore,
    run_ids: Sequence[str] = (),
    *,
    agreement: float = 0.99,
    keep: int | None = None,
    device: str = "auto",
) -> Pruning:
    """Find the most pairs that can go from the newest model, or all but `keep` of them.

    Args:
        store: the database.
        run_ids: the recorded runs that count; all if none is named.
        agreement: the share of their predictions that must keep its label, in [0, 1].
        keep: how many pairs may stay, at most.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        InputError: no such run, or none is recorded; nobody could agree; keeping `keep` pairs
            agrees with fewer predictions than asked for.
    """
    if not 0 <= agreement <= 1 or (keep is not None and keep < 1):
        raise InputError("agreement lies between 0 and 1, and at least one pair stays")
    chosen = [find_run(store, i) for i in run_ids] or list_runs(store) or [find_run(store)]
    asked = [_RecordedRun.of(store, run, device) for run in chosen]
    ids, unused = _order_by_weight(store, chosen, asked[0].model)
    if keep is None:
        count = _count_removable(asked, ids, unused, agreement)
    else:
        count = max(len(ids) - keep, 0)
    measured = _agreement(asked, ids[:count])
    if measured < agreement:
        raise InputError(
            f"with {format_count(len(ids) - count, 'pair')} {measured:.1%} of the "
            "predictions keep their label, "
            f"fewer than the {agreement:.1%} asked for"
        )
    return Pruning(
        version=asked[0].model.version.name,
        pairs=len(ids),
        removable=tuple(ids[:count]),
        unused=unused,
        coverage=_coverage(store, chosen),
        predictions=sum(len(one.recorded.ids) for one in asked),
        agreement=measured,
    )


@dataclass(frozen=True, slots=True)
class _RecordedRun:
    """One run's predictions and the newest model under the run's recipe."""

    model: Model
    recorded: ReplayRecords
    own: bool  # whether the newest version is the one that made the run

    @classmethod
    def of(cls, store: PairStore, run: Run, device: str) -> _RecordedRun:
        newest = store.version()
        model = Model(store, newest, recipe_of(store, run), device=device)
        return cls(model, load_replay(store, run.run_id, run.labels), run.model == newest.name)

    def count_flips(self, removed: Sequence[str]) -> int:
        """How many predictions change without some pairs."""
        after, count = without_pairs(self.model, removed)
        if not count:
            return 0
        if self.own:
            return len(find_recorded_flips(self.model, after, self.recorded).flips)
        one = self.recorded
        return sum(
            change.flips
            for change in compare_states(self.model, after, one.images, one.queries, one.prompts)
        )


def _count_removable(
    asked: list[_RecordedRun], ids: Sequence[str], unused: int, agreement: float
) -> int:
    """How many of the first ids can go: by halves, beginning with the unused ones."""
    low, high, count = 0, len(ids), min(unused, len(ids) - 1)
    with step("try numbers of pairs") as advance:
        while high - low > max(1, len(ids) // _STEPS):
            if count and _agreement(asked, ids[:count]) < agreement:
                high = count
            else:
                low = count
            count = (low + high) // 2
            advance(1)
    return low


def _agreement(asked: list[_RecordedRun], removed: Sequence[str]) -> float:
    predictions = sum(len(one.recorded.ids) for one in asked)
    return 1 - sum(one.count_flips(removed) for one in asked) / predictions


def _order_by_weight(store: PairStore, chosen: list[Run], model: Model) -> tuple[list[str], int]:
    """The model's pairs by their recorded weight, ties by id; and how many have none."""
    ids = model.anchors.pair_ids.filter(model.anchors.live).to_pylist()
    mine = " OR ".join(f"starts_with(prediction_id, '{run.run_id}-')" for run in chosen)
    rows = read_table(store.uri, "attributions", ["pair_id", "contribution"], mine)
    weight = pl.DataFrame(pl.from_arrow(rows)).group_by("pair_id").agg(pl.col("contribution").sum())
    pairs = pl.DataFrame({"pair_id": ids}).join(weight, on="pair_id", how="left")
    ordered = pairs.with_columns(pl.col("contribution").fill_null(0.0))
    ordered = ordered.sort("contribution", "pair_id")
    return ordered["pair_id"].to_list(), int(pairs["contribution"].null_count())


def _coverage(store: PairStore, chosen: list[Run]) -> float:
    mine = ", ".join(f"'{run.run_id}'" for run in chosen)
    first = f"rank = 1 AND run_id IN ({mine})"
    rows = read_table(store.uri, "predictions", ["coverage"], first)
    return float(np.mean(rows["coverage"].to_numpy()))
