"""Builds the index of the image side and finds the fastest setting that agrees often enough.

`build_index` measures what each setting gives beside exact search on the user's own queries;
`search_settings` says where the choice is kept. An index belongs to the newest model version
and those after it, until `forget` drops it from all and builds it again for the newest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lance
import torch

from asif_lance.anchors import (
    INDEX,
    Approximation,
    IndexSearch,
    MeasuredSetting,
    SampledSearch,
    SearchChoice,
    SearchSetting,
    search_settings,
)
from asif_lance.database import Ledger, committing, one_line, open_table
from asif_lance.errors import DatabaseError, InputError, format_count
from asif_lance.indexing.agreement import AgreementTest
from asif_lance.indexing.trial_queries import TrialQueries
from asif_lance.model import Model
from asif_lance.progress import step, track
from asif_lance.store import PairStore
from asif_lance.whatif import hypothetical

SAMPLED = "sampled"
#: The kinds of `index build --kind`; all but `sampled` are Lance's.
KINDS = ("ivf-rq", "ivf-pq", "ivf-sq", "ivf-hnsw-sq", "ivf-flat", SAMPLED)

#: Stored vectors are of unit length, so that the largest product is the smallest angle; and a
#: query of any length, or moved by a recipe's mean, asks the same index.
METRIC = "dot"

_CANDIDATES = (1.0, 1.25, 2.0, 4.0)
_FRACTIONS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_ROWS_PER_PARTITION = 4096
_ROWS_PER_GRAPH = 2**20
_BYTE_DIMENSIONS = 8  # RaBitQ packs so many dimensions into a byte


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What serves approximate search of a version.

    Attributes:
        version: the model version.
        search: `index` or `sampled`.
        choice: the setting, and what it was measured to give; None for an index of no choice.
        rows: rows in the index; 0 for `sampled`.
        later: rows added after it, all of which are compared.
        bytes: size of the index.
    """

    version: str
    search: str
    choice: SearchChoice | None
    rows: int
    later: int
    bytes: int


def build_index(
    model: Model,
    queries: TrialQueries,
    *,
    kind: str | None = None,
    target: float = 0.99,
    keep: bool = False,
    tried: list[MeasuredSetting] | None = None,
) -> SearchChoice:
    """Build an index over the newest version, find the setting for a target, and keep both.

    Writers wait meanwhile. With `kind` `sampled` no index is needed and only a setting is sought.
    What is not kept takes the place of an older index all the same: the version has none then.

    Args:
        model: the newest version, with the recipe that is to be used.
        queries: what to measure on.
        kind: one of `KINDS`; by default `ivf-rq` where the vectors' size allows it, else `ivf-sq`.
        target: share of the queries that have to get the label of exact search.
        keep: keep what takes longer than exact search, too.
        tried: gathers what was measured.

    Raises:
        InputError: not the newest version, an unknown kind, a target that is no share, or too few
            pairs for an index.
        DatabaseError: no setting reaches the target, or all of those that do take longer than
            exact search and `keep` was not given; or head has changes without a name.
    """
    if not 0 < target <= 1:
        raise InputError(f"the agreement must be above 0 and at most 1, got {target:g}")
    kind = kind or default_kind(model.store.image.dimension)
    if kind not in KINDS:
        raise InputError(f"no index of kind {kind!r}; there are: {', '.join(KINDS)}")
    with model.store.writing("index build"):
        check_newest(model)
        search = SAMPLED if kind == SAMPLED else "index"
        search_settings.drop_choice(_head(model.store), search)
        seconds = _create(model.store, kind) if search == "index" else 0.0
        found = _measure_settings(model.reopened(), queries, kind, target)
        measured = _choose_setting(found, target)
        if tried is not None:
            tried += found
        fault = _find_fault(kind, target, measured, keep)
        if fault is not None:
            _drop(model.store, search)
            raise DatabaseError(fault)
        choice = _make_choice(model, queries, kind, target, measured, seconds)
        search_settings.save_choice(_head(model.store), choice)
        Ledger(model.store.uri).adopt(_head(model.store))
    return choice


def index_status(store: PairStore, version: str) -> list[IndexStatus]:
    """What there is for a version.

    Raises:
        VersionNotFoundError: there is no such version.
    """
    name = store.version(version).name
    state = store.dataset(name)
    found = [
        IndexStatus(
            name,
            "index",
            search_settings.load_choice(state, "index"),
            index.num_rows_indexed,
            state.count_rows() - index.num_rows_indexed,
            index.total_size_bytes or 0,
        )
        for index in state.describe_indices()
        if index.name == INDEX
    ]
    sampled = search_settings.load_choice(state, SAMPLED)
    return found + ([IndexStatus(name, SAMPLED, sampled, 0, 0, 0)] if sampled else [])


def drop_index(store: PairStore) -> list[str]:
    """Take index and settings from the newest version; returns the searches that this ends.

    Versions before it keep theirs, if they have one.
    """
    with store.writing("index drop"):
        state = _head(store)
        dropped = [s for s in ("index", SAMPLED) if search_settings.load_choice(state, s)]
        if search_settings.has_index(state) and "index" not in dropped:
            dropped.append("index")
        for search in dropped:
            _drop(store, search)
    return dropped


def default_kind(dimension: int) -> str:
    """The kind for vectors of this size."""
    return "ivf-rq" if dimension % _BYTE_DIMENSIONS == 0 else "ivf-sq"


