"""Content that differs from what is there under an id is told, and replaced or refused if asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import lance
import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, Cli, pairs_frame

from asif_lance.audit import matching_ids
from asif_lance.errors import PairConflictError
from asif_lance.ingest import IngestOptions, IngestReport, TableSource, ingest_sources
from asif_lance.store import PairStore

UPDATE = IngestOptions(on_conflict="update")


@pytest.fixture
def frame(rng: np.random.Generator) -> pl.DataFrame:
    """Ten pairs with what a source may say of them."""
    return pairs_frame(10, rng).with_columns(
        image_uri=pl.format("photos/{}.jpg", pl.col("pair_id")),
        source=pl.lit("the archive"),
        camera=pl.lit("Zenit"),
    )


@pytest.fixture
def uri(tmp_path: Path, frame: pl.DataFrame) -> str:
    ingest(str(tmp_path / "t.lancedb"), frame)
    return str(tmp_path / "t.lancedb")


def ingest(uri: str, frame: pl.DataFrame, options: IngestOptions | None = None) -> IngestReport:
    return ingest_sources(uri, [TableSource("pairs", frame)], options)


def test_a_pair_without_an_id_is_named_by_its_vectors_and_its_caption(tmp_path: Path) -> None:
    """Databases keep these names: a source that is ingested again has to find its pairs."""
    vectors = {"image_vector": [[1.0, 2.5], [3.0, 4.0]], "text_vector": [[0.5], [2.0]]}
    frame = pl.DataFrame({"pair_id": ["own", None], "caption": ["a", "ü"], **vectors})
    ingest(str(tmp_path / "db"), frame)
    said = np.array([3, 4, 2], np.float32).tobytes() + "\0ü".encode()
    names = PairStore.open(str(tmp_path / "db")).read(columns=["pair_id"])["pair_id"].to_pylist()
    assert names == ["own", hashlib.sha256(said).hexdigest()[:32]]


def corrected(frame: pl.DataFrame, column: str, row: int = 3) -> pl.DataFrame:
    """The same pairs, one of them saying something else in one column."""
    if column.endswith("vector"):
        values = frame[column].to_numpy().copy()
        values[row] = -values[row]
        return frame.with_columns(pl.Series(column, values))
    hit = pl.col("pair_id") == f"p{row}"
    return frame.with_columns(pl.when(hit).then(pl.lit("other")).otherwise(column).alias(column))


def captions(uri: str, version: str = "latest") -> dict[str, str]:
    rows = PairStore.open(uri).read(version, ["pair_id", "caption"]).to_pylist()
    return {row["pair_id"]: row["caption"] for row in rows}


@pytest.mark.parametrize(
    "column",
    ["caption", "image_uri", "license", "source", "camera", "image_vector", "text_vector"],
)
def test_other_content_under_a_known_id_is_changed_and_not_already_there(
    uri: str, frame: pl.DataFrame, column: str
) -> None:
    report = ingest(uri, corrected(frame, column))
    assert (report.added, report.already_there, report.changed, report.updated) == (0, 9, 1, 0)
    assert report.version is None
    update = ingest(uri, corrected(frame, column), UPDATE)
    assert (update.added, update.already_there, update.changed, update.updated) == (0, 9, 1, 1)
    assert update.version is not None
    assert (update.version.name, update.version.pairs) == ("v2", 10)
    again = ingest(uri, corrected(frame, column), UPDATE)
    assert (again.already_there, again.changed, again.version) == (10, 0, None)
    assert PairStore.open(uri).diff("v1", "v2").changes.changed == ("p3",)


def test_skipping_leaves_the_old_caption_and_updating_replaces_it_in_a_new_version(
    uri: str, frame: pl.DataFrame
) -> None:
    fix = corrected(frame, "caption")
    ingest(uri, fix)
    assert captions(uri)["p3"] == "caption 3"
    ingest(uri, fix, UPDATE)
    assert captions(uri) == {f"p{i}": f"caption {i}" for i in range(10)} | {"p3": "other"}
    assert captions(uri, "v1")["p3"] == "caption 3"


def test_failing_writes_nothing_and_names_the_first_ids(
    uri: str, frame: pl.DataFrame, rng: np.random.Generator
) -> None:
    before = lance.dataset(f"{uri}/pairs.lance").version
    fix = frame.with_columns(caption=pl.lit("other"))
    more = pl.concat([pairs_frame(5, rng, start=50), fix.select(pairs_frame(1, rng).columns)])
    with pytest.raises(PairConflictError, match=r"^10 pairs are in .* \(p0, p1, p2, …\): nothing"):
        ingest(uri, more, IngestOptions(on_conflict="fail"))
    assert lance.dataset(f"{uri}/pairs.lance").version == before
    fresh = pairs_frame(5, rng, start=50)
    assert ingest(uri, fresh, IngestOptions(on_conflict="fail")).added == 5


def test_the_name_of_a_file_and_blanks_in_attributes_are_no_content(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    frame = pairs_frame(4, rng).drop("license")
    ingest(str(tmp_path / "db"), frame.with_columns(year=pl.lit("1999")))
    rows = [
        {**row, "year": "1999", "image_uri": None}
        for row in frame.with_columns(pl.col(pl.Array).arr.to_list()).to_dicts()
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = ingest_sources(tmp_path / "db", [tmp_path / "b.jsonl"])
    assert (report.already_there, report.changed) == (4, 0)
    other = ingest_sources(tmp_path / "db", [tmp_path / "b.jsonl"], IngestOptions(source="mine"))
    assert other.changed == 4


def test_ids_that_are_made_of_the_content_find_their_pairs_again(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    frame = pairs_frame(3_000, rng).drop("pair_id")
    ingest(str(tmp_path / "db"), frame)
    order = pl.Series(rng.permutation(3_000))
    report = ingest(str(tmp_path / "db"), frame[order], IngestOptions(license="unused"))
    assert (report.added, report.already_there, report.changed) == (0, 3_000, 0)
    bare = frame.with_columns(license=pl.lit(None, pl.String))
    report = ingest(str(tmp_path / "db"), bare, IngestOptions(license="CC0", on_conflict="update"))
    assert (report.changed, report.updated) == (3_000, 3_000)
    assert matching_ids(PairStore.open(str(tmp_path / "db")), "license = 'CC0'") != []


def test_new_and_changed_pairs_go_in_together(
    uri: str, frame: pl.DataFrame, rng: np.random.Generator
) -> None:
    new = pairs_frame(3, rng, start=20)
    both = pl.concat([corrected(frame, "caption").select(new.columns), new])
    report = ingest(uri, both.with_columns(license=pl.lit("CC0")), UPDATE)
    assert (report.added, report.updated, report.already_there) == (3, 10, 0)
    assert report.version is not None
    assert (report.version.pairs, report.version.added, report.version.removed) == (13, 13, 10)


def test_vectors_of_another_size_are_refused_before_they_are_compared(
    uri: str, frame: pl.DataFrame, rng: np.random.Generator
) -> None:
    wide = rng.standard_normal((10, IMAGE_DIM + 1)).astype(np.float32)
    report = ingest(uri, frame.with_columns(image_vector=wide), UPDATE)
    assert (len(report.rejects), report.changed) == (10, 0)


def test_the_command_says_what_changed_and_what_to_do(
    cli: Cli, tmp_path: Path, frame: pl.DataFrame
) -> None:
    frame.write_parquet(tmp_path / "a.parquet")
    corrected(frame, "caption").write_parquet(tmp_path / "b.parquet")
    cli("--db", "db", "ingest", "a.parquet")
    told = cli("--db", "db", "ingest", "b.parquet").err.splitlines()
    assert told == [
        "added 0, already there 9, changed 1, rejected 0; no new version",
        "changed pairs are in the database with other content and were left as they were: "
        "--on-conflict update replaces them",
    ]
    refused = cli("--db", "db", "ingest", "b.parquet", "--on-conflict", "fail")
    assert (refused.status, len(refused.err.splitlines())) == (1, 1)
    (report,) = cli(
        *("--db", "db", "ingest", "b.parquet", "--on-conflict", "update", "--format", "json")
    ).objects
    assert (report["changed"], report["updated"], report["version"]) == (1, 1, "v2")
