"""Pictures as users give them: files, folders and bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asif_lance.encoders.picture_files import LeftOut, expand_folders, picture_name
from asif_lance.errors import ImageError
from asif_lance.progress import listen
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


def test_folders_tell_what_they_leave_out(folder: Path) -> None:
    for name in ("__MACOSX/a.png", "@eaDir/b.jpg", "layers.PSD", "b/drawing.svg"):
        (folder / "all" / name).parent.mkdir(exist_ok=True)
        (folder / "all" / name).write_bytes(b"")
    rejects: list[Reject] = []
    assert len(list(expand_folders([folder / "all"], rejects))) == 4
    assert [(Path(reject.item).name, reject.reason) for reject in rejects] == [
        ("layers.PSD", ".psd pictures are not supported"),
        ("drawing.svg", ".svg pictures are not supported"),
    ]
    with pytest.raises(ImageError, match=r"layers\.PSD: \.psd pictures are not supported"):
        list(expand_folders([folder / "all"], None))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folders_that_may_not_be_read_are_told(folder: Path) -> None:
    (folder / "all" / "b").chmod(0)
    rejects: list[Reject] = []
    found = list(expand_folders([folder / "all"], rejects))
    (folder / "all" / "b").chmod(0o755)
    assert len(found) == 2
    assert rejects[0].reason == "unreadable folder (Permission denied)"


def test_linked_folders_are_followed_until_they_lead_back(folder: Path) -> None:
    (folder / "linked").mkdir()
    (folder / "linked" / "d.png").write_bytes(b"")
    (folder / "all" / "e").symlink_to(folder / "linked")
    (folder / "linked" / "back").symlink_to(folder / "all")
    found = list(expand_folders([folder / "all"], None))
    assert len(found) == 5
    assert folder / "all" / "e" / "d.png" in found


def test_what_a_walk_leaves_out_is_counted_in_a_note(folder: Path) -> None:
    (folder / "all" / "back").symlink_to(folder / "all")
    for name in (".DS_Store", ".x.svg"):
        (folder / "all" / name).write_bytes(b"")
    notes: list[str] = []
    with listen(lambda what, done, total: None, notes.append):
        list(expand_folders([folder / "all", folder / "none" / "at"], []))
    counts = "2 hidden files, 2 hidden folders and 1 folder reached a second time"
    assert notes == [f"{folder / 'all'}: left out {counts}"]
    assert str(LeftOut()) == ""
    assert str(LeftOut(files=1)) == "1 hidden file"


def test_names_that_are_not_utf8_are_shown_with_escapes() -> None:
    assert picture_name(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    assert picture_name(Path("new\nline.png")) == "new\\nline.png"
