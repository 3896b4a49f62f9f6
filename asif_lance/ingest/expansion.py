"""What users name as sources made to sources: patterns, lists, pictures, tables in memory."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl
import pyarrow as pa

from asif_lance.database import one_line
from asif_lance.encoders import is_picture_name
from asif_lance.errors import SourceError, printable
from asif_lance.ingest.columns import REMOTE
from asif_lance.ingest.sources import PictureList, Source, TableSource
from asif_lance.object_files import exists, is_object, list_objects, open_place

#: Stands for a list of files, one per line, on standard input.
STDIN = "-"


def expand_sources(sources: Iterable[Any]) -> list[Source]:
    """Sources as they are read.

    Args:
        sources: paths; patterns (`shards/*.tar`), which stand for what they match, by name; `-` for
            a list of these on standard input; tables of polars, pandas or Arrow; and sources.

    Returns:
        Sources. Pictures that were named one after the other are one of them.

    Raises:
        SourceError: a pattern matches nothing, an object is no table, or standard input is empty.
    """
    several = isinstance(sources, Iterable) and not _is_one(sources)
    named = [each for source in (sources if several else [sources]) for each in _expand(source)]
    found: list[Source] = []
    for are_pictures, run in groupby(named, _is_picture):
        members = list(run)
        found += [_picture_list(list(map(str, members)))] if are_pictures else members
    return found


def _is_one(source: Any) -> bool:
    """A path or a table by itself, which is never taken apart."""
    kinds = (str, Path, TableSource, PictureList, Mapping)
    return isinstance(source, kinds) or hasattr(source, "columns")


def _expand(source: Any) -> Iterator[Source]:
    if isinstance(source, TableSource | PictureList):
        yield source
    elif not isinstance(source, str | Path):
        yield _as_table(source)
    elif str(source) == STDIN:
        lines = list(filter(None, (line.rstrip("\r\n") for line in sys.stdin)))
        if not lines:
            raise SourceError("standard input names no source")
        for line in lines:
            yield from _expand_pattern(line)
    else:
        yield from _expand_pattern(source)


def _expand_pattern(source: str | Path) -> Iterator[Source]:
    if is_object(source):
        yield from _expand_address(str(source))
        return
    pattern = os.path.expanduser(source)  # noqa: PTH111
    if not glob.has_magic(pattern) or os.path.lexists(pattern):
        yield source
        return
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not matches:
        raise SourceError(f"nothing matches {printable(pattern)}")
    yield from matches


def _expand_address(pattern: str) -> Iterator[str]:
    """What an address with a pattern in it matches: objects, and prefixes as folders."""
    begin = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    folder = begin.rpartition("/")[0]
    try:
        if begin == pattern or exists(open_place(pattern)):
            yield pattern
            return
        if not is_object(folder):
            raise SourceError(f"{printable(pattern)}: a pattern cannot name the bucket")
        objects = list_objects(open_place(folder))
    except OSError as error:
        raise SourceError(f"{printable(pattern)} cannot be read ({error.strerror})") from error
    paths = [PurePosixPath(name) for name in objects]
    places = {place for path in paths for place in (path, *path.parents) if place.name}
    shape = pattern[len(folder) + 1 :].rstrip("/").split("/")
    found = sorted(place for place in places if _fits(place.parts, shape))
    if not found:
        raise SourceError(f"nothing matches {printable(pattern)}")
    yield from (f"{folder}/{place}" for place in found)


def _fits(parts: Sequence[str], shape: Sequence[str]) -> bool:
    """Whether a path matches a pattern, as `glob` says of files; `**` is any number of folders."""
    if not shape:
        return not parts
    if shape[0] == "**":
        visible = next((n for n, part in enumerate(parts) if part.startswith(".")), len(parts))
        return any(_fits(parts[n:], shape[1:]) for n in range(visible + 1))
    if not parts or (parts[0].startswith(".") and not shape[0].startswith(".")):
        return False
    return fnmatchcase(parts[0], shape[0]) and _fits(parts[1:], shape[1:])


def _as_table(table: Any) -> TableSource:
    """A table of any library that speaks Arrow, named by its type."""
    name = f"<{type(table).__name__}>"
    if isinstance(table, pl.LazyFrame):
        table = table.collect()
    if not isinstance(table, pl.DataFrame) and not hasattr(table, "__arrow_c_stream__"):
        raise SourceError(
            f"{name} is no source: give a path, or a table of polars, pandas or Arrow"
        )
    try:
        return TableSource(name, pl.DataFrame(table))
    except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, ValueError) as error:
        raise SourceError(f"{name} cannot be read as a table: {one_line(error)}") from error


def _is_picture(source: Source) -> bool:
    if not isinstance(source, str | Path) or re.match(REMOTE, str(source)):
        return False
    return is_picture_name(Path(source).name) and not os.path.isdir(source)  # noqa: PTH112


def _picture_list(names: Sequence[str]) -> PictureList:
    files = tuple(Path(os.path.abspath(os.path.expanduser(name))) for name in names)  # noqa: PTH100, PTH111
    return PictureList(Path(os.path.commonpath([file.parent for file in files])), files)
