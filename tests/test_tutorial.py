"""The tutorial is true: it runs, step by step, on twenty pictures of the demo."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transcripts import STAMPS, fetch_stamps, run_page, write_photos

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
NEW = "animals/mammals/equines/donkey", "animals/birds/blackbird", "food/fruit/apple_green"


@pytest.mark.encoders
@pytest.mark.slow
def test_the_tutorial_is_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "photos")
    (tmp_path / "photos" / "kiwi.txt").unlink()
    (tmp_path / "new").mkdir()
    for name in NEW:
        shutil.copy(fetch_stamps() / STAMPS / f"{name}.png", tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASIF_LANCE_DB", raising=False)
    run_page(PAGE, monkeypatch, capsys)
