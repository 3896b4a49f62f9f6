"""check as users run it: what it prints, its status, and what info says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli


@pytest.fixture
def database(cli: Cli, pairs_file: Path) -> Path:
    assert cli("ingest", pairs_file).status == 0
    return Path("pairs.lancedb").absolute()


def test_a_whole_database_leaves_with_status_0(cli: Cli, database: Path) -> None:
    assert "last checked             never" in cli("info").out
    done = cli("check")
    assert done.status == 0
    assert done.out.split()[:7] == ["surface", "files", "bytes", "ok", "damaged", "not", "known"]
    assert done.err == ""
    [facts] = cli("info", "--format", "json").objects
    assert facts["checked_at"] is not None
    assert facts["damaged_files"] == 0


def test_damage_is_named_and_leaves_with_status_1(cli: Cli, database: Path) -> None:
    (path,) = database.glob("pairs.lance/data/*")
    data = bytearray(path.read_bytes())
    data[1000] ^= 4
    path.write_bytes(data)
    done = cli("check", "--format", "json")
    assert done.status == 1
    [report] = done.objects
    name = path.relative_to(database).as_posix()
    assert report["damage"] == [{"file": name, "reason": "not as it was written"}]
    assert done.err == f"DAMAGED: {name}: not as it was written\n"
    assert ", 1 files damaged" in cli("info").out


def test_a_database_that_cannot_be_opened_is_checked_all_the_same(cli: Cli, database: Path) -> None:
    for path in database.glob("migrations.lance/_versions/*.manifest"):
        path.write_bytes(path.read_bytes()[:-30])
    done = cli("check")
    assert done.status == 1
    assert "DAMAGED: migrations.lance" in done.err
    refused = cli("versions")
    assert refused.status == 1
    assert "migrations.lance" in refused.err


def test_nothing_there_is_told_in_a_line(cli: Cli) -> None:
    done = cli("--db", "none.lancedb", "check")
    assert done.status == 1
    assert "no asif_lance database at" in done.err


def test_a_run_that_vanished_with_the_newest_state_of_its_table_is_told(
    cli: Cli, database: Path, query_file: Path, label_file: Path
) -> None:
    asked = ("classify", "--vectors", query_file, "--label-vectors", label_file, "--record")
    assert cli(*asked).status == 0
    newest = min(database.glob("runs.lance/_versions/*.manifest"))
    newest.unlink()
    done = cli("check")
    assert done.status == 1
    name = newest.relative_to(database).as_posix()
    assert f"DAMAGED: {name}: missing: the newest state of the table\n" in done.err


def test_a_lost_receipt_lets_no_forgotten_pair_in_again(
    cli: Cli, database: Path, pairs_file: Path
) -> None:
    assert cli("forget", "p1", "--reason", "asked to", "--yes").status == 0
    min(database.glob("receipts.lance/_versions/*.manifest")).unlink()
    for command in (("ingest", pairs_file), ("versions",)):
        refused = cli(*command)
        assert refused.status == 1
        assert "receipts.lance is damaged (receipt f" in refused.err
    assert "DAMAGED: receipts.lance: receipt f" in cli("check").err
