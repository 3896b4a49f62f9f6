"""Several captions of one picture: one pair with the mean of their vectors, or a pair each."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st
from pairs_at_hand import AGAIN, names, new_store, pairs
from PIL import Image

from asif_lance.audit import Audit
from asif_lance.database import migrate
from asif_lance.encoders import EncoderThreads
from asif_lance.encoders.sentence_encoder import SentenceEncoder
from asif_lance.ingest import (
    IngestOptions,
    IngestReport,
    TableSource,
    ingest_sources,
)
from asif_lance.ingest.caption_groups import MAX_CAPTIONS, CaptionGroups
from asif_lance.ingest.columns import SCHEMA
from asif_lance.store import PairStore
from asif_lance.store.forget import forget, plan

ASSETS = Path(__file__).parents[1] / "assets"
_SHOWN = ["pair_id", "caption", "captions", "image_path"]
EACH = IngestOptions(captions="each")


def table(photos: Sequence[str], **columns: Sequence[Any]) -> TableSource:
    """Rows with a picture's vector each, a caption `c0`, `c1`, … and a vector of that."""
    rng = np.random.default_rng(3)
    sides = {p: np.random.default_rng(ord(p)).normal(size=8).tolist() for p in set(photos)}
    frame = {
        "image_uri": [f"{photo}.jpg" for photo in photos],
        "caption": [f"c{i}" for i in range(len(photos))],
        "image_vector": [sides[photo] for photo in photos],
        "text_vector": [rng.normal(size=4).tolist() for _ in photos],
    }
    return TableSource("photos", pl.DataFrame({**frame, **columns}))


def ingest(where: Path, source: TableSource, **options: Any) -> IngestReport:
    return ingest_sources(where / "db", [source], IngestOptions(**options))


def stored(where: Path, *columns: str) -> list[dict[str, Any]]:
    rows = PairStore.open(str(where / "db")).read(columns=["caption", *columns]).to_pylist()
    return sorted(rows, key=lambda row: row["caption"])


def test_rows_of_one_picture_are_a_pair_with_the_mean_of_their_unit_vectors(tmp_path: Path) -> None:
    texts = [[2.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    ingest(tmp_path, table("aab", text_vector=texts))
    first, second = stored(tmp_path, "captions", "text_vector")
    assert (first["captions"], second["captions"]) == (["c0", "c1"], None)
    assert first["text_vector"] == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0], abs=1e-3)
    assert second["text_vector"] == [0, 0, 1, 0]


def test_a_pair_each_is_what_it_was(tmp_path: Path) -> None:
    ingest_sources(tmp_path / "db", [table("aab")], EACH)
    assert [row["captions"] for row in stored(tmp_path, "captions")] == [None] * 3


@given(
    photos=st.lists(st.sampled_from("aab"), max_size=12),
    ids=st.lists(st.sampled_from([None, "x"]), min_size=12, max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=4),
)
def test_what_is_joined_does_not_depend_on_where_batches_end(
    photos: list[str], ids: list[str | None], cuts: list[int]
) -> None:
    both = enumerate(zip(photos, ids, strict=False))
    rows = pl.DataFrame(
        [
            {"pair_id": f"p{i}", "row_id": own, "caption": f"c{i}", "image_path": photo}
            for i, (photo, own) in both
        ],
        schema=SCHEMA,
    ).with_columns(image_sha256=pl.col("image_path"))
    ends = sorted({0, len(photos), *(min(cut, len(photos)) for cut in cuts)})
    parts = (rows[a:b] for a, b in pairwise(ends))
    some, whole = CaptionGroups(), CaptionGroups()
    joined = pl.concat([f.select(_SHOWN) for f in some.join(iter([rows.clear(), *parts]))])
    expected = pl.concat([f.select(_SHOWN) for f in whole.join(iter([rows]))])
    assert joined.equals(expected)
    assert some.apart == whole.apart
    told = [c for row in joined.to_dicts() for c in row["captions"] or [row["caption"]]]
    assert told == rows["caption"].to_list()


def test_a_further_caption_changes_the_pair_instead_of_adding_another(tmp_path: Path) -> None:
    ingest(tmp_path, table("a"))
    again = ingest(tmp_path, table("aaab"))
    assert (again.added, again.changed, again.already_there) == (1, 1, 0)
    updated = ingest(tmp_path, table("aaab"), on_conflict="update")
    assert (updated.added, updated.updated, updated.already_there) == (0, 1, 1)
    assert stored(tmp_path, "captions")[0]["captions"] == ["c0", "c1", "c2"]
    assert ingest(tmp_path, table("aaab")).already_there == 2


def test_a_list_of_captions_is_one_pair_under_the_rows_own_id(tmp_path: Path) -> None:
    texts = tmp_path / "pairs.jsonl"
    row = '{{"pair_id": "p", "caption": {}, "image_vector": [1, 0], "text_vector": [0, 1]}}\n'
    texts.write_text(row.format('["", "one", "two"]'))
    report = ingest_sources(tmp_path / "db", [str(texts)])
    assert [r.item for r in report.rejects] == ["row 1, caption 1"]
    (pair,) = stored(tmp_path, "pair_id", "captions")
    assert (pair["pair_id"], pair["captions"]) == ("p", ["one", "two"])


def test_rows_with_ids_of_their_own_stay_apart(tmp_path: Path) -> None:
    ingest(tmp_path, table("aaa", pair_id=["x", "y", None]))
    assert [row["captions"] for row in stored(tmp_path, "captions")] == [None] * 3


