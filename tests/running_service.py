"""A real service in a process of its own, on a free port of loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

_RUN = "from asif_lance.cli import main; main(prog_name='asif-lance')"
_SECONDS = 120


@dataclass(frozen=True)
class RunningService:
    """Where it can be asked, and what it has printed."""

    process: subprocess.Popen[str]
    address: str
    log: list[str]

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=_SECONDS, trust_env=False, **options)

    def stop(self) -> int:
        """Ask it to end as a service manager does; returns its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_SECONDS)


@contextmanager
def serve(database: Path, *options: object, threads: int | None = 1) -> Iterator[RunningService]:
    """Run `asif-lance serve` on a database, with so many threads of OpenMP; None for all."""
    command = [sys.executable, "-c", _RUN, "--db", str(database), "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, *map(str, options)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
    )
    assert process.stderr is not None
    log: list[str] = []
    try:
        for line in process.stderr:
            log.append(line)
            if line.startswith("serving http://"):
                break
        else:
            raise AssertionError("".join(log))
        threading.Thread(target=log.extend, args=(process.stderr,), daemon=True).start()
        yield RunningService(process, line.split()[1].rstrip("/"), log)
    finally:
        process.kill()
        process.wait()
