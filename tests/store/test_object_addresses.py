"""Addresses and settings by which no store can be reached are told in one line."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from conftest import Cli
from s3_server import Server

from asif_lance.errors import InputError, StorageError
from asif_lance.ingest import attach
from asif_lance.object_stores import create_object, list_sizes, open_path, use_storage_options

pytestmark = pytest.mark.slow

REFUSED = {
    "s3://": "names no bucket",
    "s3:///t.lancedb": "names no bucket",
    "s3:/bucket/t.lancedb": "such an address begins as s3:// does",
    "s3://us er@b:9/t.lancedb": "names no bucket",
    "BUCKET": "a database has a name in its bucket",
    "BUCKET/": "a database has a name in its bucket",
    "BUCKET/a?x.lancedb": "no '?' in it",
    "BUCKET/a#x.lancedb": "no '#' in it",
    "BUCKET/a%41.lancedb": "no '%' in it",
    "BUCKET/a*.lancedb": "no '*' in it",
    "BUCKET/[1]/t.lancedb": "no '[' in it",
    "BUCKET/a\tb.lancedb": "no '\\\\t' in it",
    "BUCKET/a//t.lancedb": "no empty names",
    "BUCKET/a/../t.lancedb": "no empty names",
    "BUCKET/t.lancedb ": "a space at its end",
    "ftp://b/t.lancedb": "begins with s3://, gs://, az://",
}
WRONG_SERVERS = [
    *("nonsense", "", "//x", "ftp://x", "http://", "https://:80", "http://h:99999", "http://h:x"),
    *("http://[::1", "http://a b", "http://h?x", "http://h/\t", "http://h^"),
]


def one_line(told: str) -> str:
    assert len(told.splitlines()) == 1
    return told


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_libraries_take_for_others_is_refused_and_nothing_written(
    cli: Cli, bucket: str, pairs_file: Path, address: str
) -> None:
    place = address.replace("BUCKET", bucket)
    for command in (["ingest", pairs_file], ["info"]):
        done = cli("--db", place, *command)
        assert (done.status, done.out) == (1, "")
        assert REFUSED[address] in one_line(done.err)
    assert list_sizes(open_path(bucket)) == {}


@pytest.mark.parametrize("name", ["ü é", "a+b&c=d;@x:", "q'\"{2}]", "back\\slash", "~^|`<$>!()"])
def test_any_other_name_is_one_place_for_all_libraries(
    cli: Cli, bucket: str, pairs_file: Path, name: str
) -> None:
    place = f"{bucket}/{name}/{name}.lancedb"
    assert cli("--db", place, "ingest", pairs_file).status == 0
    assert cli("--db", place, "check").status == 0
    assert all(file.startswith(f"{name}/{name}.lancedb/") for file in list_sizes(open_path(bucket)))


def test_a_table_to_attach_has_such_an_address_too(bucket: str, tmp_path: Path) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(np.ones(32, np.float32), 8)
    table = pa.table({"id": list("abcd"), "image_vector": vectors, "text_vector": vectors})
    lance.write_dataset(table, f"{bucket}/pics.lance")
    with pytest.raises(StorageError, match=r"no '\?' in it"):
        attach(f"{bucket}/pics.lance?x", str(tmp_path / "db"))
    assert attach(f"{bucket}/pics.lance", str(tmp_path / "db")).pairs == 4


def test_a_server_named_by_http_is_reached_by_http(
    cli: Cli, bucket: str, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert cli("--db", f"{bucket}/t.lancedb", "ingest", pairs_file).status == 0
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert cli("--db", f"{bucket}/t.lancedb", "info").status == 0


def test_http_that_was_forbidden_stays_so(
    cli: Cli, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    done = cli("--db", f"{bucket}/t.lancedb", "info")
    assert done.status == 1
    assert "AWS_ALLOW_HTTP forbids http" in one_line(done.err)


def test_a_server_that_storage_options_name_by_http_is_reached_by_http(
    bucket: str, s3_server: Server, cli: Cli, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{bucket}/t.lancedb"
    assert cli("--db", place, "ingest", pairs_file).status == 0
    for name in ("AWS_ALLOW_HTTP", "AWS_ENDPOINT"):
        monkeypatch.delenv(name)
    code = (
        "import asif_lance\n"
        f"options = {{'endpoint': {s3_server.address!r}}}\n"
        f"model = asif_lance.open({place!r}, storage_options=options)\n"
        "print(model.version.pairs)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "200\n", done.stderr


@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize("server", WRONG_SERVERS)
@pytest.mark.parametrize("name", ["AWS_ENDPOINT", "AWS_ENDPOINT_URL"])
def test_a_server_that_is_none_is_told_by_the_name_of_its_setting(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, server: str
) -> None:
    monkeypatch.setenv(name, server)
    for arguments in (["--db", "s3://b/t.lancedb", "info"], ["--db", "t", "ingest", "s3://b/x"]):
        done = cli(*arguments)
        assert (done.status, done.out) == (1, "")
        assert f"{name} is '" in one_line(done.err)


def test_an_object_that_is_not_there_leaves_no_file_half_made(
    bucket: str, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", left.append)
    for read in (lambda: (open_path(bucket) / "x").read_bytes(), (open_path(bucket) / "x").open):
        with pytest.raises(FileNotFoundError):
            read()
    gc.collect()
    create_object(bucket, "x", b"abc")
    assert (open_path(bucket) / "x").read_bytes() == b"abc"
    with (open_path(bucket) / "x").open("rb") as file:
        assert (file.read(2), file.read()) == (b"ab", b"c")
    assert (left, list(recwarn)) == ([], [])


@pytest.mark.usefixtures("s3_server")
def test_a_store_that_does_not_answer_is_told_in_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    done = cli("--db", "s3://nowhere/t.lancedb", "info")
    assert done.status == 1
    told = (
        "s3://nowhere/t.lancedb: no answer from http://127.0.0.1:9 (error sending request): check"
    )
    assert told in one_line(done.err)


@pytest.mark.usefixtures("s3_server")
def test_a_bucket_that_is_not_there_is_told_with_what_to_check(cli: Cli, pairs_file: Path) -> None:
    for command in (["ingest", pairs_file], ["info"]):
        done = cli("--db", "s3://not-there/t.lancedb", *command)
        assert done.status == 1
        assert "the store answered 404 Not Found to GET http://" in one_line(done.err)
        assert "/not-there [NoSuchBucket]: check that the bucket is there" in done.err
        assert "<" not in done.err


def test_credentials_that_are_refused_are_told_with_what_to_check(
    cli: Cli, bucket: str, s3_server: Server, pairs_file: Path
) -> None:
    place = f"{bucket}/t.lancedb"
    s3_server.ask("POST", "moto-api/reset-auth", b"0")
    try:
        told = [cli("--db", place, *one) for one in (["ingest", pairs_file], ["info"])]
        with pytest.raises(StorageError, match=r"403 Forbidden to PUT .*: check the credentials"):
            create_object(place, "x", b"")
    finally:
        s3_server.ask("POST", "moto-api/reset-auth", b"inf")
    for done in told:
        assert done.status == 1
        assert "the store answered 403 Forbidden to GET http://" in one_line(done.err)
        assert "[InvalidAccessKeyId]: check the credentials" in done.err
        assert "<" not in done.err


def test_options_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(InputError, match=r"^storage options are a mapping, not list$"):
        use_storage_options("s3://bucket/t.lancedb", [1])  # type: ignore[arg-type]
