"""docs/forgetting.md is true: its transcript runs, on a small database."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import Cli, entry_point
from transcripts import BLOCK, check, steps

from asif_lance.verifier.command import main as verify

PAGE = (Path(__file__).parents[1] / "docs" / "forgetting.md").read_text()


def test_the_python_example_prints_what_it_says(cli: Cli, pairs_file: Path) -> None:
    assert cli("--db", "pairs.lancedb", "ingest", pairs_file).status == 0
    code, printed = (
        "".join(text for name, text in BLOCK.findall(PAGE) if name == kind)
        for kind in ("python", "text")
    )
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs/forgetting.md", "exec"), {})
    check("python", printed.splitlines(), out.getvalue().splitlines())


def test_the_transcript_is_what_happens(
    cli: Cli, pairs_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    transcript = "".join(text for name, text in BLOCK.findall(PAGE) if name == "console")
    for command, expected in steps(transcript):
        name, *arguments = shlex.split(os.path.expandvars(command))
        if name == "export":
            monkeypatch.setenv(*arguments[0].split("="))
        elif name == "cp":
            shutil.copytree(*arguments[1:])
        elif name == "asif-lance-verify":
            verify(arguments)
            check(command, expected, capsys.readouterr().out.splitlines())
        else:
            done = CliRunner().invoke(entry_point(), arguments)
            assert done.exit_code == 0, done.output
            check(command, expected, done.output.splitlines())
        if arguments[0] == "forget" and "--dry-run" not in arguments:
            [receipt] = cli("receipt", "list", "--format", "json").objects
            monkeypatch.setenv("RECEIPT", receipt["receipt_id"])
