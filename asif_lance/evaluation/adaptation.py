"""adapt: a few labelled pictures of a new task become pairs (the EuroSAT experiment).

Each picture's caption is a template filled with its class. Accuracy is measured on the pictures
that were not added, and on an old task, in hypothetical states of the version: nothing is written
unless the pairs are kept. Compared with what the same few pictures do without any pair: the nearest
class mean (a prototypical network on the frozen image encoder).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa

from asif_lance.encoders import TextEncoder
from asif_lance.errors import InputError, format_count
from asif_lance.evaluation.accuracy import check_answers, predict
from asif_lance.evaluation.labelled_pictures import Labelled, check_classes, draw_per_class
from asif_lance.evaluation.statistics import check_seed, deviation
from asif_lance.ingest import (
    IngestOptions,
    IngestReport,
    TableSource,
    ingest_sources,
    unit_float16,
)
from asif_lance.model import DEFAULT_TEMPLATES, Model, Prompts, average_prompts, fill_templates
from asif_lance.progress import track
from asif_lance.records import BROUGHT, EXAMPLE, BoolArray, Float32Array
from asif_lance.search import unit_queries
from asif_lance.whatif import with_pairs


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
        added: pairs in all.
        tested: pictures of the new task that are left to test on.
        new: on the task that they are of, of the pictures left.
        prototypes: of the nearest class mean of the same pictures, no pairs; `before` is chance.
        old: on the old task, if one was given.
    """

    per_class: int
    added: int
    tested: int
    new: TrialAccuracy
    prototypes: TrialAccuracy
    old: TrialAccuracy | None


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

    Raises:
        InputError, StorageError: as `ingest_sources`.
    """
    chosen = labelled.take(draw_per_class(labelled, count, _rng(seed, 0)))
    classes = [prompts.names.index(truth) for truth in chosen.truths]
    columns: dict[str, object] = {"caption": [captions[i] for i in classes]}
    if chosen.images:
        paths = [None if isinstance(p, bytes) else str(p.resolve()) for p in chosen.images]
        both = list(zip(paths, chosen.images, chosen.names, strict=True))
        columns["image"] = [path or content for path, content, _ in both]
        columns["image_uri"] = [path or f"{source}#{name}" for path, _, name in both]
    else:
        columns |= {"image_uri": list(chosen.names), "image_vector": chosen.embeddings}
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
    return ingest_sources(model.store.uri, [TableSource(source, pl.DataFrame(columns))], options)


def _rng(seed: int, trial: int) -> np.random.Generator:
    return np.random.default_rng([seed, trial])


def _check(model: Model, labelled: Labelled, prompts: Prompts) -> BoolArray:
    """(m,) which pictures the model gets right."""
    return check_answers(predict(model, labelled, prompts), labelled.truths)


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
        self.model, self.labelled, self.prompts = model, labelled, prompts
        self.texts, self.old = texts, old
        self.correct_before = _check(model, labelled, prompts)
        self.old_before = () if old is None else (float(_check(model, *old).mean()),)

    def measure(self, count: int, trials: int, seed: int) -> Adaptation:
        """Before and after adding so many pictures of each class."""
        what = f"trials of {count} per class"
        found = [self._run_trial(count, _rng(seed, trial)) for trial in track(what, range(trials))]
        before, after, prototypes, old = zip(*found, strict=True)
        added = int(draw_per_class(self.labelled, count, _rng(seed, 0)).sum())
        return Adaptation(
            per_class=count,
            added=added,
            tested=len(self.labelled.names) - added,
            new=TrialAccuracy(before, after),
            prototypes=TrialAccuracy((1 / len(self.labelled.classes),), prototypes),
            old=None if self.old is None else TrialAccuracy(self.old_before, old),
        )

    def _run_trial(self, count: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
        chosen = draw_per_class(self.labelled, count, rng)
        added, rest = self.labelled.take(chosen), self.labelled.take(~chosen)
        model, _ = with_pairs(self.model, self._pairs(added))
        return (
            float(self.correct_before[~chosen].mean()),
            float(_check(model, rest, self.prompts).mean()),
            _classify_by_mean(added, rest),
            0.0 if self.old is None else float(_check(model, *self.old).mean()),
        )

    def _pairs(self, added: Labelled) -> pa.Table:
        """The added pictures as the table would have them."""
        classes = [self.prompts.names.index(truth) for truth in added.truths]
        sides = {"image_vector": added.embeddings, "text_vector": self.texts[classes]}
        vectors = {
            name: pa.FixedSizeListArray.from_arrays(
                pa.array(unit_float16(matrix).ravel()), matrix.shape[1]
            )
            for name, matrix in sides.items()
        }
        ids = [f"adapt-{i}" for i in range(len(classes))]
        roles = pa.repeat(EXAMPLE, len(ids))
        columns = {"pair_id": ids, "caption": list(added.truths), "role": roles, **vectors}
        return pa.table(columns)


def _classify_by_mean(added: Labelled, rest: Labelled) -> float:
    """The share of the rest that the nearest mean of the added pictures of a class gets right."""
    truths = np.array(added.truths, dtype=object)
    means = [added.queries[truths == name].mean(axis=0) for name in added.classes]
    best = (rest.queries @ unit_queries(np.stack(means)).T).argmax(axis=1)
    return float(np.mean(np.array(added.classes, dtype=object)[best] == np.array(rest.truths)))
