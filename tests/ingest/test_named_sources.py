"""How sources are named: patterns, lists, tables in memory, columns and roots; and what follows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from conftest import Cli, entry_point, pairs_frame
from source_archives import picture, samples, write_tar
from source_files import read, refusal, write

from asif_lance.errors import InputError, SourceError
from asif_lance.evaluation.labelled_pictures import read_labelled
from asif_lance.explain.content import make_thumbnail
from asif_lance.ingest import (
    FORMATS,
    Destination,
    IngestOptions,
    Preparation,
    count_items,
    expand_sources,
    ingest_sources,
    read_source,
)
from asif_lance.ingest.columns import PAIR_COLUMNS
from asif_lance.ingest.sources import PictureList, TableSource
from asif_lance.progress import listen
from asif_lance.store import PairStore


def test_a_pattern_stands_for_what_it_matches_by_name(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "a.csv", "[x].tar"):
        write(tmp_path / name, "x")
    assert expand_sources([f"{tmp_path}/[ab].tar", tmp_path / "[x].tar"]) == [
        f"{tmp_path}/a.tar",
        f"{tmp_path}/b.tar",
        tmp_path / "[x].tar",
    ]
    with pytest.raises(SourceError, match=r"nothing matches .*/\*\.zip"):
        expand_sources([f"{tmp_path}/*.zip"])


def test_a_folder_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "a.png", picture())
    write(tmp_path / "photos" / "a.txt", "An apple.")
    lance.write_dataset(pa.table({"image_uri": ["b"]}), str(tmp_path / "photos" / "t.lance"))
    with pytest.raises(SourceError, match="holds pictures and Lance tables: give them apart"):
        list(read_source(tmp_path / "photos"))
    (batch,) = read_source(tmp_path / "photos", format="folder")
    assert batch.frame["item"].to_list() == ["a.png"]
    assert count_items([tmp_path / "photos"], "folder") == 1


def test_what_lies_beside_pictures_is_read_or_told(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.PNG", picture())
    write(tmp_path / "a.TXT", "An apple.")
    write(tmp_path / "b.tar", b"")
    told: list[str] = []
    with listen(lambda what, done, total: None, told.append):
        found, rejects = read(tmp_path)
    assert ([row["caption"] for row in found], rejects) == (["An apple."], [])
    assert any("not read, since pictures with captions lie beside: b.tar" in one for one in told)


def test_the_first_ingest_of_two_at_once_makes_the_database_for_both(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    first, second = (pairs_frame(4, rng, start=start) for start in (0, 4))
    destination = Destination(str(tmp_path / "t.lancedb"), IngestOptions())
    ingest_sources(tmp_path / "t.lancedb", [TableSource("first", first)])
    prepared = Preparation(destination, IngestOptions())
    assert sum(map(destination.add, prepared.tables([TableSource("second", second)]))) == 4
    ids = lance.dataset(str(tmp_path / "t.lancedb" / "pairs.lance")).to_table(["pair_id"])[
        "pair_id"
    ]
    assert sorted(ids.to_pylist()) == [f"p{i}" for i in range(8)]


def test_pictures_named_one_by_one_are_one_source(tmp_path: Path) -> None:
    for name in ("one/a.png", "two/b.png"):
        write(tmp_path / name, picture())
    write(tmp_path / "one" / "a.txt", "An apple.")
    (found,) = expand_sources([tmp_path / "one" / "a.png", str(tmp_path / "two" / "b.png")])
    assert isinstance(found, PictureList)
    (batch,) = read_source(found)
    assert batch.frame["item"].to_list() == ["one/a.png"]
    assert [(r.item, r.reason) for r in batch.rejects] == [("two/b.png", "no caption file (b.txt)")]
    assert count_items([found]) == 2


def test_standard_input_lists_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = f"{tmp_path}/a.png\n\n{tmp_path}/b.png\r\n{tmp_path}/c.csv\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    pictures, table = expand_sources(["-"])
    assert isinstance(pictures, PictureList)
    assert pictures.files == (tmp_path / "a.png", tmp_path / "b.png")
    assert table == f"{tmp_path}/c.csv"


def test_standard_input_that_names_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(SourceError, match="standard input names no source"):
        expand_sources(["-"])


def test_rows_of_json_may_name_their_columns_differently(tmp_path: Path) -> None:
    rows = [
        {"image": "a.png", "caption": "A."},
        {"image": "b.png", "captions": ["B.", "Be."]},
        {"file": "c.png", "text": "C.", "caption": "Sea."},
    ]
    found, rejects = read(write(tmp_path / "rows.json", json.dumps(rows)))
    assert rejects == []
    assert [row["caption"] for row in found] == ["A.", "B.", "Be.", "Sea."]
    assert [Path(row["image_path"]).name for row in found] == ["a.png", "b.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("[1, 2]", ["1", "2"]),
        ('[null, "x"]', ["x"]),
        ("[]", []),
        ("[laughter]", ["[laughter]"]),
    ],
)
def test_a_list_of_captions_in_csv_is_json(tmp_path: Path, cell: str, captions: list[str]) -> None:
    quoted = cell.replace('"', '""')
    found, rejects = read(write(tmp_path / "p.csv", f'image,caption\na.png,"{quoted}"\n'))
    assert [row["caption"] for row in found] == captions
    assert len(rejects) == (cell in ("[]", '[null, "x"]'))


def test_a_table_that_cannot_be_read_is_told_in_one_line() -> None:
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["caption", "caption"])
    with pytest.raises(SourceError, match="<Table> cannot be read as a table: "):
        expand_sources([twice])


def test_an_option_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"captions='all': choose one of 'mean', 'each'"):
        IngestOptions(captions="all")


class FromElsewhere:
    """A table of a library that this package does not know, such as pandas."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return pa.table({"image": ["a.png"], "caption": ["A."]}).__arrow_c_stream__()


