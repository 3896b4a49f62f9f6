"""Sources written for a test, and what is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asif_lance.errors import SourceError
from asif_lance.ingest import read_source
from asif_lance.ingest.sources import SCHEMA
from asif_lance.progress import listen


def read(source: Path, **options: Any) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """All rows, and all rejects as (item, reason)."""
    batches = list(read_source(source, **options))
    for batch in batches:
        assert batch.frame.schema == SCHEMA
        assert all(reject.source == str(source) for reject in batch.rejects)
    rows = [row for batch in batches for row in batch.frame.iter_rows(named=True)]
    return rows, [(reject.item, reject.reason) for batch in batches for reject in batch.rejects]


def refusal(source: str | Path, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        list(read_source(source, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def read_or_refuse(source: Any) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    try:
        return read(source)
    except SourceError as error:
        return [], [("error", str(error))]


def told_of(source: Any) -> tuple[list[dict[str, Any]], list[tuple[str, str]], list[str]]:
    """What is read of a source, what is refused, and what is noted."""
    notes: list[str] = []
    with listen(lambda what, done, total: None, notes.append):
        rows, refused = read_or_refuse(source)
    return rows, sorted(refused), notes


def as_if_in(place: str, folder: Path, found: Any) -> Any:
    """The same under the names that it has in a bucket."""
    if isinstance(found, str):
        return found.replace(str(folder), place)
    if isinstance(found, dict):
        return {key: as_if_in(place, folder, one) for key, one in found.items()}
    if isinstance(found, list | tuple):
        return type(found)(as_if_in(place, folder, one) for one in found)
    return found
