"""diagnose: are captions of similar images similar, are there hubs, and what do captions lack?

ASIF rests on captions of similar images being similar (Figures 3 and 10 of the paper). For probes
drawn from the pairs, the captions of the images most similar to a probe's image are compared with
those of all pairs; without a *gap* between the two means the method cannot work. Pairs of the same
picture say nothing about that and are left out.

Hubs are anchors near to far too many queries (Radovanović et al. 2010). N_k is the number of
probes whose k nearest include an anchor; the skewness of its distribution is 0 where anchors are
found evenly, and above 1 where a few of them crowd out others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asif_lance.anchors import Anchors, Side
from asif_lance.errors import InputError, format_count
from asif_lance.evaluation.label_forecast import Forecast, forecast_labels
from asif_lance.evaluation.pair_similarity import (
    NEAR_LEAST,
    PairSimilarity,
    measure_similarity,
    skewness,
)
from asif_lance.evaluation.statistics import check_seed, deviation
from asif_lance.ingest import is_uninformative
from asif_lance.model import Model, Prompts
from asif_lance.progress import track
from asif_lance.records import BoolArray, Int64Array

#: Hubs, sources and example captions that are listed.
SHOWN = 5

#: Captions nearest to a label whose images are compared for `agreement`.
AGREEING = 10


@dataclass(frozen=True, slots=True)
class Gap:
    """How much more similar captions are where the images are similar.

    Attributes:
        source: whose pairs the probes are; empty for all sources.
        probes: how many.
        near: mean text similarity to the captions of the most similar images.
        all: mean text similarity to all captions.
        gap: mean of `near - all` over probes.
        deviation: its standard deviation over probes (n - 1); None for a single one.
        positive: share of the probes whose gap is above 0.
    """

    source: str
    probes: int
    near: float
    all: float
    gap: float
    deviation: float | None
    positive: float


@dataclass(frozen=True, slots=True)
class Hubs:
    """How evenly the anchors of one side are found.

    Attributes:
        side: `image` or `text`.
        k: length of the lists.
        skewness: of N_k over anchors.
        never: share of anchors in no list.
        top: (pair_id, caption, share of the probes' lists that it is in), largest first.
    """

    side: str
    k: int
    skewness: float
    never: float
    top: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True, slots=True)
class Captions:
    """Repeated captions, and captions without information.

    Attributes:
        pairs: how many pairs there are.
        duplicates: pairs whose caption another pair has too, but for case and spaces.
        repeated: (caption, pairs) of the most frequent ones.
        uninformative: pairs whose caption is a file name, a camera setting or no word at all.
        examples: some of those captions.
    """

    pairs: int
    duplicates: int
    repeated: tuple[tuple[str, int], ...]
    uninformative: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the pairs know of one label.

    Attributes:
        label: the label.
        mentions: pairs whose caption has the label as words.
        nearest: cosine of its prompts and the most similar caption.
        caption: that caption.
        agreement: how alike the images of its nearest captions are: the mean cosine of two of
            them, less the images' mean; near 0, these captions do not lead to one thing.
    """

    label: str
    mentions: int
    nearest: float
    caption: str
    agreement: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The similarities, hubs and captions of a version.

    Histograms have equal bars over [-1, 1] and sum to 1.

    Attributes:
        model: the version's name.
        reference: pairs that the probes were compared with.
        near: how many of them count as similar images.
        gap: over all probes.
        sources: the same per source of the probes, largest source first.
        histograms: `image_all`, `image_near`, `text_all`, `text_near`: shares of similarities.
        occurrences: (anchors, lists) of N_k on the image side: how many anchors are in so many.
        hubs: of both sides.
        captions: those that say little.
        coverage: of the labels, if any were given, the least mentioned first.
        forecasts: what the pairs foretell of these labels, those that fail soonest first.
    """

    model: str
    reference: int
    near: int
    gap: Gap
    sources: tuple[Gap, ...]
    histograms: dict[str, tuple[float, ...]]
    occurrences: tuple[tuple[int, int], ...]
    hubs: tuple[Hubs, ...]
    captions: Captions
    coverage: tuple[Coverage, ...]
    forecasts: tuple[Forecast, ...]


def diagnose(
    model: Model, prompts: Prompts | None = None, *, probes: int = 1000, seed: int = 0
) -> Diagnosis:
    """Examine the pairs of a model version by raw cosines; recipe, k and p matter to forecasts.

    Args:
        model: the version.
        prompts: labels whose coverage and forecasts are wanted.
        probes: pairs that are compared with the others, drawn at random.
        seed: of the drawing.

    Raises:
        InputError: fewer than 20 pairs, no probe, or a seed that means nothing.
    """
    check_seed(seed)
    if probes < 1:
        raise InputError("at least one probe is needed")
    anchors = model.anchors
    if anchors.count < 2 * NEAR_LEAST:
        raise InputError(
            f"{format_count(anchors.count, 'pair is', 'pairs are')} too few to compare: "
            f"at least {2 * NEAR_LEAST}"
        )
    found = measure_similarity(anchors, probes, np.random.default_rng(seed))
    captions = _column(anchors, np.flatnonzero(anchors.live), "caption")
    counts = np.bincount(found.lists["image"])
    return Diagnosis(
        model=model.version.name,
        reference=len(found.reference),
        near=found.near,
        gap=_gap("", found, np.ones(len(found.probes), dtype=bool)),
        sources=_by_source(anchors, found),
        histograms={name: tuple(bars.tolist()) for name, bars in found.histograms.items()},
        occurrences=tuple((int(c), i) for i, c in enumerate(counts.tolist()) if c),
        hubs=tuple(_hubs(anchors, found, side) for side in ("image", "text")),
        captions=examine_captions(captions),
        coverage=() if prompts is None else _coverage(anchors, captions, prompts),
        forecasts=() if prompts is None else forecast_labels(model, prompts),
    )


def examine_captions(captions: Sequence[str]) -> Captions:
    """Which captions say little: repeated ones and those without words."""
    same = Counter(" ".join(caption.lower().split()) for caption in captions)
    repeated = [(caption, count) for caption, count in same.most_common() if count > 1]
    empty = [caption for caption in captions if is_uninformative(caption)]
    return Captions(
        pairs=len(captions),
        duplicates=sum(count for _, count in repeated),
        repeated=tuple(repeated[:SHOWN]),
        uninformative=len(empty),
        examples=tuple(dict.fromkeys(empty))[:SHOWN],
    )


def _column(anchors: Anchors, positions: Int64Array, name: str) -> list[str]:
    return [row[name] or "" for row in anchors.rows(positions, [name])]


def _gap(source: str, found: PairSimilarity, probes: BoolArray) -> Gap:
    near, every = found.near_texts[probes], found.all_texts[probes]
    gaps = near - every
    return Gap(
        source=source,
        probes=len(gaps),
        near=float(near.mean()),
        all=float(every.mean()),
        gap=float(gaps.mean()),
        deviation=deviation(gaps),
        positive=float((gaps > 0).mean()),
    )


def _by_source(anchors: Anchors, found: PairSimilarity) -> tuple[Gap, ...]:
    sources = np.array(_column(anchors, found.probes, "source"), dtype=object)
    ordered = [source for source, _ in Counter(sources.tolist()).most_common()]
    return tuple(_gap(source or "(none)", found, sources == source) for source in ordered)


def _hubs(anchors: Anchors, found: PairSimilarity, side: Side) -> Hubs:
    counts = found.lists[side]
    order = np.argsort(-counts, kind="stable")[:SHOWN]
    rows = anchors.rows(found.reference[order], ["pair_id", "caption"])
    shares = counts[order] / len(found.probes)
    return Hubs(
        side=side,
        k=found.near,
        skewness=skewness(counts),
        never=float((counts == 0).mean()),
        top=tuple(
            (row["pair_id"], row["caption"], float(share))
            for row, share in zip(rows, shares, strict=True)
        ),
    )


def _coverage(anchors: Anchors, captions: Sequence[str], prompts: Prompts) -> tuple[Coverage, ...]:
    nearest = anchors.top_k("text", prompts.vectors, AGREEING)
    lowered = [caption.lower() for caption in captions]
    found = []
    for i, label in enumerate(track("look for labels", prompts.names)):
        rows = np.flatnonzero(prompts.owner == i)
        best = rows[np.argmax(nearest.similarities[rows, 0])]
        positions = nearest.indices[best]
        word = re.compile(rf"\b{re.escape(label.lower())}(s|es)?\b")
        found.append(
            Coverage(
                label=label,
                mentions=sum(word.search(caption) is not None for caption in lowered),
                nearest=float(nearest.similarities[best, 0]),
                caption=_column(anchors, positions[:1], "caption")[0],
                agreement=_agreement(anchors, positions),
            )
        )
    return tuple(sorted(found, key=lambda c: (c.mentions, c.nearest)))


def _agreement(anchors: Anchors, positions: Int64Array) -> float:
    """Mean centred cosine of two different images of some pairs; near 0 for any pairs.

    With unit vectors it follows from the length of their sum.
    """
    centre, n = anchors.centre("image"), len(positions)
    stored = anchors.vectors("image", positions)
    scale = centre.scale.exact_factors(stored, positions)
    vectors = (stored.astype(np.float64) - centre.mean) * scale[:, None]
    total = vectors.sum(axis=0)
    return float(total @ total - np.square(vectors).sum()) / max(n * (n - 1), 1)
