"""SQL over a database: DuckDB reads the Lance tables through Arrow, read-only and sandboxed.

    with Audit(store) as audit:
        audit.query("SELECT license, count(*) FROM pairs GROUP BY license").fetchall()

Tables: `pairs` (the newest model), `pairs_at('v3')` (any other version), `versions`, and those that
the registry of tables shows to SQL: `rejects`, `runs`, `predictions`, `attributions`, `receipts`.
The SQL may come from anyone: one SELECT is all that runs, and no file, network, extension or
setting can be reached from it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import duckdb
import lance
import pyarrow as pa
from pyarrow.dataset import Dataset

from asif_lance.audit.sql_guard import SqlGuard
from asif_lance.database import TABLES, open_table, storage_errors
from asif_lance.errors import AuditError
from asif_lance.store import PairStore

#: DuckDB cannot read Arrow's half floats, and nobody reads 384 numbers in a table.
HIDDEN = ("image_vector", "text_vector", "thumbnail")

_SANDBOX: dict[str, str | bool | int | float | list[str]] = {
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # SQL must not see this process's variables
    "temp_directory": "",
}

#: A result is held in memory and shown to a person: more than this is a mistake or an attack.
RESULT_BYTES = 2**30
_ROWS_FETCHED = 100_000  # from DuckDB at a time
_ROWS_SCANNED = 2**16  # by Lance at a time; fewer cost a tenth more


class Audit:
    """One DuckDB connection over one database.

    Args:
        store: the database.
        version: the model version that `pairs` shows; None for head, which may hold pairs that no
            version has yet.
        extra: further Arrow tables or datasets by name.
        seconds: a query that runs longer is stopped.
        memory: DuckDB's own limit; nothing spills to disk.
    """

    def __init__(
        self,
        store: PairStore,
        version: str | None = "latest",
        *,
        extra: Mapping[str, Any] | None = None,
        seconds: float = 300.0,
        memory: str = "4GB",
    ) -> None:
        self._store, self._seconds = store, seconds
        self._sql = duckdb.connect(":memory:", config=_SANDBOX | {"memory_limit": memory})
        self._versions: set[str] = set()
        tables = {
            "pairs": _open_pairs(store, version),
            "versions": _make_versions_table(store),
            **{table.name: _open_readable(store, table.name) for table in TABLES if table.in_sql},
            **(extra or {}),
        }
        for name, table in tables.items():
            self._sql.register(name, table)
        self._sql.execute(
            "CREATE MACRO pairs_at(version) AS TABLE "
            "SELECT * FROM query_table('pairs of ' || version)"
        )
        self._guard = SqlGuard(self._sql, tables)
        self._sql.execute("SET enable_external_access = false")
        self._sql.execute("SET lock_configuration = true")

    def matching_ids(self, where: str) -> list[str]:
        """Ids of the rows of `pairs` that a predicate holds for, sorted.

        Raises:
            AuditError: it is not one yes-or-no expression, or as for `query`.
        """
        self._guard.check_predicate(where)
        found = self.query(f"SELECT pair_id FROM pairs WHERE (\n{where}\n)")  # noqa: S608 - guarded
        return sorted(found["pair_id"].to_pylist())

    def query(self, sql: str) -> pa.Table:
        """The result of one SELECT (or DESCRIBE, SUMMARIZE, SHOW TABLES).

        Raises:
            AuditError: the SQL is wrong, is no single SELECT, reaches outside, takes too long or
                answers with more than `RESULT_BYTES`.
            VersionNotFoundError: `pairs_at` names no model version.
        """
        for version in self._guard.check(sql) - self._versions:
            self._sql.register(f"pairs of {version}", ReadableDataset(self._store.dataset(version)))
            self._versions.add(version)
        watchdog = threading.Timer(self._seconds, self._sql.interrupt)
        watchdog.start()
        try:
            return _gather(self._sql.sql(sql).to_arrow_reader(_ROWS_FETCHED))
        except (duckdb.Error, OSError, pa.ArrowException) as error:  # a stream fails with OSError
            raise AuditError(self._explain(error)) from None
        finally:
            watchdog.cancel()

    def _explain(self, error: Exception) -> str:
        if "INTERRUPT" in str(error):
            return f"the query was stopped after {self._seconds:g} seconds"
        return _one_line(error)

    def close(self) -> None:
        """Let go of the connection."""
        self._sql.close()

    def __enter__(self) -> Audit:
        """Close at the end of a `with` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


class ReadableDataset(Dataset):  # type: ignore[misc]  # pyarrow is untyped
    """A Lance dataset without the columns that DuckDB cannot read; scans stay Lance's own.

    DuckDB pushes projections and filters into whatever is a pyarrow dataset.
    """

    def __init__(self, dataset: lance.LanceDataset) -> None:
        self._whole = dataset

    @property
    def schema(self) -> pa.Schema:
        """The columns that SQL sees."""
        return pa.schema([f for f in self._whole.schema if f.name not in HIDDEN])

    def scanner(self, *args: Any, columns: Any = None, **kwargs: Any) -> Any:
        """A scan with DuckDB's projection and filter pushed into it."""
        kwargs.setdefault("batch_size", _ROWS_SCANNED)
        return self._whole.scanner(*args, columns=columns or self.schema.names, **kwargs)


def _open_pairs(store: PairStore, version: str | None) -> ReadableDataset:
    return (
        _open_readable(store, "pairs")
        if version is None
        else ReadableDataset(store.dataset(version))
    )


def _open_readable(store: PairStore, table: str) -> ReadableDataset:
    with storage_errors(store.uri):
        return ReadableDataset(open_table(store.uri, table))


def _gather(reader: pa.RecordBatchReader) -> pa.Table:
    batches, size = [], 0
    for batch in reader:
        size += batch.nbytes
        if size > RESULT_BYTES:
            raise AuditError(
                f"the answer is larger than {RESULT_BYTES >> 20} MiB: aggregate it or add a LIMIT"
            )
        batches.append(batch)
    return pa.Table.from_batches(batches, schema=reader.schema)


def _make_versions_table(store: PairStore) -> pa.Table:
    names = ("name", "command", "message", "created_at", "pairs", "added", "removed")
    versions = store.versions()
    columns = {name: [getattr(v, name) for v in versions] for name in names}
    return pa.table(columns, schema=_VERSIONS)


_VERSIONS = pa.schema(
    [
        ("name", pa.string()),
        ("command", pa.string()),
        ("message", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
        ("pairs", pa.int64()),
        ("added", pa.int64()),
        ("removed", pa.int64()),
    ]
)


def _one_line(error: BaseException) -> str:
    """DuckDB's message without the SQL that it repeats below."""
    return " ".join(str(error).split("\n\nLINE ")[0].split())
