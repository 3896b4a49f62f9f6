"""How far long work is: what does the work tells, and whoever is interested listens.

    with show_progress():
        frame = model.classify("photos", labels).to_polars()

Work may consist of steps that are long themselves. Where nobody listens, telling costs nothing;
a thread that the listener started has to listen for itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from operator import length_hint
from typing import Any, TypeVar

T = TypeVar("T")

#: Called with what is done now, how much of it is done, and how much there is, if that is known.
#: A step is over when both numbers are equal.
Progress = Callable[[str, int, int | None], None]

#: Called with how much more of a step is done.
Advance = Callable[[int], None]

#: Called with a line about the work that a person should know.
Notes = Callable[[str], object]

_listener: ContextVar[Progress] = ContextVar("listener", default=lambda what, done, total: None)
_notes: ContextVar[Notes] = ContextVar("notes", default=lambda text: None)


@contextmanager
def listen(listener: Progress, notes: Notes = lambda text: None) -> Iterator[None]:
    """Have a listener told of all steps that begin within a `with` block, another of notes."""
    before, notes_before = _listener.set(listener), _notes.set(notes)
    try:
        yield
    finally:
        _listener.reset(before)
        _notes.reset(notes_before)


@contextmanager
def show_progress(after: float = 1.0) -> Iterator[None]:
    """Show bars of all steps that begin within a `with` block, in a terminal or a notebook.

    Args:
        after: seconds that a step takes before its bar appears.
    """
    from tqdm.auto import tqdm  # who shows nothing need not wait for it

    bars: dict[str, Any] = {}

    def show(what: str, done: int, total: int | None) -> None:
        if what not in bars and done != total:
            bars[what] = tqdm(desc=what, total=total, leave=False, delay=after)
        if what in bars:
            bars[what].update(max(done - bars[what].n, 0))
        if what in bars and done == total:
            bars.pop(what).close()

    try:
        with listen(show, partial(tqdm.write, file=sys.stderr)):
            yield
    finally:
        for bar in bars.values():
            bar.close()


def note(text: str) -> None:
    """Tell what is neither a result nor a failure, such as files that are passed over."""
    _notes.get()(text)


@contextmanager
def step(what: str, total: int | None = None) -> Iterator[Advance]:
    """Tell of one step: that it begins, how far it is, and that it is over.

    Args:
        what: in a word or two; steps within one another have different ones.
        total: how much there is to do, if that is known.
    """
    listener, done = _listener.get(), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if done != total:  # or it would be over before it is left
            listener(what, done, total)

    listener(what, 0, total)
    try:
        yield advance
    finally:
        listener(what, done, done)


def track(what: str, items: Iterable[T], total: int | None = None) -> Iterator[T]:
    """The items, with a step that tells how many of them are done with.

    Args:
        what: as for `step`.
        items: what is worked on.
        total: how many there are, where they cannot say that themselves.
    """
    hint = length_hint(items, -1)
    with step(what, hint if total is None and hint >= 0 else total) as advance:
        for item in items:
            yield item
            advance(1)


def track_batches(what: str, count: int, size: int) -> Iterator[slice]:
    """Slices of `size` or fewer that cover `count` items, with a step that counts the items."""
    with step(what, count) as advance:
        for start in range(0, count, size):
            yield slice(start, min(start + size, count))
            advance(min(size, count - start))
