"""The pairs of a version, filtered: by caption, source, license, and by what needs a look."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.anchors import Anchors
from asif_lance.evaluation.pair_similarity import NEAR_LEAST, measure_similarity
from asif_lance.model import Model
from asif_lance.records import BoolArray
from asif_lance.service.answers import PAIR_COLUMNS, to_pair
from asif_lance.service.messages import Facet, PairsAnswer
from asif_lance.service.open_models import OpenModel, OpenModels
from asif_lance.service.queries import Kind, PairsQuery
from asif_lance.service.question import ChosenRecipe

#: Pairs whose lists of similar ones are looked at for hubs.
PROBES = 200

#: Standard deviations above the mean number of lists from which on a pair is a hub.
HUB = 3.0

#: Values of a facet that are told.
FACETS = 50

_KEPT = 8  # answers that take long to find; the ones not asked for longest go first

#: Ids of the pairs that recorded runs tell to speak for wrong labels, of a version.
FindWrong = Callable[[str], list[str]]


class Gallery:
    """Finds pairs of versions. Safe from threads."""

    def __init__(self, models: OpenModels, find_wrong: FindWrong) -> None:
        """Look into these models; `find_wrong` names pairs that speak for wrong labels."""
        self._models, self._find_wrong = models, find_wrong
        self._hubs: OrderedDict[tuple[str, ...], BoolArray] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, query: PairsQuery) -> PairsAnswer:
        """The pairs that every filter lets by, in the order of the table."""
        return self._models.answer(query.model, ChosenRecipe(), lambda o: self._find(o, query))

    def forget(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._hubs.clear()

    def _find(self, opened: OpenModel, query: PairsQuery) -> PairsAnswer:
        model, anchors = opened.model, opened.model.anchors
        live = np.flatnonzero(anchors.live)
        table = read_columns(anchors, ["source", "license"])
        chosen = np.ones(len(live), dtype=np.bool_)
        for name in ("source", "license"):
            value = getattr(query, name)
            if value is not None:
                chosen &= _as_mask(pc.equal(table[name], value))
        if query.text:
            captions = read_columns(anchors, ["caption"])["caption"]
            chosen &= _as_mask(pc.match_substring(captions, query.text, ignore_case=True))
        if query.kind:
            chosen &= self._of_kind(model, query.kind)
        found = live[chosen]
        page = found[query.offset : query.offset + query.limit]
        end = query.offset + len(page)
        return PairsAnswer(
            model=model.version.name,
            pairs=[to_pair(row) for row in anchors.rows(page, PAIR_COLUMNS)],
            total=len(found),
            next=end if end < len(found) else None,
            sources=_facets(table["source"]),
            licenses=_facets(table["license"]),
        )

    def _of_kind(self, model: Model, kind: Kind) -> BoolArray:
        if kind == "duplicates":
            return _find_duplicates(model.anchors)
        if kind == "hubs":
            return self._find_hubs(model.anchors)
        wrong = pa.array(self._find_wrong(model.version.name), pa.string())
        ids = read_columns(model.anchors, ["pair_id"])["pair_id"]
        return _as_mask(pc.is_in(ids, wrong))

    def _find_hubs(self, anchors: Anchors) -> BoolArray:
        with self._lock:
            found = self._hubs.get(anchors.state)
            if found is None:
                while len(self._hubs) >= _KEPT:
                    self._hubs.popitem(last=False)
                found = self._hubs[anchors.state] = _find_hubs(anchors)
            self._hubs.move_to_end(anchors.state)
            return found


def read_columns(anchors: Anchors, names: list[str]) -> pa.Table:
    """Columns of the ordinary pairs, in the order of their positions; empty texts for nothing."""
    anchors.check_current()
    with anchors.stored.reading():
        there = [name for name in names if name in anchors.dataset.schema.names]
        table = anchors.dataset.to_table(columns=there)
    ordinary = pa.array(anchors.live[anchors.stored.live])
    count = int(anchors.stored.live.sum())
    columns = {
        name: pc.fill_null(table[name].cast(pa.string()), "")
        if name in there
        else pa.array([""] * count, pa.string())
        for name in names
    }
    return pa.table(columns).filter(ordinary)


def _find_duplicates(anchors: Anchors) -> BoolArray:
    """Which pairs show a picture that others show, byte for byte."""
    digests = read_columns(anchors, ["image_sha256"])["image_sha256"].combine_chunks()
    counts = pc.value_counts(digests.filter(pc.not_equal(digests, "")))
    several = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    return _as_mask(pc.is_in(digests, several))


def _find_hubs(anchors: Anchors) -> BoolArray:
    """Which pairs are near to far more probes than others, on either side; of a few pairs none."""
    if anchors.count < 2 * NEAR_LEAST:
        return np.zeros(anchors.count, dtype=np.bool_)
    found = measure_similarity(anchors, PROBES, np.random.default_rng(0))
    hubs = np.zeros(len(anchors), dtype=np.bool_)
    for counts in found.lists.values():
        limit = counts.mean() + HUB * counts.std()
        hubs[found.reference[counts > limit]] = True
    return hubs[anchors.live]


def _facets(column: pa.ChunkedArray) -> list[Facet]:
    counts = pc.value_counts(column.combine_chunks()).to_pylist()
    found = [Facet(value=one["values"], pairs=one["counts"]) for one in counts]
    return sorted(found, key=lambda facet: (-facet.pairs, facet.value))[:FACETS]


def _as_mask(found: pa.ChunkedArray | pa.Array) -> BoolArray:
    chunks = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    mask: BoolArray = chunks.to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask
