"""What a long command does now: done and total, rate and time left; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from .output import note

Advance = Callable[[int], None]

#: Seconds between two lines where stderr is no terminal; shorter work says nothing there.
LINE_SECONDS = 10.0


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Advance]:
    """Show how far some work is; yields what has to be told of each step.

    In a terminal a bar that is gone when the work is done, elsewhere a line now and then.
    `--quiet` silences both.
    """
    if click.get_current_context().find_root().params.get("quiet"):
        yield lambda step: None
    elif sys.stderr.isatty():
        with _bar(what, total) as advance:
            yield advance
    else:
        yield _Lines(what, total)


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        *((BarColumn(),) if total else ()),
        MofNCompleteColumn(),
        TaskProgressColumn(text_format="", show_speed=True),
        TimeElapsedColumn(),
        *((TextColumn("left"), TimeRemainingColumn()) if total else ()),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda step: bar.advance(task, step)


class _Lines:
    """A line every ten seconds."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        self._begun = self._told = time.monotonic()

    def __call__(self, step: int) -> None:
        """So many more are done."""
        self._done += step
        now = time.monotonic()
        if now - self._told < LINE_SECONDS or not self._done:
            return
        self._told, rate = now, self._done / (now - self._begun)
        of = f" of {self._total:,}" if self._total else ""
        left = f", {(self._total - self._done) / rate:,.0f} s left" if self._total else ""
        note(f"{self._what}: {self._done:,}{of}, {rate:,.1f} a second{left}")
