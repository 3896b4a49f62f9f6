"""Labelled pictures out of folders, manifests and vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from asif_lance.encoders import ImageEncoder, sha256_of
from asif_lance.errors import DimensionError, InputError, SourceError
from asif_lance.evaluation.labelled_pictures import (
    Labelled,
    draw_per_class,
    encode_labelled,
    hold_out,
    read_labelled,
)
from asif_lance.records import EncoderPin, Reject


def made_of(truths: str) -> Labelled:
    names = tuple(f"{i}" for i in range(len(truths)))
    return Labelled(names, tuple(truths), vectors=np.eye(len(truths), 8, dtype=np.float32) + 0.1)


def test_manifests_name_pictures_beside_them_or_in_the_folder_of_their_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "test").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "test" / "a.png")
    (tmp_path / "test.csv").write_text("Image,label\na.png,red\nb.png,blue\nc.png,\n")
    rejects: list[Reject] = []
    found = read_labelled(tmp_path / "test.csv", rejects)
    assert found.images == (tmp_path / "test" / "a.png", tmp_path / "test" / "b.png")
    assert (found.truths, found.classes) == (("red", "blue"), ("blue", "red"))
    assert rejects == [Reject("evaluate", "row 3", "empty label")]
    with pytest.raises(SourceError, match="rows that cannot be used: row 3: empty label"):
        read_labelled(tmp_path / "test.csv")
    (tmp_path / "test.jsonl").write_text('{"file_name": "test/a.png", "label": 7}\n')
    found = read_labelled(tmp_path / "test.jsonl")
    assert (found.truths, found.images) == (("7",), (tmp_path / "test" / "a.png",))


def test_parquet_may_hold_pictures_or_their_vectors(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": b"x", "path": None}], "label": ["a"]}
    pl.DataFrame(rows).write_parquet(tmp_path / "images.parquet")
    found = read_labelled(tmp_path / "images.parquet")
    assert (found.images, found.names, found.vectors) == ((b"x",), ("row 1",), None)
    rows = {"id": [5], "label": ["a"], "vector": [[0.0, 1.0]]}
    pl.DataFrame(rows).write_parquet(tmp_path / "vectors.parquet")
    found = read_labelled(tmp_path / "vectors.parquet")
    assert (found.names, found.images, found.embeddings.tolist()) == (("5",), (), [[0.0, 1.0]])


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.csv", "image,class\na,b\n", "has no column 'label'; its columns: image, class"),
        (
            "t.csv",
            "picture,label\na,b\n",
            r"has no image column \(image, .*, vector\) among: picture, label",
        ),
        ("t.csv", "image,label\n", "has no rows"),
        ("t.parquet", "no parquet", "is not readable Parquet"),
        ("t.txt", "a", "expected a folder of CLASS/picture.jpg, or one of .csv, .tsv"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=reason):
        read_labelled(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "image;label\na.png;red\nb.png;blue\n"),
        ("t.csv", "a note,filepath,Label\n,a.png,red\n,b.png,blue\n"),
        ("t.tsv", "img\tlabel\na.png\tred\nb.png\tblue\n"),
        ("t", "image,label\na.png,red\nb.png,blue\n"),
        ("t.jsonl", '{"Image": "a.png", "LABEL": "red"}\n{"image": "b.png", "label": "blue"}\n'),
    ],
)
def test_manifests_are_read_as_ingest_reads_them(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = read_labelled(tmp_path / name)
    assert found.images == (tmp_path / "a.png", tmp_path / "b.png")
    assert found.truths == ("red", "blue")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.csv", "image,label\na.png,red,more\nb.png,blue\n", "row has 3 fields"),
        ("t.jsonl", '{"image": "a\n{"image": "b.png", "label": "blue"}\n', "malformed JSON"),
        ("t.csv", "image,label\n,red\nb.png,blue\n", "missing image"),
    ],
)
def test_a_bad_row_costs_itself(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    rejects: list[Reject] = []
    assert read_labelled(tmp_path / name, rejects).truths == ("blue",)
    ((item, why),) = ((reject.item, reject.reason) for reject in rejects)
    assert item == "row 1"
    assert why.startswith(reason)


def test_vectors_that_cannot_be_compared_cost_their_rows(tmp_path: Path) -> None:
    vectors = [[1.0, 0.0], [1.0], [0.0, 0.0], [0.0, 1.0]]
    pl.DataFrame({"label": list("abcd"), "vector": vectors}).write_parquet(tmp_path / "v.parquet")
    rejects: list[Reject] = []
    found = read_labelled(tmp_path / "v.parquet", rejects)
    assert (found.truths, found.names) == (("a", "d"), ("row 1", "row 4"))
    assert sorted(reject.item for reject in rejects) == ["row 2", "row 3"]


def test_folders_leave_out_hidden_ones_and_tell_the_rest(tmp_path: Path) -> None:
    names = ("bird/a.png", ".ipynb_checkpoints/b.png", "bird/._a.png", "bird/.thumbnails/c.png")
    for name in (*names, "stray.png", "fruit/d.psd", "store/e.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    (tmp_path / "in" / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    rejects: list[Reject] = []
    found = read_labelled(tmp_path / "in", rejects)
    assert found.truths == ("bird", "linked")
    assert [(Path(reject.item).name, reject.reason) for reject in rejects] == [
        ("d.psd", ".psd pictures are not supported"),
        ("stray.png", "not in a folder of its class"),
    ]


def test_numbers_of_classes_are_labels_by_name_or_by_number(tmp_path: Path) -> None:
    features = {"kind": {"names": ["bird", "fruit"], "_type": "ClassLabel"}}
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": ["a.png", "b.png"], "kind": [1, 0]})
    pq.write_table(table.replace_schema_metadata(noted), tmp_path / "t.parquet")
    found = read_labelled(tmp_path / "t.parquet")
    assert found.truths == ("fruit", "bird")
    assert found.by_labels(["bird", "fruit", "dish"]) == found
    assert found.by_labels(["0", "1"]).truths == ("1", "0")
    assert not found.are_numbered
    assert found.by_labels(["0", "1"]).are_numbered


def test_held_out_pictures_are_of_every_class_and_never_both_here_and_there() -> None:
    labelled = made_of("aaaabbbbbbbb")
    kept, out = hold_out(labelled, 0.25, seed=3)
    assert sorted(out.truths) == list("abb")
    assert sorted(kept.names + out.names) == sorted(labelled.names)
    assert hold_out(labelled, 0.25, seed=3)[1].names == out.names
    for share, reason in ((0.0, "between 0 and 1"), (0.01, "too few to hold out 1.0%")):
        with pytest.raises(InputError, match=reason):
            hold_out(labelled, share)


def test_some_pictures_of_each_class_are_nested_and_leave_others() -> None:
    labelled = made_of("aaaabbbb")
    few = draw_per_class(labelled, 1, np.random.default_rng(1))
    more = draw_per_class(labelled, 3, np.random.default_rng(1))
    assert [labelled.take(chosen).truths for chosen in (few, more)] == [("a", "b"), tuple("aaabbb")]
    assert not (few & ~more).any()
    assert not draw_per_class(made_of("aab"), 9, np.random.default_rng(1))[2]
    with pytest.raises(InputError, match="no class has two pictures"):
        draw_per_class(made_of("ab"), 1, np.random.default_rng(1))


def test_pictures_that_are_not_encoded_have_no_queries() -> None:
    with pytest.raises(InputError, match="not encoded"):
        _ = Labelled(("a",), ("b",)).queries


def test_vectors_need_no_encoder_but_the_right_dimension() -> None:
    def refuse() -> ImageEncoder:
        raise AssertionError("the encoder was loaded")

    labelled = made_of("ab")
    assert encode_labelled(labelled, refuse, 8) is labelled
    with pytest.raises(DimensionError, match="9"):
        encode_labelled(labelled, refuse, 9)


class MeanColour:
    """A picture's mean colour as its vector."""

    pin, min_side = EncoderPin("timm/mean", "", 3), 1

    def prepare(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image, np.float32).mean(axis=(0, 1)))

    def encode(self, batch: torch.Tensor) -> np.ndarray:
        return batch.numpy() / np.linalg.norm(batch.numpy(), axis=1, keepdims=True)


def test_a_picture_is_hashed_as_it_is_read_for_the_encoder(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4), name).save(tmp_path / name / "a.png")
    (tmp_path / "red" / "bad.png").write_bytes(b"no picture")
    rejects: list[Reject] = []
    found = encode_labelled(read_labelled(tmp_path), MeanColour, 3, rejects)
    assert found.truths == ("blue", "red")
    assert found.digests == tuple(sha256_of(image) for image in found.images)
    assert np.array_equal(found.embeddings, np.eye(3, dtype=np.float32)[[2, 0]])
    assert [reject.reason for reject in rejects] == ["not an image"]
