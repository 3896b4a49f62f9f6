"""What a question needs: an encoder that is known, vectors of the right length."""

from __future__ import annotations

import numpy as np

from asif_lance.encoders import check_pinned
from asif_lance.errors import DimensionError, InputError
from asif_lance.model.labels import LabelSet
from asif_lance.records import BROUGHT, Float32Array
from asif_lance.relative import Recipe


def name_encoder(uri: str, side: str, encoder_name: str, option: str) -> str:
    """The name of an encoder that can be loaded.

    Raises:
        InputError: it is not known: `option` brings what it would have made.
        EncoderUnavailableError: it is one of somebody's own.
    """
    if encoder_name == BROUGHT:
        raise InputError(
            f"{uri} holds vectors that were brought along, no encoder is known for them: "
            f"use {option}, or name them with `asif-lance encoders`"
        )
    return check_pinned(side, encoder_name)


def to_matrix(what: str, expected: int, vectors: object) -> Float32Array:
    """Vectors that can be compared, (m, d) float32, of an array, a tensor or lists of numbers.

    Raises:
        InputError: no matrix of numbers.
        DimensionError: vectors of another length.
    """
    try:
        matrix: Float32Array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected a matrix of numbers, got {_kind(vectors)}") from error
    if matrix.ndim != 2:
        raise InputError(f"{what}: expected a matrix, got {matrix.ndim} dimensions of array")
    if matrix.shape[1] != expected:
        raise DimensionError(what, expected, matrix.shape[1])
    return matrix


def check_labels(labels: object, version: str, recipe: Recipe) -> None:
    """Pass a label set that was compiled for this version and recipe.

    Raises:
        InputError: it was not, or is none.
    """
    if not isinstance(labels, LabelSet):
        raise InputError(f"labels: give what `labels` of the model returned, not {_kind(labels)}")
    if labels.version != version:
        raise InputError(f"the label set is compiled for {labels.version}, this model is {version}")
    if labels.recipe != recipe:
        raise InputError(f"the label set is compiled for the recipe {labels.recipe}, not {recipe}")


def _kind(given: object) -> str:
    return type(given).__name__
