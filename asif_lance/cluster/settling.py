"""Between naming and encoding: which items come in several shards, and which shards are one.

Of equal items the one in the first shard counts, as it would be read first. Captions of one picture
are joined where they follow each other; where they do across the border of two shards, these are
read as one. DuckDB finds both, on the disk where memory does not suffice.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa

from asif_lance.cluster.plan import Plan, Shard
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
_MEMORY = "1GB"

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


def settle(plan: Plan) -> None:
    """Writes down what the names of all shards say about each other."""
    with tempfile.TemporaryDirectory() as place:
        found = Path(place, _REPEATS)
        names = [_bring(plan.folder / names_file(n), place) for n in range(len(plan.shards))]
        with duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": place}) as engine:
            engine.execute(_FIND_REPEATS.format(path=found), {"names": names})
            which = {"names": names, "repeats": str(found)}
            ends = engine.execute(_FIND_ENDS, which).fetchall()
        groups = _group(plan, {shard: (first, last) for shard, first, last in ends})
        plan.put(_REPEATS, lambda path: path.write_bytes(found.read_bytes()))
        plan.put(SETTLED, lambda path: path.write_text(json.dumps(groups)))


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
    return [tuple(group) for group in json.loads((plan.folder / SETTLED).read_bytes())]


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
