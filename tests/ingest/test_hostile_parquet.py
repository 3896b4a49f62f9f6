"""Parquet files that are damaged, or made to take memory: they cost themselves and little of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from limited import run_limited

from asif_lance.encoders import parquet_files
from asif_lance.errors import SourceError
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.ingest.sources import read_source
from asif_lance.records import Reject

READ = """
import sys
rows, rejects = 0, []
try:
    for batch in read_source(sys.argv[1]):
        rows += len(batch.frame)
        rejects += batch.rejects
except SourceError as error:
    rejects = [error]
print(rows, len(rejects), round(peak() - before), *rejects[:1])
"""


def vectors(rows: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ones(rows * 2, np.float32)), 2)


def shared(value: str | bytes, rows: int) -> pa.Array:
    """A column in which every row refers to one value."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))


def write(path: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("column", ["caption", "note", "image"])
def test_a_long_value_that_many_rows_share_is_not_written_out_for_each(
    tmp_path: Path, column: str
) -> None:
    value = b"x" * 2_000_000 if column == "image" else "x" * 2_000_000
    columns = {"caption": pa.array(["c"] * 3000), "image_vector": vectors(3000)}
    columns |= {"text_vector": vectors(3000), column: shared(value, 3000)}
    file = write(tmp_path / "bomb.parquet", **columns)
    assert file.stat().st_size < 100_000
    rows, rejects, grown, *_ = run_limited(READ, file, megabytes=1500).split()
    assert int(rows) + int(rejects) == 3000
    assert int(grown) < 600


def test_a_list_of_long_captions_is_refused_by_its_true_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "PIECE_BYTES", 2**20)
    monkeypatch.setattr(parquet_files, "MAX_BYTES", 2**20)
    lists = pa.array([["short"], ["x" * 100_000] * 30, ["short"]])
    file = write(tmp_path / "lists.parquet", caption=lists, image=pa.array(["a.jpg"] * 3))
    (batch,) = (batch for batch in read_source(file) if batch.rejects)
    assert batch.rejects == [Reject(str(file), "row 2", "row too large (2 MiB)")]
    assert sum(len(batch.frame) for batch in read_source(file)) == 2


def test_many_captions_of_one_large_picture_come_in_small_batches(tmp_path: Path) -> None:
    pictures, captions = [b"x" * 20_000_000, b"y"], [[f"c{i}" for i in range(100)], ["c"]]
    file = write(tmp_path / "many.parquet", image=pa.array(pictures), caption=pa.array(captions))
    batches = [batch.frame for batch in read_source(file)]
    assert sum(map(len, batches)) == 101
    assert max(sum(map(len, frame["image_bytes"])) for frame in batches) < 150_000_000


def test_a_file_of_more_rows_than_it_has_bytes_is_refused(tmp_path: Path) -> None:
    rows = 2_000_000
    file = write(tmp_path / "rows.parquet", caption=pa.nulls(rows), image=shared("a", rows))
    with pytest.raises(SourceError, match=r"claims to hold 2,000,000 rows in [\d,]+ bytes"):
        list(read_source(file))


def test_numbers_that_would_grow_beyond_measure_are_refused(tmp_path: Path) -> None:
    flat = pa.array(np.zeros(70_000_000, np.float32))
    lists = pa.ListArray.from_arrays(pa.array([0, len(flat)], pa.int32()), flat)
    file = write(tmp_path / "run.parquet", caption=pa.array(["c"]), image_vector=lists)
    (batch,) = read_source(file)
    (reject,) = batch.rejects
    assert reject.item == "row 1"
    assert "bytes of Parquet would grow to 2" in reject.reason


