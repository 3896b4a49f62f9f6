"""What is looked at in items at the door, and what becomes of those that it finds.

Every check gives a reason against some items. What follows is the user's choice, check by check:
`report` counts them, `flag` names the check in their attributes too, `refuse` keeps them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from asif_lance.encoders import PictureSource
from asif_lance.errors import InputError
from asif_lance.ingest.admission import (
    REQUIRABLE,
    find_reserved,
    missing_values,
)
from asif_lance.ingest.caption_checks import OtherLanguages, RepeatedCaptions, find_uninformative
from asif_lance.ingest.flags import DOUBTS, RESERVED, add_flags
from asif_lance.ingest.naming import SeenIds, pictures_to_encode
from asif_lance.ingest.near_pictures import NearPictures
from asif_lance.ingest.options import IngestOptions
from asif_lance.ingest.picture_marks import find_picture_marks

#: What `checks` may name, and what may follow.
CHECKS = (
    *("same-picture", "near-picture", "empty-caption", "repeated-caption", "language"),
    *("license", "source", "rights"),
)
ACTIONS = ("report", "flag", "refuse")

#: Items that a finding shows.
SHOWN = 10

_OF_PICTURES = ("same-picture", "near-picture")
_OF_ALL_CAPTIONS = ("repeated-caption", "language")

Find = Callable[[pl.DataFrame], pl.Series]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: one of `CHECKS`.
        action: what became of the items, one of `ACTIONS`.
        items: how many it found.
        examples: the first of them, each with the reason.
    """

    check: str
    action: str
    items: int
    examples: tuple[tuple[str, str], ...]


def chosen_checks(options: IngestOptions) -> dict[str, str]:
    """Every check that is asked for and its action, those of `require` and `rights` too.

    What is asked for in two ways gets the stricter action.

    Raises:
        InputError: there is no such check or action.
    """
    if unknown := set(options.require) - set(REQUIRABLE):
        names = ", ".join(REQUIRABLE)
        raise InputError(f"cannot require {min(unknown)!r}; what can be required: {names}")
    asked = [*options.checks.items(), *((name, "refuse") for name in options.require)]
    if options.rights is not None:
        asked.append(("rights", options.rights))
    for check, action in asked:
        if check not in CHECKS or action not in ACTIONS:
            raise InputError(
                f"no check {check}={action}: there are {', '.join(CHECKS)}, "
                f"each with {', '.join(ACTIONS)}"
            )
    chosen = dict(sorted(asked, key=lambda one: ACTIONS.index(one[1])))
    return {check: chosen[check] for check in CHECKS if check in chosen}


class Hygiene:
    """Looks at the items of one ingest, and remembers what it found."""

    def __init__(self, options: IngestOptions) -> None:
        """Be ready for the checks that are asked for.

        Raises:
            InputError: there is no such check, or what it takes is not installed.
        """
        self._actions, self._told = chosen_checks(options), options.checks
        self._counts = dict.fromkeys(self._actions, 0)
        self._examples: dict[str, list[tuple[str, str]]] = {check: [] for check in self._actions}
        self._seen = SeenIds()
        self._near = NearPictures() if "near-picture" in self._actions else None
        self._finders: dict[str, Find] = {
            "same-picture": self._find_same,
            "near-picture": self._find_near,
            "empty-caption": lambda rows: find_uninformative(rows["caption"]),
            "license": lambda rows: missing_values(rows, ["license"]),
            "source": lambda rows: missing_values(rows, ["source"]),
            "rights": find_marks,
        }

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What `checks` have found so far, also those that found nothing."""
        return tuple(
            Finding(check, action, self._counts[check], tuple(self._examples[check]))
            for check, action in self._actions.items()
            if check in self._told
        )

    def needs_survey(self) -> bool:
        """Whether all captions have to be seen before items are judged."""
        return any(check in self._actions for check in _OF_ALL_CAPTIONS)

    def survey(self, read_captions: Callable[[], Iterable[pl.Series]]) -> None:
        """See all captions; `read_captions` reads the sources anew each time.

        Raises:
            InputError: what tells languages is not installed.
        """
        if "repeated-caption" in self._actions:
            repeated = RepeatedCaptions(read_captions())
            self._finders["repeated-caption"] = lambda rows: repeated.find(rows["caption"])
        if "language" in self._actions:
            others = OtherLanguages(read_captions())
            self._finders["language"] = lambda rows: others.find(rows["caption"])

    def judge_items(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        """Each item by itself: the items, flagged, and the reason against each that is refused."""
        return self._judge(rows, [check for check in self._actions if check not in _OF_PICTURES])

    def judge_pictures(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        """The same by pictures of earlier items, once captions of one picture are joined."""
        return self._judge(rows, [check for check in self._actions if check in _OF_PICTURES])

    def _judge(self, rows: pl.DataFrame, checks: Sequence[str]) -> tuple[pl.DataFrame, pl.Series]:
        refused = pl.Series([None] * len(rows), dtype=pl.String)
        for check in checks:
            reasons = self._finders[check](rows)
            if not reasons.count():
                continue
            self._remember(check, rows["item"], reasons)
            if self._actions[check] == "flag":
                rows = rows.with_columns(_flag(rows["attributes"], check, reasons))
            elif self._actions[check] == "refuse":
                if check == "rights":
                    reasons = "rights reserved (" + reasons + ")"
                refused = pl.select(pl.coalesce(refused, reasons)).to_series()
        return rows, refused

    def _remember(self, check: str, items: pl.Series, reasons: pl.Series) -> None:
        self._counts[check] += reasons.count()
        found = zip(items, reasons, strict=True)
        shown = self._examples[check]
        shown += [(item, why) for item, why in found if why is not None][: SHOWN - len(shown)]

    def _find_same(self, rows: pl.DataFrame) -> pl.Series:
        known = rows["image_sha256"].is_not_null()
        same = np.zeros(len(rows), bool)
        same[known.to_numpy()] = ~self._seen.take_new(rows["image_sha256"].filter(known))
        return _as_reasons(same, "picture of an earlier item")

    def _find_near(self, rows: pl.DataFrame) -> pl.Series:
        assert self._near is not None  # asked for
        pictures: list[PictureSource] = pictures_to_encode(rows)
        if not pictures:
            return _as_reasons(np.zeros(len(rows), bool), "")
        return _as_reasons(self._near.take_near(pictures), "looks like an earlier picture")


def find_marks(rows: pl.DataFrame) -> pl.Series:
    """The marks that reserve rights of each of n items, in its columns and in its picture."""
    in_columns = find_reserved(rows["attributes"])
    pictures = pictures_to_encode(rows)
    if not pictures:
        return in_columns
    inside = pl.Series(find_picture_marks(pictures), dtype=pl.String)
    both = pl.concat_str(in_columns, inside, separator=", ", ignore_nulls=True)
    return pl.select(pl.when(both != "").then(both)).to_series()


def _as_reasons(found: np.ndarray, reason: str) -> pl.Series:
    return pl.Series([reason if one else None for one in found.tolist()], dtype=pl.String)


def _flag(attributes: pl.Series, check: str, reasons: pl.Series) -> pl.Series:
    """Rights have an attribute of their own, which names the marks."""
    if check == "rights":
        return add_flags(attributes, RESERVED, reasons)
    doubted = [None if why is None else check for why in reasons]
    return add_flags(attributes, DOUBTS, pl.Series(doubted, dtype=pl.String))
