"""Encoders do each thing once, and what they do not read is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow.compute as pc
import pytest
from conftest import Cli, picture
from PIL import Image

from asif_lance.encoders import EncoderThreads, ImageEncoder, decoding, streaming
from asif_lance.encoders.protocols import ImageItem
from asif_lance.ingest import (
    IngestOptions,
    TableSource,
    count_items,
    ingest_sources,
    naming,
    picture_pieces,
    pipeline,
)
from asif_lance.ingest.recent_items import RecentItems
from asif_lance.store import PairStore

pytestmark = pytest.mark.encoders


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three pictures with five captions each, one of them a copy; and a damaged one."""
    for number in range(3):
        picture(tmp_path / f"{number}.png", number)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    rows = [
        {"image": name, "caption": f"{name} in words of number {n}"}
        for n in range(5)
        for name in ("0.png", "1.png", "2.png", "copy.png", "damaged.png")
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "five.csv")
    return tmp_path / "five.csv"


def counted(monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> Counter[str]:
    """How often a function of the library is called for each file from now on."""
    calls: Counter[str] = Counter()
    real = getattr(where, name)

    def count(item: Path, **options: object) -> object:
        calls[item.name] += 1
        return real(item, **options)

    monkeypatch.setattr(where, name, count)
    return calls


@pytest.mark.parametrize("remembered", [1, 10_000])
def test_a_picture_with_five_captions_is_read_decoded_and_encoded_once(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    read = counted(monkeypatch, naming, "read_bytes")
    decoded = Counter[bytes]()
    decode = streaming.decode_image

    def count(content: bytes, **options: object) -> Image.Image:
        decoded[content] += 1  # the bytes that were read: the file is not read again
        return decode(content, **options)

    monkeypatch.setattr(streaming, "decode_image", count)
    monkeypatch.setattr(picture_pieces, "_REMEMBERED_PICTURES", remembered)
    report = ingest_sources(manifest.parent / "db", [manifest])
    assert (report.added, len(report.rejects)) == (20, 5)
    assert {r.reason for r in report.rejects} == {"not an image"}
    assert set(read.values()) == {1}
    files = (manifest.parent / name for name in ("0.png", "1.png", "2.png", "damaged.png"))
    assert decoded == {file.read_bytes(): 1 for file in files}
    rows = PairStore.open(str(manifest.parent / "db")).read()
    by_digest = pl.DataFrame(
        {
            "sha256": rows["image_sha256"].to_pylist(),
            "vector": [bytes(v) for v in (repr(v.as_py()).encode() for v in rows["image_vector"])],
        }
    )
    assert by_digest["sha256"].n_unique() == by_digest["vector"].n_unique() == 3
    assert by_digest.unique().height == 3


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every picture that is given to an encoder from now on."""
    given: list[object] = []
    encode = EncoderThreads.encode

    def note(self: EncoderThreads, encoder: ImageEncoder, items: Sequence[ImageItem]) -> object:
        given.extend(items)
        return encode(self, encoder, items)

    monkeypatch.setattr(EncoderThreads, "encode", note)
    return given


def vectors_by_picture(database: Path) -> dict[str, set[tuple[float, ...]]]:
    found: dict[str, set[tuple[float, ...]]] = {}
    for row in PairStore.open(str(database)).read().to_pylist():
        found.setdefault(row["image_sha256"], set()).add(tuple(row["image_vector"]))
    return found


def test_a_picture_of_an_earlier_ingest_keeps_its_vector(
    manifest: Path, encoded: list[object]
) -> None:
    database = manifest.parent / "db"
    ingest_sources(database, [manifest])
    before, count = vectors_by_picture(database), len(encoded)
    pl.DataFrame({"image": ["1.png", "2.png"], "caption": ["new", "newer"]}).write_csv(
        manifest.parent / "more.csv"
    )
    assert ingest_sources(database, [manifest.parent / "more.csv"]).added == 2
    assert len(encoded) == count
    assert vectors_by_picture(database) == before


def test_a_picture_that_comes_again_after_many_others_is_taken_from_the_table(
    tmp_path: Path, encoded: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_pieces, "_REMEMBERED_PICTURES", 40)
    monkeypatch.setattr(picture_pieces, "_WAITING_FRAMES", 1)
    monkeypatch.setattr(naming, "_SLICE_ROWS", 4)
    monkeypatch.setattr(pipeline, "COMMIT_ROWS", 1)
    names = [picture(tmp_path / f"{number}.png", number).name for number in range(60)]
    rows = {"image": names * 2, "caption": [f"caption {n}" for n in range(120)]}
    pl.DataFrame(rows).write_csv(tmp_path / "two.csv")
    options = IngestOptions(captions="each", batch_size=2)
    assert ingest_sources(tmp_path / "db", [tmp_path / "two.csv"], options).added == 120
    assert len(encoded) == 60
    assert [len(vectors) for vectors in vectors_by_picture(tmp_path / "db").values()] == [1] * 60


def test_pictures_inside_a_table_may_come_twice(tmp_path: Path, encoded: list[object]) -> None:
    content = picture(tmp_path / "0.png", 0).read_bytes()
    table = pl.DataFrame({"image": [content, content], "caption": ["a bird", "a red bird"]})
    options = IngestOptions(captions="each")
    assert ingest_sources(tmp_path / "db", [TableSource("birds", table)], options).added == 2
    assert encoded == [content]


def test_vectors_are_those_of_the_file_that_each_row_names(manifest: Path) -> None:
    ingest_sources(manifest.parent / "db", [manifest])
    alone = pl.DataFrame({"image": ["2.png"], "caption": ["alone"]})
    alone.write_csv(manifest.parent / "one.csv")
    ingest_sources(manifest.parent / "one", [manifest.parent / "one.csv"])
    (expected,) = PairStore.open(str(manifest.parent / "one")).read()["image_vector"].to_pylist()
    store = PairStore.open(str(manifest.parent / "db"))
    found = (
        store.read()
        .filter(pc.starts_with(pc.field("caption"), "2.png"))["image_vector"]
        .to_pylist()
    )
    assert len(found) == 5
    assert all(vector == pytest.approx(expected, abs=2e-3) for vector in found)


def test_a_window_drops_what_it_was_given_first() -> None:
    window: RecentItems[str, int] = RecentItems(2)
    for number, key in enumerate("abc"):
        window.put(key, number)
    assert [window.get(key) for key in "abc"] == [None, 1, 2]


def test_captions_that_the_encoder_cuts_are_counted(cli: Cli, tmp_path: Path) -> None:
    picture(tmp_path / "0.png", 0)
    texts = {"short": "a bird", "exact": "bird " * 254, "long": "bird " * 255, "odd": "🦜" * 300}
    rows = [{"image": "0.png", "caption": f"{text}".strip()} for text in texts.values()]
    pl.DataFrame(rows).write_csv(tmp_path / "a.csv")
    told = cli("--db", "db", "ingest", "a.csv").err
    assert (
        "longer than the encoder reads (256 tokens): 1 caption, of which the rest is not used"
        in told
    )


def test_items_are_counted_beforehand_where_that_is_quick(manifest: Path) -> None:
    frame = pl.DataFrame({"image": ["a"], "caption": ["b"]})
    frame.write_parquet(manifest.parent / "a.parquet")
    assert count_items([manifest.parent, manifest.parent / "a.parquet"]) == 6
    assert count_items([str(manifest.parent / "a.parquet"), manifest]) is None
    assert count_items([manifest.parent / "nowhere"]) is None


def test_progress_counts_every_item_once(manifest: Path) -> None:
    steps: list[int] = []
    ingest_sources(manifest.parent / "db", [manifest], progress=steps.append)
    assert sum(steps) == 25
    steps.clear()
    ingest_sources(manifest.parent / "db", [manifest], progress=steps.append)
    assert sum(steps) == 25


def test_pictures_under_own_ids_are_compared_by_their_bytes(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", 0)
    manifest = tmp_path / "a.csv"
    manifest.write_text("pair_id,image,caption\nx,0.png,a bird\n")
    ingest_sources(tmp_path / "db", [manifest])
    assert ingest_sources(tmp_path / "db", [manifest]).already_there == 1
    picture(tmp_path / "0.png", 1)
    assert ingest_sources(tmp_path / "db", [manifest]).changed == 1
    update = ingest_sources(tmp_path / "db", [manifest], IngestOptions(on_conflict="update"))
    assert update.updated == 1
    (row,) = PairStore.open(str(tmp_path / "db")).read().to_pylist()
    assert row["image_sha256"] == decoding.sha256_of(tmp_path / "0.png")
