"""A client of an S3 server that stands still at a write."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from lives import Lives


@dataclass
class Pause:
    """What a proxy does about a write: the whole process stops, until it is told to go on.

    Attributes:
        lives: whose command stops.
        late: the write reaches the server only when the client goes on.
        stands: set when it has stopped.
        resumes: to be set.
    """

    lives: Lives
    late: bool
    stands: threading.Event
    resumes: threading.Event

    def act(self, method: str, path: str, pass_on: Callable[[], None]) -> bool:
        """As `s3_proxy.Act`."""
        os.kill(self.lives.pid, signal.SIGSTOP)
        if not self.late:
            pass_on()
        self.stands.set()
        assert self.resumes.wait(600)
        if self.late:
            pass_on()
        os.kill(self.lives.pid, signal.SIGCONT)
        return True
