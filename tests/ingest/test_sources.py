from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from source_files import read, refusal, write, write_parquet

from asif_lance.errors import SourceError
from asif_lance.ingest import FORMATS, count_items
from asif_lance.ingest.sources import read_source
from asif_lance.ingest.vector_columns import as_matrix, unit_float16, valid_vectors

SHARED = Path(os.environ.get("ASIF_SHARED", Path(__file__).parents[3] / "shared"))


# Folders


def test_a_folder_gives_pictures_with_the_captions_beside_them(tmp_path: Path) -> None:
    write(tmp_path / "b.png", "picture")
    write(tmp_path / "b.txt", "A bird.\n")
    write(tmp_path / "animals" / "cats" / "a.JPG", "picture")
    write(tmp_path / "animals" / "cats" / "a.txt", "A cat.")
    rows, rejects = read(tmp_path)
    assert rejects == []
    assert [(row["item"], row["caption"]) for row in rows] == [
        ("b.png", "A bird."),
        ("animals/cats/a.JPG", "A cat."),
    ]
    assert rows[1]["image_path"] == rows[1]["image_uri"] == str(tmp_path / "animals/cats/a.JPG")
    assert json.loads(rows[1]["attributes"]) == {"folder": "animals/cats"}
    assert rows[1]["pair_id"] is rows[1]["image_bytes"] is rows[1]["image_vector"] is None


def test_the_caption_is_the_first_line_that_is_not_empty(tmp_path: Path) -> None:
    write(tmp_path / "a.png", "picture")
    write(tmp_path / "a.txt", "\ufeff\n  A bear. \r\nde.utf8=Ein Bär.\n")
    assert read(tmp_path)[0][0]["caption"] == "A bear."


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_attributes_that_were_exported_come_back_as_they_were(tmp_path: Path, ending: str) -> None:
    """In one column, as `audit` writes the pairs table."""
    own = {"of": [{"mail": "j@x.io"}], "year": 1980}
    texts = [json.dumps(own), "no object", "[1]"]
    frame = pl.DataFrame({"image": ["a.png"] * 3, "caption": ["x"] * 3, "attributes": texts})
    frame = frame.with_columns(shelf=pl.lit("b"))
    path = tmp_path / f"a.{ending}"
    {"parquet": frame.write_parquet, "csv": frame.write_csv, "jsonl": frame.write_ndjson}[ending](
        path
    )
    write(tmp_path / "a.png", "picture")
    found = [json.loads(row["attributes"]) for row in read(path)[0]]
    assert found == [{**own, "shelf": "b"}, *({"attributes": t, "shelf": "b"} for t in texts[1:])]


def test_a_folder_tells_every_picture_it_leaves_out(tmp_path: Path) -> None:
    for name in ("bare.png", "blank.png", "latin.png", "drawing.svg", "long.png"):
        write(tmp_path / name, "picture")
    write(tmp_path / "blank.txt", " \n\n")
    write(tmp_path / "latin.txt", "Bär".encode("latin-1"))
    write(tmp_path / "long.txt", "x" * 100_001)
    rows, rejects = read(tmp_path)
    assert rows == []
    assert sorted(rejects) == [
        ("bare.png", "no caption file (bare.txt)"),
        ("blank.png", "empty caption"),
        ("drawing.svg", ".svg pictures are not supported"),
        ("latin.png", "caption is not UTF-8"),
        ("long.png", "caption too long (100001 characters, at most 100000)"),
    ]


def test_enormous_and_strange_caption_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", "picture")
    write(tmp_path / "a.txt", "x" * (4 * 2**20 + 1))
    write(tmp_path / "b.png", "picture")
    (tmp_path / "b.txt").mkdir()
    write(tmp_path / "c.png", "picture")
    os.mkfifo(tmp_path / "c.txt")
    write(tmp_path / "d.png", "picture")
    (tmp_path / "d.txt").symlink_to("/dev/zero")
    write(tmp_path / "e.png", "picture")
    (tmp_path / "e.txt").symlink_to("e.txt")
    assert read(tmp_path)[1] == [
        ("a.png", "caption file too large (over 4 MiB)"),
        ("b.png", "unreadable caption file (Is a directory)"),
        ("c.png", "unreadable caption file (a device or a pipe)"),
        ("d.png", "unreadable caption file (a device or a pipe)"),
        ("e.png", "unreadable caption file (Too many levels of symbolic links)"),
    ]


