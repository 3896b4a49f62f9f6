"""Requests and answers of the HTTP API; the OpenAPI document is made from these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from asif_lance.errors import InputError
from asif_lance.service.question import Asked, Comparison, pack_vectors

Name = Annotated[str, StringConstraints(max_length=200)]
Text = Annotated[str, StringConstraints(max_length=1000)]
PairId = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]
Vector = Annotated[list[Number], Field(min_length=1, max_length=16384)]
Sides = Annotated[list[Number], Field(min_length=2, max_length=2)]
Counts = Annotated[list[Annotated[int, Field(ge=1, le=10**6)]], Field(min_length=2, max_length=2)]

#: The longest SQL, and the longest predicate.
SQL = 20_000


class Message(BaseModel):
    """Anything that is sent or answered; names that it does not have are refused."""

    model_config = ConfigDict(extra="forbid")


class Problem(Message):
    """Why there is no answer, in one line."""

    error: str


class Question(Message):
    """Which version is asked, with which labels, and how pictures are compared.

    Labels are names, or vectors of their prompts; names take the database's text encoder.
    """

    model: Name = Field(default="latest", description="A version (v3) or an alias.")
    labels: list[Text] = Field(default=[], max_length=100_000)
    label_vectors: dict[Text, Annotated[list[Vector], Field(min_length=1)]] | None = None
    templates: Name | list[Text] | None = Field(
        default=None, description="A named set, or prompts with {} for the label."
    )
    ensemble: Literal["max", "mean-embedding", "mean-relative"] | None = None
    recipe: Name | None = Field(default=None, description="paper or centred.")
    k: Annotated[int, Field(ge=1, le=10**6)] | Counts | None = None
    p: Annotated[float, Field(gt=0, le=1000)] | Sides | None = None

    @field_validator("templates")
    @classmethod
    def _some_templates(cls, value: Any) -> Any:
        if isinstance(value, list) and not 0 < len(value) <= 1000:
            raise ValueError("give one to a thousand templates")
        return value

    def comparison(self) -> Comparison:
        """How pictures are compared."""
        k = tuple(self.k) if isinstance(self.k, list) else self.k
        p = tuple(self.p) if isinstance(self.p, list) else self.p
        return Comparison(self.recipe, k, p)  # type: ignore[arg-type]  # of two numbers each

    def asked(self, most: int) -> Asked:
        """The labels, at most so many.

        Raises:
            InputError: none, both kinds, or too many.
        """
        vectors = self.label_vectors or {}
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
    vectors: list[Vector] = Field(default=[], max_length=1024)
    top: int = Field(default=5, ge=1, le=100_000, description="Labels answered of each picture.")
    explain: int = Field(default=0, ge=0, le=1000, description="Deciding pairs of each picture.")


class WhatIfRequest(ClassifyRequest):
    """The same, and pairs that are left out."""

    without: list[PairId] = Field(min_length=1, max_length=10_000)


class LabelScore(Message):
    """A label with its score, in [0, 1]."""

    label: str
    score: float


class PairShare(Message):
    """One pair's share of a label's score."""

    pair_id: str
    caption: str | None
    captions: list[str]
    role: str | None = None
    label: str
    source: str | None = None
    license: str | None = None
    image_similarity: float
    text_similarity: float
    contribution: float


class Classified(Message):
    """What one version says of one picture; `model` is the version that answered."""

    image: str
    sha256: str | None = None
    model: str
    recipe: str
    k: int | list[int]
    p: float | list[float]
    templates: str | None = None
    ensemble: str | None = None
    predictions: list[LabelScore]
    pairs: list[PairShare] | None = None


class Rejected(Message):
    """A picture that cannot be used."""

    image: str
    reason: str


class ClassifyAnswer(Message):
    """Answers in the order of the pictures; those that cannot be used are in `rejected`."""

    model: str
    answers: list[Classified]
    rejected: list[Rejected] = []


class Change(Message):
    """A prediction before and after."""

    before: Classified
    after: Classified
    flips: bool


class WhatIfAnswer(Message):
    """What leaving pairs out would change; nothing is changed."""

    model: str
    removed: int = Field(description="How many of the pairs the version has.")
    changes: list[Change]


class Uploaded(Message):
    """A picture's address here, while it is held."""

    image: str
    sha256: str


