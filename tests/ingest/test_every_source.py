"""Each kind of source, good and damaged: how many pairs go in, what is refused, what is told.

In a bucket each brings what it brings in a folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import source_kinds as kinds
from s3_server import upload
from source_files import as_if_in, read, read_or_refuse, told_of

from asif_lance.ingest import sniff_format
from asif_lance.progress import listen

TAR_REJECTS = [
    ("again.png", "a second txt in one sample"),
    ("alone", "no picture in this sample"),
    ("bad.png", "json: malformed JSON"),
    ("bare.png", "no caption in this sample"),
    ("empty.png", "empty caption"),
    ("latin.png", "txt: not UTF-8"),
    ("two.png", "a second picture in one sample"),
]

HOSTILE_REJECTS = [
    ("../out.png", "its name leads out of the archive"),
    ("../out.txt", "its name leads out of the archive"),
    ("/etc/abs.png", "its name leads out of the archive"),
    ("\\xff.png", "its name is not UTF-8"),
    ("dev.png", "a device or a pipe"),
    ("hard.png", "a link"),
    ("link.png", "a link"),
    ("pipe.txt", "a device or a pipe"),
]

PAGE = Path(__file__).parents[2] / "docs" / "inputs-tested.md"
PAGE_HEAD = [
    "# What the tests read of each kind of source",
    "",
    "Written by `python tests/ingest/test_every_source.py`, which makes and reads each of them, in",
    "a folder and in a bucket alike. A file that cannot be read at all brings no pairs and says",
    "why; `…` stands for details.",
    "",
    "| source | pairs in | rejected | told |",
    "| --- | --- | --- | --- |",
]

CASES: list[tuple[Callable[[Path], Path], int, list[tuple[str, str]], list[str]]] = [
    # source, pairs in, (item, reason) of what is rejected, notes; … stands for anything
    (kinds.tar, 3, [], []),
    (kinds.tar_of_damaged_samples, 1, TAR_REJECTS, []),
    (kinds.hostile_tar, 1, HOSTILE_REJECTS, []),
    (kinds.gzipped_tar, 3, [], []),
    (kinds.tar_with_stats, 3, [], []),
    (
        kinds.tar_with_a_bad_header,
        2,
        [
            ("00000.tar", "00000_stats.json counts 3 pictures, 2 were read"),
            ("00000.tar", "damaged archive (bad checksum at byte …); what follows is not read"),
        ],
        [],
    ),
    (
        kinds.tar_cut_in_a_picture,
        2,
        [
            ("000000002.jpg", "cut off: the archive ends in it"),
            ("00000.tar", "00000_stats.json counts 3 pictures, 2 were read"),
            ("00000.tar", "damaged archive (unexpected end of data); what follows is not read"),
        ],
        [],
    ),
    (
        kinds.tar_cut_between_members,
        1,
        [("t.tar", "the archive is cut off; what follows is not read")],
        [],
    ),
    (
        kinds.gzipped_tar_that_is_cut,
        2,
        [
            ("000000002.jpg", "the archive is cut off"),
            ("t.tar.gz", "the archive is cut off; what follows …"),
        ],
        [],
    ),
    (kinds.folder_of_shards, 4, [], []),
    (
        kinds.folder_of_damaged_shards,
        2,
        [
            ("00000.tar", "damaged archive (no tar header at its beginning); …"),
            ("00001.tar", "00001_stats.json counts 7 pictures, 2 were read"),
        ],
        [],
    ),
    (
        kinds.img2dataset_parquet,
        2,
        [("row 3", "not downloaded (HTTP Error 404: Not Found)")],
        [],
    ),
    (kinds.hugging_face_parquet, 2, [("row 3", "missing image")], []),
    (kinds.damaged_parquet, 0, [("error", "…t.parquet is not readable Parquet: …")], []),
    (
        kinds.laion_parquet,
        0,
        [("error", "…: all 3,000 rows are addresses, and nothing is fetched: …img2dataset…")],
        [],
    ),
    (kinds.image_folder, 2, [], []),
    (
        kinds.damaged_image_folder,
        2,
        [
            ("test/metadata.jsonl#row 2", "malformed JSON"),
            ("train/metadata.csv#row 2", "row has 3 fields, the header has 2"),
            ("train/metadata.csv#row 3", "missing image"),
        ],
        [],
    ),
    (kinds.coco, 3, [], ["captions_val2017.json: its pictures are in ../val2017"]),
    (
        kinds.damaged_coco,
        1,
        [
            ("annotation 2", "no image has the id 3"),
            ("annotation 3", "missing caption"),
            ("annotation 4", "row is not a JSON object"),
            ("image 2", "image id 1 is given twice"),
            ("image 3", "image without id or file_name"),
        ],
        ["captions_val2017.json: its pictures are in ../val2017"],
    ),
    (
        kinds.coco_that_is_cut,
        2,
        [("annotation 3", "malformed JSON in line 1 (…); what follows is not read")],
        ["…: 1 of 2 images have no annotation", "…its pictures are in ../val2017"],
    ),
    (kinds.flickr, 6, [], ["Flickr8k.token.txt: its pictures are in ../Flicker8k_Dataset"]),
    (
        kinds.damaged_flickr,
        6,
        [
            ("row 7", "malformed row (expected NAME#NUMBER, a tab, a caption)"),
            ("row 9", "empty caption"),
        ],
        ["Flickr8k.token.txt: its pictures are in ../Flicker8k_Dataset"],
    ),
    (kinds.flickr_results, 2, [], ["results.csv: its pictures are in flickr30k-images"]),
    (
        kinds.damaged_flickr_results,
        2,
        [("row 3", "row has 2 fields, the header has 3")],
        ["results.csv: its pictures are in flickr30k-images"],
    ),
    (kinds.kaggle, 2, [], ["captions.txt: its pictures are in Images"]),
    (
        kinds.kaggle_folder,
        0,
        [("Images/1.jpg", "no caption file (1.txt)")],
        ["…: no picture has a caption beside it; to read them from a file: …/captions.txt"],
    ),
    (
        kinds.cc3m,
        0,
        [("error", "…: all 2,500 rows are addresses, and nothing is fetched: …img2dataset…")],
        [],
    ),
    (
        kinds.cc12m_partly_here,
        1,
        [("row 2", "remote images are not fetched")],
        ["…/t.tsv: 1 of 2 rows are addresses only: a downloader such as img2dataset makes …"],
    ),
    (kinds.zip_with_texts, 2, [], []),
    (kinds.zip_with_manifest, 2, [("row 3", "missing in the archive (lost.png)")], []),
    (
        kinds.zip_with_a_damaged_manifest,
        0,
        [("error", "…t.zip: x/captions.csv is damaged in the archive (…)")],
        [],
    ),
    (
        kinds.hostile_zip,
        1,
        [
            ("../out.png", "its name leads out of the archive"),
            ("bare.png", "no caption file (bare.txt)"),
            ("link.png", "a link"),
        ],
        [],
    ),
    (kinds.zip_with_a_damaged_member, 1, [("p/b.jpg", "damaged in the archive (…)")], []),
    (kinds.zip_that_is_cut, 0, [("error", "…t.zip: damaged archive (File is not a zip file)")], []),
    (kinds.zip_bomb, 0, [("error", "…t.zip: the archive would grow to 314,572,806 bytes")], []),
    (kinds.lance_table, 2, [("row 3", "missing image")], []),
    (kinds.lance_database, 2, [("row 3", "missing image")], []),
    (
        kinds.damaged_lance_table,
        0,
        [("error", "…photos.lance is not a readable Lance table: …")],
        [],
    ),
]


@pytest.mark.parametrize(
    ("make", "format"),
    [
        (kinds.tar, "webdataset"),
        (kinds.folder_of_shards, "webdataset"),
        (kinds.hugging_face_parquet, "parquet"),
        (kinds.image_folder, "imagefolder"),
        (kinds.coco, "coco"),
        (kinds.flickr, "flickr"),
        (kinds.kaggle, "csv"),
        (kinds.zip_with_texts, "zip"),
        (kinds.lance_table, "lance"),
    ],
)
def test_a_source_that_is_named_is_read_like_one_that_is_recognised(
    tmp_path: Path, make: Callable[[Path], Path], format: str
) -> None:
    source = make(tmp_path)
    assert sniff_format(source) == format
    assert read(source, format=format) == read(source)


def as_page() -> str:
    """The table of all cases as docs/inputs-tested.md has it."""
    rows = []
    for make, pairs, rejects, notes in CASES:
        refused = [why if item == "error" else f"{item}: {why}" for item, why in rejects]
        cells = ("<br>".join(texts).replace("|", "\\|") for texts in (refused, notes))
        name = make.__name__.replace("_", " ")
        rows.append(f"| {name} | {pairs} | {' | '.join(cells)} |".replace("  ", " "))
    return "\n".join([*PAGE_HEAD, *rows, ""])


def test_the_page_of_what_is_tested_is_this_table() -> None:
    assert PAGE.read_text() == as_page(), "write it anew: python tests/ingest/test_every_source.py"


def matches(pattern: str, text: str) -> bool:
    """Whether a text is as the pattern says, where … stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), text) is not None