def test_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("._a.png", ".git/b.png", "notes.md", "sound.ogg"):
        write(tmp_path / name, "x")
    assert refusal(tmp_path) == f"{tmp_path} has no pairs"


def test_hostile_file_names_do_not_crash(tmp_path: Path) -> None:
    for name in (b"new\nline", b"'; DROP TABLE", b"\xff\xfe", b"--"):
        write(tmp_path / os.fsdecode(name + b".png"), "x")
        write(tmp_path / os.fsdecode(name + b".txt"), "A caption.")
    rows, rejects = read(tmp_path)
    assert [row["item"] for row in rows] == ["'; DROP TABLE.png", "--.png", "new\\nline.png"]
    assert rejects == [("\\xff\\xfe.png", "file name is not valid Unicode")]


def test_symlink_loops_end(tmp_path: Path) -> None:
    write(tmp_path / "a.png", "x")
    write(tmp_path / "a.txt", "A caption.")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert len(read(tmp_path)[0]) == 1


def test_linked_folders_count_and_every_real_folder_counts_once(tmp_path: Path) -> None:
    for name in ("in/real/a", "store/b", "store/deep/c", "in/.hidden/d"):
        write(tmp_path / f"{name}.png", "picture")
        write(tmp_path / f"{name}.txt", f"caption of {name}")
    (tmp_path / "in" / "a link").symlink_to(tmp_path / "store")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "real")
    (tmp_path / "store" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "lost").symlink_to(tmp_path / "nowhere")
    rows, rejects = read(tmp_path / "in")
    assert [row["item"] for row in rows] == ["real/a.png", "a link/b.png", "a link/deep/c.png"]
    assert rejects == [("lost", "link to nothing")]


# CSV and TSV


def test_csv_gives_captions_images_and_attributes(tmp_path: Path) -> None:
    text = 'image,caption,pair_id,license,source,year\na.jpg,"A ""cat"",\nasleep",p1,CC0,web,1999\n'
    rows, rejects = read(write(tmp_path / "pairs.csv", text))
    assert rejects == []
    assert rows == [
        {
            "item": "row 1",
            "pair_id": "p1",
            "row_id": "p1",
            "caption": 'A "cat",\nasleep',
            "image_path": str(tmp_path / "a.jpg"),
            "image_bytes": None,
            "image_uri": str(tmp_path / "a.jpg"),
            "license": "CC0",
            "source": "web",
            "attributes": '{"year": "1999"}',
            "image_vector": None,
            "text_vector": None,
        }
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "file_name\ttext\na.jpg\tA cat.\n"),
        ("a.csv", "filename;title\na.jpg;A cat.\n"),
        ("a.csv", "\ufeffPath,Description\r\na.jpg,A cat.\r\n"),
        ("a.csv", " image , caption \na.jpg,A cat."),
        ("noextension", "image,caption\na.jpg,A cat.\n"),
        ("noextension", "image\tcaption\na.jpg\tA cat, asleep.\n"),
    ],
)
def test_columns_and_separators_are_recognised(tmp_path: Path, name: str, text: str) -> None:
    rows, rejects = read(write(tmp_path / name, text))
    assert rejects == []
    assert rows[0]["caption"].startswith("A cat")
    assert rows[0]["image_path"] == str(tmp_path / "a.jpg")


def test_bad_csv_rows_are_refused_and_the_rest_goes_in(tmp_path: Path) -> None:
    text = (
        b"image,caption\n"
        b"a.jpg,good\n"
        b"b.jpg,one,too many\n"
        b"c.jpg\n"
        b"\n"
        b"d.jpg,\xff\xfe\n"
        b"e.jpg,  \n"
        b",a caption\n"
        b"https://example.org/f.jpg,a caption\n"
        b'g.jpg,"quoted"badly\n'
        b"h.jpg,good too\n"
    )
    rows, rejects = read(write(tmp_path / "pairs.csv", text))
    assert [row["caption"] for row in rows] == ["good", "good too"]
    assert sorted(rejects) == sorted(
        [
            ("row 2", "row has 3 fields, the header has 2"),
            ("row 3", "row has 1 fields, the header has 2"),
            ("row 5", "row is not UTF-8"),
            ("row 6", "empty caption"),
            ("row 7", "missing image"),
            ("row 8", "remote images are not fetched"),
            ("row 9", "malformed row (',' expected after '\"')"),
        ]
    )


