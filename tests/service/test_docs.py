"""docs/serve.md is true: its transcript runs against a real service, on a free port."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Cli
from PIL import Image
from running_service import serve
from transcripts import BLOCK, check, steps

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
WRITTEN = "http://127.0.0.1:8000"


@pytest.mark.encoders
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_transcript_is_what_happens(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asif_lance.cli.progress.LINE_SECONDS", 3600.0)  # a busy machine's lines
    monkeypatch.setenv("ASIF_LANCE_DB", str(tmp_path / "pairs.lancedb"))
    (tmp_path / "photos").mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (64, 64), colour).save(tmp_path / "photos" / f"{colour}.png")
        (tmp_path / "photos" / f"{colour}.txt").write_text(f"The colour {colour}.")
    (transcript,) = (text for name, text in BLOCK.findall(PAGE.read_text()) if name == "console")
    commands = list(steps(transcript))
    assert [command for command, _ in commands if command == "kill %1"] == ["kill %1"]
    ingest, start, *asked = commands
    done = cli(*shlex.split(ingest[0])[1:])
    check(ingest[0], ingest[1], (done.out + done.err).splitlines())
    with serve(tmp_path / "pairs.lancedb", *shlex.split(start[0])[2:-1]) as service:
        printed = [line.replace(service.address, WRITTEN).rstrip() for line in service.log]
        check(start[0], start[1], printed)
        for command, expected in asked:
            name, *arguments = shlex.split(command.replace(WRITTEN, service.address))
            if name == "kill":
                assert service.stop() in (0, -15)
            elif name == "curl":
                ran = subprocess.run([name, *arguments], capture_output=True, text=True, check=True)
                assert fits(expected[0], ran.stdout), ran.stdout
            else:
                check(command, expected, cli(*arguments).out.splitlines())


def fits(expected: str, printed: str) -> bool:
    """Whether the parts between `...` stand in what was printed, in order."""
    at = 0
    for part in map(str.strip, expected.split("...")):
        at = printed.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True
