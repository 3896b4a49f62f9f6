"""SQL over a database: DuckDB reads the Lance tables, read-only and in a process of its own.

    with Audit(store) as audit:
        audit.query("SELECT license, count(*) FROM pairs GROUP BY license").to_pylist()

Tables: `pairs` (the newest model), `pairs_at('v3')` (any other version), `versions`, and those that
the registry of tables shows to SQL: `rejects`, `runs`, `predictions`, `attributions`, `receipts`,
`waivers`.
The SQL may come from anyone: one SELECT is all that runs, no file, network, extension or setting
can be reached from it, and the system bounds its memory and time.
"""

from __future__ import annotations

import math
import re
import subprocess
import threading
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from asif_lance.child_process import ChildProcess
from asif_lance.errors import AsifError, AuditError, InputError, VersionNotFoundError
from asif_lance.progress import step
from asif_lance.store import PairStore

#: A result is held in memory and shown to a person: more than this is a mistake or an attack.
RESULT_BYTES = 2**30

#: The longest that a query may be allowed to run.
LONGEST_SECONDS = 7 * 24 * 3600

#: What `pairs` shows instead of a version: head, with pairs that no version may have yet.
HEAD = "(head)"


class Audit:
    """Asks one database; the process that answers starts with the first question.

    Not for several threads at once.

    Args:
        store: the database.
        version: the model version that `pairs` shows, or `HEAD`.
        seconds: a query that runs longer is stopped; a week at most.
        memory: most that a query may take, such as `4GB`; nothing spills to disk.
        result_bytes: a larger answer is refused.

    Raises:
        InputError: no number of seconds above 0 and up to a week, or no size.
    """

    def __init__(
        self,
        store: PairStore,
        version: str = "latest",
        *,
        seconds: float = 300.0,
        memory: str = "4GB",
        result_bytes: int = RESULT_BYTES,
    ) -> None:
        if not 0 < seconds <= LONGEST_SECONDS:  # NaN is refused too
            raise InputError(
                f"a query may run for more than 0 and at most {LONGEST_SECONDS:,} seconds, "
                f"not {seconds:g}"
            )
        self._seconds, self._memory = seconds, memory
        self._settings = {
            "uri": store.uri,
            "version": version,
            "memory": memory,
            "memory_bytes": _bytes_of(memory),
            "cpu_seconds": math.ceil(seconds),
            "result_bytes": result_bytes,
        }
        self._process: ChildProcess | None = None

    def query(self, sql: str) -> pa.Table:
        """The result of one SELECT (or DESCRIBE, SUMMARIZE, SHOW TABLES).

        Raises:
            AuditError: the SQL is wrong, is no single SELECT, reaches outside, takes too much time
                or memory, or answers with more than `result_bytes`.
            VersionNotFoundError: `pairs_at` names no model version.
        """
        if not sql.strip():
            raise AuditError("there is no SQL: ask for instance FROM pairs LIMIT 3")
        return self._ask({"sql": sql})

    def matching_ids(self, where: str, versions: Sequence[str] = ("latest",)) -> list[str]:
        """Ids of the pairs of any of some versions, or `HEAD`, that a predicate holds for, sorted.

        Raises:
            AuditError: it is not one yes-or-no expression over the pairs, or as for `query`.
            VersionNotFoundError: there is no such version.
        """
        found = self._ask({"where": where, "versions": list(versions)})
        return sorted(set(found["pair_id"].to_pylist()))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.close()
            self._process = None

    def _ask(self, request: dict[str, Any]) -> pa.Table:
        process = self._process or self._start()
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            process.kill()

        watchdog = threading.Timer(self._seconds, stop)
        watchdog.start()
        try:
            with step("answer the question"):
                _check_reply(process.ask(request))
            with pa.ipc.open_stream(process.replies) as stream:
                return stream.read_all()
        except (EOFError, OSError, pa.ArrowInvalid) as error:
            self.close()
            if stopped.is_set():
                reason = f"the query was stopped after {self._seconds:g} seconds"
            else:
                reason = f"the query took more memory than {self._memory}, or too much time"
            raise AuditError(reason) from error
        finally:
            watchdog.cancel()

    def _start(self) -> ChildProcess:
        # What has to be said comes as a reply.
        process = ChildProcess("asif_lance.audit.sql_process", stderr=subprocess.DEVNULL)
        self._process = process
        try:
            _check_reply(process.ask(self._settings))
        except AsifError:
            self.close()  # it has ended: the next question starts another and is told the same
            raise
        except EOFError as error:
            self.close()
            raise AuditError("the process for SQL could not be started") from error
        return process

    def __enter__(self) -> Audit:
        """Close at the end of a `with` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _check_reply(reply: dict[str, Any]) -> None:
    """Pass if the request was answered."""
    if "version" in reply:
        raise VersionNotFoundError(reply["version"], tuple(reply["known"]))
    if "error" in reply:
        raise AuditError(reply["error"])


def _bytes_of(memory: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B", memory)
    if found is None:
        raise InputError(f"{memory!r} is not a size like 500MB or 4GB")
    return int(float(found[1]) * 1000 ** " kMGT".index(found[2] or " "))