def count_partitions(kind: str, count: int) -> int:
    """How many partitions an index over so many pairs has."""
    each = _ROWS_PER_GRAPH if kind == "ivf-hnsw-sq" else _ROWS_PER_PARTITION
    return max(round(count / each), 1)


def _create(store: PairStore, kind: str) -> float:
    """Build an index at head and let the newest version have it; returns the seconds it took."""
    head = _head(store)
    count = head.count_rows()
    begun = time.perf_counter()
    options = _product_options(store.image.dimension) if kind == "ivf-pq" else {}
    try:
        with step("build the index"), committing(head.uri):
            head.create_index(
                "image_vector",
                kind.upper().replace("-", "_"),
                name=INDEX,
                metric=METRIC,
                replace=True,
                num_partitions=count_partitions(kind, count),
                **options,
            )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"no {kind} index over {format_count(count, 'pair')}: {one_line(error)}; "
            "another --kind may do, and "
            "exact search is fast for so few"
        ) from error
    seconds = time.perf_counter() - begun
    Ledger(store.uri).adopt(_head(store))
    return seconds


def _product_options(dimension: int) -> dict[str, Any]:
    """A byte for 8 dimensions where they divide so; Lance has a GPU build of this kind only."""
    each = math.gcd(dimension, 8)
    accelerator = "cuda" if torch.cuda.is_available() else None
    return {"num_sub_vectors": dimension // each, "accelerator": accelerator}


def _measure_settings(
    model: Model, asked: TrialQueries, kind: str, target: float
) -> list[MeasuredSetting]:
    """What the settings give that may be the fastest of those that agree often enough."""
    held_out = hypothetical.without_pairs(model, asked.left_out)[0] if asked.left_out else model
    labels = held_out.compile(asked.prompts)
    comparison = AgreementTest(held_out.anchors, model.recipe, asked.queries, labels)
    tried = []
    for row in track("measure settings", list(_searches(kind, model.anchors.count))):
        for approximation in row:
            tried.append(comparison.measure(approximation))
            if tried[-1].agreement >= target:
                break  # looking further takes longer
    return tried


def _choose_setting(tried: Sequence[MeasuredSetting], target: float) -> MeasuredSetting:
    """The fastest setting that agrees often enough, or the one that agrees most often."""
    enough = [measured for measured in tried if measured.agreement >= target]
    if enough:
        return max(enough, key=lambda measured: measured.ratio)
    return max(tried, key=lambda measured: (measured.agreement, measured.ratio))


def _searches(kind: str, count: int) -> Iterator[Sequence[Approximation]]:
    """Rows of searches, each of which looks further than the one before."""
    if kind == SAMPLED:
        # A larger sample leaves less doubt: it may well take less time.
        yield from ([SampledSearch(SearchSetting(fraction=fraction))] for fraction in _FRACTIONS)
        return
    every = count_partitions(kind, count)
    probes = sorted({every, *(1 << n for n in range(every.bit_length()))})
    for candidates in _CANDIDATES:
        yield [IndexSearch(SearchSetting(nprobes=n, candidates=candidates), METRIC) for n in probes]


def _make_choice(
    model: Model,
    asked: TrialQueries,
    kind: str,
    target: float,
    measured: MeasuredSetting,
    seconds: float,
) -> SearchChoice:
    return SearchChoice(
        search=SAMPLED if kind == SAMPLED else "index",
        kind=kind,
        metric=METRIC,
        measured=measured,
        target=target,
        version=model.version.name,
        recipe=model.recipe.as_values(),
        queries=len(asked.queries),
        labels=len(asked.prompts.names),
        asked=asked.asked,
        seconds=seconds,
    )


def _find_fault(kind: str, target: float, best: MeasuredSetting, keep: bool) -> str | None:
    """Why the best setting is not kept; None if it is."""
    if best.agreement < target:
        return (
            f"no setting of {kind} agrees with exact search on {target:.1%} of the queries, the "
            f"best on {best.agreement:.1%}: try another --kind or a lower --agreement"
        )
    if best.ratio < 1 and not keep:
        return (
            f"{kind} was not kept, it is slower than exact search: a picture takes "
            f"{best.milliseconds:.2f} ms instead of {best.exact_milliseconds:.2f} ms at an "
            f"agreement of {best.agreement:.1%}; --keep keeps it all the same"
        )
    return None


def check_newest(model: Model) -> None:
    """Pass a model that an index can be built for.

    Raises:
        AttachedDatabaseError: the pairs are those of somebody else's table.
        InputError: it is not the newest version.
        DatabaseError: head has changes without a name.
    """
    model.store.check_own("index build")
    newest = model.store.version().name
    if model.version.name != newest:
        raise InputError(
            f"an index serves the newest version and those after it, which is {newest}, not "
            f"{model.version.name}; `asif-lance rollback` makes an old one the newest"
        )
    if model.store.unpublished():
        raise DatabaseError(
            "an interrupted ingest has left pairs that no version has yet: finish it first"
        )


def _drop(store: PairStore, search: str) -> None:
    search_settings.drop_choice(_head(store), search)
    head = _head(store)
    if search == "index" and search_settings.has_index(head):
        with committing(head.uri):
            head.drop_index(INDEX)
    Ledger(store.uri).adopt(_head(store))


def _head(store: PairStore) -> lance.LanceDataset:
    return open_table(store.uri, "pairs")
