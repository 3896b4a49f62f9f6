"""check as users run it: what it prints, its status, and what info says of it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
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
    assert ", 1 file damaged" in cli("info").out


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


def unknown_files(cli: Cli) -> dict[str, int]:
    """Parts of the database with files that nobody has vouched for."""
    [report] = cli("check", "--format", "json").objects
    return {s["name"]: s["unknown"] for s in report["surfaces"] if s["unknown"]}


def test_after_every_command_each_file_has_its_digest(
    cli: Cli, database: Path, query_file: Path, label_file: Path, pairs_file: Path, tmp_path: Path
) -> None:
    frame = pl.read_parquet(pairs_file)
    bad = pl.concat([frame.head(1).with_columns(pair_id=pl.lit("new"), caption=pl.lit(""))])
    bad.write_parquet(tmp_path / "bad.parquet")
    asked = ("classify", "--vectors", query_file, "--label-vectors", label_file, "--record")
    commands = [
        ("ingest", tmp_path / "bad.parquet", "--rejects", "rejects.csv"),
        asked,
        asked,
        ("runs", "prune", "--keep-last", "1"),
        ("runs", "keep", "--last", "5"),
        ("delete", "p2", "--yes"),
        ("tag", "prod", "v1"),
        ("rollback", "v1"),
        ("forget", "p1", "--reason", "asked to", "--yes", "--prove"),
        ("ingest", pairs_file, "--allow-forgotten", "--reason", "agreed again"),
        ("versions", "prune", "--keep-last", "1", "--yes"),
        ("optimize", "--now"),
    ]
    for command in commands:
        done = cli(*command)
        assert done.status in (0, 1), done.err
        assert unknown_files(cli) == {}, command


def test_a_damaged_journal_of_a_killed_forget_is_named(cli: Cli, database: Path) -> None:
    def check() -> list[str]:
        return [line for line in cli("check").err.splitlines() if line.startswith("DAMAGED")]

    journal, content = database / ".asif-forget.jsonl", database / ".asif-forget.arrow"
    whole = b'{"event": "intent", "pair_ids": ["p1"]}\n'
    journal.write_bytes(whole + b'{"event": "mo')  # a kill may cut the last line
    with pa.OSFile(str(content), "wb") as file:
        rows = pa.table({"pair_id": ["p1"]})
        with pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows)
    assert check() == []
    journal.write_bytes(whole.replace(b"p1", b"p2"))
    assert check() == ["DAMAGED: .asif-forget.arrow: its rows are not those that the journal names"]
    journal.write_bytes(whole.replace(b"{", b"[", 1))
    assert [line.split(":")[1] for line in check()] == [" .asif-forget.jsonl"]
    journal.write_bytes(b"[]\n")
    content.write_bytes(content.read_bytes()[:40])
    assert sorted(line.split(":")[1] for line in check()) == [
        " .asif-forget.arrow",
        " .asif-forget.jsonl",
    ]


@pytest.mark.parametrize("table", ["pairs", "versions", "migrations", "receipts", "runs"])
@pytest.mark.parametrize("command", ["versions", "info"])
def test_a_flipped_bit_in_a_newest_manifest_is_one_line_that_names_it(
    cli: Cli, database: Path, table: str, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    newest = min(database.glob(f"{table}.lance/_versions/*.manifest"))
    whole = newest.read_bytes()
    for at in range(0, len(whole), max(len(whole) // 12, 1)):
        newest.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        done = cli(command)
        assert done.status == 1
        assert done.err.count("\n") == 1
        assert newest.relative_to(database).as_posix() in done.err
    assert capfd.readouterr().err == ""


def test_optimize_frees_what_it_says_that_now_would_free(cli: Cli, database: Path) -> None:
    for pair in ("p1", "p2", "p3"):
        assert cli("delete", pair, "--yes").status == 0
    assert "optimize --now` frees them at once" in cli("optimize").err
    now = cli("optimize", "--now").err
    assert "; freed " in now
    assert "freed 0.0" not in now
    assert cli("optimize", "--now").err.startswith("nothing to do: ")
    assert cli("optimize").err.startswith("nothing to do: ")