def test_rows_under_different_licenses_stay_apart(tmp_path: Path) -> None:
    ingest(tmp_path, table("aa", license=["CC0", "CC-BY"]))
    assert len(stored(tmp_path)) == 2


def test_a_picture_that_comes_again_later_is_a_pair_of_its_own_and_told(tmp_path: Path) -> None:
    report = ingest(tmp_path, table("aabaca"))
    assert (report.added, report.apart) == (5, 2)


def test_captions_whose_vectors_cancel_out_are_refused(tmp_path: Path) -> None:
    texts = [[1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    report = ingest(tmp_path, table("aab", text_vector=texts))
    assert report.added == 1
    assert [r.reason for r in report.rejects] == ["the captions' vectors cancel each other out"]


def test_more_captions_than_can_be_held_are_refused(tmp_path: Path) -> None:
    report = ingest(tmp_path, table("a" * (MAX_CAPTIONS + 2)))
    assert {r.reason for r in report.rejects} == {"more than 1,000 captions of one picture"}
    assert (report.added, len(report.rejects)) == (1, 2)


@pytest.mark.encoders
def test_a_picture_and_its_captions_are_encoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    rows = "".join(f"red.png,{text}\n" for text in ("A red picture.", "Nothing but red.", "Red."))
    (tmp_path / "pairs.csv").write_text("image,caption\n" + rows)
    images, texts = list[Any](), list[str]()
    embed, encode = EncoderThreads.encode, SentenceEncoder.encode

    def count(self: Any, encoder: Any, pictures: Any) -> Any:
        images.extend(pictures)
        return embed(self, encoder, pictures)

    def gather(self: Any, batch: Any) -> Any:
        texts.extend(batch)
        return encode(self, batch)

    monkeypatch.setattr(EncoderThreads, "encode", count)
    monkeypatch.setattr(SentenceEncoder, "encode", gather)
    ingest_sources(tmp_path / "db", [tmp_path / "pairs.csv"])
    assert (len(images), len(texts)) == (1, 3)
    (pair,) = stored(tmp_path, "captions")
    assert pair["captions"] == ["A red picture.", "Nothing but red.", "Red."]


# Forgetting


def lists(*captions: list[str] | None) -> pa.Array:
    return pa.array(captions, pa.list_(pa.string()))


def test_all_captions_are_sought_when_a_pair_is_forgotten(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    said = lists(["a caption about one", "the second caption of it"], None)
    store.add(pairs(names(0, 2), captions=said))
    store.publish(command="ingest", message="it has the second caption of it")
    assert "the second caption of it" in plan(store, names(0, 1)).listing[0].caption
    assert forget(store, names(0, 1), reason="asked to").clean
    assert "second caption" not in store.versions()[0].message


def test_a_caption_that_a_pair_which_stays_has_too_is_not_the_forgotten_ones_alone(
    tmp_path: Path,
) -> None:
    store = new_store(tmp_path)
    said = lists(["one of its own", "what both say"], ["another one", "what both say"])
    store.add(pairs(names(0, 2), captions=said))
    store.publish(command="ingest", message="what both say")
    assert plan(store, names(0, 1)).twins.same_caption == (names(1, 2)[0],)  # type: ignore[union-attr]
    assert forget(store, names(0, 1), reason="asked to").clean
    assert store.versions()[0].message == "what both say"
    assert store.read(columns=["captions"])["captions"].to_pylist() == [said[1].as_py()]


def test_a_forgotten_caption_among_others_of_its_picture_is_refused(tmp_path: Path) -> None:
    ingest_sources(tmp_path / "db", [table("aab")], EACH)
    store = PairStore.open(str(tmp_path / "db"))
    rows = {r["caption"]: r["pair_id"] for r in stored(tmp_path, "pair_id")}
    assert forget(store, [rows["c1"]], reason="asked to").clean
    store.delete([rows["c0"]])
    report = ingest(tmp_path, table("aab"))
    assert [r.forgotten for r in report.rejects] == [True]
    assert ingest(tmp_path, table("aab"), waiver=AGAIN).added == 1


# Databases of before


def test_versions_of_before_go_on_without_the_column(tmp_path: Path) -> None:
    with tarfile.open(ASSETS / "database-m0007.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    migrate.run_migrations(str(tmp_path / "db"))
    store = PairStore.open(str(tmp_path / "db"))
    with Audit(store) as audit:
        asked = "SELECT count(*) AS n FROM pairs_at('v1') WHERE captions IS NULL"
        assert audit.query(asked).to_pylist() == [{"n": 20}]
        assert audit.query("SELECT max(captions) AS c FROM pairs").to_pylist() == [{"c": None}]
    store.rollback("v1")
    store.add(pairs(["new"], captions=lists(["one", "two"])))
    new = store.publish(command="ingest")
    assert new is not None
    assert store.diff("v1", new.name).changes.added == ("new",)
    assert not store.diff("v1", new.name).changes.changed
    assert forget(store, ["new"], reason="asked to").clean


def test_captions_can_be_asked_for_in_sql(tmp_path: Path, cli: Cli) -> None:
    ingest(tmp_path, table("aab"))
    sql = "SELECT caption FROM pairs WHERE list_contains(captions, 'c1')"
    asked = cli("--db", str(tmp_path / "db"), "audit", sql, "--format", "json")
    assert asked.objects == [{"caption": "c0"}]
