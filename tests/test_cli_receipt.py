"""Forgetting and its receipts from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from conftest import Cli


@pytest.fixture
def forgotten(cli: Cli, pairs_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A database in which p3 was forgotten, with keys in a folder of their own; the receipt."""
    monkeypatch.setenv("ASIF_LANCE_DB", str(tmp_path / "db"))
    monkeypatch.setenv("ASIF_LANCE_KEYS", str(tmp_path / "keys"))
    assert cli("ingest", pairs_file).status == 0
    done = cli("forget", "p3", "--reason", "<b>asked</b> to", "--yes")
    assert done.status == 0, done.err
    return str(cli("receipt", "list", "--format", "json").objects[0]["receipt_id"])


def test_the_first_forget_makes_keys_and_explains_them(
    cli: Cli, forgotten: str, tmp_path: Path
) -> None:
    assert (tmp_path / "keys" / "fingerprint.key").exists()
    (tmp_path / "more").mkdir()
    first = cli("forget", "p4", "--yes", "--keys", tmp_path / "more" / "keys")
    assert f"made two keys in {tmp_path}/more/keys; keep a copy of them" in first.err
    assert "Without it nobody can, you neither" in first.err
    again = cli("forget", "p5", "--yes")
    assert "made two keys" not in again.err
    assert cli("forget", "p6", "--yes", "--keys", tmp_path / "db").status == 1


def test_each_surface_has_its_verdict(cli: Cli, forgotten: str) -> None:
    words = [line.split() for line in cli("forget", "p7", "--yes").out.splitlines()]
    assert ["pairs", "erased"] in words
    assert ["predictions", "no", "baseline"] in words


def test_a_receipt_is_verified_with_an_exit_status(
    cli: Cli, forgotten: str, pairs_file: Path, tmp_path: Path
) -> None:
    assert cli("forget", "--verify", "nosuch").status == 2  # nothing was checked
    done = cli("forget", "--verify", forgotten)
    assert (done.status, "confirmed: all of it holds" in done.out) == (0, True)
    without = cli("forget", "--verify", forgotten, "--keys", tmp_path / "none")
    assert (without.status, "undecided" in without.out) == (3, True)
    agreed = ("--allow-forgotten", "--reason", "agreed again")
    assert cli("ingest", pairs_file, *agreed).status == 0  # which brings p3 back
    assert cli("forget", "--verify", forgotten).status == 1
    report = cli("forget", "--verify", forgotten, "--format", "json").objects[0]
    assert report["verdict"] == "refuted"


def test_a_receipt_and_its_public_key_are_handed_out(
    cli: Cli, forgotten: str, tmp_path: Path
) -> None:
    assert cli("receipt", "show", forgotten, "-o", "receipt.json").status == 0
    assert cli("receipt", "public-key", "-o", "key.pem").status == 0
    assert cli("receipt", "show", forgotten, "-o", "receipt.txt").status == 2
    assert json.loads((tmp_path / "receipt.json").read_text())["signatures"]
    public = tmp_path / "keys" / "signing.pub.pem"
    assert (tmp_path / "key.pem").read_bytes() == public.read_bytes()
    assert cli("forget", "--verify", tmp_path / "receipt.json").status == 0
    assert "forgotten  1 pair" in cli("receipt", "show", forgotten).out


def test_the_page_is_one_file_that_loads_nothing_and_trusts_no_text(
    cli: Cli, forgotten: str, tmp_path: Path
) -> None:
    assert cli("receipt", "show", forgotten, "-o", "receipt.html").status == 0
    page = (tmp_path / "receipt.html").read_text()
    assert "1 pair was forgotten" in page
    assert "&lt;b&gt;asked&lt;/b&gt; to" in page
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "src=" not in page
    assert f'download="{forgotten}.json"' in page


def test_signing_twice_and_keys_that_are_not_there_are_one_line(
    cli: Cli, forgotten: str, tmp_path: Path
) -> None:
    assert cli("receipt", "sign", forgotten).err.endswith("is signed already\n")
    missing = cli("receipt", "public-key", "-o", "key.pem", "--keys", tmp_path / "none")
    assert missing.err == f"asif-lance: no keys in {tmp_path}/none: the first forget makes them\n"


def test_what_an_authority_is_sent_is_written_and_nonsense_is_not_attached(
    cli: Cli, forgotten: str, tmp_path: Path
) -> None:
    assert cli("receipt", "timestamp-request", forgotten, "-o", "receipt.tsq").status == 0
    assert (tmp_path / "receipt.tsq").stat().st_size > 50
    refused = cli("receipt", "attach", forgotten, "receipt.tsq")
    assert refused.status == 1
    assert "not a timestamp of" in refused.err


def test_ingest_refuses_a_forgotten_pair_until_that_is_waived(
    cli: Cli, forgotten: str, pairs_file: Path, tmp_path: Path
) -> None:
    refused = cli("ingest", pairs_file)
    assert (refused.status, "rejected 1" in refused.err) == (0, True)
    assert f"receipt {forgotten}" in refused.out
    assert cli("ingest", pairs_file, "--allow-forgotten").status == 2
    assert cli("ingest", pairs_file, "--reason", "because").status == 2
    missing = cli("ingest", pairs_file, "--keys", tmp_path / "none")
    assert (missing.status, "--without-key --reason" in missing.err) == (1, True)
    assert cli("receipt", "waivers", "--format", "json").objects == []
    let_in = cli("ingest", pairs_file, "--allow-forgotten", "--reason", "agreed again")
    assert (let_in.status, "added 1" in let_in.err) == (0, True)
    [kept] = cli("receipt", "waivers", "--format", "json").objects
    assert (kept["allows"], kept["pairs"], kept["reason"]) == ("forgotten pairs", 1, "agreed again")
    assert "agreed again" in cli("receipt", "waivers").out
    assert "agreed again" in cli("audit", "SELECT * FROM waivers").out


def test_forget_tells_what_stays_and_takes_twins_along_when_asked(
    cli: Cli, pairs_file: Path
) -> None:
    rows = pl.read_parquet(pairs_file)
    twins = rows.head(1).with_columns(pair_id=pl.lit("twin"), caption=pl.lit("another caption"))
    words = rows.slice(1, 1).with_columns(pair_id=pl.lit("words"), caption=rows["caption"].head(1))
    pl.concat([rows, twins, words]).write_parquet(pairs_file)
    assert cli("ingest", pairs_file).status == 0
    plan = cli("forget", "p0", "--dry-run")
    assert "1 pair with the same picture stays: twin; --with-twins takes them along" in plan.err
    assert "1 pair with the same caption and another picture stays: words" in plan.err
    whole = cli("forget", "p0", "--with-twins", "--dry-run", "--format", "json").objects[0]
    assert whole["pairs"] == ["p0", "twin"]
    assert whole["twins"] == {"same_picture": [], "same_caption": ["words"]}
