"""Ctrl-C and SIGTERM end a command with one line, and with the status that shells give them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(click.ClickException):
    """A signal came; the command's own line about it, if it has more to say than that."""

    def __init__(self, stop: KeyboardInterrupt, message: str | None = None) -> None:
        first = stop.__cause__ if isinstance(stop.__cause__, KeyboardInterrupt) else stop
        number = next((a for a in first.args if a in _SIGNALS), signal.SIGINT)
        super().__init__(message or f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


@contextmanager
def raised_signals() -> Iterator[None]:
    """Within it both signals are a KeyboardInterrupt that carries the signal's number."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
