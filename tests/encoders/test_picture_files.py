"""Pictures as users give them: files, folders and bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from asif_lance.encoders.picture_files import expand_folders
from asif_lance.errors import ImageError
from asif_lance.records import Reject


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hidden = (".hidden.png", ".git/d.png", "b/.cache/e.jpg")
    for name in ("c.PNG", "a.jpg", "b/z.webp", "b/y/x.gif", "notes.txt", "b/data.csv", *hidden):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(b"")
    (tmp_path / "none" / "at" / "all").mkdir(parents=True)
    return tmp_path


def test_a_folder_stands_for_the_pictures_in_it_and_below(folder: Path) -> None:
    others = [b"bytes", folder / "all" / "notes.txt", "gone.jpg", "\0", "x" * 5000]
    found = list(expand_folders([str(folder / "all"), *others], None))
    inside = [folder / "all" / name for name in ("a.jpg", "b/y/x.gif", "b/z.webp", "c.PNG")]
    assert found == [*inside, *others]


def test_a_folder_without_pictures_is_rejected(folder: Path) -> None:
    rejects: list[Reject] = []
    empty = folder / "none"
    assert list(expand_folders([empty, b"bytes"], rejects)) == [b"bytes"]
    assert rejects == [Reject("classify", str(empty), "no pictures in this folder")]
    with pytest.raises(ImageError, match="none: no pictures in this folder"):
        list(expand_folders([empty], None))
