"""What workers do: name the items of a shard, and encode and write those that are new.

Naming comes first, as an item may be a duplicate of one in another shard: whose ids are known
passes it over before it is encoded. A name costs reading and hashing, a small part of encoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from asif_lance.cluster.open_work import RECORDING_PREFIX, OpenWork
from asif_lance.cluster.plan import Plan, Shard, load_plan
from asif_lance.cluster.settling import (
    NAMES,
    SETTLED,
    join_sources,
    names_file,
    read_groups,
    read_known,
    read_repeats,
    settle,
)
from asif_lance.cluster.written_rows import ShardManifest, WrittenRows, has_commit, rows_file
from asif_lance.database import KnownPairs
from asif_lance.errors import SourceError
from asif_lance.ingest import Destination, Preparation, name_pictures
from asif_lance.object_stores import is_there

if TYPE_CHECKING:  # naming and writing what has vectors needs no torch
    from asif_lance.anchors import Mapper

_KEY_BYTES = 8


@dataclass(frozen=True, slots=True)
class Task:
    """Something that one process does; plain values, which any engine can send.

    Attributes:
        uri: the database.
        ingest_id: the open ingest or recording.
        commit_id: see `OpenWork`.
        kind: `name` or `encode` of an ingest, `record` of a recording.
        shards: their numbers; several are read as one.
    """

    uri: str
    ingest_id: str
    commit_id: str
    kind: str
    shards: tuple[int, ...]


def list_tasks(plan: OpenWork) -> list[Task]:
    """What is to be done now, in any order; nothing at the end.

    Of an ingest these are all names first, then all rows.

    Raises:
        DatabaseError: it is not open any more.
        StaleModelError: pairs were forgotten since it was planned.
    """
    plan.check_open()
    done = {path.name for path in plan.folder.iterdir()}
    if not isinstance(plan, Plan):
        return _list_recording(plan, done)
    if has_commit(plan):
        return []
    everything = range(len(plan.shards))
    if unnamed := [(n,) for n in everything if names_file(n) not in done and SETTLED not in done]:
        return [_make_task(plan, "name", shards) for shards in unnamed]
    if SETTLED not in done:
        settle(plan)
    groups = read_groups(plan)
    return [_make_task(plan, "encode", g) for g in groups if rows_file(g[0]) not in done]


def _list_recording(plan: OpenWork, done: set[str]) -> list[Task]:
    from asif_lance.cluster.recording_plan import RecordingPlan, predictions_file  # imports torch

    assert isinstance(plan, RecordingPlan)
    left = [number for number in plan.shards if predictions_file(number) not in done]
    return [_make_task(plan, "record", (number,)) for number in left]


def _make_task(plan: OpenWork, kind: str, shards: tuple[int, ...]) -> Task:
    return Task(plan.uri, plan.ingest_id, plan.commit_id, kind, shards)


def run_task(task: Task, mapper: Mapper | None = None, shards: int = 1) -> None:
    """Does one task, unless somebody has done it; encoders load once in a process.

    Args:
        task: what to do.
        mapper: has others search the pairs that pictures are compared with; this process does it
            when None. See `share_model`.
        shards: into how many the pairs are cut for them.

    Raises:
        SourceError: a source that is all there is cannot be read, or changes meanwhile.
        DatabaseError: the ingest or recording is not open any more.
        StaleModelError: pairs were forgotten since it was planned.
    """
    work = _load_work(task.uri, task.ingest_id, task.commit_id)
    work.plan.check_open()
    try:
        work.do(task, mapper, shards)
    except FileNotFoundError:
        work.plan.check_open()  # whoever ends it takes its files away
        raise


class LoadedWork(Protocol):
    """What is open, with all that a process has loaded for it."""

    @property
    def plan(self) -> OpenWork:
        """Its plan."""
        ...

    def do(self, task: Task, mapper: Mapper | None, shards: int) -> None:
        """Do a task; see `run_task`."""
        ...


@lru_cache(maxsize=1)
def _load_work(uri: str, ingest_id: str, commit_id: str) -> LoadedWork:
    """`commit_id` is here to begin anew with work that is planned again."""
    if not ingest_id.startswith(RECORDING_PREFIX):
        return _Ingester(load_plan(uri, ingest_id))
    from asif_lance.cluster.recording import ShardRecorder  # imports torch
    from asif_lance.cluster.recording_plan import load_recording

    return ShardRecorder(load_recording(uri, ingest_id))


@dataclass
class _Ingester:
    """A process at work for one ingest.

    Attributes:
        plan: of the ingest.
        everything: the ids of all pairs, 16 bytes each, where nothing better is left to be had.
    """

    plan: Plan
    everything: KnownPairs = field(default_factory=KnownPairs)

    @cached_property
    def destination(self) -> Destination:
        destination = Destination(self.plan.uri, self.plan.options)
        destination.look_up_forgotten()
        return destination

    def do(self, task: Task, mapper: Mapper | None, shards: int) -> None:
        """Name or encode; there is nothing to search."""
        if task.kind == "name":
            self.name(task.shards[0])
        else:
            self.encode(task.shards)

    def name(self, number: int) -> None:
        """Write down which items a shard has, and of which pictures."""
        if is_there(self.plan.folder / names_file(number)):
            return
        prepared = Preparation(self.destination, self.plan.options, alone=self.plan.alone)
        shard, names = self.plan.shards[number], _Names(number)
        with _unchanged([shard]):
            for frame in prepared.named_items([shard.source]):
                names.take(frame)
        self.plan.put(names_file(number), lambda path: pq.write_table(names.table(), path))

    def encode(self, shards: tuple[int, ...]) -> None:
        """Write the rows of shards that are new, and a manifest of them."""
        plan = self.plan
        if is_there(plan.folder / rows_file(shards[0])):
            return
        repeats = read_repeats(plan, shards)
        self.destination.look_anew(read_known(plan, shards) or self.everything)
        prepared = Preparation(self.destination, plan.options, skip_known=True, alone=plan.alone)
        prepared.pass_over(repeats["item"])
        parts = [plan.shards[number] for number in shards]
        source = join_sources(parts)
        with WrittenRows(plan, self.destination, passed_over=repeats["row"]) as written:
            with _unchanged(parts), closing(prepared.tables([source])) as tables:
                for table in tables:
                    self.destination.open_for(table)
                    written.take(table)
            manifest = written.finish(prepared)
            if not written.keep(shards[0], manifest):
                _check_same(plan, shards[0], manifest)


@contextmanager
def _unchanged(shards: Sequence[Shard]) -> Iterator[None]:
    """Reads what was planned, or fails.

    Raises:
        SourceError: the objects that shards lie in are not what they were when it was planned.
    """
    for shard in shards:
        shard.check_unchanged()
    yield
    for shard in shards:
        shard.check_unchanged()


def _check_same(plan: Plan, number: int, own: ShardManifest) -> None:
    """Passes if another worker has read the same in a shard."""
    other = ShardManifest.read(plan.folder / rows_file(number))
    if other.ids != own.ids:
        source = plan.shards[number].source
        raise SourceError(f"{source} was not the same each time that it was read")


@dataclass
class _Names:
    """What tells the items of a shard apart; some 100 bytes each."""

    number: int
    parts: list[pa.Table] = field(default_factory=list)
    count: int = 0

    def take(self, frame: pl.DataFrame) -> None:
        ids = frame.select("pair_id", "row_id").to_arrow()
        keys = [_hash(name) for name in _list_pictures(frame)]
        places = range(self.count, self.count + len(frame))
        columns = [
            *(ids[name].cast(pa.string()) for name in ("pair_id", "row_id")),
            pa.array(keys, pa.int64()),
            pa.array(places, pa.int64()),
            pa.repeat(pa.scalar(self.number, pa.int32()), len(frame)),
        ]
        self.parts.append(pa.table(columns, schema=NAMES))
        self.count += len(frame)

    def table(self) -> pa.Table:
        return pa.concat_tables([NAMES.empty_table(), *self.parts])


def _list_pictures(frame: pl.DataFrame) -> Iterator[str]:
    yield from name_pictures(frame).to_list() if len(frame) else ()


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=_KEY_BYTES).digest()
    return int.from_bytes(digest, "little", signed=True)
