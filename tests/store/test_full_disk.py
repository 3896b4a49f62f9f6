"""A disk that is really full, at several points of every command that writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, pairs_frame

from asif_lance.store.pair_store import PairStore

ASSET = Path(__file__).parents[1] / "assets" / "database-m0001.tar.gz"
SIZE = 16_000_000

#: Bytes that are left on the disk: a command fails at its first, a middle or its last write.
ROOM = (0, 8_192, 40_960, 163_840)

COMMANDS = {
    "ingest": ["ingest", "more.parquet"],
    "delete": ["delete", "--where", "license = 'CC-BY'"],
    "forget": ["forget", "p3", "p401", "--reason", "asked to", "--yes"],
    "prune": ["versions", "prune", "--keep-last", "1", "--yes"],
    "optimize": ["optimize"],
    "rollback": ["rollback", "v1"],
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes rights that are not had here")
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def fill_up(disk: Path, room: int) -> Path:
    """A file that leaves `room` bytes."""
    ballast = disk / "ballast"
    state = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(state.f_bavail * state.f_bsize - room, 1))
    return ballast


def contents(database: Path) -> dict[str, list[str]]:
    store = PairStore.open(str(database))
    versions = [version.name for version in store.versions()]
    return {name: sorted(store.read(name, ["pair_id"])["pair_id"].to_pylist()) for name in versions}


def sensible(command: str, before: dict[str, list[str]], after: dict[str, list[str]]) -> bool:
    """Nothing lost: old versions as they were, less what the command itself takes away."""
    gone = {"p3", "p401"} if command == "forget" else set()
    expected = {name: [i for i in ids if i not in gone] for name, ids in before.items()}
    return all(ids in (before.get(n), expected.get(n)) for n, ids in after.items() if n in before)


@pytest.mark.parametrize("room", ROOM)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_line_loses_nothing_and_the_command_completes_once_there_is_room(
    command: str, room: int, disk: Path, cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    database = disk / "t.lancedb"
    for number, start in enumerate((0, 300, 600)):
        pairs_frame(300, rng, start=start).write_parquet(tmp_path / f"{number}.parquet")
        assert cli("--db", database, "ingest", f"{number}.parquet").status == 0
    pairs_frame(2_000, rng, start=5_000).write_parquet(tmp_path / "more.parquet")
    before = contents(database)
    ballast = fill_up(disk, room)

    done = cli("--db", database, *COMMANDS[command])

    assert done.status == 1 or room  # without any room no command that writes can succeed
    if done.status:
        complaint = done.err.splitlines()[-1]
        assert complaint.startswith("asif-lance: "), done.err
        assert "No space left on device" in complaint, done.err
        assert "Traceback" not in done.err
    assert sensible(command, before, contents(database))

    ballast.unlink()
    done = cli("--db", database, *COMMANDS[command])
    if command == "forget" and done.status == 1:  # opening has finished what was begun
        assert "none of" in done.err or "nothing to forget" in done.err, done.err
    else:
        assert done.status == 0, done.err
    after = contents(database)
    assert sensible(command, before, after)
    newest = after[PairStore.open(str(database)).version().name]
    assert len(newest) == {"ingest": 2900, "delete": 450, "forget": 898, "rollback": 300}.get(
        command, 900
    )


@pytest.mark.parametrize("room", ROOM)
def test_a_full_disk_stops_a_migration_which_completes_once_there_is_room(
    room: int, disk: Path, cli: Cli
) -> None:
    with tarfile.open(ASSET) as archive:
        archive.extractall(disk, filter="data")
    database = disk / "db"
    ballast = fill_up(disk, room)
    done = cli("--db", database, "migrate")
    if done.status:
        assert done.err.startswith("asif-lance: ")
        assert "No space left on device" in done.err
        assert done.err.count("\n") == 1
    ballast.unlink()
    assert cli("--db", database, "migrate").status == 0
    assert [len(ids) for ids in contents(database).values()] == [20, 30, 25]
