"""What is asked of a model, as values that can be told apart: how to compare, and which labels."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asif_lance.errors import InputError
from asif_lance.model import Ensemble, Model, Prompts, prompts_from_vectors
from asif_lance.records import Float32Array

#: Of each label its name, how many prompts it has, and their vectors as float32 bytes.
LabelVectors = tuple[tuple[str, int, bytes], ...]


def unpack_vectors(packed: str, dimension: int) -> Float32Array:
    """(n, dimension) vectors from base64 of float32, little-endian, one after another.

    Raises:
        InputError: something else.
    """
    try:
        content = base64.b64decode(packed, validate=True)
    except ValueError as error:
        raise InputError("packed vectors are no base64") from error
    if not content or len(content) % (4 * dimension):
        raise InputError(f"{len(content):,} bytes are no vectors of {dimension} float32 each")
    found: Float32Array = np.frombuffer(content, dtype="<f4").reshape(-1, dimension)
    return found


def pack_vectors(vectors: Mapping[str, Sequence[Sequence[float]] | Float32Array]) -> LabelVectors:
    """Labels' vectors as a small value.

    Raises:
        InputError: vectors of several lengths.
    """
    if len({len(row) for rows in vectors.values() for row in rows}) > 1:
        raise InputError("the labels' vectors have different lengths")
    return tuple(
        (name, len(rows), np.array(rows, dtype=np.float32).tobytes())
        for name, rows in vectors.items()
    )


@dataclass(frozen=True, slots=True)
class ChosenRecipe:
    """A recipe with k and p; all None for what is stored with the version, else the default."""

    recipe: str | None = None
    k: int | tuple[int, int] | None = None
    p: float | tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """Labels.

    Attributes:
        names: the labels.
        vectors: the prompts' vectors of each label, instead of names.
        templates: a named set, or templates; None for the model's own.
        ensemble: how a class's prompts become one score; None for the model's own.
    """

    names: tuple[str, ...] = ()
    vectors: LabelVectors = ()
    templates: str | tuple[str, ...] | None = None
    ensemble: Ensemble | None = None

    def embed(self, model: Model) -> Prompts:
        """The prompts' vectors, of the model's text encoder where none were given."""
        if not self.vectors:
            return model.prompts(self.names, self.templates, self.ensemble)
        given = {
            name: np.frombuffer(rows, dtype=np.float32).reshape(count, -1)
            for name, count, rows in self.vectors
        }
        return prompts_from_vectors(given, self.ensemble or model.ensemble)