@pytest.mark.parametrize(
    ("make", "pairs", "rejects", "notes"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_a_source_brings_what_it_holds_and_tells_the_rest(
    tmp_path: Path,
    make: Callable[[Path], Path],
    pairs: Any,
    rejects: list[tuple[str, str]],
    notes: list[str],
) -> None:
    told: list[str] = []
    source = make(tmp_path)
    with listen(lambda what, done, total: None, told.append):
        rows, refused = read_or_refuse(source)
    assert len(rows) == pairs
    found = sorted(refused)
    assert len(found) == len(rejects), found
    for (item, reason), (item_there, reason_there) in zip(sorted(rejects), found, strict=True):
        assert matches(item, item_there), (item, item_there)
        assert matches(reason, reason_there), (reason, reason_there)
    assert len(told) == len(notes), told
    assert all(map(matches, notes, told)), told


@pytest.mark.slow
@pytest.mark.parametrize("make", [case[0] for case in CASES], ids=lambda make: make.__name__)
def test_a_source_in_a_bucket_brings_what_it_brings_in_a_folder(
    make: Callable[[Path], Path], tmp_path: Path, bucket: str
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    source = make(folder)
    place = upload(folder, f"{bucket}/some place")
    expected = as_if_in(place, folder, told_of(source))
    assert told_of(str(source).replace(str(folder), place)) == expected


if __name__ == "__main__":
    PAGE.write_text(as_page())
