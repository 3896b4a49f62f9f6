"""What options take: numbers, sizes, ages, texts and files, each checked before any work is done.

Every number is finite and small enough for a table, so that none ends a command half way.
"""

from __future__ import annotations

import math
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from asif_lance.errors import StorageError, printable

#: The largest number that an option takes: no table has more rows.
LARGEST = 2**31 - 1

#: The most often that an experiment is repeated.
MOST_TRIALS = 10_000

_LARGEST_SIZE = 2**62  # bytes

_MINUTES = {"d": 24 * 60, "h": 60, "m": 1}


class Count(click.IntRange):
    """A whole number, by default 1 or more; up to what a table may have unless told otherwise."""

    name = "integer"

    def __init__(self, least: int = 1, *, most: int = LARGEST) -> None:
        super().__init__(min=least)
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a whole number."""
        found = super().convert(value, param, ctx)
        if found > self.most:
            self.fail(f"{found} is too large: give at most {self.most:,}", param, ctx)
        return found


class Real(click.FloatRange):
    """A finite number in a range."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a number."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return found


class ColumnChoice(click.ParamType[tuple[str, str]]):
    """`ROLE=NAME`: what a source calls a column."""

    name = "ROLE=NAME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Role and name."""
        if isinstance(value, tuple):
            return value
        role, mark, name = str(value).partition("=")
        if not mark or not name.strip():
            self.fail(f"{value!r}: expected ROLE=NAME, for instance caption=titel", param, ctx)
        return role.strip(), name


class Numbers(click.ParamType[tuple[float, ...]]):
    """`50,100,200`: numbers above 0."""

    name = "N,N,…"

    def __init__(self, number: type[int] | type[float]) -> None:
        self.number = number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a tuple of numbers."""
        try:
            numbers = tuple(self.number(part) for part in str(value).split(","))
        except ValueError:
            what = "whole number" if self.number is int else "number"
            if "," in str(value):
                self.fail(f"{value!r} is not a list of {what}s like 1,2,4", param, ctx)
            self.fail(f"{value!r} is not a {what}", param, ctx)
        for number in numbers:
            if not 0 < number <= LARGEST:  # NaN is refused too
                reason = f"each must be above 0 and at most {LARGEST:,}"
                self.fail(f"{value!r} has {number:g}: {reason}", param, ctx)
        return numbers


class PairOf(Numbers):
    """`800` for both sides or `800,200` for image and text."""

    name = "N[,N]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a tuple (image, text)."""
        numbers = super().convert(value, param, ctx)
        if len(numbers) > 2:
            self.fail(f"{value!r}: give one number, or two for image,text", param, ctx)
        return numbers[0], numbers[-1]


class Choices(click.ParamType[tuple[str, ...]]):
    """`license,source`: some of a few names."""

    name = "NAME,…"

    def __init__(self, *names: str) -> None:
        self.names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a tuple of names."""
        chosen = value if isinstance(value, tuple) else tuple(str(value).split(","))
        for name in chosen:
            if name not in self.names:
                self.fail(f"{name!r} is none of {', '.join(self.names)}", param, ctx)
        return chosen


class Moment(click.ParamType[datetime]):
    """A date or time; without a zone it is local time."""

    name = "TIMESTAMP"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Text to an aware datetime in UTC."""
        try:
            return datetime.fromisoformat(str(value)).astimezone(UTC)
        except (ValueError, OverflowError):  # the first and last day may lie outside in UTC
            self.fail(
                f"{value!r} is not a time like 2026-01-31 or 2026-01-31T18:00:00Z", param, ctx
            )


class Bytes(click.ParamType[int]):
    """`500MB`, `2GB` or a number of bytes."""

    name = "BYTES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Text to a number of bytes."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", str(value), re.ASCII)
        if found is None:
            self.fail(f"{value!r} is not a size like 500MB or 2GB", param, ctx)
        size = float(found[1]) * 1000 ** " kMGT".index(found[2] or " ")
        if size > _LARGEST_SIZE:
            self.fail(f"{value!r} is more than any machine has", param, ctx)
        return int(size)


class Device(click.ParamType[str]):
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`: whether it is here is told when it is used."""

    name = "DEVICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name itself."""
        if re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", str(value), re.ASCII) is None:
            self.fail(f"{value!r} is none of auto, cpu, cuda, cuda:1, …, mps", param, ctx)
        return str(value)


class Age(click.ParamType[timedelta]):
    """`90d`, `12h` or `30m`."""

    name = "AGE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Text to a length of time."""
        found = re.fullmatch(r"(\d{1,9})([dhm])", str(value), re.ASCII)
        if found is None:
            self.fail(f"{value!r} is not an age like 90d, 12h or 30m", param, ctx)
        return timedelta(minutes=int(found[1]) * _MINUTES[found[2]])


class _Text(click.types.StringParamType):
    """Text that UTF-8 can hold: SQL, ids, labels, messages."""

    envvar_list_splitter = "\n"  # texts have blanks

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text itself."""
        text = super().convert(value, param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"'{printable(text)}' holds bytes that are not UTF-8", param, ctx)
        return text


class _Name(_Text):
    """Text that says something: an empty one is a mistake, as of a variable that is not set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text itself."""
        text = super().convert(value, param, ctx)
        if not text.strip():
            self.fail(_EMPTY, param, ctx)
        return text


class PathOption(click.Path):
    """A file or folder, named: an empty name is not the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a path."""
        if not str(value):
            self.fail(_EMPTY, param, ctx)
        return super().convert(value, param, ctx)


_EMPTY = "it is empty; leave the option out for its default"

TEXT = _Text()
NAME = _Name()

#: A picture or a folder of pictures: any name that the system has.
PICTURE = click.Path()

#: A file to read.
FileArgument = click.Path(exists=True, dir_okay=False, path_type=Path)


class OutputFile(click.ParamType[Path]):
    """A file to write to, checked before any work is done.

    Args:
        suffixes: what its name may end in; anything if none is given.
    """

    name = "FILE"

    def __init__(self, *suffixes: str) -> None:
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Text to a path that can be written.

        Raises:
            StorageError: it cannot.
        """
        path = Path(value)
        if self.suffixes and path.suffix.lower() not in self.suffixes:
            self.fail(f"{value!r}: its name has to end in {' or '.join(self.suffixes)}", param, ctx)
        target = Path(os.path.realpath(path))  # where a link leads
        if target.is_dir():
            raise StorageError(f"cannot write {path}: it is a folder")
        if not target.parent.is_dir():
            raise StorageError(f"cannot write {path}: there is no folder {target.parent}")
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise StorageError(f"cannot write {path}: permission denied")
        return path