def test_a_quote_that_is_never_closed_costs_one_row_only(tmp_path: Path) -> None:
    text = 'image,caption\na.jpg,"open\n' + "b.jpg,good\n" * 5000
    rows, rejects = read(write(tmp_path / "pairs.csv", text))
    assert len(rows) == 5000
    assert rejects == [("row 1", "malformed row (unexpected end of data)")]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_blank_lines_before_the_header_do_not_count(tmp_path: Path, name: str) -> None:
    tab = "\t" if name == "t.tsv" else ","
    text = '\n \r\nimage,caption\na.png,"one\ntwo"\n'
    rows, rejects = read(write(tmp_path / name, text.replace(",", tab)))
    assert (rows[0]["item"], rows[0]["caption"], rejects) == ("row 1", "one\ntwo", [])


def test_an_enormous_header_is_told(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "x" * 200_000 + ",caption\n")
    reason = "has no header line (field larger than field limit (131072))"
    assert refusal(file) == f"{file} {reason}"


def test_csv_brings_vectors_as_lists_in_json(tmp_path: Path) -> None:
    lines = ['"[1, 2.5]","[0, 1]",a', '1 2,"[0, 1]",b', '"[[1]]","[0, 1]",c']
    text = "\n".join(["image_vector,text_vector,caption", *lines])
    rows, rejects = read(write(tmp_path / "t.csv", text))
    assert [row["image_vector"] for row in rows] == [[1.0, 2.5]]
    reason = "image_vector is not a list of numbers"
    assert rejects == [("row 2", reason), ("row 3", reason)]


def test_images_may_lie_in_the_folder_named_like_the_manifest(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "a.jpg", "x")
    rows, _ = read(write(tmp_path / "photos.csv", "image,caption\na.jpg,A cat.\nb.jpg,A dog.\n"))
    assert [row["image_path"] for row in rows] == [
        str(tmp_path / "photos" / "a.jpg"),
        str(tmp_path / "photos" / "b.jpg"),
    ]


def test_absolute_paths_and_file_addresses_stay(tmp_path: Path) -> None:
    text = "image,caption\n/data/a.jpg,A cat.\nfile:///data/b.jpg,A dog.\n../../c.jpg,A cow.\n"
    rows, _ = read(write(tmp_path / "x" / "pairs.csv", text))
    assert [row["image_path"] for row in rows] == [
        "/data/a.jpg",
        "/data/b.jpg",
        f"{tmp_path}/x/../../c.jpg",
    ]


def tsv_captions(tmp_path: Path, text: str) -> list[str]:
    rows, rejects = read(write(tmp_path / "pairs.tsv", text))
    assert rejects == []
    return [row["caption"] for row in rows]


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        # As most programs write them: a quote is a character like others.
        ('a.png\t"open\nb.png\tgood\nc.png\tgood too"\n', ['"open', "good", 'good too"']),
        ('a.png\t"so" he said\nb.png\tgood\n', ['"so" he said', "good"]),
        ('a.png\t"quoted"\nb.png\t"open\n', ['"quoted"', '"open']),
        ('a.png\t5" disk\nb.png\tgood\n', ['5" disk', "good"]),
        # As spreadsheets write them: quotes enclose, inner ones are doubled.
        ('a.png\t"so ""he"" said"\nb.png\tgood\n', ['so "he" said', "good"]),
        ('a.png\t"two\nlines"\nb.png\tgood\n', ["two\nlines", "good"]),
        ('a.png\t"a\ttab"\n"b.png"\tgood\n', ["a\ttab", "good"]),
    ],
)
def test_quotes_in_tsv_enclose_fields_only_if_they_do_throughout_the_file(
    tmp_path: Path, text: str, captions: list[str]
) -> None:
    assert tsv_captions(tmp_path, "image\tcaption\n" + text) == captions
    assert tsv_captions(tmp_path, "image\tcaption\r\n" + text.replace("\n", "\r\n")) == [
        caption.replace("\n", "\r\n") for caption in captions
    ]