@pytest.mark.parametrize(
    "table",
    [
        pl.DataFrame({"image": ["a.png"], "caption": ["A."]}),
        pl.LazyFrame({"image": ["a.png"], "caption": ["A."]}),
        pa.table({"image": ["a.png"], "caption": ["A."]}),
        pa.table({"image": ["a.png"], "caption": ["A."]}).to_reader(),
        FromElsewhere(),
    ],
    ids=lambda table: type(table).__name__,
)
def test_tables_of_every_library_that_speaks_arrow_are_sources(table: Any) -> None:
    (source,) = expand_sources([table])
    assert isinstance(source, TableSource)
    (batch,) = read_source(source)
    assert batch.frame["caption"].to_list() == ["A."]


def test_what_is_no_table_is_told() -> None:
    with pytest.raises(SourceError, match="<int> is no source: give a path, or a table of"):
        expand_sources([3])
    with pytest.raises(SourceError, match="<dict> is no source: give a path"):
        expand_sources({"image": ["a.png"]})


def test_columns_may_be_named(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", "Bild;Titel;Nr;caption\na.png;Ein Apfel.;7;no\n")
    chosen = {"image": "bild", "caption": "Titel", "id": "nr"}
    ((row,), _) = read(source, known=PAIR_COLUMNS.choose(chosen))
    assert (row["caption"], row["pair_id"]) == ("Ein Apfel.", "7")
    assert row["image_path"] == str(tmp_path / "a.png")
    for role in ("caption", "image", "id", "license"):
        known = PAIR_COLUMNS.choose(chosen | {role: "lost"})
        told = f"{source} has no column 'lost'; its columns: Bild, Titel, Nr, caption"
        assert refusal(source, known=known) == told
    with pytest.raises(InputError, match="no column is called 'bild' here: choose one of image"):
        PAIR_COLUMNS.choose({"bild": "x"})


def test_columns_may_be_named_in_tars_too(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "t.tar", samples(1))
    assert read(source)[0][0]["caption"] == "Picture 0."
    known = PAIR_COLUMNS.choose({"caption": "caption", "id": "key"})
    row = read(source, known=known)[0][0]
    assert (row["caption"], row["pair_id"]) == ("no. 0", "000000000")


def test_pictures_are_sought_in_the_root_that_is_given(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", "image,caption\na.png,A.\n")
    write(tmp_path / "t" / "a.png", "x")
    root = tmp_path / "elsewhere"
    assert refusal(source, image_root=root) == f"the image root {root} is no folder"
    root.mkdir()
    assert read(source, image_root=root)[0][0]["image_path"] == str(root / "a.png")


def test_a_folder_far_from_the_manifest_is_not_taken_for_its_pictures(tmp_path: Path) -> None:
    write(tmp_path / "others" / "1.jpg", "x")
    source = write(tmp_path / "mine" / "t.csv", "image,caption\n1.jpg,A.\n2.jpg,B.\n3.jpg,C.\n")
    write(tmp_path / "mine" / "some" / "1.jpg", "x")  # one of three is no sign
    assert read(source)[0][0]["image_path"] == str(tmp_path / "mine" / "1.jpg")


def test_large_pictures_of_archives_come_in_small_batches(tmp_path: Path) -> None:
    members = [(f"{i}.{kind}", kind * 2**20) for i in range(20) for kind in ("jpg", "txt")]
    source = write_tar(tmp_path / "t.tar", [(n, d if "jpg" in n else "A.") for n, d in members])
    sizes = [batch.frame["image_bytes"].bin.size().sum() for batch in read_source(source)]
    assert sum(sizes) == 20 * 3 * 2**20
    assert max(sizes) <= 36 * 2**20


def test_tars_may_hold_labelled_pictures(tmp_path: Path) -> None:
    members = [("a.png", picture()), ("a.cls", "bird"), ("b.png", picture()), ("b.cls", "3")]
    labelled = read_labelled(write_tar(tmp_path / "t.tar", members))
    assert (labelled.names, labelled.truths) == (("a.png", "b.png"), ("bird", "3"))


def test_the_command_knows_every_format() -> None:
    (option,) = (p for p in entry_point().commands["ingest"].params if p.name == "source_format")
    assert list(option.type.choices) == list(FORMATS)


def test_the_command_takes_columns_and_a_root(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    frame = pairs_frame(3, np.random.default_rng(1))
    frame.rename({"caption": "titel", "pair_id": "nr"}).write_parquet(tmp_path / "t.parquet")
    options = ("--column", "caption=titel", "--column", "id=nr", "--image-root", "photos")
    done = cli("ingest", "*.parquet", *options)
    assert (done.status, "added 3, already there 0, rejected 0" in done.err) == (0, True), done.err
    assert "expected ROLE=NAME" in cli("ingest", "t.parquet", "--column", "titel").err
    rows = PairStore.open(str(tmp_path / "pairs.lancedb")).read()
    assert sorted(rows["pair_id"].to_pylist()) == ["p0", "p1", "p2"]


@pytest.mark.encoders
def test_pictures_of_archives_become_pairs_that_are_found_again(cli: Cli, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    write_tar(shards / "00000.tar", samples(2))
    write_tar(shards / "00001.tar.gz", samples(1, first=2), "w:gz")
    report = ingest_sources(tmp_path / "db", [shards], IngestOptions())
    assert (report.added, report.rejects) == (3, ())
    again = ingest_sources(tmp_path / "db", [f"{shards}/*"], IngestOptions())
    assert (again.added, again.already_there, again.changed) == (0, 3, 0)
    rows = PairStore.open(str(tmp_path / "db")).read().to_pylist()
    uris = sorted(row["image_uri"] for row in rows)
    assert uris == [
        f"{shards}/00000.tar#000000000.jpg",
        f"{shards}/00000.tar#000000001.jpg",
        f"{shards}/00001.tar.gz#000000002.jpg",
    ]
    assert {row["source"] for row in rows} == {"shards"}
    assert all(make_thumbnail(uri).startswith(b"\xff\xd8") for uri in uris)
    where = f"image_uri = '{uris[0]}'"
    done = cli("--db", tmp_path / "db", "forget", "--where", where, "--yes")
    assert done.status == 0, done.err
    assert len(PairStore.open(str(tmp_path / "db")).read()) == 2


@pytest.mark.encoders
def test_a_database_is_a_source_with_its_vectors(tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", samples(2))
    ingest_sources(tmp_path / "one", [tmp_path / "t.tar"], IngestOptions())
    report = ingest_sources(tmp_path / "two", [tmp_path / "one"], IngestOptions())
    assert (report.added, report.rejects) == (2, ())
    one, two = (PairStore.open(str(tmp_path / name)).read() for name in ("one", "two"))
    for column in ("pair_id", "caption", "image_uri", "image_vector", "text_vector"):
        assert one[column].to_pylist() == two[column].to_pylist()


def test_a_note_names_the_manifest_beside_pictures_without_captions(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "a.png", picture())
    write(tmp_path / "photos.csv", "image,caption\na.png,A.\n")
    told: list[str] = []
    with listen(lambda what, done, total: None, told.append):
        _, rejects = read(tmp_path / "photos")
    assert rejects == [("a.png", "no caption file (a.txt)")]
    (note,) = told
    assert note.endswith(f"to read them from a file: {tmp_path / 'photos.csv'}")


def test_further_lines_of_a_caption_file_are_kept_and_told(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        write(tmp_path / "f" / f"{name}.png", picture())
    write(tmp_path / "f" / "red.txt", "\nA red one.\nSeen from above.\n")
    write(tmp_path / "f" / "blue.txt", "A blue one.\nfr.utf8=Un bleu.\n")
    told: list[str] = []
    with listen(lambda what, done, total: None, told.append):
        (batch,) = read_source(tmp_path / "f")
    rows = {row["caption"]: json.loads(row["attributes"]) for row in batch.frame.to_dicts()}
    assert rows == {
        "A red one.": {"folder": ".", "further lines": ["Seen from above."]},
        "A blue one.": {"folder": "."},
    }
    assert [text.partition(": ")[2].partition(": ")[0] for text in told] == [
        "1 caption file with several lines"
    ]


def test_what_a_table_leaves_empty_is_filled_by_the_command(
    cli: Cli, rng: np.random.Generator
) -> None:
    frame = pairs_frame(2, rng).with_columns(license=pl.Series(["", "MIT"]), source=pl.lit(""))
    frame.write_parquet("a.parquet")
    Path("empty.csv").touch()
    asked = ["a.parquet", "empty.csv", "--license", "CC-BY", "--source-name", "mine"]
    told = cli("ingest", *asked)
    assert told.status == 0
    assert "empty.csv is empty" in told.err + told.out
    stored = PairStore.open("pairs.lancedb").read(columns=["license", "source"]).to_pylist()
    assert stored == [{"license": "CC-BY", "source": "mine"}, {"license": "MIT", "source": "mine"}]


def test_a_list_of_captions_in_csv_may_hold_numbers_and_nulls(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 'image,caption\na.png,"[""one"",5,null]"\n')
    (batch,) = read_source(tmp_path / "a.csv")
    assert batch.frame["caption"].to_list() == ["one", "5"]
    assert [r.reason for r in batch.rejects] == ["missing caption"]
