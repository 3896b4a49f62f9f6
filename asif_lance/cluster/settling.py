"""Between naming and encoding: which items come in several shards, and which shards are one.

Of equal items the one in the first shard counts, as it would be read first. Captions of one picture
are joined where they follow each other; where they do across the border of two shards, these are
read as one. Which items the table has is looked up here, too, so that no worker has to know all of
its ids: DuckDB compares them in buckets, from streams and on the disk.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import lance
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asif_lance.cluster.id_buckets import IdBuckets, open_buckets
from asif_lance.cluster.plan import Plan, Shard
from asif_lance.cluster.written_rows import read_ids
from asif_lance.database import KnownPairs, live_rows_key, open_table, storage_errors
from asif_lance.errors import StorageError
from asif_lance.ingest import PictureList, SourceParts
from asif_lance.object_stores import fetch_file, list_sizes

NAMES = pa.schema(
    {
        "pair_id": pa.string(),
        "row_id": pa.string(),
        "picture": pa.int64(),
        "place": pa.int64(),
        "shard": pa.int32(),
    }
)
SETTLED, _REPEATS = "settled.json", "repeats.parquet"
_ID_BYTES = 64  # of a stored pair, with its address; about as many as of a name

_ITEMS = pa.schema(
    {
        "kind": pa.string(),
        "id": pa.string(),
        "shard": pa.int32(),
        "picture": pa.int64(),
        "place": pa.int64(),
    }
)
_STORED = pa.schema({"id": pa.string(), "address": pa.uint64()})
_WRITTEN = pa.schema({"id": pa.string(), "shard": pa.int32()})

_TABLES = """
CREATE TABLE repeats (shard INT, first INT, kind VARCHAR, id VARCHAR);
CREATE TABLE known (shard INT, pair_id VARCHAR, address UBIGINT);
CREATE TABLE ends (shard INT, begin BIGINT, first BIGINT, "end" BIGINT, last BIGINT);
"""
_FIND_REPEATS = """
CREATE OR REPLACE TABLE several AS
  SELECT kind, id, min(shard) AS first FROM items GROUP BY ALL HAVING min(shard) < max(shard);
INSERT INTO repeats
  SELECT DISTINCT shard, first, kind, id FROM items JOIN several USING (kind, id)
  WHERE shard > first;
INSERT INTO ends
  SELECT shard, min(place), arg_min(picture, place), max(place), arg_max(picture, place)
  FROM items WHERE kind = 'item' AND NOT EXISTS (
    FROM several WHERE several.kind = 'item' AND several.id = items.id AND first < shard
  ) GROUP BY shard;
"""
_FIND_KNOWN = """
INSERT INTO known SELECT shard, id, address FROM items JOIN stored USING (id)
"""
_FIND_TAKEN = "SELECT DISTINCT shard FROM written SEMI JOIN stored USING (id)"
_FIND_ENDS = """
SELECT shard, arg_min(first, begin), arg_max(last, "end") FROM ends GROUP BY shard
"""


def names_file(number: int) -> str:
    """The file that names the items of a shard."""
    return f"names-{number:06d}.parquet"


def _known_file(head: int) -> str:
    """The file that says where named pairs are in a state of the table."""
    return f"known-{head}.parquet"


def settle(plan: Plan) -> None:
    """Writes down what the names of all shards say about each other and about the table."""
    head = open_table(plan.uri, "pairs")
    sizes = list_sizes(plan.folder)
    size = sum(sizes[names_file(number)] for number in range(len(plan.shards)))
    with (
        tempfile.TemporaryDirectory(prefix="asif-lance-") as place,
        open_buckets(size + head.count_rows() * _ID_BYTES) as buckets,
    ):
        ends = _compare(plan, head, buckets)
        repeats, known = (Path(place, name) for name in (_REPEATS, _known_file(head.version)))
        buckets.write("FROM repeats ORDER BY shard", repeats)
        buckets.write("FROM known ORDER BY shard", known)
        settled = {"groups": _group(plan, ends), "head": head.version}
        for path in (repeats, known):
            plan.put(path.name, partial(shutil.copyfile, path))
        plan.put(SETTLED, lambda path: path.write_text(json.dumps(settled)))


def _compare(
    plan: Plan, head: lance.LanceDataset, buckets: IdBuckets
) -> dict[int, tuple[int, int]]:
    """Fills the tables `repeats` and `known`; the ends of shards as `_group` takes them."""
    buckets.engine.execute(_TABLES)
    buckets.split("items", pa.RecordBatchReader.from_batches(_ITEMS, _read_items(plan)))
    with storage_errors(plan.uri):
        buckets.split("stored", _scan_ids(head, head.get_fragments()))
    for _ in buckets.each("items"):
        buckets.engine.execute(_FIND_REPEATS)
    for _ in buckets.each("items", "stored"):
        buckets.engine.execute(_FIND_KNOWN)
    ends = buckets.engine.execute(_FIND_ENDS).fetchall()
    return {shard: (first, last) for shard, first, last in ends}


def _read_items(plan: Plan) -> Iterator[pa.RecordBatch]:
    """What the shards name: items, and rows with several captions."""
    for number in range(len(plan.shards)):
        with fetch_file(plan.folder / names_file(number)) as file:
            names = pq.read_table(file, partitioning=None)
        rows = names.filter(pc.is_valid(names["row_id"]))
        for kind, own, column in (("item", names, "pair_id"), ("row", rows, "row_id")):
            columns = [own[column], *(own[name] for name in _ITEMS.names[2:])]
            kinds = pa.repeat(pa.scalar(kind), len(own))
            yield from pa.table([kinds, *columns], schema=_ITEMS).to_batches()


def _scan_ids(
    state: lance.LanceDataset, fragments: Sequence[lance.LanceFragment]
) -> pa.RecordBatchReader:
    """The ids and addresses of some fragments' live rows, as a stream."""
    found: Iterable[pa.RecordBatch] = ()
    if fragments:
        asked = {"columns": ["pair_id"], "with_row_address": True}
        found = state.scanner(fragments=list(fragments), **asked).to_batches()
    batches = ((batch["pair_id"], batch["_rowaddr"]) for batch in found)
    return pa.RecordBatchReader.from_batches(
        _STORED, (pa.record_batch(list(columns), schema=_STORED) for columns in batches)
    )