class UploadAnswer(Message):
    """What became of uploaded pictures."""

    pictures: list[Uploaded]
    rejected: list[Rejected]


class DecidingLabel(Message):
    """A label with the pairs that add most to its score."""

    label: str
    score: float
    pairs: list[PairShare]


class Explained(Message):
    """One prediction taken apart: the winner and the runner-up with the pairs behind them."""

    answer: Classified
    deciding: list[DecidingLabel]
    without: list[str] = []
    removed: int = 0
    before: Classified | None = Field(
        default=None, description="With all pairs, where some are left out."
    )


class FewestAnswer(Message):
    """The fewest pairs found without which the label is another one; nothing is changed."""

    model: str
    pairs: list[str] = Field(description="None where no way was found.")
    exact: bool = Field(description="Whether it is certain that no fewer pairs do it.")
    before: str
    after: str | None


class FoundPair(Message):
    """A pair found by a text or a picture."""

    pair_id: str
    caption: str
    score: float


class SearchAnswer(Message):
    """Pairs in the order of their scores."""

    model: str
    found: list[FoundPair]


class Pair(Message):
    """One pair of a version."""

    pair_id: str
    caption: str | None
    captions: list[str]
    source: str | None
    license: str | None
    image_sha256: str | None


class PairsAnswer(Message):
    """Some pairs of a version; `next` is the offset of those after them."""

    model: str
    pairs: list[Pair]
    total: int
    next: int | None


class Version(Message):
    """A model version."""

    name: str
    pairs: int
    added: int
    removed: int
    created_at: datetime
    command: str
    message: str
    aliases: list[str]


class VersionsAnswer(Message):
    """All versions, oldest first."""

    versions: list[Version]


class SqlAnswer(Message):
    """The first rows of an answer; moments are texts, bytes base64."""

    columns: list[str]
    rows: list[list[Any]]
    total: int


class ChosenPairs(Message):
    """Pairs by id, or by a predicate in SQL."""

    pairs: list[PairId] = Field(default=[], max_length=100_000)
    where: Annotated[str, StringConstraints(max_length=SQL)] | None = None


class DeleteRequest(ChosenPairs):
    """Pairs to take out of the newest model; older versions keep them."""

    message: Text = ""


class DeleteAnswer(Message):
    """What was deleted; `model` is the newest version now."""

    deleted: int
    not_found: int
    model: str


class PlannedPair(Message):
    """A pair that would go."""

    pair_id: str
    caption: str


class ForgetPlanAnswer(Message):
    """What forgetting would touch; nothing was changed. `confirm` is for the request to forget."""

    pairs: list[PlannedPair]
    unknown: list[str]
    versions: list[str]
    fragments: int
    bytes: int
    recordings: int
    same_picture: list[str] = Field(description="Pairs that would stay and have the same picture.")
    copies: list[str] = Field(description="Files beside the database that hold the pairs and stay.")
    confirm: str


class ForgetRequest(Message):
    """Pairs to forget for good, as a plan listed them."""

    pairs: list[PairId] = Field(min_length=1, max_length=100_000)
    confirm: Annotated[str, StringConstraints(max_length=64)]
    reason: Text = ""


class ReceiptAnswer(Message):
    """A receipt; `document` is the signed one, to be kept and checked."""

    receipt_id: str
    created_at: datetime
    pairs: int
    reason: str
    clean: bool
    findings: list[str]
    versions: list[str]
    files_searched: int
    document: dict[str, Any]


class Health(Message):
    """That the service answers, and from which version."""

    status: Literal["ok"]
    model: str | None
