"""Pages of docs/ are true: their files are written, their transcripts run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Cli
from PIL import Image
from source_archives import samples, write_tar
from transcripts import BLOCK, check, run, steps

from asif_lance.encoders import text_encoder

DOCS = Path(__file__).parents[1] / "docs"


def write_shards(folder: Path) -> None:
    """Two shards of img2dataset, the second with a damaged picture and one less than it says."""
    write_tar(folder / "00000.tar", samples(2))
    damaged = [("000000004.jpg", "damaged"), ("000000004.txt", "A picture.")]
    write_tar(folder / "00001.tar", [*samples(1, first=3), *damaged])
    for name, pictures in (("00000", 2), ("00001", 3)):
        (folder / f"{name}_stats.json").write_text(f'{{"successes": {pictures}}}')


def write_own_vectors(path: Path) -> None:
    """Vectors that the packaged text encoder and nobody knows what made."""
    captions = ["A red bus.", "A blue boat.", "Two green trees."]
    images = np.eye(3, 8, dtype=np.float32)
    texts = text_encoder().encode(captions)
    columns = {"caption": captions, "image_vector": images, "text_vector": texts}
    pl.DataFrame(columns).write_parquet(path)


@pytest.mark.encoders
@pytest.mark.parametrize("page", ["inputs.md", "bill.md", "encoders.md", "command-line.md"])
def test_the_transcript_is_what_happens(
    page: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asif_lance.cli.progress.LINE_SECONDS", 3600.0)  # a busy machine's lines
    (tmp_path / "photos").mkdir()
    for name in ("red", "blue", ".red"):
        colour = name.removeprefix(".")
        Image.new("RGB", (64, 64), colour).save(tmp_path / "photos" / f"{name}.png")
        (tmp_path / "photos" / f"{name}.txt").write_text(f"The colour {colour}.")
    write_shards(tmp_path / "shards")
    write_own_vectors(tmp_path / "own.parquet")
    for name in ("red", "blue"):
        (tmp_path / "labelled" / name).mkdir(parents=True)
        shutil.copy(tmp_path / "photos" / f"{name}.png", tmp_path / "labelled" / name)
    blocks = BLOCK.findall((DOCS / page).read_text())
    for command, expected in steps("".join(text for name, text in blocks if name == "console")):
        check(command, expected, run(command, expected, monkeypatch))
