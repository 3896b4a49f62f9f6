"""Pages about LanceDB are true: their Python and their commands run one after the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from transcripts import run_page

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.encoders
@pytest.mark.parametrize("page", ["lancedb.md", "integrations-lancedb.md"])
def test_the_page_is_what_happens(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASIF_LANCE_DB", raising=False)
    for colour in ("red", "blue"):
        for folder in ("photos", f"labelled/{colour}"):
            Path(folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), colour).save(f"photos/{colour}.png")
        Path(f"photos/{colour}.txt").write_text(f"The colour {colour}.")
        shutil.copy(f"photos/{colour}.png", f"labelled/{colour}")
    run_page(DOCS / page, monkeypatch, capsys)
