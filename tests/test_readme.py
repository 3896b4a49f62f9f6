"""README and the tour are true: they run on the demo's real pictures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import entry_point
from transcripts import STAMPS, fetch_stamps, run_page, write_photos

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "docs/tour.md",
    "docs/explanation/comparison.md",
    *(f"docs/how-to/{path.name}" for path in sorted((ROOT / "docs" / "how-to").glob("*.md"))),
]

pytestmark = [pytest.mark.encoders, pytest.mark.slow]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder that `asif-lance demo` leaves, and what it prints; the stamps are fetched once."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "asif-demo").mkdir()
    (folder / "asif-demo" / "stamps").symlink_to(fetch_stamps())
    before = Path.cwd()
    os.chdir(folder)
    done = CliRunner().invoke(entry_point(), ["demo"])
    os.chdir(before)
    assert done.exit_code == 0, done.output
    return folder, done.output.splitlines()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_on_the_demos_pictures_is_what_happens(
    page: str,
    demo: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, printed = demo
    shutil.copytree(folder / "asif-demo", tmp_path / "asif-demo", symlinks=True)
    if page == "README.md":
        write_photos(tmp_path / "photos")
        cat = "animals/mammals/cats/tiger_sumatran.png"
        shutil.copy(fetch_stamps() / STAMPS / cat, tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASIF_LANCE_DB", raising=False)
    run_page(ROOT / page, monkeypatch, capsys, {"asif-lance demo": printed})
