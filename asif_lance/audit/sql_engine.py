"""DuckDB over the Lance tables of a database, read-only and guarded; runs in a process of its own.

`audit.sql` starts that process and hands on what it answers, see `audit.sql_process`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import duckdb
import lance
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.dataset import Dataset, Scanner

from asif_lance.audit.sql import HEAD
from asif_lance.audit.sql_guard import SqlGuard, one_line
from asif_lance.database import TABLES, AttachedState, open_table, schemas, storage_errors
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

_ADDRESS = "_rowaddr"  # Lance's own column
_SQL_TYPES = {schemas.CAPTIONS.type: "VARCHAR[]", schemas.TIMESTAMP: "TIMESTAMPTZ"}

_STORED = "stored "  # before the names of states that lack a column

_ROWS_FETCHED = 100_000  # from DuckDB at a time
_ROWS_SCANNED = 2**16  # by Lance at a time; fewer cost a tenth more

# Comparisons that Lance is handed at most. On their way they are written as Substrait, where each
# more of an OR or AND doubles the size: 17 take 25 MB, 25 would take 6 GB.
_MOST_COMPARISONS = 8
_JOINED = re.compile(r"\) (?:or|and) \(")


class SqlEngine:
    """One DuckDB connection over one database.

    Args:
        store: the database.
        version: the model version that `pairs` shows; `HEAD` for what no version may have yet.
        memory: DuckDB's own limit; nothing spills to disk.
        result_bytes: a larger answer is refused.
    """

    def __init__(self, store: PairStore, version: str, memory: str, result_bytes: int) -> None:
        self._store, self._result_bytes = store, result_bytes
        self._sql = duckdb.connect(":memory:", config=_SANDBOX | {"memory_limit": memory})
        self._version = version
        tables = self._open_tables()
        self._sql.execute(
            "CREATE MACRO pairs_at(version) AS TABLE "
            "SELECT * FROM query_table('pairs of ' || version)"
        )
        self._guard = SqlGuard(self._sql, tables)
        self._sql.execute("SET enable_external_access = false")
        self._sql.execute("SET lock_configuration = true")

    def query(self, sql: str) -> pa.Table:
        """The result of one SELECT (or DESCRIBE, SUMMARIZE, SHOW TABLES).

        Raises:
            AuditError: the SQL is wrong, is no single SELECT, reaches outside, or answers with more
                than `result_bytes`.
            VersionNotFoundError: `pairs_at` names no model version.
        """
        self._refresh()
        self._register(self._guard.check(sql))
        return self._run(sql)

    def matching_ids(self, where: str, versions: Sequence[str]) -> pa.Table:
        """Ids of the pairs of any of some versions, or `HEAD`, that a predicate holds for.

        Raises:
            AuditError: it is not one yes-or-no expression, or as for `query`.
            VersionNotFoundError: there is no such version.
        """
        self._refresh()
        self._guard.check_predicate(where)
        asked = f"SELECT pair_id FROM pairs WHERE (\n{where}\n)"  # noqa: S608 - guarded
        self._register(self._guard.check(asked) | set(versions))
        found = []
        for version in versions:
            table = "pairs of " + version.replace("'", "''")
            found.append(self._run(f"WITH pairs AS (FROM query_table('{table}')) {asked}"))
        return pa.concat_tables(found)

    def _refresh(self) -> None:
        """Open all tables anew when something was forgotten since they were opened."""
        if self._store.epoch() != self._epoch:
            self._open_tables()

    def _open_tables(self) -> set[str]:
        """Let SQL see the tables as they are now; returns their names."""
        self._epoch = self._store.epoch()
        tables = {
            "pairs": self._open_pairs(self._version),
            "versions": _make_versions_table(self._store),
            **{t.name: _open_readable(self._store, t.name) for t in TABLES if t.in_sql},
        }
        for name, table in tables.items():
            self._show(name, table)
        self._versions: set[str] = set()
        return set(tables)

    def _register(self, versions: set[str]) -> None:
        for version in versions - self._versions:
            self._show(f"pairs of {version}", self._open_pairs(version))
            self._versions.add(version)

    def _show(self, name: str, table: pa.Table | ReadableDataset) -> None:
        """Let SQL see a table; states of pairs that lack a column of today have it empty."""
        with storage_errors(self._store.uri):  # DuckDB would tell of damage in Rust's words
            columns = table.schema.names
        if isinstance(table, AttachedRows):
            self._show_attached(name, table)
            return
        later = schemas.LATER if name.startswith("pairs") else ()
        lacking = [field for field in later if field.name not in columns]
        self._sql.register(_STORED + name if lacking else name, table)
        if lacking:
            view, stored = (_quote(each) for each in (name, _STORED + name))
            empty = ", ".join(f"NULL::{_sql_type(field)} AS {field.name}" for field in lacking)
            shown = f"SELECT *, {empty} FROM {stored}"  # noqa: S608 - quoted
            self._sql.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS {shown}")

    def _show_attached(self, name: str, rows: AttachedRows) -> None:
        """Let SQL see somebody else's table: our columns under our names, then its other ones."""
        view, stored = _quote(name), _STORED + name
        self._sql.register(stored, rows)
        shown = f"SELECT {', '.join(rows.expressions())} FROM {_quote(stored)}"  # noqa: S608 - quoted
        self._sql.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS {shown}")

    def _open_pairs(self, version: str) -> ReadableDataset:
        if version == HEAD:
            return _open_readable(self._store, "pairs")
        return _make_readable(self._store.dataset(version))

    def _run(self, sql: str) -> pa.Table:
        try:
            return self._gather(self._sql.sql(sql).to_arrow_reader(_ROWS_FETCHED))
        except (duckdb.Error, OSError, pa.ArrowException) as error:  # a stream fails with OSError
            raise AuditError(one_line(str(error))) from None

    def _gather(self, reader: pa.RecordBatchReader) -> pa.Table:
        batches, size = [], 0
        for batch in reader:
            size += batch.nbytes
            if size > self._result_bytes:
                most = self._result_bytes >> 20
                raise AuditError(
                    f"the answer is larger than {most} MiB: aggregate it or add a LIMIT"
                )
            batches.append(batch)
        return pa.Table.from_batches(batches, schema=reader.schema)


