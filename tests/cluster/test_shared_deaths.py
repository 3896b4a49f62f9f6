"""An ingest into an object store that processes share, where they die, stand still, or are two."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from lives import Lives, start_lives
from pauses import Pause
from s3_proxy import Proxy, kill_after, kill_before, lose_answer, run_proxy
from s3_server import Server
from shared_sources import content, row, write_rows, write_sources

from asif_lance.cluster import list_plans
from asif_lance.database import check
from asif_lance.forgetting.receipts import load_receipts
from asif_lance.ingest import ingest_sources
from asif_lance.store import PairStore
from asif_lance.store.forget import verify_receipt

pytestmark = pytest.mark.slow

_EVERY = bool(os.environ.get("EVERY_WRITE"))
_LOOKED_AT = 3  # writes, else
_LASTING = 6.0


@pytest.fixture
def proxy(s3_server: Server) -> Iterator[Proxy]:
    with run_proxy(s3_server.address) as proxy:
        yield proxy


@pytest.fixture
def lives(proxy: Proxy, tmp_path: Path) -> Iterator[Lives]:
    with start_lives(proxy.address, tmp_path / "lives.log", lasting=_LASTING) as lives:
        yield lives


def choose(count: int, seed: int) -> list[int]:
    """Which of so many writes are looked at."""
    if _EVERY:
        return list(range(count))
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(count, min(_LOOKED_AT, count), replace=False).tolist())


@pytest.mark.parametrize("event", ["killed before", "killed after", "answer lost"])
def test_whoever_dies_at_a_write_the_next_one_goes_on(
    proxy: Proxy, lives: Lives, bucket: str, tmp_path: Path, event: str
) -> None:
    sources = write_sources(tmp_path / "sources")[1:3]
    expected = ingest_sources(tmp_path / "alone.lancedb", sources)
    alone = content(tmp_path / "alone.lancedb")
    proxy.plan(None, -1)
    assert lives.run("share", f"{bucket}/whole.lancedb", *sources) == 0, lives.log.read_text()
    writes = len(proxy.writes)
    acts = {
        "killed before": kill_before(lambda: lives.pid),
        "killed after": kill_after(lambda: lives.pid),
        "answer lost": lose_answer,
    }
    for write in choose(writes, len(event)):
        uri = f"{bucket}/{write}.lancedb"
        proxy.plan(acts[event], write)
        status = lives.run("share", uri, *sources)
        told = f"{proxy.writes[write : write + 1]}, write {write} of {writes}"
        proxy.plan(None, -1)
        assert status == (-signal.SIGKILL if "killed" in event else 0), told
        if status:
            assert lives.run("share", uri, *sources) == 0, (told, lives.log.read_text())
        assert content(uri).equals(alone), told
        store = PairStore.open(uri)
        (version,) = store.versions()
        # A number that a dead writer was given is given to nobody else.
        assert (version.name in ("v1", "v2"), version.pairs) == (True, expected.added), told
        assert not list_plans(uri)
        assert not check(uri).damage, told


def test_of_two_drivers_at_once_one_makes_the_version(
    s3_server: Server, bucket: str, tmp_path: Path
) -> None:
    sources = write_sources(tmp_path / "sources")[1:3]
    ingest_sources(tmp_path / "alone.lancedb", sources)
    uri = f"{bucket}/shared.lancedb"
    with (
        start_lives(s3_server.address, tmp_path / "one.log", lasting=20.0) as one,
        start_lives(s3_server.address, tmp_path / "other.log", lasting=20.0) as other,
    ):
        for driver in (one, other):
            driver.begin("share", uri, *sources)
        ended = {one.end(), other.end()}
        told = one.log.read_text() + other.log.read_text()
    assert ended <= {0, 1}, told
    assert 0 in ended, told
    assert content(uri).equals(content(tmp_path / "alone.lancedb"))
    assert len(PairStore.open(uri).versions()) == 1


@pytest.mark.parametrize("late", [True, False], ids=["late", "in time"])
def test_a_driver_that_stood_still_while_another_forgot_brings_nothing_back(
    proxy: Proxy,
    lives: Lives,
    s3_server: Server,
    bucket: str,
    tmp_path: Path,
    cli: Cli,
    late: bool,
) -> None:
    first = write_rows(tmp_path / "first.parquet", [row(n, n, pair_id=f"p{n}") for n in range(20)])
    more = write_rows(tmp_path / "more.parquet", [row(n, n, pair_id=f"p{n}") for n in range(30)])
    assert cli("--db", f"{bucket}/whole.lancedb", "ingest", first).status == 0
    proxy.plan(None, -1)
    assert lives.run("share", f"{bucket}/whole.lancedb", more) == 0, lives.log.read_text()
    writes, strict, log = len(proxy.writes), tmp_path / "strict.log", tmp_path / "other.log"
    with (
        start_lives(proxy.address, strict, lasting=_LASTING, renewed_within=_LASTING / 2) as paused,
        start_lives(s3_server.address, log, lasting=_LASTING) as other,
    ):
        for write in choose(writes, int(late)):
            uri = f"{bucket}/{write}.lancedb"
            assert cli("--db", uri, "ingest", first).status == 0
            pause = Pause(paused, late, threading.Event(), threading.Event())
            proxy.plan(pause.act, write)
            paused.begin("share", uri, more)
            assert pause.stands.wait(60)
            told = f"{proxy.writes[write]}, write {write} of {writes}"
            forgotten = other.run("--db", uri, "forget", "p7", "--reason", "asked to", "--yes")
            assert forgotten == 0, other.log.read_text()
            pause.resumes.set()
            assert paused.end() in (0, 1), (told, paused.log.read_text())
            proxy.plan(None, -1)
            assert other.run("share", uri, more) == 0, (told, other.log.read_text())
            store = PairStore.open(uri)
            ids = store.read(store.version().name, ["pair_id"])["pair_id"].to_pylist()
            assert sorted(ids) == sorted(f"p{n}" for n in range(30) if n != 7), told
            assert not check(uri).damage, told
            (receipt,) = load_receipts(uri)
            assert receipt.clean, (told, receipt.findings)
            assert not verify_receipt(store, receipt.receipt_id).findings, told
