"""Shared ingests whose sources are objects: same model, and objects that change are noticed."""

from __future__ import annotations

from pathlib import Path

import lance
import polars as pl
import pyarrow as pa
import pytest
from s3_server import upload
from shared_sources import content, finish, refused, row, write_rows, write_sources

from asif_lance.cluster import list_plans, list_tasks, plan_ingest, run_task
from asif_lance.errors import SourceError
from asif_lance.ingest import ingest_sources
from asif_lance.object_stores import open_path

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("at", ["folder", "bucket"])
def test_shards_of_objects_make_the_model_that_files_make(
    tmp_path: Path, bucket: str, at: str
) -> None:
    here = write_sources(tmp_path / "sources")
    rows = [row(700 + n, 700 + n, pair_id=f"lance-{n}") for n in range(25)]
    here.append(tmp_path / "sources" / "table.lance")
    lance.write_dataset(pa.Table.from_pylist(rows), here[-1])
    place = upload(tmp_path / "sources", f"{bucket}/sources")
    expected = ingest_sources(tmp_path / "alone.lancedb", here)
    uri = str(tmp_path / "t.lancedb") if at == "folder" else f"{bucket}/t.lancedb"
    plan = plan_ingest(uri, [f"{place}/{one.name}" for one in here], shard_rows=20)
    report = finish(plan)
    assert rows_of(uri, place, tmp_path / "sources").equals(
        rows_of(tmp_path / "alone.lancedb", place, tmp_path / "sources")
    )
    as_here = [
        tuple(text.replace(place, str(tmp_path / "sources")) for text in one)
        for one in refused(report)
    ]
    assert as_here == refused(expected)
    assert not list_plans(uri)


def rows_of(uri: object, place: str, folder: Path) -> pl.DataFrame:
    """The rows of the newest version, under the names that a folder has."""
    here = pl.col("image_uri").str.replace(place, str(folder), literal=True)
    return pl.DataFrame(pl.from_arrow(content(uri))).with_columns(here)


@pytest.mark.parametrize("step", ["name", "encode"])
@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_an_object_that_changed_since_it_was_planned_is_noticed(
    tmp_path: Path, bucket: str, step: str, change: str
) -> None:
    for name in ("a", "b"):
        rows = [row(n, n, pair_id=f"{name}{n}") for n in range(20)]
        write_rows(tmp_path / "in" / f"{name}.parquet", rows)
    place = upload(tmp_path / "in", f"{bucket}/in")
    uri = tmp_path / "t.lancedb"
    plan = plan_ingest(uri, [place], shard_rows=10)
    if step == "encode":
        for task in list_tasks(plan):
            run_task(task)
    other = write_rows(tmp_path / "other.parquet", [row(n, n, pair_id=f"c{n}") for n in range(20)])
    if change == "replaced":
        (open_path(place) / "b.parquet").write_bytes(other.read_bytes())
    else:
        (open_path(place) / "b.parquet").unlink()
    said = "has changed" if change == "replaced" else "is gone"
    told = f"{place}/b.parquet {said} since the ingest was planned: run it again to plan anew"
    for task in list_tasks(plan):
        if "b.parquet" in str(plan.shards[task.shards[0]].source.parts):
            with pytest.raises(SourceError) as caught:
                run_task(task)
            assert str(caught.value) == told
        else:
            run_task(task)
    anew = plan_ingest(uri, [place], shard_rows=10)
    assert anew.ingest_id != plan.ingest_id
    assert finish(anew).added == (40 if change == "replaced" else 20)
