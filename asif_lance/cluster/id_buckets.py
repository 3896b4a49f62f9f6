"""Ids of any number compared in memory that is bounded: by DuckDB, a bucket of them at a time.

DuckDB writes to the disk what its memory does not hold, but fails all the same where there is too
much of it. So all ids are split by their hash first: equal ones come into the same bucket, and each
bucket is small enough by itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

#: What DuckDB may hold, and how many bytes of ids a bucket has, about: a tenth of what fails.
_MEMORY, BUCKET_BYTES = "256MB", 2**27
_THREADS = 2  # each of which holds something of its own

_SPLIT = """
COPY (SELECT *, hash(id) % {count} AS bucket FROM incoming)
TO {place} (FORMAT parquet, PARTITION_BY (bucket))
"""
_SHOW = """
CREATE OR REPLACE TEMP VIEW {name} AS
FROM read_parquet([{files}], hive_partitioning = false)
"""


class IdBuckets:
    """A DuckDB of this process and tables of ids in it; get it from `open_buckets`.

    Attributes:
        engine: has tables of what was found so far.
    """

    def __init__(self, engine: duckdb.DuckDBPyConnection, place: Path, count: int) -> None:
        self.engine, self._place, self._count = engine, place, count

    def split(self, name: str, rows: pa.RecordBatchReader) -> None:
        """Takes the rows of a table, whose column `id` says into which bucket each comes."""
        self.engine.register("incoming", rows)
        place = _quote(self._place / name)
        self.engine.execute(_SPLIT.format(count=self._count, place=place))
        self.engine.unregister("incoming")

    def each(self, *names: str) -> Iterator[None]:
        """Shows the rows of each bucket as tables of these names; not where one has none."""
        for bucket in range(self._count):
            folders = [self._place / name / f"bucket={bucket}" for name in names]
            if not all(folder.is_dir() for folder in folders):
                continue
            for name, folder in zip(names, folders, strict=True):
                files = ", ".join(map(_quote, sorted(folder.iterdir())))
                self.engine.execute(_SHOW.format(name=name, files=files))
            yield

    def write(self, query: str, path: Path) -> None:
        """Writes the answer to a query as Parquet."""
        self.engine.execute(f"COPY ({query}) TO {_quote(path)} (FORMAT parquet)")


@contextmanager
def open_buckets(size: int) -> Iterator[IdBuckets]:
    """Buckets for ids of so many bytes, about; what is on the disk goes when they are closed."""
    with tempfile.TemporaryDirectory(prefix="asif-lance-") as place:
        limits: dict[str, str | bool | int | float | list[str]] = {"memory_limit": _MEMORY}
        limits |= {"temp_directory": place, "preserve_insertion_order": False, "threads": _THREADS}
        with duckdb.connect(config=limits) as engine:
            engine.execute("SET enable_progress_bar = false")  # which goes to stdout
            yield IdBuckets(engine, Path(place), 1 + size // BUCKET_BYTES)


def _quote(path: Path) -> str:
    text = str(path).replace("'", "''")
    return f"'{text}'"
