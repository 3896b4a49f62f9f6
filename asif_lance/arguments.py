"""What public functions take: kinds of arguments, checked before anything is done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableSequence
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from numbers import Integral, Number
from os import PathLike
from typing import Any, ParamSpec, TypeVar

from asif_lance.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of argument.

    Attributes:
        expected: what messages call it.
        fits: tells whether something is of it.
    """

    expected: str
    fits: Callable[[Any], bool]

    @property
    def or_none(self) -> Kind:
        """The same where None is the default."""
        return Kind(self.expected, lambda given: given is None or self.fits(given))


def instance_of(expected: str, *kinds: type) -> Kind:
    """What is of one of these types."""
    return Kind(expected, lambda given: isinstance(given, kinds))


def is_natural(given: Any) -> bool:
    """Whether it is a whole number from 0 on."""
    return isinstance(given, Integral) and not isinstance(given, bool) and int(given) >= 0


TEXT = instance_of("a text", str)
PATH = instance_of("a path or an address", str, PathLike)
LIST = instance_of("a list", MutableSequence)
MAPPING = instance_of("a mapping", Mapping)
FUNCTION = Kind("a function", callable)
COUNT = Kind("a whole number above 0", lambda given: is_natural(given) and given > 0)


def takes(**kinds: Kind) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function refuse arguments, by their names, that are of another kind.

    What it then raises is InputError.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = signature(function)

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            check_kinds(kinds, parameters.bind(*args, **kwargs).arguments)
            return function(*args, **kwargs)

        return checked

    return decorate


def check_kinds(kinds: Mapping[str, Kind], given: Mapping[str, Any]) -> None:
    """Pass values that are of the kinds of their names; those without one are not looked at.

    Raises:
        InputError: one is not.
    """
    for name, kind in kinds.items():
        if name in given and not kind.fits(given[name]):
            raise InputError(f"{name}: give {kind.expected}, not {_describe(given[name])}")


def take_texts(name: str, given: Any) -> list[str]:
    """One text, or several of any kind of row, in memory: a string is never a row of letters.

    Raises:
        InputError: something else; it calls the argument `name`.
    """
    if isinstance(given, str):
        return [given]
    rows = given.to_pylist() if hasattr(given, "to_pylist") else given  # Arrow's
    found: list[Any] = list(rows) if isinstance(rows, Iterable) else [rows]
    for text in found:
        if not isinstance(text, str):
            raise InputError(f"{name}: give a text or several, not {_describe(text)}")
    return found


def _describe(given: object) -> str:
    return repr(given) if isinstance(given, Number) else type(given).__name__