def test_a_ragged_row_among_lone_quotes_costs_itself_alone(tmp_path: Path) -> None:
    text = 'image\tcaption\na.png\t"open\nb.png\nc.png\tgood"\nd.png\tlast\n'
    rows, rejects = read(write(tmp_path / "pairs.tsv", text))
    assert [row["caption"] for row in rows] == ['"open', 'good"', "last"]
    assert rejects == [("row 2", "row has 1 fields, the header has 2")]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("image,caption,caption", "has the column 'caption' twice"),
        ("image,Caption,caption", "has the column 'caption' twice: Caption, caption"),
        ("image,caption,year,year", "has the column 'year' twice"),
    ],
)
def test_a_name_that_is_given_twice_is_refused(tmp_path: Path, header: str, said: str) -> None:
    row = ",".join("x" * (header.count(",") + 1))
    assert refusal(write(tmp_path / "a.csv", f"{header}\n{row}\n")).endswith(said)


def test_the_first_image_that_exists_says_where_relative_paths_begin(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "b.jpg", "x")
    rows, _ = read(write(tmp_path / "photos.csv", "image,caption\na.jpg,A cat.\nb.jpg,A dog.\n"))
    assert rows[1]["image_path"] == str(tmp_path / "photos" / "b.jpg")


# JSONL


def test_jsonl_gives_captions_images_and_attributes(tmp_path: Path) -> None:
    lines = [
        {"file_name": "a.jpg", "text": "A cat.", "tags": ["x", 1], "pair_id": 7},
        {"text": "Ein Bär.", "file_name": "b.jpg"},
    ]
    source = write(tmp_path / "pairs.jsonl", "\n".join(map(json.dumps, lines)))
    rows, rejects = read(source)
    assert rejects == []
    assert [row["caption"] for row in rows] == ["A cat.", "Ein Bär."]
    assert [row["pair_id"] for row in rows] == ["7", None]
    assert [row["attributes"] for row in rows] == ['{"tags": ["x", 1]}', "{}"]


def test_jsonl_brings_vectors(tmp_path: Path) -> None:
    line = {"caption": "A cat.", "image_vector": [1, 2.5], "text_vector": [0, 1, 0]}
    rows, rejects = read(write(tmp_path / "pairs.jsonl", json.dumps(line)))
    assert rejects == []
    assert rows[0]["image_vector"] == [1, 2.5]
    assert rows[0]["text_vector"] == [0, 1, 0]


def test_bad_json_lines_are_refused_and_the_rest_goes_in(tmp_path: Path) -> None:
    good = b'{"image": "a.jpg", "caption": "good"}'
    lines = [
        good,
        b'{"image": "a.jpg", "caption": "cut off',
        b"[1, 2]",
        b"",
        b'{"image": "a.jpg", "caption": "\xff"}',
        b'{"image": "a.jpg"}',
        b'{"image": "a.jpg", "caption": null}',
        b'{"image": "a.jpg", "caption": ["two", "captions"]}',
        b'{"image": {"path": "a.jpg"}, "caption": "x"}',
        b'{"caption": "x"}',
        b'{"image": "a.jpg", "caption": "\\ud800"}',
        b'{"image": "a.jpg", "caption": "x", "n": 1e999}',
        b"[" * 100_000,
        good,
    ]
    rows, rejects = read(write(tmp_path / "pairs.jsonl", b"\n".join(lines)))
    assert [row["item"] for row in rows] == [
        "row 1",
        "row 8, caption 1",
        "row 8, caption 2",
        "row 14",
    ]
    assert dict(rejects) == {
        "row 2": "malformed JSON",
        "row 3": "row is not a JSON object",
        "row 5": "row is not UTF-8",
        "row 6": "missing caption",
        "row 7": "missing caption",
        "row 9": "image is not text",
        "row 10": "missing image",
        "row 11": "caption is not valid Unicode",
        "row 12": "a number is out of range",
        "row 13": "malformed JSON",
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('["image", "caption"]\n["a.png", "x"]\n', "row is not a JSON object"),
        (b'{"image": "\xff"}\n', "row is not UTF-8"),
        ("{caption\n", "malformed JSON"),
    ],
)
def test_a_file_without_any_json_object_is_told(
    tmp_path: Path, data: str | bytes, reason: str
) -> None:
    file = write(tmp_path / "t.jsonl", data)
    assert refusal(file) == f"{file} has no JSON object in a line (row 1: {reason})"


