"""The same pairs under other encoders: versions, ids and provenance stay, receipts go along."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from conftest import Cli, pairs_frame, picture

from asif_lance.encoders import DEFAULT_TEXT, text_encoder
from asif_lance.errors import DatabaseError, EncoderMismatchError, InputError
from asif_lance.ingest import ReencodeOptions, reencode
from asif_lance.ingest.stored_pairs import StoredPictures
from asif_lance.ingest.vector_columns import unit_float16
from asif_lance.store import PairStore
from asif_lance.store.forget import forget, verify_receipt

pytestmark = pytest.mark.encoders

TEXTS = ReencodeOptions(text_encoder=DEFAULT_TEXT)
LITE2 = "timm/tf_efficientnet_lite2"


def brought(path: Path, rng: np.random.Generator, n: int = 40, start: int = 0) -> Path:
    pairs_frame(n, rng, start=start).write_parquet(path)
    return path


def old_database(cli: Cli, folder: Path, rng: np.random.Generator) -> PairStore:
    """Four versions: pairs come, go, change and come back; a name is missing among them."""
    cli(
        "--db",
        "old",
        "ingest",
        brought(folder / "p.parquet", rng),
        "-m",
        "first",
        "--source-name",
        "web",
    )
    changed = pairs_frame(2, rng).with_columns(caption=pl.Series(["red", "blue"]), note=pl.lit("é"))
    changed.write_parquet(folder / "changed.parquet")
    cli("--db", "old", "ingest", folder / "changed.parquet", "--on-conflict", "update")
    cli("--db", "old", "delete", "p3", "p4")
    cli("--db", "old", "versions", "prune", "--keep-last", "2", "--yes")
    cli("--db", "old", "rollback", "v2", "-m", "back")
    cli("--db", "old", "tag", "prod", "v3")
    store = PairStore.open("old")
    several = store.read().slice(0, 1).to_pydict() | {
        "pair_id": ["s"],
        "captions": [["one", "two"]],
    }
    store.add(pa.table(several, schema=store.dataset().schema))
    store.publish(command="ingest", message="several captions")
    return PairStore.open("old")


def check_copy(old: PairStore, new: PairStore, *encoded: str) -> None:
    """Versions and all that pairs have is the same, except for the vectors that were encoded."""
    told = [
        (v.name, v.message, v.command, v.created_at, v.aliases, v.pairs) for v in old.versions()
    ]
    assert told == [
        (v.name, v.message, v.command, v.created_at, v.aliases, v.pairs) for v in new.versions()
    ]
    for version in old.versions():
        columns = [n for n in old.dataset(version.name).schema.names if n not in encoded]
        there, here = (s.read(version.name, columns).sort_by("pair_id") for s in (old, new))
        assert here.equals(there)


def test_every_version_is_the_same_but_for_the_vectors(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    old = old_database(cli, tmp_path, rng)
    done = cli("--db", "old", "reencode", "new", "--text-encoder", DEFAULT_TEXT, "--format", "json")
    assert done.status == 0
    (report,) = done.objects
    assert [v["name"] for v in report["versions"]] == ["v2", "v3", "v4", "v5"]
    assert (report["rejects"], report["unfinished"]) == ([], None)
    new = PairStore.open("new")
    check_copy(old, new, "text_vector")
    assert (new.image, new.text.name) == (old.image, DEFAULT_TEXT)
    rows = new.read("v5", ["caption", "captions", "text_vector"]).to_pylist()
    encoder = text_encoder(DEFAULT_TEXT)
    for row in rows[:3] + [row for row in rows if row["captions"]]:
        mean = encoder.encode(row["captions"] or [row["caption"]]).mean(axis=0, keepdims=True)
        np.testing.assert_allclose(row["text_vector"], unit_float16(mean)[0], atol=2e-3)


def test_what_came_later_follows_and_nothing_is_encoded_twice(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    old = old_database(cli, tmp_path, rng)
    assert reencode("old", "new", TEXTS).encoded
    assert reencode("old", "new", TEXTS).encoded == 0
    cli("--db", "old", "ingest", brought(tmp_path / "more.parquet", rng, 5, start=100))
    cli("--db", "old", "tag", "prod", "v6")
    assert reencode("old", "new", TEXTS).encoded == 5
    check_copy(old, PairStore.open("new"), "text_vector")


def test_a_killed_run_goes_on_to_the_result_of_an_undisturbed_one(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    cli("--db", "old", "ingest", brought(tmp_path / "p.parquet", rng, 1500))
    cli("--db", "old", "delete", "p7")
    command = [sys.executable, "-c", "from asif_lance.cli import main; main()", "--db", "old", "-q"]
    command += ["reencode", "new", "--text-encoder", DEFAULT_TEXT]
    head = tmp_path / "new" / "pairs.lance"
    with subprocess.Popen(command, cwd=tmp_path) as running:
        while running.poll() is None and not (
            list(head.glob("_versions/*.manifest")) and lance.dataset(str(head)).count_rows()
        ):
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    kept = lance.dataset(str(head)).count_rows()
    assert 0 < kept < 1500
    assert reencode("old", "new", TEXTS).encoded == 1500 - kept
    check_copy(PairStore.open("old"), PairStore.open("new"), "text_vector")


def test_what_was_forgotten_stays_forgotten_in_the_new_database(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    source = brought(tmp_path / "p.parquet", rng)
    cli("--db", "old", "ingest", source)
    old = PairStore.open("old")
    receipt = forget(old, ["p1"], reason="asked by letter")
    reencode("old", "new", TEXTS)
    new = PairStore.open("new")
    told = {check.name: check.holds for check in verify_receipt(new, receipt.receipt_id).checks}
    assert (told["content"], told["signature"]) == (True, True)
    assert told["files"] is None  # those that were searched then are the old database's
    pl.read_parquet(source).drop("text_vector").write_parquet(source)
    report = cli("--db", "new", "ingest", source, "--format", "json").objects[0]
    assert (report["added"], report["rejected"]) == (0, 1)
    # Forgotten there later, it is forgotten here; each on its own, the two have parted.
    forget(old, ["p2"], reason="asked again")
    found = reencode("old", "new", TEXTS)
    assert (found.forgotten, found.encoded) == (1, 0)
    assert new.existing(["p1", "p2", "p3"]) == {"p3"}
    forget(old, ["p5"], reason="and again")
    with pytest.raises(DatabaseError, match="have each forgotten pairs of their own"):
        reencode("old", "new", TEXTS)


def test_a_database_of_other_pairs_is_not_touched(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    cli("--db", "old", "ingest", brought(tmp_path / "p.parquet", rng))
    with pytest.raises(InputError, match="has to be another one"):
        reencode("old", "old", TEXTS)
    with pytest.raises(InputError, match=r"name another encoder: .* has vectors and vectors"):
        reencode("old", "new", ReencodeOptions())
    assert not (tmp_path / "new").exists()
    reencode("old", "new", TEXTS)
    cli("--db", "new", "delete", "p1")
    with pytest.raises(InputError, match="has a version v2 that is none of"):
        reencode("old", "new", TEXTS)
    cli("--db", "other", "ingest", brought(tmp_path / "q.parquet", rng, start=200))
    with pytest.raises(EncoderMismatchError):
        reencode("old", "other", TEXTS)
    ours = PairStore.create(
        "unpublished", image=PairStore.open("new").image, text=PairStore.open("new").text
    )
    ours.add(
        PairStore.open("new").read().slice(0, 3).set_column(0, "pair_id", pa.array(["x", "y", "z"]))
    )
    with pytest.raises(InputError, match=r"has 3 pairs that .* has not"):
        reencode("old", "unpublished", TEXTS)
    assert ours.existing(["x", "y", "z"]) == {"x", "y", "z"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(4):
        picture(tmp_path / "photos" / f"{number}.png", number)
        (tmp_path / "photos" / f"{number}.txt").write_text(f"Picture {number}.")
    return tmp_path / "photos"


def test_pictures_are_encoded_as_an_ingest_would(cli: Cli, tmp_path: Path, photos: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(picture(tmp_path / "in.png", 9), "in.png")
        archive.writestr("in.txt", "Zipped.")
    cli("--db", "old", "ingest", photos, tmp_path / "z.zip")
    assert cli("--db", "old", "reencode", "new", "--image-encoder", LITE2).status == 0
    check_copy(PairStore.open("old"), PairStore.open("new"), "image_vector")
    asked = ("--images", photos / "0.png", "--labels", "noise,a zip")
    compared = cli("--db", "old", "diff", "v1", "new@v1", *asked)
    assert "of 1 prediction change; 1 have other scores" in compared.err
    alone = cli("--db", "old", "diff", "v1", "new@v1")
    assert "compared by --images and labels" in alone.err
    cli("--db", "direct", "ingest", photos, tmp_path / "z.zip", "--image-encoder", LITE2)
    made, expected = (
        PairStore.open(name).read(columns=["pair_id", "image_vector"]).sort_by("pair_id")
        for name in ("new", "direct")
    )
    assert made["pair_id"].equals(expected["pair_id"])
    np.testing.assert_allclose(
        np.array(made["image_vector"].to_pylist()), expected["image_vector"].to_pylist(), atol=2e-3
    )


def test_pairs_without_their_picture_are_told_and_never_dropped_unasked(
    cli: Cli, tmp_path: Path, photos: Path
) -> None:
    cli("--db", "old", "ingest", photos)
    moved = tmp_path / "elsewhere" / "photos"
    moved.parent.mkdir()
    photos.rename(moved)
    (moved / "0.png").rename(tmp_path / "0.png")
    picture(moved / "1.png", 77)
    asked = ("--db", "old", "reencode", "new", "--image-encoder", LITE2)
    none = cli(*asked)
    assert none.status == 1
    assert "v1 is not made: 4 pairs of it cannot be encoded" in none.err
    some = cli(*asked, "--image-root", tmp_path / "elsewhere", "--rejects", "r.csv")
    assert some.status == 1
    assert "v1 is not made: 2 pairs" in some.err
    reasons = sorted(pl.read_csv("r.csv")["reason"])
    assert reasons[0] == "its file is another picture by now"
    assert reasons[1].startswith("missing file (")
    assert PairStore.open("new").versions() == []
    without = cli(*asked, "--image-root", tmp_path / "elsewhere", "--allow-missing")
    assert without.status == 0
    new = PairStore.open("new")
    assert new.version("v1").pairs == 2
    assert len(new.rejects()) == 2
    again = cli(*asked, "--format", "json").objects[0]
    assert again["versions"] == [{"name": "v1", "pairs": 2, "missing": 2}]


def test_an_image_root_that_is_no_folder_is_told_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in ("nowhere", "file"):
        with pytest.raises(InputError, match=f"{wrong} is no folder"):
            StoredPictures(tmp_path / wrong)


def test_a_picture_is_what_the_database_keeps_or_a_file_of_its_name(tmp_path: Path) -> None:
    file = picture(tmp_path / "a" / "b" / "x.png", 1)
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    nowhere, below = StoredPictures(None), StoredPictures(tmp_path / "a")
    assert nowhere.find("/gone/x.png", digest, content) == content
    assert nowhere.find(str(file), digest, b"a thumbnail") == file
    assert below.find("/gone/b/x.png", None, None) == file
    for uri, reason in (
        ("/gone/x.png", "missing file"),
        ("/gone/x.zip#x.png", "missing file"),
        ("https://example.org/x.png", "nothing is fetched"),
        (None, "never seen"),
        ("a\0b", "missing file"),
    ):
        with pytest.raises(Exception, match=reason):
            nowhere.find(uri, digest, b"a thumbnail")
