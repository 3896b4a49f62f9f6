"""Options may stand after the command, in variables and in settings files; all are told."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from conftest import Cli, entry_point

ALL = "--vectors", "queries.parquet", "--label-vectors", "labels.parquet"


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it."""
    yield " ".join(path), command
    for name, below in getattr(command, "commands", {}).items():
        yield from walk(below, (*path, name))


COMMANDS = dict(walk(entry_point()))


@pytest.fixture
def database(cli: Cli, pairs_file: Path, query_file: Path, label_file: Path) -> str:
    assert cli("--db", "t.lancedb", "ingest", pairs_file).status == 0
    return "t.lancedb"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_has_a_help_text(name: str) -> None:
    options = [p for p in COMMANDS[name].params if isinstance(p, click.Option)]
    assert [option.opts[0] for option in options if not option.help] == []
    assert {"--db", "--quiet"} <= {spelled for option in options for spelled in option.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_count_of_what_is_shown_is_top_and_a_file_that_is_written_is_o(name: str) -> None:
    options = [p for p in COMMANDS[name].params if isinstance(p, click.Option)]
    for option in options:
        if "--output" in option.opts:
            assert "-o" in option.opts
        if {"--rows", "--pairs"} & set(option.opts):
            assert "--top" in option.opts
        if "--keep-last" in option.opts:
            assert "--last" in option.opts


@pytest.mark.parametrize("name", ["", "classify", "receipt show", "what-if add"])
def test_h_is_help_everywhere(cli: Cli, name: str) -> None:
    assert cli(*name.split(), "-h").out == cli(*name.split(), "--help").out


def test_the_list_of_commands_is_grouped_with_whole_summaries(cli: Cli) -> None:
    told = cli("--help").out.partition("Options:")[2]
    assert "..." not in told
    assert max(map(len, told.splitlines())) <= 80
    for group in ("Begin:", "Versions:", "Forget:", "Measure and improve:"):
        assert group in told
    for name, command in COMMANDS[""].commands.items():  # type: ignore[attr-defined]
        line = next(line for line in told.splitlines() if line.split()[:1] == [name])
        assert line.split(maxsplit=1)[1] == command.get_short_help_str(1000)


def test_the_database_may_be_named_after_the_command(cli: Cli, database: str) -> None:
    first = cli("--db", database, "versions").out
    assert cli("versions", "--db", database).out == first
    assert cli("--db", "nowhere", "versions", "--db", database).out == first
    assert cli("receipt", "--db", database, "list").status == 0
    assert cli("receipt", "list", "--db", database).status == 0


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        (("clasify", "a.png"), "'classify'"),
        (("receipt", "shwo"), "'show'"),
        (("classify", *ALL, "--tpo", "3"), "--top"),
        (("classify", *ALL, "--model", "prdo"), "'prod'"),
        (("classify", *ALL, "--recipe", "withe"), "'white'"),
    ],
)
def test_a_misspelt_name_is_told_from_its_like(
    cli: Cli, database: str, asked: tuple[str, ...], meant: str
) -> None:
    cli("--db", database, "tag", "prod", "v1")
    done = cli("--db", database, *asked)
    assert done.status in (1, 2)
    assert "did you mean" in done.err.lower()
    assert meant in done.err


def test_settings_of_the_folder_stand_for_options_and_the_command_line_wins(
    cli: Cli, database: str
) -> None:
    Path("asif-lance.toml").write_text(
        f'db = "{database}"\n[classify]\ntop = 2\nformat = "json"\n'
        '[receipt.list]\nformat = "json"\n'
    )
    assert len(cli("classify", *ALL).objects[0]["predictions"]) == 2
    assert len(cli("classify", *ALL, "--top", 3).objects[0]["predictions"]) == 3
    assert cli("receipt", "list").out == ""


