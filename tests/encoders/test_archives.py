"""Archives are read once, from beginning to end, and what they claim is not believed."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_archives import picture, samples, write_tar, write_zip
from traced_memory import measure_peak

from asif_lance.encoders import open_zip, read_picture, read_tar, zip_members
from asif_lance.errors import ImageError, SourceError

END = bytes(1024)
IMPORTS = """
import sys
from pathlib import Path
from asif_lance.encoders import read_tar
from asif_lance.errors import SourceError
"""


def contents(path: Path) -> list[tuple[str, bytes]]:
    return [(member.name, member.read()) for member in read_tar(path)]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_come_in_order_whatever_the_dialect(tmp_path: Path, mode: str, format: int) -> None:
    path = tmp_path / "t.tar"
    wanted = [("a.jpg", b"x" * 512), (f"{'long/' * 30}ä.jpg", b""), ("b.jpg", b"y" * 700)]
    if format == tarfile.USTAR_FORMAT:
        wanted = [wanted[0], wanted[2]]
    with tarfile.open(path, mode, format=format) as archive:
        for name, data in wanted:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert contents(path) == wanted
    assert [member.name for member in read_tar(path)] == [name for name, _ in wanted]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header("a", -1024), "a header leads back"),
        (header("a", 2**40, tarfile.XHDTYPE), "a header of enormous size"),
        (header("a", 2**40, tarfile.GNUTYPE_LONGNAME), "a header of enormous size"),
        (header("a", 0, tarfile.XHDTYPE) * 5000 + header("a", 0) + END, "recursion"),
        (header("a", 2**40), "unexpected end of data"),
        (header("a", 0) + b"\xff" * 512, "bad checksum at byte 512"),
        (header("a", 0), "cut off"),
        (header("a", 0) + b"x" * 100, "cut off"),
    ],
)
def test_headers_that_lie_end_the_reading_with_a_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"; what follows is not read$") as caught:
        list(read_tar(path))
    assert reason in str(caught.value)


def test_a_member_larger_than_a_picture_may_be_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(header("a.jpg", 2**40))
    with pytest.raises(ImageError, match="file too large"):
        next(read_tar(path)).read()


def test_a_gzipped_bomb_ends_early_and_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(header("zeros.npy", 2**40))
        for _ in range(300):
            stream.write(bytes(2**20))
    lines = """
    try:
        list(read_tar(Path(sys.argv[1])))
    except SourceError as error:
        assert "would grow to more than 268,435,456 bytes" in str(error)
    else:
        raise AssertionError
    """
    assert measure_peak(IMPORTS, lines, path) < 16 * 2**20


def test_members_without_end_do_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(header("a.jpg", 0) * 20_000 + END)
    lines = "assert sum(1 for _ in read_tar(Path(sys.argv[1]))) == 20_000"
    assert measure_peak(IMPORTS, lines, path) < 8 * 2**20  # a header alone takes 1 KiB


@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, 4000), garbage=st.binary(min_size=1, max_size=40), zipped=st.booleans())
def test_no_damage_ends_the_reading_in_another_way(
    tmp_path_factory: pytest.TempPathFactory, at: int, garbage: bytes, zipped: bool
) -> None:
    path = tmp_path_factory.mktemp("t") / "t.tar"
    write_tar(path, samples(2), "w:gz" if zipped else "w")
    content = bytearray(path.read_bytes())
    at = at % len(content)
    content[at : at + len(garbage)] = garbage
    path.write_bytes(content)
    try:
        for member in read_tar(path):
            try:
                member.read()
            except ImageError:
                continue
    except SourceError:
        pass


@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, 4000), garbage=st.binary(min_size=1, max_size=40))
def test_no_damage_ends_the_reading_of_a_zip_in_another_way(
    tmp_path_factory: pytest.TempPathFactory, at: int, garbage: bytes
) -> None:
    path = write_zip(tmp_path_factory.mktemp("t") / "t.zip", samples(2))
    content = bytearray(path.read_bytes())
    at = at % len(content)
    content[at : at + len(garbage)] = garbage
    path.write_bytes(content)
    try:
        with open_zip(path) as archive:
            for member in zip_members(archive):
                try:
                    member.read()
                except ImageError:
                    continue
    except SourceError:
        pass


def test_encrypted_members_and_second_ones_of_a_name_are_not_read(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = write_zip(tmp_path / "t.zip", [("a.jpg", "x"), ("a.jpg", "y"), ("b.jpg", "z")])
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with open_zip(path) as archive:
        assert [(member.name, member.fault) for member in zip_members(archive)] == [
            ("a.jpg", None),
            ("a.jpg", "a second member of this name"),
            ("b.jpg", "encrypted"),
        ]


@pytest.mark.parametrize("kind", ["t.tar", "t.tar.gz", "t.zip"])
def test_a_picture_in_an_archive_is_found_again(tmp_path: Path, kind: str) -> None:
    path, members = tmp_path / kind, [("x/a.jpg", picture("red")), ("x/b.jpg", picture("blue"))]
    if kind == "t.zip":
        write_zip(path, members)
    else:
        write_tar(path, members, "w:gz" if kind.endswith("gz") else "w")
    assert read_picture(f"{path}#x/b.jpg") == picture("blue")
    for lost in (f"{path}#x/c.jpg", f"{path}x#x/a.jpg"):
        with pytest.raises(ImageError, match="missing file"):
            read_picture(lost)


def test_a_file_with_a_hash_in_its_name_is_itself(tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", [("a.jpg", b"inside")])
    (tmp_path / "t.tar#a.jpg").write_bytes(b"beside")
    assert read_picture(f"{tmp_path / 't.tar'}#a.jpg") == b"beside"


def test_zip_archives_that_claim_too_much_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "t.zip", [("a.jpg", bytes(300 * 2**20))])
    with pytest.raises(SourceError, match="would grow to"):
        open_zip(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("a.jpg").file_size == 300 * 2**20
