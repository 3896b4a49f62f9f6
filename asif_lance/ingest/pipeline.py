"""Ingest: the pairs that sources and encoders make go into a database, in chunks.

The model version appears when all of it is done; an ingest that was killed is resumed by running
it again, since pairs that are in the table already are passed over.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from asif_lance.ingest.destination import Destination
from asif_lance.ingest.options import IngestOptions
from asif_lance.ingest.preparation import Preparation, Progress
from asif_lance.ingest.sources import Source, source_name
from asif_lance.records import ModelVersion, Reject

#: Rows per commit, and so per fragment: forgetting one pair rewrites one fragment.
CHUNK_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the items of one ingest.

    Attributes:
        added: pairs that are new in the table.
        already_there: items whose pair the table had before.
        rejects: refused items with their reasons.
        version: the model version that was made; None when nothing was added.
    """

    added: int
    already_there: int
    rejects: tuple[Reject, ...]
    version: ModelVersion | None

    def write_rejects(self, path: Path) -> None:
        """Write the refused items as CSV: source, item, reason."""
        columns = ("source", "item", "reason")
        rows = {c: [getattr(r, c) for r in self.rejects] for c in columns}
        pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String)).write_csv(path)


def ingest_sources(
    uri: str | Path,
    sources: Sequence[Source],
    options: IngestOptions | None = None,
    *,
    progress: Progress | None = None,
) -> IngestReport:
    """Add every usable item of some sources to a database, which is made when missing.

    Args:
        uri: the database.
        sources: folders, files or tables, see `read_source`.
        options: how.
        progress: called with the number of items done since the last call.

    Raises:
        SourceError: a source cannot be read at all.
        EncoderMismatchError: the database was filled by other encoders.
        EncoderUnavailableError: an encoder cannot be had.
        StorageError: the disk refused; what was committed stays, running again resumes.
    """
    options = options or IngestOptions()
    destination = Destination(str(uri), options)
    prepared = Preparation(destination, options, known=destination.existing, progress=progress)
    added = 0
    for rows in _in_chunks(prepared.tables(sources)):
        new = destination.add(rows)
        added += new
        prepared.count_known(len(rows) - new)  # another writer was faster
    store, version = destination.store, None
    if store is not None:
        message = options.message or ", ".join(source_name(s) for s in sources)
        version = store.publish(command="ingest", message=message)
        store.add_rejects(uuid.uuid4().hex[:12], prepared.rejects)
    return IngestReport(added, prepared.already_there, tuple(prepared.rejects), version)


def _in_chunks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, as many at a time as one commit takes."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= CHUNK_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
