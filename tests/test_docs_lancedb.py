"""docs/lancedb.md is true: its Python and its commands run one after the other."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Cli, entry_point
from PIL import Image
from test_readme import BLOCK, check, steps

PAGE = Path(__file__).parents[1] / "docs" / "lancedb.md"


@pytest.mark.encoders
def test_the_page_is_what_happens(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("asif_lance.cli.progress.LINE_SECONDS", 3600.0)  # a busy machine's lines
    for colour in ("red", "blue"):
        for folder in ("photos", f"labelled/{colour}"):
            Path(folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), colour).save(f"photos/{colour}.png")
        Path(f"photos/{colour}.txt").write_text(f"The colour {colour}.")
        shutil.copy(f"photos/{colour}.png", f"labelled/{colour}")
    names: dict[str, Any] = {"__name__": "page"}
    printed = ""
    for language, text in BLOCK.findall(PAGE.read_text()):
        if language == "python":
            capsys.readouterr()
            exec(compile(text, "lancedb.md", "exec", dont_inherit=True), names)
            printed = capsys.readouterr().out
        elif language == "text":
            check("python", text.splitlines(), printed.splitlines())
        else:
            for command, expected in steps(text):
                done = CliRunner().invoke(entry_point(), shlex.split(command)[1:])
                assert done.exit_code == 0, done.output
                check(command, expected, done.output.splitlines())
