"""Ingest: the pairs that sources and encoders make go into a database, in chunks.

The model version appears when all of it is done; an ingest that was killed is resumed by running
it again, since pairs that are in the table already are passed over.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from asif_lance.arguments import FUNCTION, PATH, instance_of, takes
from asif_lance.database import ROWS_PER_FRAGMENT
from asif_lance.errors import IngestInterruptedError, PairConflictError
from asif_lance.ingest.destination import Destination
from asif_lance.ingest.expansion import expand_sources
from asif_lance.ingest.hygiene import Finding
from asif_lance.ingest.options import IngestOptions
from asif_lance.ingest.preparation import Preparation, write_rejects
from asif_lance.ingest.sources import Source, source_name
from asif_lance.progress import Advance
from asif_lance.records import ModelVersion, Reject

#: What a kill may cost: fewer encoded pairs than this (in batches of 32 pictures or fewer), or what
#: took about this many seconds.
UNCOMMITTED_ROWS, UNCOMMITTED_SECONDS = 500, 20.0

#: Encoded pairs that are committed together; others are under way meanwhile.
COMMIT_ROWS = 192

#: Kept in the database instead of a forgotten pair's name, which may be its picture's.
FORGOTTEN_ITEM = "[forgotten]"


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the items of one ingest.

    Attributes:
        added: pairs that are new in the table.
        already_there: items whose pair the table had before, with the same content.
        changed: items whose pair the table had before with other content.
        updated: how many of these were replaced; the others were left as they were.
        rejects: refused items with their reasons.
        version: the model version that was made; None when the pairs stayed the same.
        cut_captions: captions of which the encoder did not read the end.
        max_tokens: how much it reads, if it has a limit.
        apart: pictures that came again apart from their other captions, as pairs of their own.
        findings: what the checks that were asked for have found.
    """

    added: int
    already_there: int
    changed: int
    updated: int
    rejects: tuple[Reject, ...]
    version: ModelVersion | None
    cut_captions: int = 0
    max_tokens: int | None = None
    apart: int = 0
    findings: tuple[Finding, ...] = ()

    def write_rejects(self, path: Path) -> None:
        """Write the refused items as CSV: source, item, reason."""
        write_rejects(self.rejects, path)


@takes(
    uri=PATH,
    options=instance_of("IngestOptions", IngestOptions).or_none,
    progress=FUNCTION.or_none,
)
def ingest_sources(
    uri: str | Path,
    sources: Any,
    options: IngestOptions | None = None,
    *,
    progress: Advance | None = None,
) -> IngestReport:
    """Add every usable item of some sources to a database, which is made when missing.

    What is done is committed every few hundred encoded pairs, and every 20 seconds in any case.

    Args:
        uri: the database.
        sources: folders, files, patterns or tables, see `read_source` and `expand_sources`; one by
            itself or several.
        options: how.
        progress: called with the number of items done since the last call.

    Raises:
        SourceError: a source cannot be read at all.
        InputError: no column of sources is called as `options.columns` says.
        EncoderMismatchError: the database was filled by other encoders.
        EncoderUnavailableError: an encoder cannot be had.
        KeysError: the key is missing with which it could be told what was forgotten.
        ForgottenPairError: others put forgotten pairs at head, or a pair was forgotten meanwhile.
        PairConflictError: with `on_conflict="fail"`, before anything is written.
        StaleModelError: pairs were forgotten meanwhile, which the message or a reject may quote;
            what was committed stays, running again resumes.
        StorageError: the disk refused; what was committed stays, running again resumes.
        IngestInterruptedError: a KeyboardInterrupt came; what was done is committed.
    """
    options, sources = options or IngestOptions(), expand_sources(sources)
    destination = Destination(str(uri), options)
    prepared = Preparation(destination, options, skip_known=True, progress=progress)
    writer = _Writer(destination, replace=options.on_conflict == "update")
    destination.look_up_forgotten()
    try:
        if options.on_conflict == "fail":
            _check_conflicts(destination, sources, options)
        with closing(prepared.tables(sources)) as tables:
            for rows in tables:
                writer.take(rows)
        writer.flush()
        version = _publish(destination, options, sources, prepared.rejects)
    except KeyboardInterrupt as stop:
        writer.flush()
        if destination.store is not None:
            destination.store.settle()
        raise IngestInterruptedError(writer.stored + prepared.already_there) from stop
    return IngestReport(
        added=writer.added,
        already_there=prepared.already_there + (0 if writer.replace else writer.found),
        changed=prepared.changed,
        updated=writer.found if writer.replace else 0,
        rejects=tuple(prepared.rejects),
        version=version,
        cut_captions=prepared.cut_captions,
        max_tokens=destination.max_tokens,
        apart=prepared.apart,
        findings=prepared.findings,
    )


def _check_conflicts(
    destination: Destination, sources: Sequence[Source], options: IngestOptions
) -> None:
    """Look through the sources without encoding anything.

    Raises:
        PairConflictError: an item's pair is there with other content.
    """
    look = Preparation(destination, options, skip_known=True)
    for _ in look.new_items(sources):
        pass
    if look.changed:
        raise PairConflictError(look.changed, tuple(look.changed_ids))


def _publish(
    destination: Destination,
    options: IngestOptions,
    sources: Sequence[Source],
    rejects: Sequence[Reject],
) -> ModelVersion | None:
    store = destination.store
    if store is None:
        return None
    store.join_fragments(destination.forgotten)
    message = options.message or ", ".join(source_name(s) for s in sources)
    since, looked_up = destination.epoch, destination.forgotten
    version = store.publish(command="ingest", message=message, since=since, looked_up=looked_up)
    kept = [replace(r, item=FORGOTTEN_ITEM) if r.forgotten else r for r in rejects]
    store.add_rejects(uuid.uuid4().hex[:12], kept, since=since)
    return version


class _Writer:
    """Gathers pairs and commits them before a kill could cost much.

    Attributes:
        replace: pairs that are there get their new rows.
        added: pairs that were not there before.
        found: pairs that were.
        stored: all pairs that are in the table now.
    """

    def __init__(self, destination: Destination, *, replace: bool) -> None:
        self.replace = replace
        self.added = self.found = self.stored = 0
        self._destination = destination
        self._waiting: list[pa.Table] = []
        self._since = 0.0

    def take(self, rows: pa.Table) -> None:
        """Take pairs in, and commit what waited long enough or fills a fragment."""
        if not self._waiting:
            self._since = time.monotonic()
        self._destination.expect(rows)
        self._waiting.append(rows)
        encodes = self._destination.encodes
        limit = COMMIT_ROWS if encodes else ROWS_PER_FRAGMENT
        while sum(map(len, self._waiting)) >= limit:
            self._commit()
        if time.monotonic() - self._since > UNCOMMITTED_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit everything."""
        while self._waiting:
            self._commit()

    def _commit(self) -> None:
        """Commit as many pairs as wait and as a fragment holds."""
        waiting = pa.concat_tables(self._waiting)
        rows, rest = waiting.slice(0, ROWS_PER_FRAGMENT), waiting.slice(ROWS_PER_FRAGMENT)
        count, left = len(rows), [rest] if len(rest) else []
        new = self._destination.add(rows, replace=self.replace)
        # Nothing is called in between: an interrupt comes before all of it, or after.
        self._waiting = left
        self.stored += count
        self.added += new
        self.found += count - new
        self._since = time.monotonic()
