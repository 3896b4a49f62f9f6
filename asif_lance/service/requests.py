"""Requests of the HTTP API, and what all messages have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from asif_lance.errors import InputError
from asif_lance.records import Float32Array
from asif_lance.service.question import Asked, ChosenRecipe, pack_vectors, unpack_vectors

#: Patterns of hashes, of bytes as text, and of the ids of runs and predictions.
SHA256_FORM, BASE64_FORM = r"^[0-9a-f]{64}$", r"^[A-Za-z0-9+/]+={0,2}$"
RUN_FORM = r"^[0-9A-Za-z-]{1,100}$"

Name = Annotated[str, StringConstraints(max_length=200)]
Text = Annotated[str, StringConstraints(max_length=1000)]
PairId = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Sha256 = Annotated[str, StringConstraints(pattern=SHA256_FORM)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]
Vector = Annotated[list[Number], Field(min_length=1, max_length=16384)]
Base64 = Annotated[str, StringConstraints(min_length=8, max_length=2**27, pattern=BASE64_FORM)]
Sides = Annotated[list[Number], Field(min_length=2, max_length=2)]
Count = Annotated[int, Field(ge=1, le=10**6)]
CountsOfSides = Annotated[list[Count], Field(min_length=2, max_length=2)]

#: The longest SQL, and the longest predicate.
SQL = 20_000


class Message(BaseModel):
    """Anything that is sent or answered; names that it does not have are refused."""

    model_config = ConfigDict(extra="forbid")


class PackedVectors(Message):
    """Vectors as they are in memory, which are read many times faster than digits."""

    dimension: int = Field(ge=1, le=16384)
    float32: Base64 = Field(description="One after another: base64 of float32, little-endian.")

    def unpack(self) -> Float32Array:
        """The (n, dimension) vectors.

        Raises:
            InputError: they are no such vectors.
        """
        return unpack_vectors(self.float32, self.dimension)


class Question(Message):
    """Which version is asked, with which labels, and how pictures are compared.

    Labels are names, or vectors of their prompts; names take the database's text encoder.
    """

    model: Name = Field(default="latest", description="A version (v3) or an alias.")
    labels: list[Text] = Field(default=[], max_length=100_000)
    label_vectors: (
        dict[Text, Annotated[list[Vector], Field(min_length=1)] | PackedVectors] | None
    ) = None
    templates: Name | list[Text] | None = Field(
        default=None, description="A named set, or prompts with {} for the label."
    )
    ensemble: Literal["max", "mean-embedding", "mean-relative"] | None = None
    recipe: Name | None = Field(default=None, description="white, centred or paper.")
    k: Count | CountsOfSides | None = None
    p: Annotated[float, Field(gt=0, le=1000)] | Sides | None = None

    @field_validator("templates")
    @classmethod
    def _some_templates(cls, value: Any) -> Any:
        if isinstance(value, list) and not 0 < len(value) <= 1000:
            raise ValueError("takes one template to a thousand")
        return value

    def comparison(self) -> ChosenRecipe:
        """How pictures are compared."""
        k = tuple(self.k) if isinstance(self.k, list) else self.k
        p = tuple(self.p) if isinstance(self.p, list) else self.p
        return ChosenRecipe(self.recipe, k, p)  # type: ignore[arg-type]  # of two numbers each

    def asked(self, most: int) -> Asked:
        """The labels, at most so many.

        Raises:
            InputError: none, both kinds, or too many.
        """
        vectors = {
            name: rows.unpack() if isinstance(rows, PackedVectors) else rows
            for name, rows in (self.label_vectors or {}).items()
        }
        if bool(self.labels) == bool(vectors):
            raise InputError("give labels or label_vectors, one of the two")
        if len(self.labels) + sum(map(len, vectors.values())) > most:
            raise InputError(f"too many labels: give at most {most:,}")
        templates = self.templates
        return Asked(
            tuple(self.labels),
            pack_vectors(vectors),
            tuple(templates) if isinstance(templates, list) else templates,
            self.ensemble,
        )


class ClassifyRequest(Question):
    """Pictures that were uploaded, by their hash, or vectors; not both."""

    pictures: list[Sha256] = Field(default=[], max_length=1024)
    vectors: Annotated[list[Vector], Field(max_length=1024)] | PackedVectors = []
    top: int = Field(default=5, ge=1, le=100_000, description="Labels answered of each picture.")
    explain: int = Field(default=0, ge=0, le=1000, description="Deciding pairs of each picture.")
    confidence: bool = Field(default=False, description="Say how far answers are to be trusted.")


class WhatIfRequest(ClassifyRequest):
    """The same, and pairs that are left out."""

    without: list[PairId] = Field(min_length=1, max_length=10_000)


class ChosenPairs(Message):
    """Pairs by id, or by a predicate in SQL."""

    pairs: list[PairId] = Field(default=[], max_length=100_000)
    where: Annotated[str, StringConstraints(max_length=SQL)] | None = None


class DeleteRequest(ChosenPairs):
    """Pairs to take out of the newest model; older versions keep them."""

    message: Text = ""


class ForgetRequest(Message):
    """Pairs to forget for good, as a plan listed them."""

    pairs: list[PairId] = Field(min_length=1, max_length=100_000)
    confirm: Annotated[str, StringConstraints(max_length=64)]
    reason: Text = ""
