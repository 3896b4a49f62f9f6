"""`ingest --dry-run` tells what an ingest would do, and writes nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pytest
from conftest import Cli
from PIL import Image

from asif_lance.ingest import IngestOptions, TableSource, ingest_sources, try_ingest
from asif_lance.store import PairStore
from asif_lance.store.forget import forget


def table(count: int, caption: str = "caption") -> TableSource:
    """As many pairs with vectors, two captions for the first picture; one has no vector."""
    numbers = [0, *range(count)]
    vectors = [[1.0, float(i)] for i in numbers]
    vectors[-1] = [0.0, 0.0]
    frame = {
        "image_uri": [f"{i}.jpg" for i in numbers],
        "caption": [f"{caption} {place}" for place, _ in enumerate(numbers)],
        "image_vector": vectors,
        "text_vector": [[1.0, float(place)] for place, _ in enumerate(numbers)],
    }
    return TableSource("table", pl.DataFrame(frame))


def named(count: int, caption: str) -> TableSource:
    source = table(count, caption)
    ids = source.table.with_columns(pl.format("id {}", "image_uri").alias("pair_id"))
    return TableSource("table", ids.unique("pair_id", maintain_order=True))


def files(folder: Path) -> dict[str, str]:
    """All files with the digests of their content, folders too."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def test_it_tells_what_an_ingest_then_does(tmp_path: Path) -> None:
    found = try_ingest(tmp_path / "db", [table(4)])
    report = ingest_sources(tmp_path / "db", [table(4)])
    assert (found.added, found.rejects) == (report.added, report.rejects)
    assert found.first[0].captions == ("caption 0", "caption 1")
    stored = PairStore.open(str(tmp_path / "db")).read(columns=["pair_id"])["pair_id"].to_pylist()
    assert [pair.pair_id for pair in found.first] == stored


@pytest.mark.parametrize("conflict", ["skip", "update", "fail"])
def test_it_tells_what_is_there_and_what_is_changed(tmp_path: Path, conflict: str) -> None:
    ingest_sources(tmp_path / "db", [named(4, "old")])
    found = try_ingest(tmp_path / "db", [named(6, "new")], IngestOptions(on_conflict=conflict))
    assert (found.changed, found.updated) == (3, 3 if conflict == "update" else 0)
    again = try_ingest(tmp_path / "db", [named(4, "old")])
    assert (again.added, again.already_there, again.changed) == (0, 3, 0)


def test_no_database_lock_or_key_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    table(4).table.write_parquet(tmp_path / "pairs.parquet")
    before = files(tmp_path)
    done = cli("--db", str(tmp_path / "db"), "ingest", str(tmp_path / "pairs.parquet"), "--dry-run")
    assert "would add 3, already there 0, rejected 1; nothing was written" in done.err
    assert "time not estimated, no encoder is needed" in done.err
    assert files(tmp_path) == before


def test_a_database_stays_as_it_is_and_forgotten_pairs_are_told(tmp_path: Path) -> None:
    ingest_sources(tmp_path / "db", [table(4)])
    store = PairStore.open(str(tmp_path / "db"))
    gone = store.read(columns=["pair_id"])["pair_id"].to_pylist()[:1]
    forget(store, gone, reason="asked to")
    before = files(tmp_path / "db")
    found = try_ingest(tmp_path / "db", [table(9)])
    assert [reject.forgotten for reject in found.rejects].count(True) == 1
    assert files(tmp_path / "db") == before


@pytest.mark.encoders
def test_time_and_room_are_estimated_by_a_sample(tmp_path: Path, cli: Cli) -> None:
    for name in ("red", "blue"):
        Image.new("RGB", (64, 64), name).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"The colour {name}.")
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "damaged.txt").write_text("Nothing to see.")
    found = try_ingest(tmp_path / "db", [tmp_path])
    assert (found.added, found.sample, len(found.rejects)) == (2, 2, 1)
    assert found.seconds is not None
    assert found.bytes > 2 * 2 * (1280 + 384)
    assert not (tmp_path / "db").exists()
