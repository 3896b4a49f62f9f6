"""Label sets: class names × prompt templates, compiled against one model version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np

from asif_lance.arguments import take_texts
from asif_lance.errors import InputError
from asif_lance.model.templates import SINGLE, template_set
from asif_lance.records import Float32Array, Float64Array, Int64Array, RelativeVectors

if TYPE_CHECKING:
    from asif_lance.relative import CompiledTexts, Recipe, Teaching

Ensemble = Literal["max", "mean-embedding", "mean-relative"]
ENSEMBLES: tuple[str, ...] = get_args(Ensemble)

DEFAULT_TEMPLATES = SINGLE

_SEPARATOR = " | "

_VECTORS_KEPT = 2048  # of a label set's relative vectors; each takes about 10 kB

#: Labels that are their own names, or label -> names that stand for it.
ClassNames = Sequence[str] | Mapping[str, Sequence[str]]

#: The same as programs give them; a single string is one name.
NamesInput = str | Iterable[str] | Mapping[str, str | Iterable[str]]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Prompts:
    """Class names and the embeddings of their prompts, not yet compared with any pair.

    Attributes:
        names: the c class names, in the user's order.
        owner: (t,) int64, the class each prompt belongs to; ascending.
        vectors: (t, d) float32, the prompts' embeddings, unit length.
        ensemble: how a class's prompts become one score.
        templates: the named set, or the templates themselves; empty for label vectors.
        cut: how many prompts are longer than the text encoder reads.
        max_tokens: what it reads of a text; 0 for all of it.
    """

    names: tuple[str, ...]
    owner: Int64Array
    vectors: Float32Array
    ensemble: Ensemble = "max"
    templates: str = ""
    cut: int = 0
    max_tokens: int = 0

    def __repr__(self) -> str:
        """One line, with the first names."""
        return f"Prompts({_sum_up(self.names)})"


@dataclass(frozen=True, slots=True)
class TaughtLabels:
    """What examples say of the labels of a label set.

    Attributes:
        teaching: the labels and what their examples add to scores.
        positions: (e,) of the examples among the anchors.
    """

    teaching: Teaching
    positions: Int64Array


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LabelSet:
    """Prompts compiled against one model version.

    Attributes:
        prompts: the class names and prompts; for `mean-embedding` one vector per class.
        compiled: relative vectors of the prompts (one per class unless `max`).
        owner: (t,) int64, the class of each relative vector.
        version: the model version's name.
        recipe: the recipe they were compiled under.
        state: that of the anchors they were compiled with; empty where no version holds them.
        epoch: that of before they were compiled, see `database.read_epoch`.
        taught: what the version's examples say of the labels; None if none is of any.
    """

    prompts: Prompts
    compiled: CompiledTexts
    owner: Int64Array
    version: str
    recipe: Recipe
    state: tuple[str, ...] = ()
    epoch: int = 0
    taught: TaughtLabels | None = None
    _found: dict[int, RelativeVectors] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        """One line, with the first names."""
        return f"LabelSet({_sum_up(self.names)}; {self.recipe}, model {self.version!r})"

    def relative(self, row: int) -> RelativeVectors:
        """The relative vector of one prompt (of one class unless `max`), a single row.

        Finding it takes a pass over a block of prompts, so the last ones are kept.
        """
        vector = self._found.get(row)
        if vector is None:
            if len(self._found) >= _VECTORS_KEPT:
                self._found.clear()
            vector = self._found[row] = self.compiled.vector(row)
        return vector

    @property
    def names(self) -> tuple[str, ...]:
        """The class names, in the user's order."""
        return self.prompts.names

    def query(self, row: int) -> Float32Array:
        """The (d,) embedding whose similarities `relative(row)` was made of.

        For `mean-relative` the mean of the class's prompts: its cosine is the prompts' mean cosine
        (under a centred recipe nearly so).
        """
        single = len(self.owner) == len(self.prompts.owner)
        chosen = np.arange(len(self.prompts.owner)) == row if single else self.prompts.owner == row
        mean: Float32Array = self.prompts.vectors[chosen].mean(axis=0)
        return mean


def _sum_up(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name!r:.40}" for name in names[:3])
    return f"{shown}, … {len(names):,} in all" if len(names) > 3 else shown


