"""docs/inputs.md is true: its files are written, and its transcript runs."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import Cli, entry_point
from PIL import Image
from test_readme import BLOCK, check, steps

PAGE = (Path(__file__).parents[1] / "docs" / "inputs.md").read_text()


@pytest.mark.encoders
def test_the_transcript_is_what_happens(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asif_lance.cli.progress.LINE_SECONDS", 3600.0)  # a busy machine's lines
    (tmp_path / "photos").mkdir()
    for name in ("red", "blue", ".red"):
        colour = name.removeprefix(".")
        Image.new("RGB", (64, 64), colour).save(tmp_path / "photos" / f"{name}.png")
        (tmp_path / "photos" / f"{name}.txt").write_text(f"The colour {colour}.")
    for command, expected in steps(
        "".join(t for name, t in BLOCK.findall(PAGE) if name == "console")
    ):
        name, *arguments = shlex.split(command)
        if name == "cat":
            Path(arguments[0]).write_text("\n".join(expected) + "\n")
            continue
        done = CliRunner().invoke(entry_point(), arguments)
        assert done.exit_code == 0, done.output
        check(command, expected, done.output.splitlines())
