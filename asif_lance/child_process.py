"""A module of this package run as a process of its own, asked in lines of JSON.

What it does takes neither the interpreter nor the memory of whoever asks, and ends alone if it is
killed. Requests and replies are lines on its stdin and stdout; it ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, cast

_SECONDS = 5.0  # to end by itself


class ChildProcess:
    """A module that runs until it is closed, or ends itself. For one thread at a time.

    Args:
        module: its full name; it reads by `read_requests` and answers by `send_reply`.
        stderr: where what it says goes, as for `subprocess`; by default where ours goes.
    """

    def __init__(self, module: str, stderr: int | None = None) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,  # Ctrl-C in the terminal is for us, who end it then
        )
        self._requests = cast("BinaryIO", self._process.stdin)
        self.replies = cast("BinaryIO", self._process.stdout)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a request; what follows it in `replies` is for the caller to read.

        Raises:
            EOFError: it has ended.
        """
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            line = self.replies.readline()
        except OSError as error:
            raise EOFError from error
        if not line.endswith(b"\n"):
            raise EOFError
        reply: dict[str, Any] = json.loads(line)
        return reply

    def kill(self) -> None:
        """End it at once; from any thread."""
        self._process.kill()

    def close(self) -> int:
        """Let it finish what it does, for some seconds, and end; its status, below 0 if killed."""
        with contextlib.suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.replies.close()
        return self._process.returncode


def read_requests() -> Iterator[dict[str, Any]]:
    """In the process itself: the requests, until whoever asks closes it or is gone.

    Signals that a service manager sends to all processes of a service are for whoever asks.
    """
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        yield json.loads(line)


def send_reply(reply: Mapping[str, Any]) -> None:
    """In the process itself: answer the request that was read last."""
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()
