"""The process that answers SQL from anyone: the system bounds its memory and its time.

Started by `audit.sql`, see `child_process`; the table of an answer follows its reply as an Arrow
IPC stream. What no check of SQL foresees (a list of half a billion numbers, a function that takes
hours) ends this process and nothing else.
"""

from __future__ import annotations

import math
import os
import resource
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from asif_lance.audit.sql_engine import SqlEngine
from asif_lance.child_process import read_requests, send_reply
from asif_lance.database import storage_errors
from asif_lance.errors import AsifError, VersionNotFoundError
from asif_lance.store import PairStore

_LONGEST_MESSAGE = 1000

_SLACK_BYTES = 2**29  # for code, Arrow buffers and the threads' heaps beside DuckDB's own memory


def main() -> None:
    """Answer requests until stdin ends."""
    requests = read_requests()
    settings = next(requests)
    try:
        with storage_errors(settings["uri"]):
            engine = _open_engine(settings)
        _limit_memory(settings["memory_bytes"])
    except AsifError as error:
        send_reply(_described(error))
        return
    send_reply({})
    for request in requests:
        _limit_time(settings["cpu_seconds"])
        try:
            with storage_errors(settings["uri"]):
                table = _answer(engine, request)
        except AsifError as error:
            send_reply(_described(error))
            continue
        send_reply({})
        with pa.ipc.new_stream(sys.stdout.buffer, table.schema) as stream:
            stream.write_table(table)
        sys.stdout.buffer.flush()


def _open_engine(settings: dict[str, Any]) -> SqlEngine:
    store = PairStore.open(settings["uri"])
    return SqlEngine(store, settings["version"], settings["memory"], settings["result_bytes"])


def _answer(engine: SqlEngine, request: dict[str, Any]) -> pa.Table:
    if "where" in request:
        return engine.matching_ids(request["where"], request["versions"])
    return engine.query(request["sql"])


def _limit_memory(memory_bytes: int) -> None:
    """Let the system refuse more memory than that beyond what the process has now."""
    used = 0
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (row for row in status.read_text().splitlines() if row.startswith("VmData"))
        used = int(line.split()[1]) * 1024
    most = used + memory_bytes + _SLACK_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_time(cpu_seconds: int) -> None:
    """Bound the processor time of the next question, whatever those before it took.

    The process that asks has a watch, too, but it may be killed while it waits.
    """
    used = math.ceil(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    limit = used + cpu_seconds * (os.cpu_count() or 1) + cpu_seconds
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, most))


def _described(error: AsifError) -> dict[str, Any]:
    if isinstance(error, VersionNotFoundError):
        return {"version": _shorten(error.name), "known": error.known}
    return {"error": _shorten(str(error))}


def _shorten(text: str) -> str:
    """A message of at most some lines: it may quote the question, which may be of any length."""
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "…"


if __name__ == "__main__":
    main()