def list_names(names: NamesInput) -> ClassNames:
    """Class names as `fill_templates` takes them: in memory, and one string as one name.

    Blanks around a name are no part of it.

    Raises:
        InputError: something else, or a label twice.
    """
    if isinstance(names, str):
        return [names.strip()]
    if isinstance(names, Mapping):
        labels = list_names(list(names))
        check_names(list(labels))
        listed = zip(labels, map(list_names, names.values()), strict=True)
        return cast(dict[str, Sequence[str]], dict(listed))
    rows = names.to_pylist() if hasattr(names, "to_pylist") else names  # Arrow's
    found = list(rows) if isinstance(rows, Iterable) else [rows]
    for name in found:
        if not isinstance(name, str):
            raise InputError(
                "labels: give class names, a mapping of labels to names, or what `labels` of the "
                f"model returned, not {type(name).__name__}"
            )
    return [name.strip() for name in found]


def fill_templates(
    names: Sequence[str] | Mapping[str, Sequence[str]], templates: Sequence[str] = DEFAULT_TEMPLATES
) -> tuple[list[str], Int64Array]:
    """Every prompt text, class by class, and the class that each belongs to.

    Raises:
        InputError: no names, an empty or repeated name, no templates, or one without `{}`.
    """
    check_names(list(names))
    if not templates:
        raise InputError("no templates: give at least one with {} where the label goes")
    for template in templates:
        if "{}" not in template:
            raise InputError(f"template {template!r} has no {{}} where the label goes")
    classes = list(names.values()) if isinstance(names, Mapping) else [[name] for name in names]
    texts = [t.replace("{}", name) for names in classes for name in names for t in templates]
    counts = [len(names) * len(templates) for names in classes]
    return texts, np.repeat(np.arange(len(classes)), counts)


def resolve_templates(templates: str | Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Templates of a named set, or as given, and what results call them.

    Args:
        templates: a set's name, the templates, or what results call these: `a {}. | the {}.`.

    Raises:
        InputError: no set of this name.
    """
    if not isinstance(templates, str):
        given = take_texts("templates", templates)
        return tuple(given), _SEPARATOR.join(given)
    if "{}" in templates:
        return tuple(templates.split(_SEPARATOR)), templates
    return template_set(templates), templates


def parse_ensemble(name: str) -> Ensemble:
    """The ensemble of this name.

    Raises:
        InputError: there is none.
    """
    if name not in ENSEMBLES:
        raise InputError(f"no ensemble {name!r}; there are: {', '.join(ENSEMBLES)}")
    return cast(Ensemble, name)


def check_text(what: str, text: str) -> None:
    """Pass a text that can be encoded.

    Raises:
        InputError: it has half of a surrogate pair.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{what} {text!r} has half of a surrogate pair, which is no text")


def check_names(names: Sequence[str]) -> None:
    """Refuse label names that could not be told apart.

    Raises:
        InputError: no names, an empty or a repeated one, or one that no table could hold.
    """
    if not names:
        raise InputError("no labels: give at least one")
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"a label is a text, not {type(name).__name__}")
        check_text("label", name)
        if not name.strip():
            raise InputError("a label is empty")
        if name in seen:
            raise InputError(f"label {name!r} is given twice")
        seen.add(name)


def prompts_from_vectors(
    vectors: Mapping[str, Float32Array], ensemble: Ensemble = "max"
) -> Prompts:
    """Prompts given as embeddings: label -> (d,) or (prompts, d) float32."""
    if not isinstance(vectors, Mapping):
        raise InputError(f"label vectors: give a mapping of labels to vectors, not {vectors!r:.40}")
    from asif_lance.search import unit_queries  # imports torch

    names = list_names(list(vectors))
    check_names(list(names))
    rows = [np.atleast_2d(np.asarray(v, dtype=np.float32)) for v in vectors.values()]
    for name, row in zip(names, rows, strict=True):
        if not row.size:
            raise InputError(f"label {name!r} has no vectors: give at least one")
    owner = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return Prompts(tuple(names), owner, unit_queries(np.concatenate(rows)), ensemble)


def best_prompt(prompt_scores: Float64Array, labels: LabelSet, label: int) -> int:
    """The row of `labels.relative` that gave class `label` its score for one image, (t,) scores."""
    rows = np.flatnonzero(labels.owner == label)
    return int(rows[np.argmax(prompt_scores[rows])])
