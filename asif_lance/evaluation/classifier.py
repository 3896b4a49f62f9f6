"""A scikit-learn classifier: labelled pictures or vectors are examples that teach their classes.

They teach as the examples of a version do (`relative.examples`), but only in memory: no database is
changed. With a model its pairs have their say too, so that a few examples a class are enough; a
class that pairs know well needs none of its own to be told from the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from asif_lance.errors import InputError
from asif_lance.evaluation.confidence import fit_sharpness, score_matrix
from asif_lance.model import LabelSet, Model, open_model, to_matrix
from asif_lance.records import Float32Array, Float64Array, Int64Array
from asif_lance.relative import Teaching, fit_teaching, make_teaching
from asif_lance.search import unit_queries


class AsifClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Learns classes from examples, on top of what a model says of their names.

        AsifClassifier("pets.lancedb").fit(["a.jpg", "b.jpg"], ["cat", "dog"]).predict(["c.jpg"])

    Args:
        model: a `Model`, or the address of a database, whose newest version is asked. None for
            examples alone: then X are vectors of any length.
        names: what prompts call the classes: a name or several for each class. By default classes
            are called what they are.
        templates: as of `Model.labels`.

    Attributes:
        classes_: the distinct classes, sorted.
        model_: the model that was asked; None without one.
        teaching_: what the examples say.
        sharpness_: of probabilities: they are the softmax of the scores times this, which makes
            the examples most likely when each is left out in turn.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        names: Mapping[Any, str | Sequence[str]] | None = None,
        templates: str | Sequence[str] | None = None,
    ) -> None:
        self.model = model
        self.names = names
        self.templates = templates

    def __sklearn_clone__(self) -> AsifClassifier:
        """A classifier that knows nothing yet, of the same model: it is shared, not copied."""
        return type(self)(**self.get_params(deep=False))

    def fit(self, X: Any, y: Any) -> AsifClassifier:  # noqa: N803  # sklearn's name
        """Learn from m labelled pictures (with a model), or a matrix (m, d) of their vectors.

        Raises:
            ImageError: a picture cannot be used.
            InputError: a class without a name, or nothing that is a picture.
            ValueError: of scikit-learn, for numbers and labels that it does not take.
        """
        self.model_ = self.model if isinstance(self.model, Model | None) else open_model(self.model)
        vectors = self._take(X, reset=True)
        truths = column_or_1d(y, warn=True)
        assert_all_finite(truths, input_name="y")
        check_classification_targets(truths)
        check_consistent_length(vectors, truths)
        self.classes_, members = np.unique(truths, return_inverse=True)
        self.labels_ = self._compile()
        ordinary = self._ordinary(vectors)
        bare = make_teaching(vectors, members, self._mean(vectors))
        self.teaching_ = fit_teaching(bare, vectors, np.arange(len(vectors)), ordinary)
        self.sharpness_ = self._fit_sharpness(vectors, members, ordinary)
        return self

    def decision_function(self, X: Any) -> Float64Array:  # noqa: N803
        """(m, c) scores; of two classes, as is usual, (m,) how far the second leads."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: Any) -> Float64Array:  # noqa: N803
        """(m, c) probabilities, in the order of `classes_`."""
        scores = self._scores(X)
        return cast(Float64Array, softmax(self.sharpness_ * scores, axis=1))

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """(m,) the class of the best score."""
        scores = self._scores(X)
        return cast(NDArray[Any], self.classes_[scores.argmax(axis=1)])

    def _scores(self, X: Any) -> Float64Array:  # noqa: N803
        check_is_fitted(self)
        vectors = self._take(X, reset=False)
        return _combine(self.teaching_, self._ordinary(vectors), self.teaching_.evidence(vectors))

    def _take(self, X: Any, *, reset: bool) -> Float32Array:  # noqa: N803
        """Vectors, or pictures as such."""
        if self.model_ is None:
            return np.asarray(validate_data(self, X, dtype=np.float32, reset=reset))
        if _are_vectors(X):
            vectors = validate_data(self, X, dtype=np.float32, reset=reset)
            return unit_queries(
                to_matrix("image vectors", self.model_.store.image.dimension, vectors)
            )
        if not len(X):
            raise InputError("give at least one picture or vector")
        return unit_queries(self.model_.encode(X)[1])

    def _compile(self) -> LabelSet | None:
        if self.model_ is None:
            return None
        names = self.names or {one: str(one) for one in self.classes_.tolist()}
        missing = [one for one in self.classes_.tolist() if one not in names]
        if missing:
            raise InputError(f"names: nothing for the class {missing[0]!r}")
        asked = {str(one): names[one] for one in self.classes_.tolist()}
        return self.model_.labels(asked, self.templates)

    def _ordinary(self, vectors: Float32Array) -> Float64Array:
        """(m, c) what the model says; nothing without one."""
        if self.model_ is None or self.labels_ is None:
            return np.zeros((len(vectors), len(self.classes_)))
        ids = [str(i) for i in range(len(vectors))]
        answers = list(self.model_.classify_vectors(ids, vectors, self.labels_))
        return score_matrix(answers, [])[0]

    def _mean(self, vectors: Float32Array) -> Float64Array:
        if self.model_ is not None:
            return self.model_.anchors.mean("image")
        return np.asarray(vectors.mean(axis=0, dtype=np.float64))

    def _fit_sharpness(
        self, vectors: Float32Array, members: Int64Array, ordinary: Float64Array
    ) -> float:
        left_out = self.teaching_.left_out(vectors, members)
        return fit_sharpness(_combine(self.teaching_, ordinary, left_out), members)


def _combine(teaching: Teaching, ordinary: Float64Array, evidence: Float64Array) -> Float64Array:
    """(m, c) scores. All classes have examples: evidence against one counts as that for it."""
    return (1.0 - teaching.weight) * ordinary + teaching.weight * evidence


def _are_vectors(given: Any) -> bool:
    """A matrix of numbers; pictures have more dimensions, or are a list of something else."""
    if hasattr(given, "to_numpy"):
        given = given.to_numpy()
    if isinstance(given, list | tuple):
        first = given[0] if given else None
        return isinstance(first, list | tuple | np.ndarray) and np.ndim(first) == 1
    shape = getattr(given, "shape", ())
    return len(shape) == 2
