"""The queries of addresses: pages and their JSON ask with the same."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from asif_lance.service.messages import SQL, Message, Name, Question, Sha256, Text

#: Pairs' ids as addresses hold them, which have to stay short.
QueryId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class ViewQuery(Message):
    """The address of a view of one picture, besides the picture itself."""

    model: Name = Field(default="latest", description="A version (v3) or an alias.")
    labels: Annotated[str, StringConstraints(max_length=20_000)] = Field(
        default="", description="Labels, separated by commas."
    )
    template: list[Text] = Field(
        default=[], max_length=20, description="A prompt with {} for the label; several are tried."
    )
    recipe: Name | None = Field(default=None, description="paper or centred.")
    without: list[QueryId] = Field(default=[], max_length=100, description="Pairs left out.")
    pairs: int = Field(default=8, ge=1, le=200, description="Deciding pairs of each label.")

    def question(self) -> Question:
        """The same as a question."""
        templates = self.template or None
        labels = split_labels(self.labels)
        return Question(model=self.model, labels=labels, recipe=self.recipe, templates=templates)


class PairsQuery(Message):
    """Which pairs of a version are shown."""

    model: Name = Field(default="latest", description="A version (v3) or an alias.")
    id: list[QueryId] = Field(
        default=[], max_length=100, description="These pairs; all by default."
    )
    offset: int = Field(default=0, ge=0, le=2**40)
    limit: int = Field(default=24, ge=1, le=200)


class SearchQuery(Message):
    """What is searched for: a text, or an uploaded picture."""

    text: Text | None = None
    picture: Sha256 | None = None
    model: Name = Field(default="latest", description="A version (v3) or an alias.")
    recipe: Name | None = Field(default=None, description="paper or centred.")
    top: int = Field(default=24, ge=1, le=200)


class AuditQuery(Message):
    """One SELECT, or the name of a canned report."""

    sql: Annotated[str, StringConstraints(max_length=SQL)] | None = None
    report: Name | None = None
    model: Name = Field(default="latest", description="The version that `pairs` shows.")


def split_labels(text: str) -> list[str]:
    """The labels of a text, which commas or line ends separate."""
    found = (part.strip() for line in text.splitlines() for part in line.split(","))
    return list(dict.fromkeys(filter(None, found)))
