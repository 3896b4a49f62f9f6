"""Which predictions another state of the pairs would change, to what, and because of which pairs.

The other state is imagined over the same matrices (`without`, `plus`) or is another model version;
nothing is written. An imagined one is exact: it answers what really deleting or adding would
answer. Most images need no second search: one is searched again only if a pair among its k nearest
is gone (the next one enters) or a new pair is at least as near as its k-th. Under a centred recipe
the mean moves with the pairs, and all are searched again.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from asif_lance.anchors import Anchors
from asif_lance.errors import InputError
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.labels import LabelSet, Prompts
from asif_lance.model import BATCH, Model
from asif_lance.predictions import Prediction
from asif_lance.records import BROUGHT, Neighbors, Reject
from asif_lance.rescored import Doubles, cost, nearness, stands
from asif_lance.search import exact_top_k, unit_queries
from asif_lance.settled import Floats, Images, Longs, contenders, shift_of
from asif_lance.standings import Standings
from asif_lance.store import PairStore


@dataclass(frozen=True, slots=True)
class Influence:
    """How one pair moved a prediction.

    Attributes:
        pair_id: the pair.
        caption: its caption.
        label: the label whose score it is part of.
        before: its contribution to that score in the first state.
        after: the same in the other state.
    """

    pair_id: str
    caption: str
    label: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one prediction.

    Attributes:
        before: what the first state says.
        after: what the other one says.
    """

    before: Prediction
    after: Prediction

    @property
    def flips(self) -> bool:
        """Whether the label is another one."""
        return self.before.label != self.after.label

    def because(self, n: int = 5) -> list[Influence]:
        """The n pairs that moved the two states' best labels most, largest first."""
        moved = [
            (pair_id, label, old, new)
            for label in dict.fromkeys((self.before.label, self.after.label))
            for pair_id, old, new in _contributions(self.before, self.after, label)
            if old != new
        ]
        moved.sort(key=lambda m: (-abs(m[3] - m[2]), m[0], m[1]))
        captions = self._captions()
        return [Influence(i, captions[i], label, old, new) for i, label, old, new in moved[:n]]

    def _captions(self) -> dict[str, str]:
        captions: dict[str, str] = {}
        for prediction in (self.after, self.before):
            anchors = prediction.evidence.anchors
            positions = prediction.evidence.relative.indices[0]
            rows = anchors.rows(positions, ["pair_id", "caption"])
            captions.update({row["pair_id"]: row["caption"] for row in rows})
        return captions


