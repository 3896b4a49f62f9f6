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
import pytest
from conftest import Cli, pairs_frame

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
    assert (done.returncode, done.stdout) == (130, "")
    told = re.fullmatch(
        r"kept ([\d,]+) of 1,000 pairs so far; run the same command again to go on\n", done.stderr
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