def _sql_type(field: pa.Field) -> str:
    return "VARCHAR[]" if pa.types.is_list(field.type) else "VARCHAR"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


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
        """A scan with DuckDB's projection and filter pushed into it.

        Lance skips what a filter of a few comparisons leaves out; Arrow applies a longer one.
        """
        kwargs.setdefault("batch_size", _ROWS_SCANNED)
        shown, longer = columns or self.schema.names, None
        if len(_JOINED.findall(str(kwargs.get("filter")))) >= _MOST_COMPARISONS:
            longer, columns = kwargs.pop("filter"), self.schema.names
        scan = self._whole.scanner(*args, columns=columns or shown, **kwargs)
        if longer is None:
            return scan
        added = [_ADDRESS] if kwargs.get("with_row_address") else []
        return Scanner.from_batches(scan.to_reader(), columns=[*shown, *added], filter=longer)


class AttachedRows(ReadableDataset):
    """Somebody else's table, without rows that are no pairs and columns that DuckDB cannot read."""

    def __init__(self, state: AttachedState) -> None:
        super().__init__(state.stored)
        self._state = state
        self._left_out = pa.array(state.left_out_addresses(), pa.uint64())

    @property
    def schema(self) -> pa.Schema:
        """The columns that can be asked for."""
        vectors = {self._state.columns[side] for side in ("image_vector", "text_vector")}
        fields = [f for f in self._whole.schema if f.name not in vectors and _is_readable(f.type)]
        return pa.schema(fields)

    def scanner(self, *args: Any, **kwargs: Any) -> Any:
        """A scan; DuckDB asks it for a reader of batches."""
        if not len(self._left_out):
            return super().scanner(*args, **kwargs)
        return _ScanWithout(super().scanner(*args, with_row_address=True, **kwargs), self._left_out)

    def expressions(self) -> list[str]:
        """The columns of `pairs` in SQL."""
        ours = [field for field in self._state.schema if field.name not in HIDDEN]
        shown = {field.name: self._express(field) for field in ours}
        used, there = set(self._state.columns.values()), {name.lower() for name in shown}
        others = [
            _quote(field.name)
            for field in self.schema
            if field.name not in used and field.name.lower() not in there
        ]
        return [f"{sql} AS {_quote(name)}" for name, sql in shown.items()] + others

    def _express(self, field: pa.Field) -> str:
        name = self._state.columns.get(field.name)
        if name is None:
            return f"NULL::{_SQL_TYPES.get(field.type, 'VARCHAR')}"
        text = f"{_quote(name)}::VARCHAR"
        return f"coalesce({text}, '')" if field.name == "caption" else text


class _ScanWithout:
    """A scan of Lance's with addresses, without some of them and without these rows."""

    def __init__(self, scanner: Any, left_out: pa.Array) -> None:
        self._scanner, self._left_out = scanner, left_out
        fields = [f for f in scanner.projected_schema if f.name != _ADDRESS]
        self.projected_schema = pa.schema(fields)

    def to_reader(self) -> pa.RecordBatchReader:
        """The other rows."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self._scanner.to_batches():
            kept = pc.invert(pc.is_in(batch[_ADDRESS], self._left_out))
            yield batch.filter(kept).select(self.projected_schema.names)


def _is_readable(kind: pa.DataType) -> bool:
    """Whether DuckDB reads a column of this type: no half floats, and no types of Lance's own."""
    return not re.search("halffloat|extension|bfloat", str(kind))


def _make_readable(dataset: lance.LanceDataset | AttachedState) -> ReadableDataset:
    if isinstance(dataset, AttachedState):
        return AttachedRows(dataset)
    return ReadableDataset(dataset)


def _open_readable(store: PairStore, table: str) -> ReadableDataset:
    with storage_errors(store.uri):
        return _make_readable(open_table(store.uri, table))


_VERSIONS = pa.schema(
    schemas.VERSIONS.field(name)
    for name in ("name", "command", "message", "created_at", "pairs", "added", "removed")
)


def _make_versions_table(store: PairStore) -> pa.Table:
    return pa.Table.from_pylist([asdict(v) for v in store.versions()], schema=_VERSIONS)
