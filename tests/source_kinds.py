"""One source of each kind, good or damaged, as tests/ingest/test_every_source.py reads them."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
from source_archives import picture, samples, write_tar, write_zip
from source_files import write, write_parquet

PNG, JPEG, WEBP = picture(), picture("blue", "JPEG"), picture("green", "WEBP")


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


# webdataset


def tar(folder: Path) -> Path:
    members = [
        ("a.png", PNG),
        ("a.txt", "An apple."),
        ("b.jpg", JPEG),
        ("b.json", '{"caption": "A boat.", "license": "CC0", "width": 32}'),
        ("c.webp", WEBP),
        ("c.cls", "cat"),
        ("c.npy", b"\0"),
    ]
    return write_tar(folder / "t.tar", members)


def tar_of_damaged_samples(folder: Path) -> Path:
    members = [
        ("ok.png", PNG),
        ("ok.txt", "Good."),
        ("bare.png", PNG),
        ("alone.txt", "No picture."),
        ("bad.png", PNG),
        ("bad.json", "{"),
        ("latin.png", PNG),
        ("latin.txt", b"B\xe4r"),
        ("two.png", PNG),
        ("two.jpg", JPEG),
        ("two.txt", "Which?"),
        ("again.png", PNG),
        ("again.txt", "one"),
        ("again.txt", "two"),
        ("empty.png", PNG),
        ("empty.txt", " "),
    ]
    return write_tar(folder / "t.tar", members)


def hostile_tar(folder: Path) -> Path:
    members = [
        ("../out.png", PNG),
        ("../out.txt", "Out."),
        ("/etc/abs.png", PNG),
        (special("link.png", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (special("hard.png", tarfile.LNKTYPE, "ok.png"), b""),
        (special("dev.png", tarfile.CHRTYPE), b""),
        (special("pipe.txt", tarfile.FIFOTYPE), b""),
        ("\udcff.png", PNG),
        ("ok.png", PNG),
        ("ok.txt", "Good."),
    ]
    return write_tar(folder / "t.tar", members)


def gzipped_tar(folder: Path) -> Path:
    return write_tar(folder / "t.tar.gz", samples(3), "w:gz")


def tar_with_stats(folder: Path) -> Path:
    write(folder / "00000_stats.json", '{"count": 5, "successes": 3}')
    return write_tar(folder / "00000.tar", samples(3))


def tar_with_a_bad_header(folder: Path) -> Path:
    path = tar_with_stats(folder)
    content = bytearray(path.read_bytes())
    at = content.index(b"000000002.jpg")
    content[at : at + 4] = b"\xff\xff\xff\xff"
    return write(path, bytes(content))


def tar_cut_in_a_picture(folder: Path) -> Path:
    path = tar_with_stats(folder)
    content = path.read_bytes()
    return write(path, content[: content.index(b"000000002.jpg") + 700])


def tar_cut_between_members(folder: Path) -> Path:
    path = write_tar(folder / "t.tar", samples(1))
    with tarfile.open(path) as archive:
        *_, last = archive.getmembers()
    return write(path, path.read_bytes()[: last.offset_data + 512])


def gzipped_tar_that_is_cut(folder: Path) -> Path:
    path = gzipped_tar(folder)
    return write(path, path.read_bytes()[:-200])


def folder_of_shards(folder: Path) -> Path:
    write_tar(folder / "in" / "00000.tar", samples(2))
    write_tar(folder / "in" / "00001.tar", samples(2, first=2))
    write(folder / "in" / "00001_stats.json", '{"successes": 2}')
    write_parquet(folder / "in" / "00000.parquet", {"url": ["http://x"], "caption": ["c"]})
    return folder / "in"


def folder_of_damaged_shards(folder: Path) -> Path:
    folder_of_shards(folder)
    write(folder / "in" / "00000.tar", b"no archive at all")
    write(folder / "in" / "00001_stats.json", '{"successes": 7}')
    return folder / "in"


# Parquet


def img2dataset_parquet(folder: Path) -> Path:
    columns = {
        "key": ["000", "001", "002"],
        "url": [f"http://example.org/{i}.jpg" for i in range(3)],
        "caption": ["A boat.", "A cat.", "Gone."],
        "status": ["success", "success", "failed_to_download"],
        "error_message": [None, None, "HTTP Error 404: Not Found"],
        "jpg": [JPEG, picture("red", "JPEG"), None],
    }
    return write_parquet(folder / "00000.parquet", columns)


def hugging_face_parquet(folder: Path) -> Path:
    image = [{"bytes": PNG, "path": "a.png"}, {"bytes": JPEG, "path": None}, None]
    return write_parquet(folder / "t.parquet", {"image": image, "text": ["One.", "Two.", "Three."]})


def damaged_parquet(folder: Path) -> Path:
    path = hugging_face_parquet(folder)
    return write(path, path.read_bytes()[:-20])


def laion_parquet(folder: Path) -> Path:
    urls = [f"https://example.org/{i}" for i in range(3000)]
    return write_parquet(folder / "t.parquet", {"URL": urls, "TEXT": ["x"] * 3000})


# imagefolder


def image_folder(folder: Path, rows: str = "") -> Path:
    write(folder / "in" / "train" / "0001.png", PNG)
    write(folder / "in" / "train" / "deep" / "0002.png", JPEG)
    rows = rows or "file_name,text\n0001.png,One.\ndeep/0002.png,Two.\n"
    write(folder / "in" / "train" / "metadata.csv", rows)
    return folder / "in"


def damaged_image_folder(folder: Path) -> Path:
    found = image_folder(folder, "file_name,text\n0001.png,One.\n0001.png,one,two\n,None.\n")
    write(found / "test" / "metadata.jsonl", '{"file_name": "x.png", "text": "Test."}\n{"file\n')
    return found


# COCO


def coco(folder: Path, **changes: Any) -> Path:
    for name in ("000000000001.jpg", "000000000002.jpg"):
        write(folder / "val2017" / name, JPEG)
    content = {
        "info": {"description": "COCO 2017"},
        "licenses": [{"id": 4, "name": "CC BY"}],
        "images": [
            {"id": 1, "file_name": "000000000001.jpg", "license": 4},
            {"id": 2, "file_name": "000000000002.jpg", "license": 4},
        ],
        "annotations": [
            {"image_id": 1, "id": 10, "caption": "A boat."},
            {"image_id": 1, "id": 11, "caption": "A ship."},
            {"image_id": 2, "id": 12, "caption": "A cat."},
        ],
    }
    text = json.dumps({**content, **changes})
    return write(folder / "annotations" / "captions_val2017.json", text)


def damaged_coco(folder: Path) -> Path:
    annotations = [
        {"image_id": 1, "caption": "A boat."},
        {"image_id": 3, "caption": "Lost."},
        {"image_id": 1},
        "nothing",
    ]
    images = [{"id": 1, "file_name": "000000000001.jpg"}, {"id": 1, "file_name": "x"}, {"id": 7}]
    return coco(folder, images=images, annotations=annotations)


def coco_that_is_cut(folder: Path) -> Path:
    path = coco(folder)
    return write(path, path.read_bytes()[:-40])


# Flickr


def flickr(folder: Path, more: str = "") -> Path:
    for name in ("1000_a.jpg", "1001_b.jpg"):
        write(folder / "Flicker8k_Dataset" / name, JPEG)
    lines = "".join(f"1000_a.jpg#{i}\tCaption {i} .\n" for i in range(5)) + "1001_b.jpg#0\tA cat\n"
    return write(folder / "Flickr8k_text" / "Flickr8k.token.txt", lines + more)


def damaged_flickr(folder: Path) -> Path:
    return flickr(folder, "1001_b.jpg A dog\n\n1001_b.jpg#1\t\n")


def flickr_results(folder: Path, more: str = "") -> Path:
    write(folder / "flickr30k-images" / "1.jpg", JPEG)
    text = 'image_name| comment_number| comment\n1.jpg| 0| A "boat , "\n1.jpg| 1| A ship .\n'
    return write(folder / "results.csv", text + more)


def damaged_flickr_results(folder: Path) -> Path:
    return flickr_results(folder, "1.jpg| 4   A dog runs across the grass .\n")


def kaggle(folder: Path) -> Path:
    write(folder / "Images" / "1.jpg", JPEG)
    return write(folder / "captions.txt", 'image,caption\n1.jpg,"A boat, red ."\n1.jpg,A ship .\n')


def kaggle_folder(folder: Path) -> Path:
    return kaggle(folder).parent


# CC3M and the like


def cc3m(folder: Path) -> Path:
    lines = "".join(f"caption {i}\thttp://example.org/{i}.jpg?x=1\n" for i in range(2500))
    return write(folder / "Train_GCC-training.tsv", lines)


def cc12m_partly_here(folder: Path) -> Path:
    write(folder / "1.jpg", JPEG)
    return write(folder / "t.tsv", "1.jpg\tA boat.\nhttps://example.org/2.jpg\tGone.\n")


# ZIP


def zip_with_texts(folder: Path) -> Path:
    members = [("p/a.png", PNG), ("p/a.txt", "One."), ("p/b.jpg", JPEG), ("p/b.txt", "Two.\nZwei.")]
    return write_zip(folder / "t.zip", [*members, ("__MACOSX/p/._a.png", b"x"), ("readme.md", "x")])


def zip_with_manifest(folder: Path) -> Path:
    rows = "image,caption\na.png,One.\nimages/b.jpg,Two.\nlost.png,Lost.\n"
    members = [("x/images/a.png", PNG), ("x/images/b.jpg", JPEG), ("x/captions.csv", rows)]
    return write_zip(folder / "t.zip", members)


def zip_with_a_damaged_manifest(folder: Path) -> Path:
    path = zip_with_manifest(folder)
    content = bytearray(path.read_bytes())
    at = content.index(b"x/captions.csv") + 20
    content[at : at + 8] = bytes(8)
    return write(path, bytes(content))


def hostile_zip(folder: Path) -> Path:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    members = [("../out.png", PNG), (link, "/etc/passwd"), ("ok.png", PNG), ("ok.txt", "Good.")]
    return write_zip(folder / "t.zip", [*members, ("bare.png", PNG)])


def zip_with_a_damaged_member(folder: Path) -> Path:
    path = zip_with_texts(folder)
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xd8") if b"\xff\xd8" in content else content.index(b"p/b.jpg") + 20
    content[at : at + 8] = bytes(8)
    return write(path, bytes(content))


def zip_that_is_cut(folder: Path) -> Path:
    path = zip_with_texts(folder)
    return write(path, path.read_bytes()[:-40])


def zip_bomb(folder: Path) -> Path:
    return write_zip(folder / "t.zip", [("a.png", bytes(300 * 2**20)), ("a.txt", "Zeros.")])


# Lance


def lance_table(folder: Path) -> Path:
    image = pa.array([PNG, JPEG, None], pa.binary())
    table = pa.table({"image": image, "caption": ["One.", "Two.", "Three."], "n": [1, 2, 3]})
    lance.write_dataset(table, folder / "db" / "photos.lance")
    return folder / "db" / "photos.lance"


def lance_database(folder: Path) -> Path:
    return lance_table(folder).parent


def damaged_lance_table(folder: Path) -> Path:
    path = lance_table(folder)
    for file in (path / "data").iterdir():
        file.write_bytes(b"")
    return path