def test_variables_stand_for_options_and_win_over_settings(
    cli: Cli, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("asif-lance.toml").write_text("[classify]\ntop = 2\n")
    monkeypatch.setenv("ASIF_LANCE_DB", database)
    monkeypatch.setenv("ASIF_LANCE_CLASSIFY_FORMAT", "json")
    monkeypatch.setenv("ASIF_LANCE_CLASSIFY_TOP", "4")
    assert len(cli("classify", *ALL).objects[0]["predictions"]) == 4
    monkeypatch.setenv("ASIF_LANCE_CLASSIFY_TEMPLATE", "the colour {}\na {} thing")
    done = cli("classify", "--vectors", "queries.parquet", "--labels", "a,b", "--device", "cpu")
    assert "no {} where the label goes" not in done.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[classify]\ntpo = 2", "`classify` has no option 'tpo'; did you mean 'top'?"),
        ("[clasify]\ntop = 2", "`asif-lance` has no option 'clasify'; did you mean 'classify'?"),
        ("[forget]\nyes = true", "'yes' can only be given on the command line"),
        ("[classify]\nserver = 'http://x'", "the command line or in your own settings"),
        ("classify = 3", "'classify' is a command: its options stand below [classify]"),
        ("[classify", "asif-lance.toml: "),
        ("db = 3", "'db' takes a text, in quotes"),
        ("quiet = 'yes'", "'quiet' takes true or false"),
        ("[classify]\ntop = -1", "asif-lance.toml: 'top': -1 is not in the range x>=1"),
        ("[classify]\ntop = 'x'", "asif-lance.toml: 'top': 'x' is not a valid"),
        ("[evaluate]\ncoverage = 7", "asif-lance.toml: 'coverage': 7.0 is not in the range"),
        ("[classify]\nformat = 'xml'", "asif-lance.toml: 'format': 'xml' is not one of"),
        ("[classify]\ntop = [3]", "'top' takes a number or a text"),
        ("[classify]\ntemplate = [3]", "'template' takes a text, in quotes"),
        ("[classify]\nlabels = {a = 1}", "'labels' takes a text, in quotes"),
    ],
)
def test_a_settings_file_that_cannot_be_meant_is_one_line(cli: Cli, text: str, told: str) -> None:
    Path("asif-lance.toml").write_text(text)
    done = cli("versions")
    assert done.status == 1
    assert told in done.err
    assert len(done.err.splitlines()) == 1


def test_csv_has_one_line_per_picture_with_its_best_labels(cli: Cli, database: str) -> None:
    asked = "--db", database, "classify", *ALL, "--top", 2
    rows = list(csv.DictReader(cli(*asked, "--format", "csv").out.splitlines()))
    objects = cli(*asked, "--format", "json").objects
    assert list(rows[0]) == ["image", "model", "label", "score", "label_2", "score_2"]
    for row, answer in zip(rows, objects, strict=True):
        best, second = answer["predictions"]
        assert (row["image"], row["model"]) == (answer["image"], answer["model"])
        assert (row["label"], float(row["score"])) == (best["label"], best["score"])
        assert (row["label_2"], float(row["score_2"])) == (second["label"], second["score"])
    assert cli(*asked, "--format", "csv", "--explain", 1).status == 2


@pytest.mark.slow
def test_a_shell_completes_commands_and_options() -> None:
    program = "from asif_lance.cli import main; main(prog_name='asif-lance')"
    words = {"COMP_WORDS": "asif-lance cla", "COMP_CWORD": "1"}
    completing = {**os.environ, **words, "_ASIF_LANCE_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=completing, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["plain,classify"]


@pytest.mark.encoders
def test_search_writes_a_page_with_the_pictures_and_runs_nothing(cli: Cli, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (64, 64), colour).save(tmp_path / "photos" / f"{colour}.png")
        (tmp_path / "photos" / f"{colour}.txt").write_text(f"<script>{colour}</script> thing")
    cli("ingest", "photos")
    done = cli("search", "a <b>red</b> thing", "-o", "page.html")
    assert done.err.splitlines()[-1] == "page.html: 2 matches"
    page = Path("page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "<script>" not in page
    assert "<b>" not in page
    assert cli("search", "--image", "photos/red.png", "-o", "page.html").status == 0
    assert Path("page.html").read_text().count("data:image/jpeg;base64,") == 3
    assert cli("search", "red", "-o", "page.txt").status == 2
