"""Writers that die, stand still or get no answer at any write to an object store lose nothing.

A proxy before a real S3 server sees every write. Looked at are some writes of each command; with
`EVERY_WRITE=1` in the environment, all.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, pairs_frame
from lives import Lives, start_lives
from pauses import Pause
from s3_proxy import Act, Proxy, kill_after, kill_before, lose_answer, run_proxy
from s3_server import Server

from asif_lance.database import check
from asif_lance.forgetting.receipts import load_receipts
from asif_lance.object_stores import list_sizes, open_path
from asif_lance.store import PairStore
from asif_lance.store.forget import verify_receipt

pytestmark = pytest.mark.slow

_EVERY = bool(os.environ.get("EVERY_WRITE"))
_LOOKED_AT = 1  # write of each command and event, else
_LASTING = 1.5
_PAUSED_LASTING = 6.0

_FIRST = frozenset(f"p{n}" for n in range(60))
_SECOND = _FIRST | {f"p{n}" for n in range(60, 80)}
_THIRD = _SECOND - {"p5"}
_MORE = _THIRD | {f"p{n}" for n in range(80, 100)}
_BEFORE = [_FIRST, _SECOND, _THIRD]


@dataclass(frozen=True)
class Command:
    """One that is killed, and what the versions hold when it has run to its end."""

    arguments: tuple[str, ...]
    after: list[frozenset[str]]
    forgets: frozenset[str] = frozenset()


def _without(versions: list[frozenset[str]], pair: str) -> list[frozenset[str]]:
    return [version - {pair} for version in versions]


_FORGET = ("forget", "p7", "--reason", "asked to", "--yes")
_ASKED = ("--queries", "queries.parquet", "--label-vectors", "labels.parquet", "--k", "30")
_INDEX = ("index", "build", "--keep", *_ASKED)
_UPDATE = ("ingest", "again.parquet", "--on-conflict", "update")
COMMANDS = {
    "ingest": Command(("ingest", "more.parquet"), [*_BEFORE, _MORE]),
    "delete": Command(("delete", "p7", "--yes"), [*_BEFORE, _THIRD - {"p7"}]),
    "forget": Command(_FORGET, _without(_BEFORE, "p7"), frozenset({"p7"})),
    "rollback": Command(("rollback", "v1"), [*_BEFORE, _FIRST]),
    "optimize": Command(("optimize",), _BEFORE),
    "index": Command(_INDEX, _BEFORE),
    # What has a tag stays.
    "prune": Command(("versions", "prune", "--keep-last", "1", "--yes"), [_FIRST, _THIRD]),
    "update": Command(_UPDATE, [*_BEFORE, _THIRD]),
    "tag": Command(("tag", "prod", "v2"), _BEFORE),
}


@pytest.fixture(scope="module")
def proxy(s3_server: Server) -> Iterator[Proxy]:
    with run_proxy(s3_server.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deaths")


@pytest.fixture(scope="module")
def lives(proxy: Proxy, folder: Path) -> Iterator[Lives]:
    with start_lives(proxy.address, folder / "lives.log", lasting=_LASTING) as lives:
        yield lives


@pytest.fixture(scope="module")
def pausing(proxy: Proxy, folder: Path) -> Iterator[Lives]:
    """The same for commands that stand still, and then have to notice it."""
    log, within = folder / "pausing.log", _PAUSED_LASTING / 2
    with start_lives(proxy.address, log, lasting=_PAUSED_LASTING, renewed_within=within) as lives:
        yield lives


@pytest.fixture(scope="module")
def made(s3_server: Server, lives: Lives, folder: Path) -> str:
    """A database with three versions, of which each test gets a copy."""
    s3_server.ask("PUT", "deaths")
    uri, rng = "s3://deaths/made.lancedb", np.random.default_rng(5)
    files = {"first": (0, 60), "second": (60, 20), "more": (80, 20), "again": (7, 1)}
    for name, (start, count) in files.items():
        pairs_frame(count, rng, start=start).write_parquet(folder / f"{name}.parquet")
    _write_vectors(folder / "queries.parquet", "id", 20, IMAGE_DIM)
    _write_vectors(folder / "labels.parquet", "label", 5, TEXT_DIM)
    for arguments in (
        ("ingest", folder / "first.parquet"),
        ("ingest", folder / "second.parquet"),
        ("delete", "p5", "--yes"),
        ("tag", "prod", "v1"),
    ):
        assert lives.run("--db", uri, *arguments) == 0, lives.log.read_text()
    return uri


def _write_vectors(path: Path, key: str, count: int, width: int) -> None:
    vectors = np.random.default_rng(count).standard_normal((count, width)).astype(np.float32)
    names = [f"{key}{n}" for n in range(count)]
    pl.DataFrame({key: names, "vector": vectors}).write_parquet(path)


Copy = Callable[[], str]


@pytest.fixture
def copy(made: str, request: pytest.FixtureRequest) -> Copy:
    """Makes a new copy of the database."""
    number = iter(range(10_000))

    def make() -> str:
        uri = f"s3://deaths/{abs(hash(request.node.nodeid))}-{next(number)}.lancedb"
        source, target = open_path(made), open_path(uri)
        for name in list_sizes(source).keys() - {".asif-lease"}:
            (target / name).write_bytes((source / name).read_bytes())
        return uri

    return make


def fill_in(command: Command, folder: Path) -> list[str]:
    return [str(folder / a) if a.endswith(".parquet") else a for a in command.arguments]


def check_whole(
    uri: str, expected: list[frozenset[str]], forgotten: frozenset[str], told: str = ""
) -> None:
    """One version more or none, each pair once, all files sound, receipts verified."""
    store = PairStore.open(uri)
    ids = [store.read(v.name, ["pair_id"])["pair_id"].to_pylist() for v in store.versions()]
    assert [sorted(found) for found in ids] == [sorted(version) for version in expected], told
    assert [version.pairs for version in store.versions()] == [len(one) for one in expected], told
    assert not store.unpublished(), told
    assert not check(uri).damage, told
    receipts = load_receipts(uri)
    assert len(receipts) == len(forgotten), told
    for receipt in receipts:
        assert receipt.clean, (told, receipt.findings)
        assert not verify_receipt(store, receipt.receipt_id).findings, told


def choose(count: int, seed: str) -> list[int]:
    """Which of so many writes are looked at."""
    if _EVERY:
        return list(range(count))
    rng = np.random.default_rng(list(seed.encode()))
    return sorted(rng.choice(count, min(_LOOKED_AT, count), replace=False).tolist())


@pytest.fixture(scope="module")
def counted() -> dict[str, int]:
    """How many writes each command makes, as far as it has run undisturbed."""
    return {}


@pytest.fixture
def writes(
    proxy: Proxy, lives: Lives, folder: Path, copy: Copy, counted: dict[str, int], name: str
) -> int:
    """How many a command makes that nothing disturbs, whose effect is looked at, too."""
    if name not in counted:
        command, uri = COMMANDS[name], copy()
        proxy.plan(None, -1)
        assert lives.run("--db", uri, *fill_in(command, folder)) == 0, lives.log.read_text()
        counted[name] = len(proxy.writes)
        check_whole(uri, command.after, command.forgets)
    return counted[name]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("event", ["killed before", "killed after", "answer lost"])
def test_a_command_that_dies_at_a_write_is_made_good_by_running_it_again(
    proxy: Proxy, lives: Lives, folder: Path, copy: Copy, writes: int, name: str, event: str
) -> None:
    command = COMMANDS[name]
    arguments = fill_in(command, folder)
    acts: dict[str, Act] = {
        "killed before": kill_before(lambda: lives.pid),
        "killed after": kill_after(lambda: lives.pid),
        "answer lost": lose_answer,
    }
    for write in choose(writes, name + event):
        uri = copy()
        proxy.plan(acts[event], write)
        status = lives.run("--db", uri, *arguments)
        told = f"{proxy.writes[write : write + 1]}, write {write} of {writes}"
        proxy.plan(None, -1)
        assert status == (-signal.SIGKILL if "killed" in event else 0), told
        if status:
            again = lives.run("--db", uri, *arguments)
            told += f", then {again}: {lives.log.read_text()[-2_000:]}"
            # What was killed after all was done has nothing left to do.
            assert again in (0, 1), told
            # A forget is finished by the first who writes when the lease of the dead has run out.
            assert lives.run("--db", uri, "optimize") == 0, told
            assert "Traceback" not in lives.log.read_text(), told
        check_whole(uri, command.after, command.forgets, told)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("late", [True, False], ids=["late", "in time"])
def test_a_writer_that_stood_still_while_another_forgot_brings_nothing_back(
    proxy: Proxy,
    pausing: Lives,
    s3_server: Server,
    folder: Path,
    copy: Copy,
    writes: int,
    name: str,
    late: bool,
) -> None:
    arguments = fill_in(COMMANDS[name], folder)
    log = folder / "other.log"
    with start_lives(s3_server.address, log, lasting=_PAUSED_LASTING) as other:
        for write in choose(writes, f"{name}{late}"):
            uri = copy()
            pause = Pause(pausing, late, threading.Event(), threading.Event())
            proxy.plan(pause.act, write)
            pausing.begin("--db", uri, *arguments)
            assert pause.stands.wait(60)
            told = f"{proxy.writes[write]}, write {write} of {writes}"
            assert other.run("--db", uri, *_FORGET) in (0, 1), other.log.read_text()
            pause.resumes.set()
            status = pausing.end()
            proxy.plan(None, -1)
            assert status in (0, 1), told
            assert other.run("--db", uri, "optimize") == 0, (told, other.log.read_text())
            assert other.run("--db", uri, "publish") in (0, 1), (told, other.log.read_text())
            check_forgotten(uri, told)


def check_forgotten(uri: str, told: str) -> None:
    """Nothing of the pair is in any file, and each version is whole."""
    store = PairStore.open(uri)
    for version in store.versions():
        ids = store.read(version.name, ["pair_id"])["pair_id"].to_pylist()
        assert len(set(ids)) == len(ids) == version.pairs, told
        assert "p7" not in ids, told
    assert not check(uri).damage, told
    for receipt in load_receipts(uri):
        assert receipt.clean, (told, receipt.findings)
        found = verify_receipt(store, receipt.receipt_id).findings
        assert not found, (told, found)
