"""Pages as they are written: their commands and Python run, and print what the page says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import entry_point
from filelock import FileLock

from asif_lance.ingest.tuxpaint import fetch

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+")
SILENT = 3600.0  # seconds between lines of progress, which come only on a busy machine
STAMPS = "usr/share/tuxpaint/stamps"

#: Twenty of the demo's pictures, as somebody's own photos.
PHOTOS = (
    "animals/mammals/bovines/cow", "animals/mammals/bovines/sheep", "animals/mammals/bovines/goat",
    "animals/mammals/cats/lion", "animals/mammals/cats/tiger", "animals/mammals/dogs/dog",
    "animals/mammals/dogs/fox", "animals/mammals/equines/horse", "animals/mammals/equines/zebra",
    "animals/birds/crow", "animals/birds/duck", "animals/birds/owl", "animals/birds/pigeon",
    "animals/birds/seagull", "food/fruit/apple_red", "food/fruit/avocado", "food/fruit/banana",
    "food/fruit/kiwi", "food/fruit/lemon", "food/fruit/mango",
)  # fmt: skip


def fetch_stamps() -> Path:
    """The folder of the demo's pictures, fetched once for all tests."""
    if shutil.which("apt-get") is None:
        pytest.skip("the demo's pictures come by apt, which is not here")
    cache = ROOT / ".cache" / "stamps"
    cache.parent.mkdir(exist_ok=True)
    with FileLock(f"{cache}.lock"):  # tests may run in several processes
        fetch(cache)
    return cache


def write_photos(folder: Path) -> None:
    """Twenty pictures, each with its caption in a text file beside it."""
    folder.mkdir()
    for name in PHOTOS:
        picture = fetch_stamps() / STAMPS / f"{name}.png"
        caption = picture.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[0]
        shutil.copy(picture, folder)
        (folder / picture.name).with_suffix(".txt").write_text(f"{caption}\n", encoding="utf-8")


def run_page(
    page: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    done_before: dict[str, list[str]] | None = None,
) -> None:
    """Run the page's blocks in order, in the current folder, each with what those before it left.

    Args:
        page: Markdown with blocks `console`, `python` and, for what Python prints, `text`.
        monkeypatch: undoes what `export` sets.
        capsys: reads what Python prints.
        done_before: commands that were run already, with what they printed.
    """
    monkeypatch.setattr("asif_lance.cli.progress.LINE_SECONDS", SILENT)
    names: dict[str, Any] = {"__name__": "page"}
    printed: list[str] = []
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            capsys.readouterr()
            exec(compile(text, str(page), "exec", dont_inherit=True), names)
            printed = capsys.readouterr().out.splitlines()
        elif language == "text":
            check(page.name, text.splitlines(), printed)
        elif language == "console":
            for command, expected in steps(text):
                known = (done_before or {}).get(command)
                check(command, expected, known or run(command, expected, monkeypatch))


def run(command: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a command of a transcript prints; a status other than 0 is written as `# status 1`."""
    status = re.search(r"\s+# status (\d)$", command)
    name, *arguments = shlex.split(os.path.expandvars(command), comments=True)
    shell = {"export": _export, "cat": _write, "mkdir": _make, "cp": _copy, "mv": shutil.move}
    if name in shell:
        act: Callable[..., object] = shell[name]
        act(
            *arguments,
            **({"monkeypatch": monkeypatch} if name == "export" else {}),
            **({"lines": expected} if name == "cat" else {}),
        )
        return expected
    assert name == "asif-lance", command
    done = CliRunner().invoke(entry_point(), arguments)
    assert done.exit_code == (int(status[1]) if status else 0), done.output
    return done.output.splitlines()


def _export(setting: str, *, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*setting.split("=", 1))


def _write(path: str, *, lines: list[str]) -> None:
    """`cat FILE` shows a file that the reader writes."""
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _make(*folders: str) -> None:
    for folder in folders:
        if folder != "-p":
            Path(folder).mkdir(parents=True, exist_ok=True)


def _copy(*arguments: str) -> None:
    source, target = arguments[-2:]
    if arguments[0] == "-r":
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


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
