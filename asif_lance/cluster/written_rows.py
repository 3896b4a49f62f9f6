"""Rows that a worker has written into files which no state of the table names yet.

A manifest says of a shard what became of its items and which fragments hold its new pairs. It is
put once; a worker that comes second, or fails, throws its own files away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import lance
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from lance.fragment import FragmentMetadata

from asif_lance.cluster.open_work import Fragments
from asif_lance.cluster.plan import Plan
from asif_lance.database import (
    ROWS_PER_FRAGMENT,
    ROWS_PREFIX,
    open_table,
    pair_rows,
    read_transaction,
    schemas,
    storage_errors,
)
from asif_lance.ingest import FORGOTTEN_ITEM, Destination, Preparation, SeenIds
from asif_lance.records import Reject

#: What a commit says which ingest it is of, in Lance's transaction.
COMMIT_PROPERTY = "asif_lance.ingest"


@dataclass(frozen=True, slots=True)
class ShardManifest:
    """What became of the items of a shard, or of several that are read as one.

    Attributes:
        fragments: those of the pairs.
        rows: how many rows they have.
        ids: a digest of the ids of these, in order.
        rejects: see `Preparation`, as are the counts.
        already_there: items.
        changed: items.
        cut_captions: captions.
        apart: pictures.
        max_tokens: of the encoder, if one was needed and has a limit.
    """

    fragments: Fragments
    rows: int
    ids: str
    rejects: list[tuple[str, str, str, bool]]
    already_there: int
    changed: int
    cut_captions: int
    apart: int
    max_tokens: int | None

    @staticmethod
    def read(path: Path) -> ShardManifest:
        """One that was put."""
        return ShardManifest(**json.loads(path.read_bytes()))

    def list_rejects(self) -> list[Reject]:
        """The refused items with their reasons."""
        return [Reject(source, item, why, forgotten=f) for source, item, why, f in self.rejects]

    def list_fragments(self) -> list[FragmentMetadata]:
        """The fragments as Lance commits them."""
        return [FragmentMetadata.from_json(json.dumps(one)) for one in self.fragments["pairs"]]


def rows_file(number: int) -> str:
    """The file with the manifest of the shards that begin with this one."""
    return f"{ROWS_PREFIX}{number:06d}.json"


def has_commit(plan: Plan) -> bool:
    """Whether a state of the table since the plan was made is the commit of its rows."""
    head = open_table(plan.uri, "pairs")
    since = [v["version"] for v in head.versions() if v["version"] > plan.head]
    return any(_commits(head, version, plan.commit_id) for version in since)


def _commits(head: lance.LanceDataset, version: int, commit_id: str) -> bool:
    with contextlib.suppress(OSError, ValueError):  # upkeep took it away meanwhile
        transaction = read_transaction(head, version)
        if transaction is not None:
            return bool(transaction.transaction_properties.get(COMMIT_PROPERTY) == commit_id)
    return False


class WrittenRows:
    """Takes new pairs and writes them a fragment at a time; what is not kept is removed."""

    def __init__(self, plan: Plan, destination: Destination, passed_over: pl.Series) -> None:
        """Begin with nothing.

        Args:
            plan: of the ingest.
            destination: knows which pairs the table has.
            passed_over: ids that pairs of earlier shards have.
        """
        self._plan, self._store, self._destination = plan, plan.open_store(), destination
        self._seen, self._again = SeenIds(), 0
        self._seen.take_new(passed_over)
        self._waiting: list[pa.Table] = []
        self._fragments: list[dict[str, Any]] = []
        self._rows, self._ids = 0, hashlib.sha256()
        self._kept = False

    def __enter__(self) -> WrittenRows:
        """Itself; leaving removes what was not kept."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._kept:
            self._plan.remove_files({"pairs": self._fragments})

    def take(self, pairs: pa.Table) -> None:
        """Take pairs whose ids are new; several captions may have that of their row."""
        schema = schemas.pairs_schema(self._store.image.dimension, self._store.text.dimension)
        rows = pair_rows.conform(pair_rows.add_ingest_time(pairs), schema)
        new = self._seen.take_new(pl.Series(pl.from_arrow(rows["pair_id"])))
        found = self._destination.find_known(pc.unique(rows["pair_id"]), ())
        there = found.rows["pair_id"].combine_chunks()
        new &= ~pc.is_in(rows["pair_id"], value_set=there).to_numpy()
        self._again += len(rows) - int(new.sum())
        self._waiting.append(rows.filter(pa.array(new)))
        while sum(map(len, self._waiting)) >= ROWS_PER_FRAGMENT:
            self._write()

    def finish(self, prepared: Preparation) -> ShardManifest:
        """Write what is left, and say what became of all items."""
        while sum(map(len, self._waiting)):
            self._write()
        told = (replace(r, item=FORGOTTEN_ITEM) if r.forgotten else r for r in prepared.rejects)
        return ShardManifest(
            fragments={"pairs": self._fragments},
            rows=self._rows,
            ids=self._ids.hexdigest(),
            rejects=[(one.source, one.item, one.reason, one.forgotten) for one in told],
            already_there=prepared.already_there + self._again,
            changed=prepared.changed,
            cut_captions=prepared.cut_captions,
            apart=prepared.apart,
            max_tokens=prepared.max_tokens,
        )

    def keep(self, number: int, manifest: ShardManifest) -> bool:
        """Put the manifest; False if another worker has put one, and what is here goes."""
        text = json.dumps(asdict(manifest))
        self._kept = self._plan.put(rows_file(number), lambda path: path.write_text(text))
        return self._kept

    def _write(self) -> None:
        waiting = pa.concat_tables(self._waiting)
        rows, rest = waiting.slice(0, ROWS_PER_FRAGMENT), waiting.slice(ROWS_PER_FRAGMENT)
        # Under the lock, so that nothing of what a forget takes out is written after it.
        with self._store.writing("ingest", since=self._plan.epoch), storage_errors(self._plan.uri):
            self._plan.check_open()
            written = pair_rows.write_apart(open_table(self._plan.uri, "pairs"), rows)
        self._fragments += [fragment.to_json() for fragment in written]
        self._rows += len(rows)
        self._ids.update("\0".join([*rows["pair_id"].to_pylist(), ""]).encode())
        self._waiting = [rest]


def read_ids(path: Path) -> pa.Array:
    """The ids of the pairs in a file."""
    reader = lance.file.LanceFileReader(str(path), columns=["pair_id"])
    return reader.read_all().to_table()["pair_id"].combine_chunks()
