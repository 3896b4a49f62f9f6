"""Equal ids come into one bucket, for any number of buckets and of ids."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asif_lance.cluster import id_buckets
from asif_lance.cluster.id_buckets import open_buckets

_IDS = pa.schema({"id": pa.string(), "place": pa.int64()})
_LISTS = st.lists(st.text(max_size=3), max_size=30)


def stream(ids: list[str]) -> pa.RecordBatchReader:
    table = pa.table([ids, range(len(ids))], schema=_IDS)
    return pa.RecordBatchReader.from_batches(_IDS, table.to_batches(max_chunksize=7))


@given(left=_LISTS, right=_LISTS, count=st.integers(1, 40))
def test_what_two_tables_share_is_found_whatever_the_number_of_buckets(
    left: list[str], right: list[str], count: int
) -> None:
    seen: list[set[str]] = []
    shared: list[tuple[int, int]] = []
    with open_buckets((count - 1) * id_buckets.BUCKET_BYTES) as buckets:
        buckets.split("one", stream(left))
        buckets.split("other", stream(right))
        for _ in buckets.each("one"):
            found = buckets.engine.execute("SELECT DISTINCT id FROM one").fetchall()
            seen.append({text for (text,) in found})
        for _ in buckets.each("one", "other"):
            query = "SELECT one.place, other.place FROM one JOIN other USING (id)"
            shared += buckets.engine.execute(query).fetchall()
    expected = [(a, b) for a, x in enumerate(left) for b, y in enumerate(right) if x == y]
    assert sorted(shared) == expected
    assert sum(map(len, seen)) == len(set(left)) == len(set().union(*seen))
    assert len(seen) <= count


def test_each_bucket_is_read_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_buckets, "BUCKET_BYTES", 1_000)
    rows = 10_000
    with open_buckets(rows * 10) as buckets:
        buckets.split("ids", stream([str(n) for n in range(rows)]))
        held = [
            buckets.engine.execute("SELECT count(*) FROM ids").fetchall()
            for _ in buckets.each("ids")
        ]
    counts = [count for ((count,),) in held]
    assert sum(counts) == rows
    assert len(counts) == 101
    assert max(counts) < 2 * rows / len(counts)


def test_duckdb_shows_no_bar_where_results_go() -> None:
    with open_buckets(0) as buckets:
        shown = buckets.engine.execute("SELECT current_setting('enable_progress_bar')").fetchall()
    assert shown == [(False,)]
