"""What is told of pairs that stay and share something with those to be forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asif_lance.errors import format_count

from .output import note

if TYPE_CHECKING:
    from asif_lance.forgetting import Twins

_SHOWN = 5  # ids of a kind; `--format json` lists all


def note_twins(twins: Twins | None) -> None:
    """Say which pairs would stay with the same picture or caption, if somebody looked."""
    if twins is None:
        return
    if twins.same_picture:
        note(
            f"{count_staying(len(twins.same_picture), 'the same picture')}: "
            f"{_list_some(twins.same_picture)}; --with-twins takes them along"
        )
    if twins.same_caption:
        note(
            f"{count_staying(len(twins.same_caption), 'the same caption and another picture')}: "
            f"{_list_some(twins.same_caption)}"
        )


def count_staying(number: int, what: str) -> str:
    """`1 pair with the same picture stays`, `2 pairs … stay`."""
    return f"{format_count(number, 'pair')} with {what} {'stays' if number == 1 else 'stay'}"


def _list_some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
