"""Sources in an object store: what files of a folder bring, the same objects bring."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from conftest import Cli, picture
from s3_server import Server, upload
from source_archives import samples, write_tar
from source_files import as_if_in, read, refusal, told_of

from asif_lance.errors import SourceError
from asif_lance.ingest import expand_sources, ingest_sources, read_source
from asif_lance.ingest.sources import SourceBatch
from asif_lance.object_stores import open_path, open_store
from asif_lance.store import PairStore

pytestmark = pytest.mark.slow

HOSTILE = ["a b", "100%20 %", "ü é", "quote's \"", "h#x ?y=1", "star*[1]", "back\\slash", "~x", "-"]


def test_pictures_and_manifests_in_a_bucket_are_walked_as_in_a_folder(
    tmp_path: Path, bucket: str
) -> None:
    for name in ("b", "a/z", "a/b/c", ".hidden/x", "c/__MACOSX/y", "ab"):
        picture(tmp_path / "in" / f"{name}.png", 1).with_suffix(".txt").write_text(name)
    (tmp_path / "in" / "a" / "z.txt").rename(tmp_path / "in" / "a" / "z.TXT")
    picture(tmp_path / "in" / "bare.png", 2)
    (tmp_path / "list.csv").write_text("image,caption\nin/b.png,B.\nin/lost.png,Lost.\n,None.\n")
    place = upload(tmp_path, bucket)
    for name in ("in", "list.csv"):
        expected = as_if_in(place, tmp_path, told_of(tmp_path / name))
        assert told_of(f"{place}/{name}") == expected
    assert [batch.frame.shape for batch in read_source(f"{place}/in/")] == [(4, 12)]


def test_objects_have_any_names(tmp_path: Path, bucket: str) -> None:
    archive = write_tar(tmp_path / "t.tar", samples(1)).read_bytes()
    for name in HOSTILE:
        (open_path(bucket) / f"{name}/{name}.tar").write_bytes(archive)
        address = f"{bucket}/{name}/{name}.tar"
        (row,), refused = read(address)
        assert (row["image_uri"], refused) == (f"{address}#000000000.jpg", [])
        assert expand_sources([address]) == [address]
    rows, refused = read(bucket)
    assert (len(rows), refused) == (len(HOSTILE), [])


@pytest.mark.parametrize("key", ["x//y.tar", "x/%2E%2E/y.tar"])
def test_an_object_whose_name_is_no_path_is_told(bucket: str, s3_server: Server, key: str) -> None:
    s3_server.ask("PUT", f"{bucket.removeprefix('s3://')}/{key}", b"x")
    assert "invalid path" in refusal(f"{bucket}/x")


def test_a_control_character_in_the_name_of_an_object_is_told_as_an_escape(
    bucket: str, s3_server: Server
) -> None:
    s3_server.ask("PUT", f"{bucket.removeprefix('s3://')}/x/a%09b.tar", b"x")
    told = refusal(f"{bucket}/x")
    assert r'invalid path: Error parsing Path "x/a\tb.tar"' in told
    assert told.isprintable()


@pytest.mark.parametrize("pattern", ["*.tar", "**/*.tar", "*", "?/[ab].tar", ".h/*.tar", "**"])
def test_a_pattern_matches_objects_as_it_does_files(
    tmp_path: Path, bucket: str, pattern: str
) -> None:
    for name in ("x.tar", "y.tar", ".z.tar", "a/a.tar", "a/b/c.tar", ".h/h.tar"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    place = upload(tmp_path, bucket)
    here = [str(one).rstrip("/") for one in expand_sources([f"{tmp_path}/in/{pattern}"])]
    expected = {one.replace(str(tmp_path), place) for one in here if not one.endswith("/in")}
    assert set(expand_sources([f"{place}/in/{pattern}"])) == expected


def test_what_is_not_there_or_may_not_be_read_is_told_in_one_line(
    bucket: str, s3_server: Server, cli: Cli
) -> None:
    assert refusal("s3://no-such-bucket/x").count("NoSuchBucket") == 1
    assert refusal(f"{bucket}/nothing here") == f"there is no source at {bucket}/nothing here"
    assert refusal("s3://") == "s3:// names no bucket"
    with pytest.raises(SourceError, match="nothing matches"):
        expand_sources([f"{bucket}/*.tar"])
    with pytest.raises(SourceError, match="a pattern cannot name the bucket"):
        expand_sources(["s3://*/x.tar"])
    s3_server.ask("POST", "moto-api/reset-auth", b"0")
    try:
        told = cli("--db", "t.lancedb", "ingest", f"{bucket}/x")
    finally:
        s3_server.ask("POST", "moto-api/reset-auth", b"inf")
    assert (told.status, told.out) == (1, "")
    assert "403 Forbidden" in told.err
    assert len(told.err.splitlines()) == 1


@pytest.mark.parametrize("damage", ["removed", "replaced"])
def test_parquet_that_changes_while_it_is_read_costs_the_rest_of_it(
    tmp_path: Path, bucket: str, damage: str
) -> None:
    texts = pl.Series(range(200_000)).cast(pl.String)
    table = pl.DataFrame({"image": "x.png", "caption": texts}).to_arrow()
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=50_000)
    place = upload(tmp_path, bucket)
    batches = read_source(f"{place}/t.parquet")
    found = [next(batches)]
    if damage == "removed":
        (open_path(place) / "t.parquet").unlink()
    else:
        pq.write_table(table.slice(1), tmp_path / "t.parquet", row_group_size=50_000)
        upload(tmp_path, bucket)
    found += batches
    assert count(found) + sum(map(rows_of, found)) == len(table)
    reason = "no such object" if damage == "removed" else "changed while it was read"
    assert found[-1].rejects[-1].reason == f"damaged Parquet ({reason})"


def count(found: list[SourceBatch]) -> int:
    return sum(len(batch.frame) for batch in found)


def rows_of(batch: SourceBatch) -> int:
    """How many rows are refused, by `rows 1 to 3`."""
    spans = [reject.item.split()[1:] for reject in batch.rejects]
    return sum(int(last) - int(first) + 1 for first, _, last in spans)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(3):
        photo = picture(tmp_path / "photos" / f"{number}.png", number)
        photo.with_suffix(".txt").write_text(f"Number {number}.")
    content = [(p.name, p.read_bytes()) for p in sorted((tmp_path / "photos").iterdir())]
    write_tar(tmp_path / "photos.tar", content)
    return tmp_path


@pytest.mark.encoders
@pytest.mark.parametrize("name", ["photos", "photos.tar"])
def test_pictures_of_a_bucket_have_the_ids_that_they_have_in_a_folder(
    photos: Path, bucket: str, cli: Cli, name: str
) -> None:
    place = upload(photos, bucket)
    ingest_sources(photos / "here.lancedb", [photos / name])
    done = cli("--db", str(photos / "t.lancedb"), "ingest", f"{place}/{name}")
    assert done.status == 0, done.err
    here, there = (
        pl.DataFrame(PairStore.open(str(photos / db)).read()).drop("ingested_at").sort("pair_id")
        for db in ("here.lancedb", "t.lancedb")
    )
    addresses = here["image_uri"].str.replace(str(photos), place, literal=True)
    assert there.equals(here.with_columns(addresses.alias("image_uri")))
    again = cli("--db", str(photos / "t.lancedb"), "ingest", f"{place}/{name}")
    assert "already there 3" in again.out + again.err


def test_a_store_is_opened_once_for_all_objects_of_a_bucket(tmp_path: Path, bucket: str) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(1))
    place = upload(tmp_path, bucket)
    open_store.cache_clear()
    read(f"{place}/in")
    assert open_store.cache_info().misses == 1
