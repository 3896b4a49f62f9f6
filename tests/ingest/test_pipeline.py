"""Ingest with the packaged encoders on real files: the good go in, the bad are told apart."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import pairs_frame, picture

from asif_lance.errors import EncoderMismatchError, SourceError
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.store import refusal
from asif_lance.store.pair_store import PairStore

pytestmark = pytest.mark.encoders


def captioned(path: Path, seed: int, caption: str) -> Path:
    picture(path, seed)
    path.with_suffix(".txt").write_text(caption)
    return path


def bomb(path: Path) -> Path:
    """A PNG of a few bytes that claims 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four good pictures in a folder."""
    folder = tmp_path / "photos"
    for i in range(4):
        captioned(folder / f"{i}.jpg", i, f"picture number {i}")
    return folder


def test_a_folder_of_pictures_becomes_a_model(photos: Path, tmp_path: Path) -> None:
    report = ingest_sources(tmp_path / "t.lancedb", [photos], IngestOptions(license="CC0"))
    assert (report.added, report.already_there, report.rejects) == (4, 0, ())
    assert report.version is not None
    assert (report.version.name, report.version.pairs) == ("v1", 4)
    rows = PairStore.open(str(tmp_path / "t.lancedb")).read().to_pylist()
    assert {r["caption"] for r in rows} == {f"picture number {i}" for i in range(4)}
    assert {r["license"] for r in rows} == {"CC0"}
    norms = [np.linalg.norm(np.array(r["image_vector"], np.float32)) for r in rows]
    assert norms == pytest.approx([1.0] * 4, abs=1e-3)


def test_reingesting_adds_nothing_and_makes_no_version(photos: Path, tmp_path: Path) -> None:
    uri = tmp_path / "t.lancedb"
    ingest_sources(uri, [photos])
    captioned(photos / "4.jpg", 4, "a new one")
    again = ingest_sources(uri, [photos])
    assert (again.added, again.already_there) == (1, 4)
    third = ingest_sources(uri, [photos])
    assert (third.added, third.already_there, third.version) == (0, 5, None)
    assert [v.name for v in PairStore.open(str(uri)).versions()] == ["v1", "v2"]


def test_every_bad_item_is_rejected_with_its_reason_and_the_rest_goes_in(
    photos: Path, tmp_path: Path
) -> None:
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("I am no picture")
    cut = picture(photos / "cut.jpg", 9).read_bytes()
    (photos / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    bomb(photos / "bomb.png")
    picture(photos / "silent.jpg", 10)
    picture(photos / "blank.jpg", 11)
    captioned(photos / "z-again.jpg", 0, "picture number 0")
    for name in ("empty", "text", "cut", "bomb"):
        (photos / f"{name}.txt").write_text(f"the {name} one")
    (photos / "blank.txt").write_text("  \n\n")
    report = ingest_sources(tmp_path / "t.lancedb", [photos])
    assert report.added == 4
    assert {r.item: r.reason for r in report.rejects} == {
        "empty.jpg": "empty file",
        "text.jpg": "not an image",
        "cut.jpg": "truncated image",
        "bomb.png": "image too large (60000×60000 pixels)",
        "silent.jpg": "no caption file (silent.txt)",
        "blank.jpg": "empty caption",
        "z-again.jpg": "duplicate of an earlier item",
    }
    kept = PairStore.open(str(tmp_path / "t.lancedb")).rejects().to_pylist()
    assert {r["item"]: r["reason"] for r in kept} == {r.item: r.reason for r in report.rejects}


def test_a_missing_picture_of_a_manifest_is_rejected(photos: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "pairs.csv"
    manifest.write_text(f"image,caption\n{photos}/0.jpg,here\nphotos/1.jpg,here too\nno.jpg,gone\n")
    report = ingest_sources(tmp_path / "t.lancedb", [manifest])
    assert report.added == 2
    assert [(r.item, r.reason) for r in report.rejects] == [
        ("row 3", f"missing file ({tmp_path / 'no.jpg'})")
    ]


def test_nothing_usable_makes_no_database(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    picture(folder / "silent.jpg", 1)
    report = ingest_sources(tmp_path / "t.lancedb", [folder])
    assert (report.added, len(report.rejects), report.version) == (0, 1, None)
    assert not (tmp_path / "t.lancedb").exists()


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^there is no source at .*nowhere$"):
        ingest_sources(tmp_path / "t.lancedb", [tmp_path / "nowhere"])


def test_vectors_and_pictures_of_other_encoders_are_not_mixed(
    photos: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    uri = tmp_path / "t.lancedb"
    ingest_sources(uri, [photos])
    pairs_frame(3, rng).write_parquet(tmp_path / "other.parquet")
    report = ingest_sources(uri, [tmp_path / "other.parquet"])
    assert report.added == 0
    assert {r.reason for r in report.rejects} == {"image_vector has 16 dimensions instead of 1280"}
    with pytest.raises(EncoderMismatchError, match="not timm/resnet18: "):
        ingest_sources(uri, [photos], IngestOptions(image_encoder="timm/resnet18"))


@pytest.mark.parametrize("rows", [50, 12_000])
def test_the_first_vectors_of_a_new_database_settle_the_size_of_all(
    rows: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    pairs_frame(rows, rng).write_parquet(first)
    wider = pl.Series("image_vector", rng.standard_normal((20, 24)).astype(np.float32))
    pairs_frame(20, rng, start=rows).with_columns(wider).write_parquet(second)
    report = ingest_sources(tmp_path / "db", [first, second])
    assert report.added == rows
    reasons = [reject.reason for reject in report.rejects]
    assert reasons == ["image_vector has 24 dimensions instead of 16"] * 20


def test_what_an_ingest_wrote_is_not_read_again_to_publish_it(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in a database that it made nor in one that was there."""
    monkeypatch.setattr(refusal, "find_bad_rows", lambda head, new: pytest.fail("rows were read"))
    for start in (0, 20):
        pairs_frame(20, rng, start=start).write_parquet(tmp_path / "vectors.parquet")
        assert ingest_sources(tmp_path / "db", [tmp_path / "vectors.parquet"]).added == 20


def test_pictures_do_not_follow_brought_vectors_into_a_new_database(
    photos: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    pairs_frame(20, rng).write_parquet(tmp_path / "vectors.parquet")
    with pytest.raises(EncoderMismatchError, match="brought along"):
        ingest_sources(tmp_path / "db", [tmp_path / "vectors.parquet", photos])
    assert not (tmp_path / "db").exists()


def test_an_ingest_that_is_killed_is_resumed_by_running_it_again(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    source, uri = tmp_path / "pairs.parquet", tmp_path / "t.lancedb"
    pairs_frame(60_000, rng).write_parquet(source)
    code = f"from asif_lance.ingest import *; ingest_sources({str(uri)!r}, [{str(source)!r}])"
    running = subprocess.Popen([sys.executable, "-c", code])
    while running.poll() is None and not list((uri / "pairs.lance").glob("data/*")):
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert PairStore.open(str(uri)).versions() == []
    report = ingest_sources(uri, [source])
    assert report.added + report.already_there == 60_000
    assert report.version is not None
    assert (report.version.name, report.version.pairs) == ("v1", 60_000)
    ids = pl.Series(PairStore.open(str(uri)).read(columns=["pair_id"])["pair_id"])
    assert ids.n_unique() == len(ids) == 60_000
