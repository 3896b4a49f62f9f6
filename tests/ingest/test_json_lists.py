"""JSON lists of rows, and files whose name and content say different things."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files import read, refusal, write, write_parquet
from traced_memory import measure_peak

from asif_lance.evaluation import read_labelled

ROWS = [{"image": "a.png", "caption": "A cat.", "n": 1}, {"Caption": "A dog.", "Image": "b.png"}]
GOOD = '{"image": "a.png", "caption": "A cat."}'
EXPECTED = "expected a list of objects, or an object per line"


def captions(source: Path) -> list[str]:
    rows, rejects = read(source)
    assert rejects == []
    return [row["caption"] for row in rows]


@pytest.mark.parametrize("indent", [None, 0, 4])
@pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.csv", "t.parquet", "t"])
def test_a_list_of_objects_is_rows_whatever_the_file_is_called(
    tmp_path: Path, name: str, indent: int | None
) -> None:
    text = "\ufeff" + json.dumps(ROWS, indent=indent) + "\n"
    rows, rejects = read(write(tmp_path / name, text))
    assert [(row["item"], row["caption"]) for row in rows] == [
        ("row 1", "A cat."),
        ("row 2", "A dog."),
    ]
    assert (rows[0]["attributes"], rejects) == ('{"n": 1}', [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.tsv", "image,caption\na.png,A cat.\nb.png,A dog.\n"),
        ("t.csv", "image\tcaption\na.png\tA cat.\nb.png\tA dog.\n"),
        ("t.jsonl", "image,caption\na.png,A cat.\nb.png,A dog.\n"),
        ("t.parquet", "image;caption\na.png;A cat.\nb.png;A dog.\n"),
        ("t.json", "\n".join(map(json.dumps, ROWS))),
        ("t.csv", "\n".join(map(json.dumps, ROWS))),
        ("t.csv", "sep=;\r\nimage;caption\r\na.png;A cat.\r\nb.png;A dog.\r\n"),
    ],
)
def test_the_content_decides_where_it_is_clear(tmp_path: Path, name: str, text: str) -> None:
    assert captions(write(tmp_path / name, text)) == ["A cat.", "A dog."]


def test_parquet_is_known_by_its_content(tmp_path: Path) -> None:
    columns = {"image": ["a.png"], "caption": ["A cat."]}
    for name in ("t.csv", "t.json", "t"):
        assert captions(write_parquet(tmp_path / name, columns)) == ["A cat."]


def test_lines_are_known_though_the_first_is_damaged(tmp_path: Path) -> None:
    rows, rejects = read(write(tmp_path / "t.json", f'{{"image": "a\n{GOOD}\n'))
    assert (len(rows), rejects) == (1, [("row 1", "malformed JSON")])


def test_an_error_says_both_where_name_and_content_differ(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", "image,label\na.png,x\n")
    assert refusal(source).endswith(
        "among: image, label (its content is CSV, its name says JSON with an object per line)"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (json.dumps(ROWS[0], indent=1), f"is one JSON object: {EXPECTED}"),
        (json.dumps({"data": ROWS}, indent=1), f"is one JSON object: {EXPECTED}"),
        ("null", f"is no JSON: {EXPECTED}"),
        (" \n", f"is blank: {EXPECTED}"),
        ("[]", "has no pairs"),
        ('["a", "b"]', "has no JSON object (row 1: row is not a JSON object)"),
        (
            '[\n{"image": "a.png", "caption": }]',
            "has no JSON object (row 1: malformed JSON in line 2 (Expecting value); "
            "what follows is not read)",
        ),
        ("image,caption\n".encode("utf-16"), "is not UTF-8 text but UTF-16: save it as UTF-8"),
        (b"\x1f\x8b\x08", "is compressed (gzip): unpack it first"),
        (b"PK\x03\x04  [Content_Types].xml", "is a workbook: save it as CSV"),
    ],
)
def test_what_is_no_list_of_rows_is_told(tmp_path: Path, content: str | bytes, reason: str) -> None:
    source = write(tmp_path / "t.json", content)
    assert refusal(source) == f"{source} {reason}"


@pytest.mark.parametrize(
    ("tail", "reject"),
    [
        (', {"image": "b.png", "cap', "row 2: malformed JSON in line 2 (Unterminated string); …"),
        (", ", "row 2: malformed JSON in line 2 (Expecting value); …"),
        ("", "row 2: malformed JSON in line 2 (expected ',' or ']'); …"),
        (f" {GOOD}]", "row 2: malformed JSON in line 2 (expected ',' or ']'); …"),
        ("]\n[]", "row 2: malformed JSON in line 3 (something follows the list)"),
        (", [1]]", "row 2: row is not a JSON object"),
        (', {"image": "b", "image": "c"}]', "row 2: image is given twice"),
        (', {"image": "b"}]', "row 2: missing caption"),
        (', {"image": "b", "caption": true}]', "row 2: caption is not text"),
        (', {"image": "b", "caption": NaN}]', "row 2: missing caption"),
        (', {"image": "b", "caption": "a\\u0000b"}]', "row 2: caption holds a NUL character"),
    ],
)
def test_a_damaged_list_keeps_the_rows_before_the_damage(
    tmp_path: Path, tail: str, reject: str
) -> None:
    rows, rejects = read(write(tmp_path / "t.json", f"[\n{GOOD}{tail}"))
    ((item, reason),) = rejects
    assert (len(rows), f"{item}: {reason}") == (1, reject.replace("…", "what follows is not read"))


def test_bytes_that_are_not_utf8_cost_their_row(tmp_path: Path) -> None:
    text = f'[{{"image": "é", "caption": "x"}}, {GOOD}]'
    rows, rejects = read(write(tmp_path / "t.json", text.encode("latin-1")))
    assert (len(rows), rejects) == (1, [("row 1", "row is not UTF-8")])


def test_a_list_of_captions_makes_a_pair_of_each_in_every_format(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "pair_id": ["p", "q"],
        "image": ["a.png", "b.png"],
        "captions": [["one", "two"], ["three"]],
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    csv = 'pair_id,image,captions\np,a.png,"[""one"", ""two""]"\nq,b.png,three\n'
    sources = [
        write_parquet(tmp_path / "t.parquet", columns),
        write(tmp_path / "t.json", json.dumps(rows)),
        write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows))),
        write(tmp_path / "t.csv", csv),
    ]
    for source in sources:
        found, rejects = read(source)
        assert [(row["item"], row["pair_id"], row["caption"]) for row in found] == [
            ("row 1, caption 1", "p", "one"),
            ("row 1, caption 2", "p#2", "two"),
            ("row 2", "q", "three"),
        ]
        assert rejects == []


def test_what_is_no_caption_does_not_become_one(tmp_path: Path) -> None:
    flags = write_parquet(tmp_path / "a.parquet", {"image": ["a"], "caption": [True]})
    assert refusal(flags) == f"{flags}: column 'caption' holds Boolean, not text"
    numbers = write_parquet(tmp_path / "b.parquet", {"image": ["a"], "caption": [float("nan")]})
    assert read(numbers) == ([], [("row 1", "missing caption")])
    text = "image,caption\na.png,\"['one', 'two']\"\nimage,caption\nb.png,good\n"
    rows, rejects = read(write(tmp_path / "c.csv", text))
    assert [row["caption"] for row in rows] == ["good"]
    assert rejects == [
        ("row 1", "caption is a list, but not in JSON"),
        ("row 2", "the header again"),
    ]


@pytest.mark.parametrize("header", ["Image Path,Alt-Text", "IMAGE_PATH , Caption", "img;captions"])
def test_columns_are_known_in_many_spellings(tmp_path: Path, header: str) -> None:
    mark = ";" if ";" in header else ","
    assert captions(write(tmp_path / "t.csv", f"{header}\na.png{mark}A cat.\n")) == ["A cat."]


def test_rows_of_enormous_lines_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asif_lance.ingest.csv_reader._MAX_LINE", 1000)
    monkeypatch.setattr("asif_lance.ingest.json_reader.MAX_ROW", 1000)
    long = "x" * 5000
    rows, rejects = read(write(tmp_path / "t.csv", f"image,caption\na,{long}\nb,good\n"))
    assert ([row["caption"] for row in rows], [item for item, _ in rejects]) == (
        ["good"],
        ["row 1"],
    )
    lines = f'{{"image": "a", "caption": "{long}"}}\n{GOOD}\n'
    rows, rejects = read(write(tmp_path / "t.jsonl", lines))
    assert (len(rows), rejects) == (1, [("row 1", "row too long (over 64 MiB)")])


@settings(deadline=None)  # it writes files
@given(st.lists(st.dictionaries(st.sampled_from("xyz"), st.text()), min_size=1), st.integers(1, 9))
def test_a_list_is_read_alike_from_a_window_of_any_size(
    rows: list[dict[str, str]], chunk: int
) -> None:
    from tempfile import TemporaryDirectory

    told = [row | {"image": f"{i}.png", "caption": "c"} for i, row in enumerate(rows)]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("asif_lance.ingest.json_window._CHUNK", chunk)
        found, rejects = read(write(Path(folder, "t.json"), json.dumps(told, ensure_ascii=False)))
    assert [json.loads(row["attributes"]) for row in found] == rows
    assert rejects == []


def test_a_long_list_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    row = json.dumps({"image": "a.png", "caption": "A cat.", "note": "x" * 1000})
    source = write(tmp_path / "t.json", f"[{','.join([row] * 20_000)}]")
    begin = """
    import sys
    from asif_lance.ingest import read_source
    assert list(read_source(sys.argv[1], batch_size=100))  # which imports what it needs
    """
    lines = """
    batches = read_source(sys.argv[2], batch_size=100)
    assert sum(len(batch.frame) for batch in batches) == 20_000
    """
    short = write(tmp_path / "short.json", f"[{row}]")
    assert measure_peak(begin, lines, short, source) < 8 * 2**20 < source.stat().st_size


def test_labelled_pictures_may_be_a_json_list(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "label": "red"}, {"image": "b.png", "label": "blue"}]
    found = read_labelled(write(tmp_path / "t.json", json.dumps(rows)))
    assert (found.truths, found.images[0]) == (("red", "blue"), tmp_path / "a.png")


@pytest.mark.encoders
def test_a_json_list_is_ingested(cli: Cli, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    write(tmp_path / "t.json", json.dumps([ROWS[0], {"image": "gone.png", "caption": "x"}]))
    done = cli("ingest", "t.json")
    assert done.status == 0, done.err
    assert "added 1, already there 0, rejected 1" in done.err


def test_a_note_says_once_what_an_ingest_leaves_out(cli: Cli, tmp_path: Path) -> None:
    for name in ("in/.a.png", "in/.b.jpg", "in/.git/c.png", "in/d.png", "in/.DS_Store"):
        write(tmp_path / name, "x")
    for more in ((), ("--on-conflict", "fail"), ("--quiet",)):  # which read folders more than once
        done = cli("ingest", "in", *more)
        assert done.err.count("in: left out 2 hidden files and 1 hidden folder\n") == 1
