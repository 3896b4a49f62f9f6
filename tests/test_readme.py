"""The README is true: its transcripts and its Python run, on the demo's real pictures."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import entry_point

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+")

pytestmark = [pytest.mark.encoders, pytest.mark.slow]


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(README) if name == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh folder in which the stamps need not be fetched again."""
    if shutil.which("apt-get") is None:
        pytest.skip("the demo's pictures come by apt, which is not here")
    folder = tmp_path_factory.mktemp("readme")
    cache = ROOT / ".cache" / "stamps"
    from asif_lance.ingest.tuxpaint import fetch

    fetch(cache)
    (folder / "asif-demo").mkdir()
    (folder / "asif-demo" / "stamps").symlink_to(cache)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def test_the_transcripts_are_what_happens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asif_lance.cli.progress.LINE_SECONDS", 3600.0)  # a busy machine's lines
    for command, expected in steps("".join(blocks("console"))):
        name, *arguments = shlex.split(command)
        if name == "export":
            monkeypatch.setenv(*arguments[0].split("="))
            continue
        assert name == "asif-lance"
        done = CliRunner().invoke(entry_point(), arguments)
        assert done.exit_code == 0, done.output
        check(command, expected, done.output.splitlines())


def test_the_python_example_prints_what_it_says(folder: Path) -> None:
    (code,), (printed,) = blocks("python"), blocks("text")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    check("python", printed.splitlines(), out.getvalue().splitlines())


def steps(transcript: str) -> Iterator[tuple[str, list[str]]]:
    """Commands with the lines that they are said to print."""
    for part in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
        command, *lines = part.splitlines()
        yield command, lines


def check(command: str, expected: list[str], printed: list[str]) -> None:
    """Every line in order; `...` is any text or lines; numbers may differ in the last digits."""
    wanted, got = [words(x) for x in expected], [words(x) for x in printed]
    position = 0
    anywhere = False
    for line in filter(None, wanted):
        if line == ["..."]:
            anywhere = True
            continue
        rest = [i for i in range(position, len(got)) if got[i]]
        found = next((i for i in (rest if anywhere else rest[:1]) if same(line, got[i])), None)
        assert found is not None, f"{command}: expected {line}, printed {got[position:]}"
        position, anywhere = found + 1, False


def words(line: str) -> list[str]:
    return line.split()


def same(expected: list[str], printed: list[str]) -> bool:
    if "..." in expected:
        at = expected.index("...")
        tail = expected[at + 1 :]
        end = printed[len(printed) - len(tail) :] if tail else []
        return all(map(close, expected[:at], printed)) and same(tail, end)
    return len(expected) == len(printed) and all(map(close, expected, printed))


def close(expected: str, printed: str) -> bool:
    if NUMBER.fullmatch(expected) and NUMBER.fullmatch(printed):
        return float(printed) == pytest.approx(float(expected), abs=0.005)
    return expected == printed