MUTATE = """
import collections, io, random, sys
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datetime import date, datetime

def made(seed):
    n = 40
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(np.random.rand(n * 4).astype("f4")), 4)
    table = pa.table({
        "pair_id": [f"p{i}" for i in range(n)], "caption": [f"caption {i % 7}" for i in range(n)],
        "image_vector": fixed, "text_vector": pa.array([[1.0, 2.0]] * n), "n": [[1, 2]] * n,
        "day": [date(2020, 1, 1)] * n, "time": [datetime(2020, 1, 1)] * n,
        "nested": [{"when": datetime(2020, 1, 1), "what": ["x"]}] * n, "flag": [True] * n,
        "image": [{"bytes": b"x", "path": "a.jpg"}] * n,
    })
    buffer = io.BytesIO()
    pq.write_table(
        table, buffer, row_group_size=15, compression=["none", "snappy", "zstd"][seed % 3],
        store_schema=seed % 2 == 0, use_dictionary=seed % 4 < 2,
    )
    return buffer.getvalue()

rng, ends = random.Random(int(sys.argv[2])), collections.Counter()
bases = [made(i) for i in range(6)]
for i in range(int(sys.argv[3])):
    base = bases[i % len(bases)]
    data = bytearray(base)
    for _ in range(rng.choice([1, 2, 5])):
        footer = rng.random() < 0.5
        data[len(data) - 1 - rng.randrange(3000) if footer else rng.randrange(len(data))] = (
            rng.randrange(256)
        )
    with open(sys.argv[1], "wb") as stream:
        stream.write(data)
    try:
        batches = list(read_source(sys.argv[1]))
        ends["rejected" if any(batch.rejects for batch in batches) else "read"] += 1
    except SourceError:
        ends["refused"] += 1
print(*ends.elements())
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_mutated_files_give_rows_or_reasons_within_little_memory(tmp_path: Path, seed: int) -> None:
    ends = run_limited(MUTATE, tmp_path / "m.parquet", seed, 300, megabytes=1500).split()
    assert len(ends) == 300
    assert {"read", "rejected", "refused"} == set(ends)


def test_a_damaged_row_group_costs_its_rows(tmp_path: Path) -> None:
    table = pa.table({"caption": [f"c{i}" for i in range(30)], "image": ["a.jpg"] * 30})
    pq.write_table(table, tmp_path / "g.parquet", row_group_size=10, compression="none")
    data = bytearray((tmp_path / "g.parquet").read_bytes())
    start = pq.read_metadata(tmp_path / "g.parquet").row_group(1).column(0).data_page_offset
    data[start : start + 8] = b"\xff" * 8
    (tmp_path / "g.parquet").write_bytes(data)
    batches = list(read_source(tmp_path / "g.parquet"))
    items = [item for batch in batches for item in batch.frame["item"]]
    assert items == [f"row {i}" for i in (*range(1, 11), *range(21, 31))]
    (reject,) = (reject for batch in batches for reject in batch.rejects)
    assert reject.item == "rows 11 to 20"
    assert reject.reason.startswith("damaged Parquet (")


def test_a_source_that_cannot_be_read_costs_itself_and_others_go_in(
    tmp_path: Path, pairs_file: Path
) -> None:
    (tmp_path / "cut.parquet").write_bytes(pairs_file.read_bytes()[:-9])
    both = [tmp_path / "cut.parquet", pairs_file]
    report = ingest_sources(tmp_path / "db", both, IngestOptions())
    assert report.added == 200
    (reject,) = report.rejects
    assert reject.item == str(tmp_path / "cut.parquet")
    assert "is not readable Parquet" in reject.reason
    with pytest.raises(SourceError):
        ingest_sources(tmp_path / "other", both[:1], IngestOptions())


def test_dates_that_no_program_can_write_become_null(tmp_path: Path) -> None:
    file = write(
        tmp_path / "dates.parquet",
        caption=pa.array(["a", "b"]),
        image=pa.array(["a.jpg"] * 2),
        day=pa.array([2**31 - 1, 0], pa.date32()),
        nested=pa.array([[2**62], [0]], pa.list_(pa.timestamp("ms"))),
    )
    (batch,) = read_source(file)
    assert batch.frame["attributes"].to_list() == [
        '{"day":null,"nested":[null]}',
        '{"day":"1970-01-01","nested":["1970-01-01 00:00:00"]}',
    ]
