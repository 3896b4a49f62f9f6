"""Commands of `asif-lance` as processes of their own, which may be killed and stopped.

Each is a fork of a process that has only imported: it is there in milliseconds. The command `share`
shares an ingest with whoever else does: `share DATABASE SOURCE …`.

    python tests/lives.py LASTING RENEWED_WITHIN    # of leases; commands come on stdin
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Lives:
    """Runs commands one after the other; get it from `start_lives`.

    Attributes:
        pid: of the command that runs, or ran last.
        log: the file with what they printed.
    """

    server: subprocess.Popen[str]
    log: Path
    pid: int = 0

    def begin(self, *arguments: object) -> None:
        """Starts a command."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps([str(a) for a in arguments]) + "\n")
        self.server.stdin.flush()
        self.pid = int(self.server.stdout.readline())

    def end(self) -> int:
        """Waits for its end; its exit status, negative if it was killed."""
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())

    def run(self, *arguments: object) -> int:
        """Both."""
        self.begin(*arguments)
        return self.end()


@contextmanager
def start_lives(
    address: str, log: Path, *, lasting: float, renewed_within: float = 10.0
) -> Iterator[Lives]:
    """Where commands run that reach their object store at this address.

    They take over a lease that has not been renewed for `lasting` seconds, and write within
    `renewed_within` after they have renewed theirs: long for those that never stand still.
    """
    env = {**os.environ, "AWS_ENDPOINT": address, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(lasting), str(renewed_within)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        log.open("w") as errors,
        subprocess.Popen(  # type: ignore[call-overload]
            command, env=env, text=True, stderr=errors, start_new_session=True, **pipes
        ) as server,
    ):
        try:
            yield Lives(server, log)
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # with a command that stands still


def _serve() -> None:
    from conftest import entry_point

    from asif_lance.database import lease

    lease.LASTING, lease.RENEWED_WITHIN = map(float, sys.argv[1:])
    main = entry_point()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(2, 1)
            _live(main, json.loads(line))
        _say(child)
        _say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _live(main: object, arguments: Sequence[str]) -> None:
    status = 0
    try:
        if arguments[0] == "share":
            _share(*arguments[1:])
        else:
            main(arguments)  # type: ignore[operator]
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
        status = 2
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _share(uri: str, *sources: str) -> None:
    from shared_sources import finish

    from asif_lance.cluster import plan_ingest
    from asif_lance.errors import DatabaseError

    try:
        finish(plan_ingest(uri, sources, shard_rows=100))
    except DatabaseError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    _serve()
