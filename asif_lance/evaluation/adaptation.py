"""adapt: a few labelled pictures of a new task become pairs (the EuroSAT experiment).

Each picture's caption is a template filled with its class, and its pair is an example: ordinary
scores stay, and what examples add is found anew for each trial. Accuracy is measured on the
pictures that were not added, and on an old task; nothing is written unless the pairs are kept.
Compared with what the same few pictures do without any pair: the nearest class mean (a prototypical
network on the frozen image encoder), picture by picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from asif_lance.encoders import TextEncoder
from asif_lance.errors import InputError, format_count
from asif_lance.evaluation.labelled_pictures import Labelled, check_classes, draw_per_class
from asif_lance.evaluation.statistics import Interval, bootstrap_trials, check_seed, deviation
from asif_lance.evaluation.sweep import check_scores, sweep
from asif_lance.ingest import (
    IngestOptions,
    IngestReport,
    TableSource,
    ingest_sources,
    unit_float16,
)
from asif_lance.model import (
    DEFAULT_TEMPLATES,
    Model,
    Prompts,
    TaughtLabels,
    average_prompts,
    fill_templates,
    teach,
)
from asif_lance.progress import track
from asif_lance.records import BROUGHT, EXAMPLE, BoolArray, Float32Array, Float64Array
from asif_lance.search import unit_queries


@dataclass(frozen=True, slots=True)
class TrialAccuracy:
    """Accuracy on one task over trials.

    Attributes:
        before: share right of the pictures that each trial leaves, without the added pairs.
        after: the same with them.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def mean_before(self) -> float:
        """Mean of `before`."""
        return float(np.mean(self.before))

    @property
    def mean(self) -> float:
        """Mean of `after`."""
        return float(np.mean(self.after))

    @property
    def deviation(self) -> float | None:
        """Standard deviation of `after` over trials (n - 1); None for a single one."""
        return deviation(self.after)


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What adding so many labelled pictures per class does.

    Attributes:
        per_class: pictures of each class that become pairs; of small classes all but one.
        classes: how many classes have pictures.
        added: pairs in all.
        tested: pictures of the new task that are left to test on.
        new: on the task that they are of, of the pictures left.
        prototypes: of the nearest class mean of the same pictures, no pairs; `before` is chance.
        old: on the old task, if one was given.
        difference: `new` minus `prototypes`, both after.
        interval: its 95 % paired bootstrap interval, trials and pictures drawn again; None for a
            single picture.
    """

    per_class: int
    classes: int
    added: int
    tested: int
    new: TrialAccuracy
    prototypes: TrialAccuracy
    old: TrialAccuracy | None
    difference: float
    interval: Interval | None


def adapt(
    model: Model,
    labelled: Labelled,
    prompts: Prompts,
    texts: Float32Array,
    per_class_counts: Sequence[int],
    *,
    old: tuple[Labelled, Prompts] | None = None,
    trials: int = 5,
    seed: int = 0,
) -> tuple[Adaptation, ...]:
    """Measure before and after adding pictures of a new task, at several numbers of them.

    Args:
        model: the version and recipe.
        labelled: pictures of the new task, encoded.
        prompts: its classes; the true ones must be among them.
        texts: (c, d) float32, the embedding of each class's caption, in the order of `prompts`.
        per_class_counts: how many pictures of each class to add; one is left to test.
        old: pictures, encoded, and classes of a task that must not suffer.
        trials: random choices of the added pictures; those of a trial are nested.
        seed: of the choices.

    Raises:
        InputError: a class is not among the prompts, none has two pictures, or numbers that mean
            nothing.
    """
    check_experiment(labelled, per_class_counts, trials=trials, seed=seed)
    for task, asked in ((labelled, prompts), *([old] if old else [])):
        check_classes(task.truths, asked.names)
    experiment = _Experiment(model, labelled, prompts, texts, old)
    counts = track("numbers per class", sorted(set(per_class_counts)))
    return tuple(experiment.measure(count, trials, seed) for count in counts)


def check_experiment(
    labelled: Labelled, per_class_counts: Sequence[int], *, trials: int, seed: int
) -> None:
    """Pass what `adapt` can measure; the pictures need not be encoded yet.

    Raises:
        InputError: no class has two pictures, or numbers that mean nothing.
    """
    if not per_class_counts or min(per_class_counts) < 1 or trials < 1:
        raise InputError("add at least one picture per class, in at least one trial")
    check_seed(seed)
    draw_per_class(labelled, 1, _rng(seed, 0))


def captions_of(
    prompts: Prompts, template: str | None = None, encoder: TextEncoder | None = None
) -> tuple[list[str], Float32Array]:
    """A caption of each class and its (c, d) embedding.

    Args:
        prompts: the classes.
        template: with `{}` for the class; by default the packaged one.
        encoder: embeds them; without one a class's caption is its name, and its embedding the mean
            of its prompts.

    Raises:
        InputError: a template without `{}`.
    """
    if encoder is None:
        mean = average_prompts(replace(prompts, ensemble="mean-embedding"))
        return list(prompts.names), mean.vectors
    captions, _ = fill_templates(prompts.names, (template or DEFAULT_TEMPLATES[0],))
    return captions, unit_queries(encoder.encode(captions))


def add_pairs(
    model: Model,
    labelled: Labelled,
    prompts: Prompts,
    captions: Sequence[str],
    texts: Float32Array,
    count: int,
    seed: int = 0,
    source: str = "adapt",
    license: str | None = None,
) -> IngestReport:
    """Add the first trial's `count` pictures per class to the newest model, as a new version.

    Args:
        model: of the database that is written to.
        labelled: pictures of the new task, encoded.
        prompts: its classes.
        captions: (c) one per class.
        texts: (c, d) float32, their embeddings.
        count: pictures per class.
        seed: of the choice.
        source: recorded with the pairs.
        license: recorded with the pairs.

    Returns:
        What became of them; those that were refused, by the pictures' names.

    Raises:
        InputError, StorageError: as `ingest_sources`.
    """
    chosen = labelled.take(draw_per_class(labelled, count, _rng(seed, 0)))
    classes = [prompts.names.index(truth) for truth in chosen.truths]
    columns = {"caption": [captions[i] for i in classes], **_picture_columns(chosen, source)}
    if not chosen.images:
        columns["text_vector"] = texts[classes]
    image, text = (
        None if p.name == BROUGHT else p.name for p in (model.store.image, model.store.text)
    )
    message = (
        f"{format_count(count, 'labelled picture')} of each of "
        f"{format_count(len(set(classes)), 'class', 'classes')}"
    )
    options = IngestOptions(
        image_encoder=image,
        text_encoder=text,
        license=license,
        source=source,
        message=message,
        captions="each",
        role=EXAMPLE,
    )
    table = TableSource(source, pl.DataFrame(columns))
    report = ingest_sources(model.store.uri, [table], options)
    names = {f"row {number}": name for number, name in enumerate(chosen.names, 1)}
    refused = (replace(r, item=names.get(r.item, r.item)) for r in report.rejects)
    return replace(report, rejects=tuple(refused))


def _picture_columns(chosen: Labelled, source: str) -> dict[str, object]:
    """Pictures by path or content and their addresses; else the vectors that are known of them."""
    if not chosen.images:
        return {"image_uri": list(chosen.names), "image_vector": chosen.embeddings}
    paths = [None if isinstance(p, bytes) else str(p.resolve()) for p in chosen.images]
    both = list(zip(paths, chosen.images, chosen.names, strict=True))
    return {
        "image": [path or content for path, content, _ in both],
        "image_uri": [path or f"{source}#{name}" for path, _, name in both],
    }


def _rng(seed: int, trial: int) -> np.random.Generator:
    return np.random.default_rng([seed, trial])


@dataclass(frozen=True, slots=True)
class _Task:
    """Labelled pictures with what the ordinary pairs say of them, and of the examples.

    Attributes:
        labelled: the pictures.
        prompts: the classes, as they are searched.
        scores: (m, c) of the pictures.
        example_scores: (e, c) of the version's examples and of pictures that may become some.
    """

    labelled: Labelled
    prompts: Prompts
    scores: Float64Array
    example_scores: Float64Array

    @staticmethod
    def of(model: Model, labelled: Labelled, prompts: Prompts, stored: Float32Array) -> _Task:
        """Compare both with all pairs."""
        both = [_score(model, vectors, prompts) for vectors in (labelled.queries, stored)]
        return _Task(labelled, average_prompts(prompts), *both)

    def check(self, taught: TaughtLabels | None) -> BoolArray:
        """(m,) which pictures the model gets right with what examples say."""
        found = self.scores
        if taught is not None:
            found = taught.teaching.add(found, self.labelled.queries)
        return check_scores(found, self.prompts.names, self.labelled.truths)


def _score(model: Model, queries: Float32Array, prompts: Prompts) -> Float64Array:
    k, p = model.recipe.k, model.recipe.p
    found = sweep(model, queries, prompts, k, (prompts.ensemble,))
    return found.scores(k, p, prompts.ensemble)


class _Experiment:
    """A new task and perhaps an old one; each trial adds other pictures of the new one."""

    def __init__(
        self,
        model: Model,
        labelled: Labelled,
        prompts: Prompts,
        texts: Float32Array,
        old: tuple[Labelled, Prompts] | None,
    ) -> None:
        anchors, known = model.anchors, model.anchors.examples
        images, captions = anchors.vectors("image", known), anchors.vectors("text", known)
        classes = [prompts.names.index(truth) for truth in labelled.truths]
        self.known = len(known)
        self.images = np.concatenate([images, unit_float16(labelled.embeddings)], dtype="f4")
        self.captions = np.concatenate([captions, unit_float16(texts)[classes]], dtype="f4")
        self.ids = [*anchors.ids(known), *(f"adapt-{i}" for i in range(len(classes)))]
        self.mean = anchors.mean("image")
        stored = unit_queries(self.images)
        self.new = _Task.of(model, labelled, prompts, stored)
        self.old = None if old is None else _Task.of(model, *old, stored)

    def measure(self, count: int, trials: int, seed: int) -> Adaptation:
        """Before and after adding so many pictures of each class."""
        what, labelled = f"trials of {count} per class", self.new.labelled
        chosen = [draw_per_class(labelled, count, _rng(seed, i)) for i in range(trials)]
        before, after, prototypes, old = [], [], [], []
        differences = np.full((trials, len(labelled.names)), np.nan)
        nothing = np.zeros(len(labelled.names), dtype=np.bool_)
        plain = self.new.check(self._teach(self.new, nothing))
        for trial, mask in enumerate(track(what, chosen)):
            right = self.new.check(self._teach(self.new, mask))
            by_mean = _check_means(labelled, mask)
            before.append(float(plain[~mask].mean()))
            after.append(float(right[~mask].mean()))
            prototypes.append(float(by_mean[~mask].mean()))
            differences[trial, ~mask] = right[~mask].astype(float) - by_mean[~mask]
            if self.old is not None:
                old.append(float(self.old.check(self._teach(self.old, mask)).mean()))
        added = int(chosen[0].sum())
        return Adaptation(
            per_class=count,
            classes=len(labelled.classes),
            added=added,
            tested=len(labelled.names) - added,
            new=TrialAccuracy(tuple(before), tuple(after)),
            prototypes=TrialAccuracy((1 / len(labelled.classes),), tuple(prototypes)),
            old=None if self.old is None else TrialAccuracy(self._old_before, tuple(old)),
            difference=float(np.mean(after) - np.mean(prototypes)),
            interval=bootstrap_trials(differences),
        )

    @property
    def _old_before(self) -> tuple[float, ...]:
        if self.old is None:
            return ()
        nothing = np.zeros(len(self.new.labelled.names), dtype=np.bool_)
        return (float(self.old.check(self._teach(self.old, nothing)).mean()),)

    def _teach(self, task: _Task, mask: BoolArray) -> TaughtLabels | None:
        """What the version's examples and the chosen pictures say of a task's labels."""
        at = np.flatnonzero(np.append(np.ones(self.known, dtype=np.bool_), mask))
        if not len(at):
            return None
        examples = self.images[at], self.captions[at], [self.ids[i] for i in at.tolist()]
        return teach(task.prompts, *examples, self.mean, lambda i: task.example_scores[at[i]])


def _check_means(labelled: Labelled, chosen: BoolArray) -> BoolArray:
    """(m,) which pictures the nearest mean of the chosen pictures of a class gets right."""
    truths = np.array(labelled.truths, dtype=object)
    names = np.array(labelled.take(chosen).classes, dtype=object)
    means = [labelled.queries[chosen & (truths == name)].mean(axis=0) for name in names]
    best = (labelled.queries @ unit_queries(np.stack(means)).T).argmax(axis=1)
    right: BoolArray = names[best] == truths
    return right.astype(np.bool_)
