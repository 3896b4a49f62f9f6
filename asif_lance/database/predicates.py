"""SQL predicates that users write, restricted to one yes-or-no expression over pairs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import lance

from asif_lance.database.tables import one_line
from asif_lance.errors import PredicateError

# Lance's parser recurses: a million characters of `x AND x AND ...` end the process.
_LENGTH = 20_000
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`")
_WRAPPING = (
    "Invalid user input: ",
    "External error: Query Execution error: Error applying filter expression to batch: ",
    "Schema error: ",
)


def enclose(where: str) -> str:
    """The predicate in brackets, so that Lance reads all of it or refuses it.

    Without them Lance takes `source = 'x' LIMIT 1` and `source = 'x'; anything` and ignores the
    rest: a `forget` would then forget other pairs than it was asked to.

    Raises:
        PredicateError: too long, or brackets that would end ours.
    """
    if len(where) > _LENGTH:
        raise PredicateError(where[:40] + "…", f"longer than {_LENGTH} characters")
    depth = 0
    for character in _QUOTED.sub("", where):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            raise PredicateError(where, "a ')' without its '('")
    return f"({where}\n)"


@contextmanager
def predicate_errors(where: str) -> Iterator[None]:
    """Turns what Lance raises for a predicate that it cannot use into a `PredicateError`."""
    try:
        yield
    except ValueError as error:
        text = one_line(error)
        if not re.search("Invalid user input|Query Execution error", text):
            raise
        raise PredicateError(where, _shorten_reason(text)) from error


def matching_ids(dataset: lance.LanceDataset, where: str) -> list[str]:
    """Ids of the rows that the predicate holds for, sorted.

    Raises:
        PredicateError: it is not a predicate over the pairs table.
    """
    with predicate_errors(where):
        ids = dataset.to_table(columns=["pair_id"], filter=enclose(where))["pair_id"]
    return sorted(ids.to_pylist())


def _shorten_reason(text: str) -> str:
    """Lance's message without the layers around it and the inner columns that it lists."""
    syntax = re.search(r"sql parser error: (.*)\)$", text)
    if syntax:
        return syntax[1]
    for layer in _WRAPPING:
        text = text.replace(layer, "")
    return re.sub(r", _row\w+", "", text).rstrip(".")
