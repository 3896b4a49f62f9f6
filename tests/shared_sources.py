"""Sources that meet all that may happen between shards, and what one process makes of them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from asif_lance.cluster import Plan, commit, list_tasks, run_task
from asif_lance.ingest import IngestReport
from asif_lance.store import PairStore

GROUP = 10  # rows of a row group
DIMENSION = 8


def write_rows(path: Path, rows: list[dict], *, group: int = GROUP) -> Path:
    """Parquet with brought vectors, in small row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def row(picture: int, text: int, **further: object) -> dict:
    """A caption of a picture: both are known by their numbers."""
    return {
        "image_uri": f"photos/{picture}.jpg",
        "caption": f"caption {text}",
        "image_vector": _vector(picture),
        "text_vector": _vector(1_000 + text),
        **further,
    }


def _vector(seed: int) -> list[float]:
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32).tolist()


def write_sources(folder: Path) -> list[Path]:
    """A folder of Parquet, a file of it and JSON; with all that is hard between shards.

    Captions of one picture lie on both sides of borders, also with a repeated item between them;
    items come again in other shards, files and sources; some are refused.
    """
    first = [row(n // 3, n) for n in range(47)]  # row groups end within pictures
    second = [row(15, 46), row(15, 47)]  # goes on with the last picture; begins with a repeat
    second += [row(100, n, license="CC0") for n in range(25)]  # over several row groups
    second += [row(3, 9), row(3, 60), {**row(200, 61), "caption": ""}]
    third = [row(300 + n, 300 + n, pair_id=f"own-{n % 13}") for n in range(30)]
    lists = [row(400, 400, pair_id="several"), row(400, 401, pair_id="several")]
    write_rows(folder / "parts" / "a.parquet", first)
    write_rows(folder / "parts" / "b.parquet", second)
    write_rows(folder / "c.parquet", third + lists)
    lines = [row(n // 2, n) for n in range(40, 60)]
    (folder / "d.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "e.parquet").write_bytes(b"PAR1 damaged")
    return [folder / name for name in ("parts", "c.parquet", "d.jsonl", "e.parquet")]


def finish(plan: Plan, seed: int = 0) -> IngestReport:
    """Run all tasks in this process, in any order."""
    order = random.Random(seed)
    while True:
        while tasks := list_tasks(plan):
            for task in order.sample(tasks, len(tasks)):
                run_task(task)
        if (report := commit(plan)) is not None:
            return report


def content(uri: object) -> pa.Table:
    """The rows of the newest version in their order, but for when they came in."""
    return PairStore.open(str(uri)).read().drop_columns(["ingested_at"]).combine_chunks()


def refused(report: IngestReport) -> list[tuple[str, str, str]]:
    return [(one.source, one.item, one.reason) for one in report.rejects]


def as_frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table.drop_columns(["image_vector", "text_vector"])))
