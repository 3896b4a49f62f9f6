"""Answers of the HTTP API; the OpenAPI document is made from these."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from asif_lance.service.requests import Message


class Problem(Message):
    """Why there is no answer, in one line."""

    error: str


class Pair(Message):
    """One pair of a version."""

    pair_id: str
    caption: str | None
    captions: list[str]
    source: str | None
    license: str | None
    image_sha256: str | None


class LabelScore(Message):
    """A label with its score, in [0, 1]."""

    label: str
    score: float
    probability: float | None = Field(default=None, description="Where confidence is asked for.")


class Confident(Message):
    """How far an answer is to be trusted, by calibrating pictures whose labels are known."""

    source: str = Field(description="What was calibrated on: the pairs' own pictures.")
    pictures: int = Field(description="How many.")
    possible: list[str] = Field(description="The best labels that together are so probable.")
    together: float = Field(description="How probable the possible labels are together, at least.")
    none: bool = Field(description="Whether it shows none of the labels, to all appearance.")
    low: float = Field(description="Share of those pictures whose best score is as low.")
    low_score: bool = Field(description="Whether its best score is as low as a tenth of theirs.")
    low_usual: float = Field(description="In how many of a kind with those that is so: a share.")
    unlike: bool = Field(description="Whether it is as unlike the pairs as a tenth of those are.")


class PairShare(Message):
    """One pair's share of a label's score; `like` is a stronger one of nearly the same picture."""

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
    like: str | None = None


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
    confidence: Confident | None = None


class Rejected(Message):
    """A picture that cannot be used."""

    image: str
    reason: str


class ClassifyAnswer(Message):
    """Answers in the order of the pictures; those that cannot be used are in `rejected`."""

    model: str
    answers: list[Classified]
    rejected: list[Rejected] = Field(default=[])


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


class SeveralAnswer(Message):
    """Answers of several pictures, in their order; `since` those of another version, if named."""

    model: str
    answers: list[Classified]
    since: list[Classified] = Field(default=[])
    flips: int = Field(default=0, description="How many have another label than in that version.")


class UploadAnswer(Message):
    """What became of uploaded pictures."""

    pictures: list[Uploaded]
    rejected: list[Rejected]


class DecidingLabel(Message):
    """A label with the pairs that add most to its score.

    `others` are the next ones, for a plot; `typical` show the label, whatever the picture.
    """

    label: str
    score: float
    pairs: list[PairShare]
    others: list[PairShare] = Field(default=[])
    typical: list[Pair] = Field(default=[])


class Influential(Message):
    """A pair with its share of a label's score in two versions; `in` and `out` where one has it."""

    pair_id: str
    caption: str
    label: str
    before: float
    after: float
    state: Literal["in", "out", "both"]


class Counts(Message):
    """How many pairs came, went, or changed."""

    added: int
    removed: int
    changed: int


class Since(Message):
    """What became of an answer since another version, and which pairs made most of it."""

    answer: Classified
    flips: bool
    pairs: Counts
    because: list[Influential]


class Explained(Message):
    """One prediction taken apart: the winner and the runner-up with the pairs behind them."""

    answer: Classified
    deciding: list[DecidingLabel]
    without: list[str] = Field(default=[])
    removed: int = 0
    before: Classified | None = Field(
        default=None, description="With all pairs, where some are left out."
    )
    since: Since | None = Field(default=None, description="Where another version is named.")
    pinned: Classified | None = Field(default=None, description="The same of the pinned picture.")


class FewestAnswer(Message):
    """The fewest pairs found without which the label is another one; nothing is changed."""

    model: str
    pairs: list[str] = Field(description="None where no way was found within the limits.")
    exact: bool = Field(description="Whether it is certain that no fewer pairs do it.")
    at_least: int | None = Field(
        description="No fewer do it by what they contribute themselves, means and metric held."
    )
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


class Facet(Message):
    """A value that pairs have, and how many have it; empty for none."""

    value: str
    pairs: int


class PairsAnswer(Message):
    """Some pairs of a version; `next` is the offset of those after them.

    `sources` and `licenses` are those of all pairs of the version, where pairs are not named.
    """

    model: str
    pairs: list[Pair]
    total: int
    next: int | None
    sources: list[Facet] = Field(default=[])
    licenses: list[Facet] = Field(default=[])


class ComparedVersions(Message):
    """What one version has and the other has not, or has otherwise; of each the first pairs."""

    old: str
    new: str
    pairs: Counts
    by_source: dict[str, Counts]
    by_license: dict[str, Counts]
    added: list[Pair]
    removed: list[Pair]
    changed: list[Pair]


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


class Evaluated(Message):
    """A recorded run whose truth is known."""

    run_id: str
    model: str
    created_at: datetime
    pictures: int
    right: int


class EvaluationsAnswer(Message):
    """Such runs, newest first."""

    runs: list[Evaluated]


class Cell(Message):
    """How many pictures of a truth got a label."""

    truth: str
    label: str
    pictures: int


class Judged(Message):
    """A picture that a run judged."""

    prediction_id: str
    image: str
    truth: str
    label: str
    score: float


class EvaluationAnswer(Message):
    """One run: all its cells, most pictures first, and the pictures of some."""

    run: Evaluated
    cells: list[Cell]
    pictures: list[Judged]


class SqlAnswer(Message):
    """The first rows of an answer.

    What JSON lacks is text: moments, bytes (base64), and the floats NaN, Infinity and -Infinity.
    """

    columns: list[str]
    rows: list[list[Any]]
    total: int


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
