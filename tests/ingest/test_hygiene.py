"""What is doubtful is found at the door, and reported, flagged or refused as the user says."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from asif_lance.cli import hygiene as cli_hygiene
from conftest import Cli, pairs_frame, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from asif_lance.errors import InputError
from asif_lance.ingest import ACTIONS, CHECKS, IngestOptions, hygiene_page, try_ingest
from asif_lance.ingest.caption_checks import REPEATED, OtherLanguages, RepeatedCaptions
from asif_lance.ingest.near_pictures import DISTANCE, NearPictures, _is_near_earlier, _parts
from asif_lance.store import PairStore

ENGLISH = [
    "A brown dog runs along the beach.",
    "Two children play football in the park.",
    "A woman in a red coat is waiting for the bus.",
    "An old man reads a newspaper on a bench.",
]


def brought(path: Path, rng: np.random.Generator, captions: list[str], **columns: object) -> Path:
    frame = pairs_frame(len(captions), rng).drop("license")
    frame.with_columns(caption=pl.Series(captions), **columns).write_parquet(path)
    return path


def test_the_command_knows_the_checks_of_the_library() -> None:
    assert (cli_hygiene.CHECKS, cli_hygiene.ACTIONS) == (CHECKS, ACTIONS)


def test_captions_that_say_nothing_are_reported_flagged_or_refused(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    file = brought(tmp_path / "p.parquet", rng, [*ENGLISH, "IMG_0042.jpg", "DSC 12"])
    told = cli("--db", "a", "ingest", file, "--check", "empty-caption")
    assert "added 6" in told.err
    assert told.out.splitlines()[1].split() == [
        *("empty-caption", "report", "2", "row", "5:", "says", "nothing")
    ]
    flagged = cli("--db", "b", "ingest", file, "--check", "empty-caption=flag")
    assert "added 6" in flagged.err
    asked = "SELECT pair_id FROM pairs WHERE attributes->>'doubts' = 'empty-caption' ORDER BY 1"
    assert cli("--db", "b", "audit", asked, "--format", "csv").out.split() == [
        "pair_id",
        "p4",
        "p5",
    ]
    again = cli("--db", "b", "ingest", file, "--check", "empty-caption=flag")
    assert "added 0, already there 6, rejected 0" in again.err
    refused = cli("--db", "c", "ingest", file, "--check", "empty-caption=refuse")
    assert "added 4, already there 0, rejected 2" in refused.err
    assert set(PairStore.open("c").rejects()["reason"].to_pylist()) == {"says nothing"}


def test_one_text_again_and_again_is_found_whatever_its_case(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    texts = ["No description", "no  DESCRIPTION "] * (REPEATED // 2)
    file = brought(tmp_path / "p.parquet", rng, [*ENGLISH, *texts])
    done = cli("--db", "a", "ingest", file, "--check", "repeated-caption=refuse")
    assert f"added 4, already there 0, rejected {REPEATED}" in done.err
    few = RepeatedCaptions([pl.Series(texts[1:]), pl.Series([], dtype=pl.String)])
    assert few.find(pl.Series(["no description", None])).to_list() == [None, None]


def test_captions_in_another_language_than_most_are_found(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    other = ["Ein Hund läuft am Strand.", "Собака бежит по пляжу", "一只狗在海滩上奔跑"]
    file = brought(tmp_path / "p.parquet", rng, [*ENGLISH, *other, "Red.", "IMG_1.png"])
    done = cli("--db", "a", "ingest", file, "--check", "language=refuse", "--format", "json")
    (report,) = done.objects
    assert (report["added"], report["rejected"]) == (6, 3)
    (found,) = report["findings"]
    assert found["examples"][0] == ["row 5", "language de, most are en"]
    assert OtherLanguages([pl.Series([], dtype=pl.String)]).find(pl.Series(["Hund"])).to_list() == [
        None
    ]


def test_the_stricter_of_two_actions_holds_however_they_are_asked_for(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    file = brought(tmp_path / "p.parquet", rng, ENGLISH, noai=pl.Series([True, None, None, None]))
    for i, (check, rights) in enumerate([("refuse", "flag"), ("report", "refuse")]):
        done = cli("--db", i, "ingest", file, "--check", f"rights={check}", "--rights", rights)
        assert "added 3, already there 0, rejected 1" in done.err
    done = cli("--db", "c", "ingest", file, "--check", "license=flag", "--require", "license")
    assert "added 0, already there 0, rejected 4" in done.err


def test_what_is_flagged_in_one_caption_is_flagged_in_the_pair_of_all(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    one = np.tile(rng.standard_normal((1, 8)), (4, 1)).astype("f4")
    file = brought(
        tmp_path / "p.parquet",
        rng,
        [*ENGLISH[:2], "IMG_0042.jpg", "DSC 12"],
        noai=pl.Series([None, "1", None, None]),
        noindex=pl.Series([None, None, "yes", None]),
        image_vector=pl.Series(one),
        image_uri=pl.Series(["photo.jpg"] * 4),
        pair_id=pl.Series([None] * 4, dtype=pl.String),
    )
    asked = ("ingest", file, "--check", "empty-caption=flag", "--rights", "flag")
    assert "added 1" in cli("--db", "a", *asked).err
    (row,) = PairStore.open("a").read().to_pylist()
    stated = json.loads(row["attributes"])
    assert len(row["captions"]) == 4
    assert (stated["rights_reserved"], stated["doubts"]) == ("noai, noindex", "empty-caption")
    assert "added 0, already there 1, rejected 0" in cli("--db", "a", *asked).err


def test_missing_licences_and_marks_of_rights_are_reported_too(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    marks = pl.Series([True, None, None, None])
    file = brought(
        tmp_path / "p.parquet", rng, ENGLISH, license=pl.Series(["mit"] + [None] * 3), noai=marks
    )
    done = cli(
        "--db", "a", "ingest", file, "--check", "all", "--check", "source=flag", "--format", "json"
    )
    found = {f["check"]: (f["action"], f["items"]) for f in done.objects[0]["findings"]}
    assert list(found) == list(CHECKS)
    assert found["license"] == ("report", 3)
    assert found["source"] == ("flag", 4)
    assert found["rights"] == ("report", 1)
    stored = PairStore.open("a").read().sort_by("pair_id")["attributes"].to_pylist()
    assert [json.loads(text).get("doubts") for text in stored] == ["source"] * 4
    assert "rights_reserved" not in str(stored)


@pytest.mark.encoders
def test_copies_of_pictures_are_found_exact_and_near(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in range(3):
        picture(folder / f"a{number}.png", number)
    with Image.open(folder / "a0.png") as whole:
        whole.convert("RGB").save(folder / "b-compressed.jpg", quality=30)
        whole.resize((80, 60)).save(folder / "c-small.png")
    (folder / "d-exact.png").write_bytes((folder / "a1.png").read_bytes())
    Image.new("RGB", (80, 60), "white").save(folder / "e-plain.png")
    Image.new("RGB", (64, 64), "white").save(folder / "f-plain.png")
    for file in list(folder.iterdir()):
        file.with_suffix(".txt").write_text(f"This is called {file.stem}.")
    checks = ("--check", "same-picture=refuse", "--check", "near-picture=flag")
    done = cli("--db", "d", "ingest", folder, *checks, "--format", "json")
    same, near = done.objects[0]["findings"]
    assert (same["items"], same["examples"]) == (1, [["d-exact.png", "picture of an earlier item"]])
    assert [item for item, _ in near["examples"]] == [
        "b-compressed.jpg",
        "c-small.png",
        "d-exact.png",
    ]
    again = cli("--db", "d", "ingest", folder, *checks)
    assert "added 0, already there 7, rejected 1" in again.err


@settings(deadline=None)
@given(
    hashes=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20),
    flips=st.lists(st.tuples(st.integers(0, 19), st.sets(st.integers(0, 63), max_size=6))),
    cut=st.integers(0, 40),
)
def test_near_hashes_are_found_as_by_comparing_each_with_each(
    hashes: list[int], flips: list[tuple[int, set[int]]], cut: int
) -> None:
    for place, bits in flips:
        hashes.append(hashes[place % len(hashes)] ^ sum(1 << bit for bit in bits))
    every = np.array(hashes, np.uint64)
    near = NearPictures()
    for table, part in zip(near._tables, _parts(every[:cut]), strict=True):
        table.add(part, every[:cut])
    rest = every[cut:]
    found = near._is_held(rest) | _is_near_earlier(rest)
    expected = [
        any((a ^ b).bit_count() <= DISTANCE for b in hashes[: cut + i])
        for i, a in enumerate(hashes[cut:])
    ]
    assert found.tolist() == expected


class Tags(HTMLParser):
    """The elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)