def test_bad_vectors_in_jsonl_are_refused(tmp_path: Path) -> None:
    values = [
        "[1, 0]",
        "[NaN, 1]",
        "[0, 0]",
        '"text"',
        "[[1, 2]]",
        "null",
        "[]",
        "[1, null]",
        "[1e300, 0]",
    ]
    lines = [f'{{"caption": "x", "image_vector": {value}}}' for value in values]
    rows, rejects = read(write(tmp_path / "pairs.jsonl", "\n".join(lines)))
    assert [row["item"] for row in rows] == ["row 1"]
    assert dict(rejects) == {
        "row 2": "image_vector holds NaN, infinity or a number beyond float32",
        "row 3": "image_vector is all zeros",
        "row 4": "image_vector is not a list of numbers",
        "row 5": "image_vector is not a list of numbers",
        "row 6": "missing image_vector",
        "row 7": "image_vector is empty",
        "row 8": "image_vector holds NaN, infinity or a number beyond float32",
        "row 9": "image_vector holds NaN, infinity or a number beyond float32",
    }


def test_keys_of_json_may_be_in_any_case_but_not_twice(tmp_path: Path) -> None:
    lines = [
        '{"Image": "a.jpg", "Caption": "first", "Year": 1}',
        '{"image": "b.jpg", "CAPTION": "second", "year": 2}',
        '{"image": "c.jpg", "caption": "x", "Caption": "y"}',
        '{"image": "d.jpg", "caption": "x", "caption": "y"}',
    ]
    rows, rejects = read(write(tmp_path / "pairs.jsonl", "\n".join(lines)))
    assert [row["caption"] for row in rows] == ["first", "second"]
    assert [row["attributes"] for row in rows] == ['{"Year": 1}', '{"year": 2}']
    assert rejects == [("row 3", "Caption is given twice"), ("row 4", "caption is given twice")]


# Parquet


@pytest.mark.parametrize(
    "dtype",
    [
        pa.list_(pa.float16(), 2),
        pa.list_(pa.float32()),
        pa.list_(pa.float64(), 2),
        pa.large_list(pa.float32()),
    ],
)
def test_parquet_brings_vectors_of_any_width(tmp_path: Path, dtype: pa.DataType) -> None:
    values = pa.array([[1.0, 0.5], [0.0, 0.0]], pa.list_(pa.float32())).cast(dtype)
    columns = {"pair_id": [1, 2], "caption": ["A cat.", "A dog."], "image_vector": values}
    rows, rejects = read(write_parquet(tmp_path / "pairs.parquet", columns))
    assert [(row["pair_id"], row["image_vector"]) for row in rows] == [("1", [1.0, 0.5])]
    assert rejects == [("row 2", "image_vector is all zeros")]


def test_vectors_on_both_sides_need_neither_caption_nor_image(tmp_path: Path) -> None:
    vectors = [[1.0, 0.0], [0.0, 1.0]]
    columns = {"pair_id": ["a", "b"], "image_vector": vectors, "text_vector": vectors}
    rows, rejects = read(write_parquet(tmp_path / "pairs.parquet", columns))
    assert rejects == []
    assert [row["caption"] for row in rows] == ["", ""]


def test_parquet_brings_images_as_huggingface_stores_them(tmp_path: Path) -> None:
    image = [
        {"bytes": b"jpeg", "path": "a.jpg"},
        {"bytes": b"jpeg", "path": None},
        {"bytes": None, "path": "c.jpg"},
        None,
    ]
    columns = {"image": image, "caption": list("abcd"), "label": [1, 2, 3, 4], "raw": [b"x"] * 4}
    source = write_parquet(tmp_path / "pairs.parquet", columns)
    rows, rejects = read(source)
    assert [(row["image_bytes"], row["image_path"], row["image_uri"]) for row in rows] == [
        (b"jpeg", None, "a.jpg"),
        (b"jpeg", None, f"{source}#row 2"),
        (None, str(tmp_path / "c.jpg"), str(tmp_path / "c.jpg")),
    ]
    assert rejects == [("row 4", "missing image")]
    assert rows[0]["attributes"] == '{"label":1}'


