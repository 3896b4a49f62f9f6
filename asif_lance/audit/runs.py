"""Runs of recorded predictions: listing them, dropping old ones, and the rule for that.

    with Recorder(model.store, labels, model.recipe) as run:
        for prediction in model.classify(images, labels):
            run.add(prediction, truth="bird")

Tables: `runs` (one row per finished run), `predictions` (one row per image and label, best label
first) and `attributions` (the pairs that add most to each of those scores); and what it takes to
ask again, see `replay`. A killed run leaves predictions that no run names; `prune_runs` removes
them. `set_retention` says which runs stay, and every run that finishes drops the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database import (
    TABLES,
    RowFilter,
    open_table,
    purge_rows,
    read_table,
    retry_read,
    storage_errors,
    update_config,
)
from asif_lance.errors import InputError
from asif_lance.progress import track
from asif_lance.records import BoolArray
from asif_lance.store import PairStore, moment_before

_RETENTION_KEY = "asif.keep"  # in the configuration of the table `runs`

#: How long a run without a row in `runs` may still be under way.
_UNDER_WAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run.

    Attributes:
        run_id: names it.
        created_at: when it began, UTC.
        model: the model version.
        recipe: name of the recipe.
        label_set: fingerprint of the prompts' vectors and names; equal sets have equal ones.
        labels: how many labels could be chosen from.
        predictions: how many images were classified.
        templates: the named set of prompt templates, or the templates; None where label
            vectors were given and for runs of older releases.
    """

    run_id: str
    created_at: datetime
    model: str
    recipe: str
    label_set: str
    labels: int
    predictions: int
    templates: str | None


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Which runs stay: the newest ones, and young ones; all, by default.

    Attributes:
        last: how many of the newest stay, at any age.
        younger_than: those that began no longer ago than this stay, too.
    """

    last: int | None = None
    younger_than: timedelta | None = None

    def __post_init__(self) -> None:
        """Raises InputError for less than nothing."""
        if (self.last or 0) < 0 or (self.younger_than or timedelta(0)) < timedelta(0):
            raise InputError("neither a number of runs nor an age can be negative")

    @property
    def everything(self) -> bool:
        """Whether all runs stay."""
        return self.last is None and self.younger_than is None

    def dropped(self, runs: list[Run]) -> list[Run]:
        """Those of all runs, oldest first, that do not stay."""
        if self.everything:
            return []
        old = runs[: max(len(runs) - (self.last or 0), 0)]
        if self.younger_than is None:
            return old
        limit = moment_before(self.younger_than)
        return [run for run in old if run.created_at < limit]


def list_runs(store: PairStore) -> list[Run]:
    """All finished runs, oldest first."""
    rows = read_table(store.uri, "runs").to_pylist()
    return sorted((Run(**row) for row in rows), key=lambda run: run.created_at)


def find_run(store: PairStore, run_id: str | None = None) -> Run:
    """The run of this id, or the newest.

    Raises:
        InputError: there is none.
    """
    found = list_runs(store)
    named = [run for run in found if run_id in (None, run.run_id)]
    if not named:
        which = "no run is recorded" if run_id is None else f"no run {run_id!r}"
        raise InputError(f"{which}; `classify --record` makes one, `runs` lists them")
    return named[-1]


def set_retention(store: PairStore, rule: RetentionRule) -> None:
    """Says which runs stay from now on: each run that finishes drops the others, never itself.

    The rule is kept with the table `runs`, and holds until another is given.

    Raises:
        InputError: not even one run would stay.
    """
    if rule.last == 0:
        raise InputError("at least the newest run has to be kept")
    age = rule.younger_than
    value = {"last": rule.last, "seconds": None if age is None else age.total_seconds()}
    with store.writing("runs keep", beside=True), storage_errors(store.uri):
        update_config(open_table(store.uri, "runs"), {_RETENTION_KEY: json.dumps(value)})


def retention_rule(store: PairStore) -> RetentionRule:
    """The rule that `set_retention` was last given; everything stays if none was."""
    text = retry_read(store.uri, lambda: open_table(store.uri, "runs").config()).get(_RETENTION_KEY)
    if text is None:
        return RetentionRule()
    value = json.loads(text)
    seconds = value["seconds"]
    return RetentionRule(value["last"], None if seconds is None else timedelta(seconds=seconds))


def prune_runs(
    store: PairStore, *, keep_last: int | None = None, older_than: timedelta | None = None
) -> list[str]:
    """Drops old runs with their predictions and attributions; returns the dropped runs' ids.

    What killed runs left a day ago or earlier goes too.

    Args:
        store: the database.
        keep_last: the newest runs that stay, at any age.
        older_than: only runs that began longer ago than this go.

    Raises:
        InputError: neither rule is given.
    """
    rule = RetentionRule(keep_last, older_than)
    if rule.everything:
        raise InputError("say which runs to keep: the last ones, or those younger than an age")
    with store.writing("prune runs", beside=True):
        found = list_runs(store)
        gone = {run.run_id for run in rule.dropped(found)}
        return drop_runs(store, gone, {run.run_id for run in found} - gone)


def drop_runs(store: PairStore, gone: set[str], kept: set[str] | None = None) -> list[str]:
    """Removes runs under the caller's lock; returns their ids, sorted.

    Given the ids of all runs that stay, it also removes what killed runs left.
    """
    for table in track("drop runs from tables", TABLES):
        if table.run_column:
            is_doomed = _make_filter(table.run_column, gone, kept)
            purge_rows(store.uri, table.name, [table.run_column], is_doomed)
    return sorted(gone)


def _make_filter(column: str, gone: set[str], kept: set[str] | None) -> RowFilter:
    """Which rows belong to runs that are gone, or to old ones that are not among those kept."""
    yesterday = f"r{datetime.now(UTC) - _UNDER_WAY:%Y%m%d-%H%M%S}"  # ids sort by time

    def is_doomed(rows: pa.RecordBatch) -> BoolArray:
        run_ids = pc.replace_substring_regex(rows[column], r"^(r\d+-\d+-[0-9a-f]+).*$", r"\1")
        found = pc.is_in(run_ids, pa.array(sorted(gone), pa.string()))
        if kept is not None:
            unknown = pc.invert(pc.is_in(run_ids, pa.array(sorted(kept), pa.string())))
            left = pc.and_(unknown, pc.less(run_ids, yesterday))
            found = pc.or_(found, left)
        mask: BoolArray = found.to_numpy(zero_copy_only=False)
        return mask

    return is_doomed
