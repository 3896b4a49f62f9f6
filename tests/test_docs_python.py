"""docs/python.md is true: its snippets run one after the other and print what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from transcripts import check

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
SNIPPET = re.compile(r"```python\n(.*?)```\n```text\n(.*?)```", re.DOTALL)


@pytest.mark.encoders
def test_the_snippets_print_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (64, 64), colour).save(f"photos/{colour}.png")
        Path(f"photos/{colour}.txt").write_text(f"The colour {colour}.")
    names: dict[str, object] = {}
    snippets = SNIPPET.findall(PAGE.read_text())
    assert len(snippets) == PAGE.read_text().count("```python")
    for code, expected in snippets:
        capsys.readouterr()
        exec(code, names)
        check(code, expected.splitlines(), capsys.readouterr().out.splitlines())
