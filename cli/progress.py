"""What a long command does now, on stderr: a bar for each step in a terminal, else some lines.

A step is shown once it has taken a while, and its bar is gone when it is over. Who prints results
while a step goes on calls `hide_bars` before, so that they do not mix.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from asif_lance.progress import listen

from .output import note

if TYPE_CHECKING:
    from rich.live import Live

#: Seconds that a step takes before a terminal shows it; and between lines elsewhere.
BAR_SECONDS, LINE_SECONDS = 2.0, 10.0

_HIDDEN_SECONDS = 0.5

_QUIET, _DISPLAY = f"{__name__}.quiet", f"{__name__}.display"  # keys of click's `meta`


def _hush(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta[_QUIET] = value or ctx.meta.get(_QUIET, False)


#: Of every command, before its name or after it.
quiet_option = click.option(
    "--quiet",
    "-q",
    is_flag=True,
    expose_value=False,
    callback=_hush,
    help="Show no progress of long work.",
)


@contextmanager
def shown_progress(ctx: click.Context) -> Iterator[None]:
    """Show how far the work of a command is, unless it is to be quiet."""
    display = ctx.meta[_DISPLAY] = _Display(lambda: bool(ctx.meta[_QUIET]))
    try:
        with listen(display, display.note_once):
            yield
    finally:
        display.close()


def hide_bars() -> None:
    """Make room for a result, where the terminal that shows a bar gets it too."""
    if sys.stdout.isatty():
        display: _Display = click.get_current_context().meta[_DISPLAY]
        display.hide()


@dataclass
class _Step:
    """One step that is under way."""

    what: str
    done: int
    total: int | None
    begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.begun

    @property
    def line(self) -> str:
        """How far it is, in words."""
        if not self.done:
            return f"{self.what}: {self.seconds:,.0f} s so far"
        rate = self.done / max(self.seconds, 1e-9)
        of, left = "", ""
        if self.total is not None:
            of = f" of {self.total:,}"
            left = f", {timedelta(seconds=round((self.total - self.done) / rate))} left"
        return f"{self.what}: {self.done:,}{of}, {rate:,.1f} a second{left}"


class _Display:
    """Listens to the steps of a command and shows those that are under way."""

    def __init__(self, is_quiet: Callable[[], bool]) -> None:
        self._is_quiet = is_quiet
        self._steps: dict[str, _Step] = {}
        self._lines: _Lines | None = None
        self._bars: Live | None = None
        self._shown_again = 0.0
        self._noted: set[str] = set()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Told of a step, see `asif_lance.progress.Progress`."""
        begins = what not in self._steps
        if done == total:
            self._steps.pop(what, None)
        elif begins:
            self._steps[what] = _Step(what, done, total)
        else:
            self._steps[what].done = done
        if not self._steps:
            self.hide()
        elif sys.stderr is not None and not self._is_quiet():
            self._show(begins)

    def _show(self, begins: bool) -> None:
        if not sys.stderr.isatty():
            self._lines = self._lines or _Lines(self._steps)
        elif self._bars is None and (begins or time.monotonic() > self._shown_again):
            self._bars = _make_bars(self._steps)
            self._bars.start()

    def note_once(self, text: str) -> None:
        """A line about the work, unless it was told before: sources may be read twice."""
        if text not in self._noted:
            self._noted.add(text)
            self.hide()
            note(text)

    def hide(self) -> None:
        """Show no bars until a step begins, or one goes on and half a second is over."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._shown_again = None, time.monotonic() + _HIDDEN_SECONDS

    def close(self) -> None:
        """Show nothing any more."""
        self._steps.clear()
        self.hide()
        if self._lines is not None:
            self._lines.stop()


class _Lines(threading.Thread):
    """Writes a line every ten seconds: about the step that holds the others, if there is one."""

    def __init__(self, steps: dict[str, _Step]) -> None:
        super().__init__(daemon=True)
        self._steps, self._stopped = steps, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopped.wait(LINE_SECONDS):
            for step in list(self._steps.values())[:1]:
                note(step.line)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _make_bars(steps: dict[str, _Step]) -> Live:
    """A line for each long step, drawn anew several times a second."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def draw() -> Group | Table:
        table = Table.grid(padding=(0, 1))
        long = [step for step in list(steps.values()) if step.seconds >= BAR_SECONDS]
        for step in long:
            total = step.total or None
            bar = ProgressBar(total, step.done, width=30, pulse=total is None)
            table.add_row(bar, Text(step.line))
        return table if long else Group()

    return Live(
        get_renderable=draw,
        console=Console(stderr=True),
        refresh_per_second=5,
        transient=True,
        redirect_stdout=False,
    )
