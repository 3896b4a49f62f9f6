"""The queries of addresses: pages and their JSON ask with the same."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from asif_lance.errors import InputError
from asif_lance.model import split_labels
from asif_lance.service.requests import SQL, Message, Name, PairId, Question, Sha256, Text
from asif_lance.service.validation import build

#: Pairs that need a look.
Kind = Literal["duplicates", "hubs", "wrong-drivers"]

#: Pairs' ids as addresses hold them, which have to stay short.
QueryId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class HomeQuery(Message):
    """What the page of the first form is filled with, even where it could not be asked so."""

    labels: str = ""
    template: list[str] = Field(default=[])
    model: str = "latest"
    recipe: str | None = None
    pin: Sha256 | None = None


class AskedQuery(Message):
    """What the addresses of answers have in common."""

    model: Name = Field(default="latest", description="A version (v3) or an alias.")
    labels: Annotated[str, StringConstraints(max_length=20_000)] = Field(
        default="",
        description='Labels by commas, "a, b" being one; or one a line, if there are several.',
    )
    template: list[Text] = Field(
        default=[], max_length=20, description="A prompt with {} for the label; several are tried."
    )
    recipe: Name | None = Field(default=None, description="white, centred or paper.")
    since: Name | None = Field(default=None, description="A version that it is compared with.")

    def question(self, model: str | None = None) -> Question:
        """The same as a question, on request to another version.

        Raises:
            InputError: no label, or a text that is no list of labels.
            RequestError: labels that no question may have.
        """
        labels = distinct_labels(self.labels)
        if not labels:
            raise InputError("name at least one label")
        asked = {"model": model or self.model, "labels": labels, "recipe": self.recipe}
        return build(Question, {**asked, "templates": self.template or None})


class SeveralQuery(AskedQuery):
    """The address of a view of several pictures."""

    picture: list[Sha256] = Field(min_length=1, max_length=64, description="Uploaded pictures.")


class ViewQuery(AskedQuery):
    """The address of a view of one picture, besides the picture itself."""

    without: list[QueryId] = Field(default=[], max_length=100, description="Pairs left out.")
    pairs: int = Field(default=6, ge=1, le=200, description="Deciding pairs of each label.")
    pin: Sha256 | None = Field(default=None, description="A picture that is shown beside it.")


class ChosenQuery(ViewQuery):
    """Pairs ticked on a page; the form of an answer sends along what that asks."""

    without: list[PairId] = Field(default=[], max_length=1000, description="The pairs.")


class PairsQuery(Message):
    """Which pairs of a version are shown: those of some ids, or all that every filter lets by."""

    model: Name = Field(default="latest", description="A version (v3) or an alias.")
    id: list[QueryId] = Field(
        default=[], max_length=100, description="These pairs; all by default."
    )
    text: Annotated[str, StringConstraints(max_length=200)] = Field(
        default="", description="What a caption has in it, in any case."
    )
    source: Name | None = Field(default=None, description="The source; empty for none.")
    license: Name | None = Field(default=None, description="The license; empty for none.")
    kind: Kind | None = Field(
        default=None,
        description="duplicates: the picture is in several pairs. hubs: near to far too many "
        "others. wrong-drivers: speak for wrong labels, by recorded runs whose truth is known.",
    )
    offset: int = Field(default=0, ge=0, le=2**40)
    limit: int = Field(default=24, ge=1, le=200)


class CompareQuery(Message):
    """Two versions."""

    old: Name
    new: Name = "latest"
    limit: int = Field(default=12, ge=1, le=200, description="Pairs of each kind that are shown.")


class SearchQuery(Message):
    """What is searched for: a text, or an uploaded picture."""

    text: Text | None = None
    picture: Sha256 | None = None
    model: Name = Field(default="latest", description="A version (v3) or an alias.")
    recipe: Name | None = Field(default=None, description="white, centred or paper.")
    top: int = Field(default=24, ge=1, le=200)


class EvaluationQuery(Message):
    """The pictures of a run that are shown: of a truth, of a label, or all that are wrong."""

    truth: Text | None = None
    label: Text | None = None
    offset: int = Field(default=0, ge=0, le=2**40)
    limit: int = Field(default=24, ge=1, le=200)


class AuditQuery(Message):
    """One SELECT, or the name of a canned report."""

    sql: Annotated[str, StringConstraints(max_length=SQL)] | None = None
    report: Name | None = None
    model: Name = Field(default="latest", description="The version that `pairs` shows.")


def distinct_labels(text: str) -> list[str]:
    """The labels of a text as `split_labels` reads it, each once."""
    return list(dict.fromkeys(filter(None, split_labels(text))))
