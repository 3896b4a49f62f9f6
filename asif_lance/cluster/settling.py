"""Between naming and encoding: which items come in several shards, and which shards are one.

Of equal items the one in the first shard counts, as it would be read first. Captions of one picture
are joined where they follow each other; where they do across the border of two shards, these are
read as one. Which items the table has is looked up here, too, so that no worker has to know all of
its ids. DuckDB finds that from files and streams, on the disk where its memory does not suffice.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import lance
import polars as pl
import pyarrow as pa

from asif_lance.cluster.plan import Plan, Shard
from asif_lance.cluster.written_rows import read_ids
from asif_lance.database import KnownPairs, live_rows_key, open_table, storage_errors
from asif_lance.errors import StorageError
from asif_lance.ingest import PictureList, SourceParts
from asif_lance.object_stores import fetch_file, is_remote

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
_IDS = pa.schema({"pair_id": pa.string(), "shard": pa.int32()})
_MEMORY = "512MB"

_FIND_REPEATS = """
COPY (
  WITH ids AS (
    SELECT shard, 'item' AS kind, pair_id AS id FROM read_parquet($names)
    UNION ALL
    SELECT shard, 'row', row_id FROM read_parquet($names) WHERE row_id IS NOT NULL
  ), several AS (
    SELECT kind, id, min(shard) AS first FROM ids GROUP BY ALL HAVING min(shard) < max(shard)
  )
  SELECT DISTINCT shard, first, kind, id FROM ids JOIN several USING (kind, id)
  WHERE shard > first ORDER BY shard
) TO '{path}' (FORMAT parquet)
"""
_FIND_KNOWN = """
COPY (
  WITH ids AS (
    SELECT shard, pair_id FROM read_parquet($names)
    UNION
    SELECT shard, row_id FROM read_parquet($names) WHERE row_id IS NOT NULL
  )
  SELECT shard, pair_id, _rowaddr AS address FROM ids JOIN stored USING (pair_id) ORDER BY shard
) TO '{path}' (FORMAT parquet)
"""
_FIND_TAKEN = "SELECT DISTINCT shard FROM written SEMI JOIN stored USING (pair_id)"
_FIND_ENDS = """
SELECT shard, arg_min(picture, place), arg_max(picture, place)
FROM read_parquet($names) AS n
WHERE NOT EXISTS (
  SELECT 1 FROM read_parquet($repeats) AS r
  WHERE r.kind = 'item' AND r.shard = n.shard AND r.id = n.pair_id
)
GROUP BY shard ORDER BY shard
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
    with tempfile.TemporaryDirectory() as place, _open_engine(place) as engine:
        repeats, known = (Path(place, name) for name in (_REPEATS, _known_file(head.version)))
        names = [_bring(plan.folder / names_file(n), place) for n in range(len(plan.shards))]
        engine.execute(_FIND_REPEATS.format(path=repeats), {"names": names})
        which = {"names": names, "repeats": str(repeats)}
        ends = engine.execute(_FIND_ENDS, which).fetchall()
        with storage_errors(plan.uri):
            engine.register("stored", _scan_ids(head, head.get_fragments()))
            engine.execute(_FIND_KNOWN.format(path=known), {"names": names})
        groups = _group(plan, {shard: (first, last) for shard, first, last in ends})
        settled = {"groups": groups, "head": head.version}
        for path in (repeats, known):
            plan.put(path.name, partial(shutil.copyfile, path))
        plan.put(SETTLED, lambda path: path.write_text(json.dumps(settled)))


@contextmanager
def _open_engine(place: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with bounded memory, which writes into a folder what does not fit."""
    limits: dict[str, str | bool | int | float | list[str]] = {"memory_limit": _MEMORY}
    limits |= {"temp_directory": place, "preserve_insertion_order": False, "threads": 4}
    with duckdb.connect(config=limits) as engine:
        yield engine


def _scan_ids(
    state: lance.LanceDataset, fragments: Sequence[lance.LanceFragment]
) -> pa.RecordBatchReader:
    """The ids and addresses of some fragments' live rows, as a stream."""
    asked = {"columns": ["pair_id"], "with_row_address": True}
    if fragments:
        return state.scanner(fragments=list(fragments), **asked).to_reader()
    return pa.RecordBatchReader.from_batches(state.scanner(**asked).projected_schema, [])


def find_taken(
    plan: Plan, head: lance.LanceDataset, written: Mapping[int, Sequence[Path]]
) -> set[int]:
    """Shards with pairs that others have added since it was settled.

    Args:
        plan: the ingest.
        head: the table as it is.
        written: files with the new rows of shards.
    """
    before = _open_settled(plan)
    known = set(map(live_rows_key, before.get_fragments())) if before is not None else set()
    new = [one for one in head.get_fragments() if live_rows_key(one) not in known]
    if not new:
        return set()
    ids = (
        pa.record_batch([own, pa.repeat(pa.scalar(number, pa.int32()), len(own))], schema=_IDS)
        for number, paths in written.items()
        for own in map(read_ids, paths)
    )
    with tempfile.TemporaryDirectory() as place, _open_engine(place) as engine:
        engine.register("written", pa.RecordBatchReader.from_batches(_IDS, ids))
        with storage_errors(plan.uri):
            engine.register("stored", _scan_ids(head, new))
            return {shard for (shard,) in engine.execute(_FIND_TAKEN).fetchall()}


def read_known(plan: Plan, shards: Sequence[int]) -> KnownPairs | None:
    """Where those pairs are that some shards name, in the table as it was when all was named.

    None where upkeep took that state of the table away.
    """
    before = _open_settled(plan)
    if before is None:
        return None
    with fetch_file(plan.folder / _known_file(before.version)) as file:
        own = pl.scan_parquet(file).filter(pl.col("shard").is_in(list(shards)))
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


def _bring(path: Path, place: str) -> str:
    """Where DuckDB reads a file: an object as a copy in a folder of this machine."""
    if not is_remote(path):
        return str(path)
    copy = Path(place, path.name)
    copy.write_bytes(path.read_bytes())
    return str(copy)


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
        found = pl.scan_parquet(file).filter(earlier).select("kind", "id").collect()
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