def test_parquet_brings_images_as_plain_bytes(tmp_path: Path) -> None:
    columns = {"image": [b"jpeg"], "caption": ["A cat."]}
    rows, _ = read(write_parquet(tmp_path / "pairs.parquet", columns))
    assert rows[0]["image_bytes"] == b"jpeg"


def test_remote_images_with_vectors_keep_their_address(tmp_path: Path) -> None:
    columns = {
        "url": ["https://example.org/a.jpg", "https://example.org/b.jpg"],
        "caption": ["A cat.", None],
        "image_vector": [[1.0], [1.0]],
    }
    rows, rejects = read(write_parquet(tmp_path / "pairs.parquet", columns))
    assert [(row["image_uri"], row["image_path"]) for row in rows] == [
        ("https://example.org/a.jpg", None)
    ]
    assert rejects == [("row 2", "missing caption")]


def test_parquet_comes_in_batches_that_count_on(tmp_path: Path) -> None:
    columns = {"image": [f"{i}.jpg" for i in range(10)], "caption": ["x"] * 9 + [" "]}
    source = write_parquet(tmp_path / "pairs.parquet", columns)
    batches = list(read_source(source, batch_size=4))
    assert [batch.frame.height for batch in batches] == [4, 4, 1]
    assert batches[2].frame["item"].to_list() == ["row 9"]
    assert [reject.item for reject in batches[2].rejects] == ["row 10"]


def test_attributes_of_parquet_keep_their_types(tmp_path: Path) -> None:
    columns = {
        "image": ["a.jpg"],
        "caption": ["x"],
        "box": [[1.5, 2.0]],
        "note": ['"é\n'],
        "missing": pa.nulls(1),
        "nan": [float("nan")],
        "nested": [{"a": [1]}],
    }
    rows, _ = read(write_parquet(tmp_path / "pairs.parquet", columns))
    assert json.loads(rows[0]["attributes"]) == {
        "box": [1.5, 2.0],
        "note": '"é\n',
        "missing": None,
        "nan": None,
        "nested": {"a": [1]},
    }


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"caption": [{"en": "a"}], "image": ["x"]},
            "column 'caption' holds Struct({'en': String}), not text",
        ),
        (
            {"caption": ["a"], "image": [{"x": 1}]},
            "column 'image' holds Struct({'x': Int64}), not images",
        ),
        (
            {"caption": ["a"], "image_vector": ["x"]},
            "column 'image_vector' holds String, not vectors",
        ),
    ],
)
def test_parquet_columns_of_the_wrong_kind_are_told(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    source = write_parquet(tmp_path / "pairs.parquet", columns)
    assert refusal(source) == f"{source}: {message}"


def test_pictures_inside_are_taken_before_their_addresses(tmp_path: Path) -> None:
    columns = {"url": ["https://example.org/a.jpg"], "key": ["0"], "jpg": [b"jpeg"]}
    columns |= {"caption": ["A bird."], "status": ["success"]}
    rows, rejects = read(write_parquet(tmp_path / "shard.parquet", columns))
    assert rejects == []
    assert rows[0]["image_bytes"] == b"jpeg"
    assert rows[0]["image_uri"] == "https://example.org/a.jpg"
    assert json.loads(rows[0]["attributes"]) == {"key": "0", "status": "success"}


@pytest.mark.parametrize("name", ["img", "jpg", "png", "webp", "Image"])
def test_pictures_may_be_in_columns_of_many_names(tmp_path: Path, name: str) -> None:
    columns = {name: [{"bytes": b"jpeg", "path": None}], "caption": ["A bird."]}
    rows, _ = read(write_parquet(tmp_path / "pairs.parquet", columns))
    assert rows[0]["image_bytes"] == b"jpeg"


def test_a_list_of_captions_makes_a_pair_of_each(tmp_path: Path) -> None:
    columns = {
        "pair_id": ["p", "q", "r"],
        "image": ["a.jpg", "b.jpg", "c.jpg"],
        "caption": [["one", "two"], ["three"], []],
    }
    rows, rejects = read(write_parquet(tmp_path / "pairs.parquet", columns))
    assert [(row["item"], row["pair_id"], row["caption"]) for row in rows] == [
        ("row 1, caption 1", "p", "one"),
        ("row 1, caption 2", "p#2", "two"),
        ("row 2", "q", "three"),
    ]
    assert rejects == [("row 3", "missing caption")]


def with_features(path: Path, columns: dict[str, Any], features: dict[str, Any]) -> Path:
    """Parquet as the datasets library writes it."""
    table = pa.table(columns)
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(noted), path)
    return path