def test_the_page_tells_all_of_it_and_runs_nothing(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    hostile = "<script>alert(1)</script>.jpg"
    file = brought(tmp_path / "p.parquet", rng, [*ENGLISH, hostile, "7"])
    checks = ("--check", "empty-caption", "--check", "license=refuse", "--page", "p.html")
    dry = cli("--db", "a", "ingest", file, *checks, "--dry-run")
    assert "wrote p.html" in dry.err
    assert "an ingest would have found" in Path("p.html").read_text()
    assert not (tmp_path / "a").exists()
    cli("--db", "a", "ingest", file, *checks)
    page = Path("p.html").read_text()
    assert "told only" in page
    assert "no license" in page
    named = tmp_path / "<img src=x>.parquet"
    file.rename(named)
    page = hygiene_page(
        try_ingest(tmp_path / "x", [named], IngestOptions(checks={"empty-caption": "refuse"}))
    )
    assert not {"script", "img", "a"} & Tags(page).names


@pytest.mark.parametrize("check", ["colour", "license=perhaps", "near-picture=refuse,flag"])
def test_a_check_that_is_none_is_told(
    cli: Cli, tmp_path: Path, rng: np.random.Generator, check: str
) -> None:
    file = brought(tmp_path / "p.parquet", rng, ENGLISH)
    done = cli("--db", "d", "ingest", file, "--check", check)
    assert done.status == 2
    assert "is none of" in done.err
    name, _, action = check.partition("=")
    with pytest.raises(InputError, match="no check"):
        try_ingest(tmp_path / "d", [file], IngestOptions(checks={name: action or "report"}))
