"""An ingest that is stopped keeps what it did, says so, and is gone on with by running it again."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import numpy as np
import polars as pl
import pytest
import timm
import torch
from conftest import Cli, pairs_frame
from PIL import Image
from timm.models import save_for_hf

from asif_lance.ingest.pipeline import UNCOMMITTED_ROWS
from asif_lance.store import PairStore

pytestmark = [pytest.mark.encoders, pytest.mark.slow]

COUNT = 1_000
COMMAND = [
    sys.executable,
    "-c",
    "from asif_lance.cli import main; main()",
    "--db",
    "t.lancedb",
    "-q",
]


@pytest.fixture
def source(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Pairs with image vectors, whose captions have to be encoded."""
    frame = pairs_frame(COUNT, rng).drop("text_vector")
    frame.write_parquet(tmp_path / "pairs.parquet")
    return tmp_path / "pairs.parquet"


def rows_at_head(folder: Path) -> int:
    if not list(folder.glob("t.lancedb/pairs.lance/_versions/*.manifest")):
        return 0
    return int(lance.dataset(str(folder / "t.lancedb" / "pairs.lance")).count_rows())


def stop_with(number: signal.Signals, source: Path) -> subprocess.CompletedProcess[str]:
    """Start the ingest and send it a signal as soon as something is committed."""
    command = [*COMMAND, "ingest", source.name]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=source.parent, text=True, **pipes) as running:  # type: ignore[call-overload]
        while running.poll() is None and not rows_at_head(source.parent):
            time.sleep(0.02)
        running.send_signal(number)
        out, err = running.communicate(timeout=120)
        return subprocess.CompletedProcess(command, running.returncode, out, err)


def check_that_it_goes_on(cli: Cli, source: Path, kept: int) -> None:
    """The same command adds the rest, and only then there is a version, in one fragment."""
    store = PairStore.open(str(source.parent / "t.lancedb"))
    assert store.versions() == []
    (report,) = cli("--db", "t.lancedb", "ingest", source, "--format", "json").objects
    assert (report["added"], report["already_there"]) == (COUNT - kept, kept)
    assert (report["version"], report["changed"], report["rejected"]) == ("v1", 0, 0)
    ids = store.read(columns=["pair_id"])["pair_id"].to_pylist()
    assert sorted(ids) == sorted(f"p{i}" for i in range(COUNT))
    assert [f.count_rows() for f in store.dataset().get_fragments()] == [COUNT]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_ingest_says_what_is_kept_and_goes_on(
    cli: Cli, source: Path, number: signal.Signals
) -> None:
    done = stop_with(number, source)
    assert (done.returncode, done.stdout) == (128 + number, "")
    told = re.fullmatch(
        r"asif-lance: kept ([\d,]+) of 1,000 pairs so far; run the same command again to go on\n",
        done.stderr,
    )
    assert told is not None, done.stderr
    kept = int(told[1].replace(",", ""))
    assert 0 < kept == rows_at_head(source.parent) < COUNT
    path = str(source.parent / "t.lancedb" / "pairs.lance")
    states = [lance.dataset(path, version=v["version"]) for v in lance.dataset(path).versions()]
    assert max(np.diff([state.count_rows() for state in states])) < 500
    check_that_it_goes_on(cli, source, kept)


def test_a_killed_ingest_loses_less_than_five_hundred_pairs(cli: Cli, source: Path) -> None:
    assert stop_with(signal.SIGKILL, source).returncode == -signal.SIGKILL
    kept = rows_at_head(source.parent)
    assert 0 < kept < COUNT
    check_that_it_goes_on(cli, source, kept)


# Killed again and again

PICTURES, KILLS = 800, 10

# The command, which also notes of each call of the image encoder how many pictures it is for.
COUNTING = """
import os
from asif_lance.cli import main
from asif_lance.encoders.timm_encoder import TimmEncoder

log = os.open("encoded.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
encode = TimmEncoder.encode

def count(self, batch):
    if batch.any():  # the encoder itself asks for a blank one when it is loaded
        os.write(log, b"%d\\n" % len(batch))
    return encode(self, batch)

TimmEncoder.encode = count
main()
"""


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder with many small pictures, a manifest and a small network."""
    torch.manual_seed(0)
    save_for_hf(timm.create_model("test_resnet"), tmp_path / "tiny", safe_serialization=True)
    (tmp_path / "photos").mkdir()
    for number in range(PICTURES):
        pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    rows = {
        "image": [f"photos/{number}.png" for number in range(PICTURES)],
        "caption": [f"noise of number {number}" for number in range(PICTURES)],
    }
    pl.DataFrame(rows).write_csv(tmp_path / "pairs.csv")
    return tmp_path


def encoded(folder: Path) -> int:
    log = folder / "encoded.txt"
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def start(folder: Path, database: str) -> subprocess.Popen[str]:
    arguments = ["--db", database, "-q", "ingest", "pairs.csv", "--message", "photos"]
    encoder = ["--image-encoder", f"timm/{folder}/tiny"]
    command = [sys.executable, "-c", COUNTING, *arguments, *encoder]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.DEVNULL)


def test_an_ingest_killed_at_ten_random_moments_makes_the_table_of_an_undisturbed_one(
    photos: Path, rng: np.random.Generator
) -> None:
    assert start(photos, "whole.lancedb").wait(timeout=600) == 0
    assert encoded(photos) == PICTURES
    for _ in range(KILLS):
        before, kept = encoded(photos), rows_at_head(photos)
        with start(photos, "t.lancedb") as running:
            while running.poll() is None and encoded(photos) == before:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 1))
            running.kill()
        assert encoded(photos) - before - (rows_at_head(photos) - kept) <= UNCOMMITTED_ROWS
    before, kept = encoded(photos), rows_at_head(photos)
    assert start(photos, "t.lancedb").wait(timeout=600) == 0
    assert encoded(photos) - before == PICTURES - kept
    expected, found = (PairStore.open(f"{photos}/{name}.lancedb") for name in ("whole", "t"))
    assert [(v.name, v.pairs, v.message) for v in found.versions()] == [("v1", PICTURES, "photos")]
    assert [v.pairs for v in expected.versions()] == [PICTURES]
    tables = [store.read("v1").sort_by("pair_id") for store in (expected, found)]
    for column in ("pair_id", "caption", "image_uri", "image_sha256", "source", "attributes"):
        assert tables[0][column].equals(tables[1][column])
    for side in ("image_vector", "text_vector"):  # alike up to float noise, rounded to float16
        both = [np.vstack(table[side].to_numpy()).astype(np.float32) for table in tables]
        assert np.abs(both[0] - both[1]).max() < 1e-3