def test_numbers_of_classes_are_read_by_name_at_any_depth(tmp_path: Path) -> None:
    kind = {"names": ["bird", "fruit"], "_type": "ClassLabel"}
    features = {
        "text": kind,
        "kinds": {"feature": kind, "_type": "Sequence"},
        "others": [kind],
        "objects": {"feature": {"kind": kind, "size": {}}, "_type": "Sequence"},
    }
    columns = {
        "image": ["a.jpg"] * 3,
        "text": [1, 0, -1],
        "kinds": [[0, 1], [], None],
        "others": [[1], [7], [0]],
        "objects": [{"kind": [0, 1], "size": [3, 4]}] * 3,
    }
    source = with_features(tmp_path / "pairs.parquet", columns, features)
    rows, rejects = read(source)
    assert [row["caption"] for row in rows] == ["fruit", "bird"]
    assert rejects == [("row 3", "missing caption")]
    assert json.loads(rows[0]["attributes"]) == {
        "kinds": ["bird", "fruit"],
        "others": ["fruit"],
        "objects": {"kind": ["bird", "fruit"], "size": [3, 4]},
    }
    assert json.loads(rows[1]["attributes"])["others"] == ["7"]


def test_damaged_parquet_is_told_in_one_line(tmp_path: Path) -> None:
    source = write(tmp_path / "pairs.parquet", b"PAR1 nothing PAR1")
    assert refusal(source).startswith(f"{source} is not readable Parquet: ")
    good = write_parquet(tmp_path / "good.parquet", {"image": ["a"] * 9, "caption": ["b"] * 9})
    cut = write(tmp_path / "cut.parquet", good.read_bytes()[:-20])
    assert refusal(cut).startswith(f"{cut} is not readable Parquet: ")


# What cannot be read at all


def test_a_missing_source_is_told(tmp_path: Path) -> None:
    for name in ("none", "none.csv", "new\0line"):
        shown = str(tmp_path / name).replace("\0", "\\x00")
        assert refusal(tmp_path / name) == f"there is no source at {shown}"
    assert refusal(tmp_path / "none", format="folder") == f"there is no folder {tmp_path / 'none'}"


def test_devices_pipes_and_impossible_names_are_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for source in (tmp_path / "pipe.csv", Path("/dev/zero")):
        assert refusal(source) == f"{source} is neither a file nor a folder"
    assert refusal("") == "the name of a source is empty"
    assert refusal("x" * 5000).endswith("cannot be read (File name too long)")
    assert count_items([tmp_path / "pipe.csv"]) is None


def test_a_remote_source_is_told() -> None:
    assert refusal("https://example.org/pairs.csv") == (
        "https://example.org/pairs.csv is remote: download it and name the file"
    )