def find_taken(
    plan: Plan, head: lance.LanceDataset, written: Mapping[int, Sequence[Path]], rows: int
) -> set[int]:
    """Shards with pairs that others have added since it was settled.

    Args:
        plan: the ingest.
        head: the table as it is.
        written: files with the new rows of shards.
        rows: how many these are.
    """
    before = _open_settled(plan)
    known = set(map(live_rows_key, before.get_fragments())) if before is not None else set()
    new = [one for one in head.get_fragments() if live_rows_key(one) not in known]
    if not new:
        return set()
    ids = (
        pa.record_batch([own, pa.repeat(pa.scalar(number, pa.int32()), len(own))], schema=_WRITTEN)
        for number, paths in written.items()
        for own in map(read_ids, paths)
    )
    rows += sum(one.count_rows() for one in new)
    with open_buckets(rows * _ID_BYTES) as buckets:
        buckets.split("written", pa.RecordBatchReader.from_batches(_WRITTEN, ids))
        with storage_errors(plan.uri):
            buckets.split("stored", _scan_ids(head, new))
        found = (buckets.engine.execute(_FIND_TAKEN) for _ in buckets.each("written", "stored"))
        return {shard for answer in found for (shard,) in answer.fetchall()}


def read_known(plan: Plan, shards: Sequence[int]) -> KnownPairs | None:
    """Where those pairs are that some shards name, in the table as it was when all was named.

    None where upkeep took that state of the table away.
    """
    before = _open_settled(plan)
    if before is None:
        return None
    with fetch_file(plan.folder / _known_file(before.version)) as file:
        own = pl.scan_parquet(file, glob=False).filter(pl.col("shard").is_in(list(shards)))
        found = own.select("pair_id", "address").unique().collect()
    ids = found["pair_id"].to_arrow().cast(pa.string())
    return KnownPairs.of(before, ids, found["address"].to_numpy())


def _open_settled(plan: Plan) -> lance.LanceDataset | None:
    try:
        return open_table(plan.uri, "pairs", _read_settled(plan)["head"])
    except StorageError:
        return None


def _read_settled(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((plan.folder / SETTLED).read_bytes())
    return found


def _group(plan: Plan, ends: dict[int, tuple[int, int]]) -> list[list[int]]:
    """Runs of neighbouring shards, of which each may join captions with the one before.

    Args:
        plan: the ingest.
        ends: the first and the last picture of each shard that has any item of its own.
    """
    continued: set[int] = set()
    for before, number in pairwise(sorted(ends)):
        same_source = plan.shards[before].number == plan.shards[number].number
        if plan.options.captions == "mean" and same_source and ends[before][1] == ends[number][0]:
            continued.update(range(before + 1, number + 1))  # with empty ones in between
    groups: list[list[int]] = []
    for number in range(len(plan.shards)):
        if number in continued:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def read_groups(plan: Plan) -> list[tuple[int, ...]]:
    """The shards that are read as one, in order."""
    return [tuple(group) for group in _read_settled(plan)["groups"]]


def read_repeats(plan: Plan, shards: Sequence[int]) -> dict[str, pl.Series]:
    """Ids that shards before these have, too: of items, and of rows with several captions."""
    earlier = pl.col("shard").is_in(list(shards)) & (pl.col("first") < shards[0])
    with fetch_file(plan.folder / _REPEATS) as file:
        found = pl.scan_parquet(file, glob=False).filter(earlier).select("kind", "id").collect()
    return {kind: found.filter(pl.col("kind") == kind)["id"] for kind in ("item", "row")}


def join_sources(shards: Sequence[Shard]) -> SourceParts | PictureList:
    """Neighbouring shards of one source as one."""
    sources = [shard.source for shard in shards]
    first = sources[0]
    if isinstance(first, PictureList):
        lists = [source.files for source in sources if isinstance(source, PictureList)]
        return PictureList(first.folder, tuple(file for files in lists for file in files))
    parts = [part for source in sources if isinstance(source, SourceParts) for part in source.parts]
    return SourceParts(first.source, tuple(parts))