class Imagined(Anchors):
    """The anchors of a version, less some, or with some more behind them."""

    @classmethod
    def of(cls, anchors: Anchors) -> Imagined:
        """A copy that shares all vectors; `state` is empty, so that nothing of it is kept."""
        imagined = cls.__new__(cls)
        anchors.image, anchors.text  # noqa: B018  # so that the copy has them
        imagined.__dict__.update(copy.copy(anchors.__dict__))
        imagined.state, imagined._centres = (), {}
        if not isinstance(anchors, Imagined):
            imagined._stored, imagined._new = anchors.live, None
            imagined._gone = np.zeros(len(anchors), dtype=np.bool_)
            imagined._blocks = len(anchors.image)
        return imagined

    _stored: NDArray[np.bool_]  # which rows the version has
    _gone: NDArray[np.bool_]  # which of them are left out
    _new: pa.Table | None  # the rows behind them
    _blocks: int  # of the version

    @property
    def came(self) -> int:
        """How many rows lie behind those of the version."""
        return 0 if self._new is None else self._new.num_rows

    def rows(self, positions: NDArray[np.int64], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of the pairs at (m,) positions, imagined ones too."""
        rows: list[dict[str, Any]] = [{}] * len(positions)
        stored = np.flatnonzero(positions < len(self._stored))
        if len(stored):
            logical = np.cumsum(self._stored)[positions[stored]] - 1
            found = self.dataset.take(logical.tolist(), columns=list(columns)).to_pylist()
            for i, row in zip(stored.tolist(), found, strict=True):
                rows[i] = row
        if self._new is not None:
            for i in np.flatnonzero(positions >= len(self._stored)).tolist():
                at = int(positions[i]) - len(self._stored)
                rows[i] = self._new.slice(at, 1).select(list(columns)).to_pylist()[0]
        return rows

    def touched(self, queries: NDArray[np.float32], near: Neighbors, k: int) -> NDArray[np.bool_]:
        """Which of m queries have other neighbors here than `near`, those of the real version."""
        if near.indices.shape[1] != min(k, self.count):
            return np.ones(len(queries), dtype=np.bool_)
        touched: NDArray[np.bool_] = np.any(self._gone[near.indices], axis=1)
        if self._new is not None:
            new = [block.cpu() for block in self.image[self._blocks :]]
            nearest = exact_top_k(queries, new, 1).similarities[:, 0]
            touched |= nearest >= near.similarities[:, -1]
        return touched


def without(model: Model, pair_ids: Sequence[str]) -> tuple[Model, int]:
    """The model as it would be without some pairs, and how many of them it has.

    Raises:
        InputError: no pair would be left.
    """
    imagined = Imagined.of(model.anchors)
    named = pc.is_in(imagined.pair_ids, pa.array(sorted(set(pair_ids)), pa.string()))
    gone = named.to_numpy() & imagined.live
    imagined._gone = imagined._gone | gone
    imagined.live = imagined.live & ~gone
    imagined.count = int(imagined.live.sum())
    if not imagined.count:
        raise InputError("no pair would be left to classify with")
    return _bound(model, imagined, "without"), int(gone.sum())


def plus(model: Model, pairs: pa.Table) -> tuple[Model, int]:
    """The model as it would be with more pairs, and how many of them are new to it.

    Args:
        model: the model.
        pairs: columns `pair_id`, `caption`, `image_vector`, `text_vector` as the table has them.
    """
    imagined = Imagined.of(model.anchors)
    there = imagined.pair_ids.filter(pa.array(imagined.live))
    new = pairs.filter(pc.invert(pc.is_in(pairs["pair_id"], there.combine_chunks())))
    if new.num_rows:
        known = [] if imagined._new is None else [imagined._new]
        imagined._new = pa.concat_tables([*known, new], promote_options="default")
        imagined.__dict__["image"] = [*imagined.image, _matrix(new, "image", imagined.image)]
        imagined.__dict__["text"] = [*imagined.text, _matrix(new, "text", imagined.text)]
        ids = [*imagined.pair_ids.chunks, *new["pair_id"].chunks]
        imagined.__dict__["pair_ids"] = pa.chunked_array(ids)
        imagined.live = np.append(imagined.live, np.ones(new.num_rows, dtype=np.bool_))
        imagined._gone = np.append(imagined._gone, np.zeros(new.num_rows, dtype=np.bool_))
        imagined.count += new.num_rows
    return _bound(model, imagined, "plus"), new.num_rows


def read_pairs(
    model: Model, sources: Sequence[str | Path], options: IngestOptions
) -> tuple[pa.Table, tuple[Reject, ...]]:
    """What `ingest` would make of some sources, by way of a database that is thrown away."""
    store = model.store
    image, text = (None if p.name == BROUGHT else p.name for p in (store.image, store.text))
    options = replace(options, image_encoder=image, text_encoder=text)
    with tempfile.TemporaryDirectory() as folder:
        uri = str(Path(folder) / "whatif.lancedb")
        report = ingest_sources(uri, sources, options)
        pairs = PairStore.open(uri).dataset("latest").to_table()
    return pairs, report.rejects


def changes(
    before: Model,
    after: Model,
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    prompts: Prompts,
) -> Iterator[Change]:
    """Classify (m, d) image embeddings in both states.

    Raises:
        DimensionError, InvalidVectorError: vectors that cannot be compared.
    """
    labels = before.compile(prompts), after.compile(prompts)
    for start in range(0, len(ids), BATCH):
        at = slice(start, start + BATCH)
        yield from _changes(before, after, ids[at], unit_queries(vectors[at]), labels)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What becomes of recorded predictions.

    Attributes:
        flips: those that get another label.
        predictions: how many there are.
        searched: how many had to be searched again; all others surely keep their label.
    """

    flips: tuple[Change, ...]
    predictions: int
    searched: int


def recorded_changes(before: Model, after: Model, asked: Standings) -> Outlook:
    """Which recorded predictions another imagined state would flip.

    Bounds on how far the scores can move settle most of them without a search, exactly. What they
    leave open is scored again, first from the contending labels' own anchors alone; what flips or
    cannot be told so is searched again.

    Args:
        before: the model that the predictions were recorded with.
        after: from `without` or `plus`.
        asked: the predictions.
    """
    labels = before.compile(asked.prompts), after.compile(asked.prompts)
    again = _unsettled(before, after, asked, labels)
    flips: list[Change] = []
    for start in range(0, len(again), BATCH):
        at = again[start : start + BATCH]
        queries, names = asked.queries[at], [asked.images[i] for i in at]
        if not _as_recorded(before, asked):
            found = _changes(before, after, names, queries, labels)
            flips += [change for change in found if change.flips]
            continue
        near = after.neighbors(queries)
        new = list(after.classify_neighbors(names, queries, near, labels[1]))
        old_labels = [asked.prompts.names[i] for i in asked.best[at]]
        changed = [i for i, p in enumerate(new) if p.label != old_labels[i]]
        if changed:
            near = before.neighbors(queries[changed])
            chosen = [names[i] for i in changed]
            old = before.classify_neighbors(chosen, queries[changed], near, labels[0])
            flips += map(Change, old, (new[i] for i in changed))
    return Outlook(tuple(flips), len(asked.ids), len(again))


def _as_recorded(model: Model, asked: Standings) -> bool:
    """Whether the version still has what it had: only forgetting takes pairs out of one."""
    return model.anchors.count == asked.pairs


def _unsettled(
    before: Model, after: Model, asked: Standings, labels: tuple[LabelSet, LabelSet]
) -> Longs:
    """The places of the predictions that may flip."""
    anchors = after.anchors
    if not isinstance(anchors, Imagined):
        raise InputError("only imagined states are compared with recorded predictions")
    came = anchors.came
    full = asked.neighbors == before.recipe.k[0]
    known = _as_recorded(before, asked) and len(asked.ranks) and not before.recipe.centred
    if not known or (came and not full):
        return np.arange(len(asked.ids))
    new = np.arange(len(anchors)) >= len(anchors) - came
    changed = np.flatnonzero(anchors._gone | new)
    old = replace(labels[0].relative, n=len(anchors))
    shift = shift_of(old, labels[1].relative, labels[0].owner, changed, most=len(changed))
    kinds = np.stack([anchors._gone[shift.anchors], new[shift.anchors]])
    power = before.recipe.p[0]
    images = _images(asked)
    open_ = contenders(images, shift, _doubles(anchors, shift.anchors), kinds, power)
    again = np.flatnonzero(open_.any(axis=1))
    return again[~_rescored(after, images.part(again), open_[again], labels[1])]


def _rescored(
    after: Model, images: Images, open_: NDArray[np.bool_], labels: LabelSet
) -> NDArray[np.bool_]:
    """Which of some images surely keep their label, by the scores of those that may win."""
    anchors, power = after.anchors, after.recipe.p[0]
    assert isinstance(anchors, Imagined)
    open_[np.arange(len(open_)), images.best] = True
    if cost(open_, labels.relative, labels.owner) > len(open_) * anchors.count:
        return np.zeros(len(open_), dtype=np.bool_)  # a search takes no longer
    new = np.arange(len(anchors) - anchors.came, len(anchors))
    went, came = (
        images.queries.astype(np.float64) @ _doubles(anchors, positions).T
        for positions in (np.flatnonzero(anchors._gone), new)
    )
    bounds = nearness(images, went, came, after.recipe.k[0])
    vectors = Doubles(anchors.image)
    return stands(images, open_, bounds, labels.relative, labels.owner, vectors, power)


def _doubles(anchors: Anchors, positions: Longs) -> Floats:
    return anchors.vectors("image", positions).astype(np.float64)


def _images(asked: Standings) -> Images:
    return Images(**{field.name: getattr(asked, field.name) for field in fields(Images)})


def _changes(
    before: Model,
    after: Model,
    ids: Sequence[str],
    queries: NDArray[np.float32],
    labels: tuple[LabelSet, LabelSet],
) -> Iterator[Change]:
    near = before.neighbors(queries)
    other = _other_neighbors(after, queries, near)
    yield from map(
        Change,
        before.classify_neighbors(ids, queries, near, labels[0]),
        after.classify_neighbors(ids, queries, other, labels[1]),
    )


def _other_neighbors(after: Model, queries: NDArray[np.float32], near: Neighbors) -> Neighbors:
    # With the mean, every centred similarity moves.
    if not isinstance(after.anchors, Imagined) or after.recipe.centred:
        return after.neighbors(queries)
    again = after.anchors.touched(queries, near, after.recipe.k[0])
    if again.all():
        return after.neighbors(queries)
    indices, similarities = near.indices.copy(), near.similarities.copy()
    if again.any():
        found = after.neighbors(queries[again])
        indices[again], similarities[again] = found.indices, found.similarities
    return Neighbors(indices, similarities)


def _bound(model: Model, anchors: Imagined, how: str) -> Model:
    imagined = copy.copy(model)
    imagined.version = replace(model.version, name=f"{model.version.name} ({how})")
    imagined.__dict__["anchors"] = anchors
    return imagined


def _matrix(pairs: pa.Table, side: str, like: list[torch.Tensor]) -> torch.Tensor:
    column = pairs[f"{side}_vector"].combine_chunks()
    width = like[0].shape[1]
    if column.type.list_size != width:
        raise InputError(f"{side} vectors: expected dimension {width}, got {column.type.list_size}")
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float16)
    return torch.from_numpy(flat.reshape(-1, width)).to(like[0].device)


def _contributions(
    before: Prediction, after: Prediction, label: str
) -> Iterator[tuple[str, float, float]]:
    old, new = before.evidence.shares(label), after.evidence.shares(label)
    first = dict(zip(old.pair_ids, old.contributions.tolist(), strict=True))
    second = dict(zip(new.pair_ids, new.contributions.tolist(), strict=True))
    for pair_id in first | second:
        yield pair_id, first.get(pair_id, 0.0), second.get(pair_id, 0.0)