def test_an_empty_source_is_told(tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl", "a.parquet", "a"):
        assert refusal(write(tmp_path / name, "")) == f"{tmp_path / name} is empty"
    assert (
        refusal(write(tmp_path / "b.csv", "image,caption\n"))
        == f"{tmp_path / 'b.csv'} has no pairs"
    )


def test_an_unknown_format_is_told(tmp_path: Path) -> None:
    known = ", ".join(FORMATS)
    for content in (b"\x89PNG\r\n,", b"hello\n", b"\xff,\n"):
        source = write(tmp_path / "thing", content)
        assert refusal(source) == f"cannot tell the format of {source}: name one of {known}"
    assert refusal(tmp_path, format="word") == f"unknown format 'word': use one of {known}"


def test_a_format_that_does_not_fit_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", "image,caption\n")
    assert refusal(source, format="folder") == f"{source} is not a folder"
    assert refusal(tmp_path, format="zip") == f"{tmp_path} holds no ZIP files"


def test_missing_columns_are_told_with_those_that_are_there(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", "image,label\nx,y\n")
    assert refusal(source) == (
        f"{source} has no caption column (caption, text, title, description, sentence, alt_text, "
        "txt, captions, texts, sentences, comment) among: image, label"
    )
    source = write(tmp_path / "a.jsonl", '{"caption": "x"}')
    assert refusal(source).startswith(f"{source} has no image column (image, image_path, ")
    assert refusal(source).endswith(") among: caption")
    source = write(tmp_path / "b.jsonl", "not json\n")
    assert refusal(source) == f"{source} has no JSON object in a line (row 1: malformed JSON)"


def test_text_that_is_not_utf8_at_all_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", "image,caption\nx,y\n".encode("utf-16"))
    assert refusal(source) == f"{source} is not UTF-8 text but UTF-16: save it as UTF-8"
    source = write(tmp_path / "a.csv", "image,caption\nx,y\n".encode("utf-16-le"))
    assert refusal(source) == f"{source} is not UTF-8 text"


@given(st.binary(max_size=300), st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet", ""]))
def test_any_bytes_give_rows_or_one_line_of_reason(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder, "fuzz" + suffix), b"image,caption\n" + data)
        with contextlib.suppress(SourceError):
            read(source)


# Vectors


def test_vectors_are_judged_without_touching_rows() -> None:
    vectors = pl.Series(
        "v",
        [[1, 0], None, [0, 0], [np.nan, 1], [np.inf, 1], [1], [], [1, None], [-1e-40, 0]],
        dtype=pl.List(pl.Float32),
    )
    mask, reasons = valid_vectors(vectors, 2)
    assert reasons.to_list() == [
        None,
        "missing v",
        "v is all zeros",
        "v holds NaN, infinity or a number beyond float32",
        "v holds NaN, infinity or a number beyond float32",
        "v has 1 dimensions instead of 2",
        "v has 0 dimensions instead of 2",
        "v holds NaN, infinity or a number beyond float32",
        None,
    ]
    assert mask.tolist() == [reason is None for reason in reasons]


def test_no_vectors_are_no_trouble() -> None:
    mask, reasons = valid_vectors(pl.Series("v", [], dtype=pl.List(pl.Float32)), 3)
    assert mask.shape == (0,)
    assert len(reasons) == 0
    assert as_matrix(pl.Series("v", [], dtype=pl.List(pl.Float32)), 3).shape == (0, 3)


@given(
    st.lists(
        st.none()
        | st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True) | st.none(), max_size=4)
    )
)
def test_the_mask_agrees_with_a_loop(rows: list[list[float | None] | None]) -> None:
    def valid(row: list[float | None] | None) -> bool:
        return bool(
            row
            and len(row) == 2
            and all(v is not None and np.isfinite(v) for v in row)
            and any(row)
        )

    mask, _ = valid_vectors(pl.Series("v", rows, dtype=pl.List(pl.Float32)), 2)
    assert mask.tolist() == [valid(row) for row in rows]


@given(
    arrays(
        np.float32, st.tuples(st.integers(0, 40), st.just(3)), elements=st.floats(-9, 9, width=32)
    )
)
def test_vectors_are_stored_as_float16_of_their_unit_vectors_in_float32(matrix: Any) -> None:
    matrix = matrix[np.any(matrix != 0, axis=1)]
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    wanted = (matrix / norms).astype(np.float32).astype(np.float16)
    assert np.array_equal(unit_float16(matrix), wanted)


def test_valid_vectors_become_a_matrix() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float16)
    series = pl.Series("v", vectors)
    assert np.array_equal(as_matrix(series, 3), vectors.astype(np.float32))


# Real data


@pytest.mark.shared
def test_flickr_captions_and_vectors_are_read_whole() -> None:
    folder = SHARED / "data" / "flickr8k"
    if not folder.exists():
        pytest.skip("the development data is not beside the checkout")
    rows, rejects = read(folder / "images-1000.csv")
    assert len(rows) == 5000
    assert rejects == []
    assert all(Path(row["image_path"]).exists() for row in rows[::500])
    batches = list(read_source(folder / "captions.parquet"))
    matrix = np.vstack([as_matrix(batch.frame["text_vector"], 384) for batch in batches])
    assert matrix.shape == (40455, 384)
