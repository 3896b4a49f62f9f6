"""Exactly what only the forgotten pairs had goes, and all of it, however short and wherever."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pairs_at_hand import names, new_store, pairs, vectors

from asif_lance.audit.recorder import Recorder
from asif_lance.database import open_table
from asif_lance.forgetting import load_document, load_receipts
from asif_lance.forgetting.content import Content
from asif_lance.model import Model
from asif_lance.records import Reject
from asif_lance.relative.recipes import PAPER
from asif_lance.store.forget import forget, verify_receipt
from asif_lance.store.pair_store import PairStore

IMAGE, TEXT = 64, 32
OTHERS = names(0, 30)


def batch(ids: list[str], **columns: Any) -> pa.Table:
    return pairs(ids, image=IMAGE, text=TEXT, **columns)


def filled(where: Path, pair_id: str = "p1", **columns: str) -> PairStore:
    """A database with one pair of its own kind among others."""
    store = new_store(where, IMAGE, TEXT)
    defaults = {"license": "cc", "attributes": '{"rated": "good one"}'}
    store.add(batch(OTHERS, **{name: [value] * 30 for name, value in defaults.items()}))
    store.add(batch([pair_id], **{name: [value] for name, value in (defaults | columns).items()}))
    store.publish(command="ingest")
    return store


def say(store: PairStore, message: str) -> None:
    """A new version with this message."""
    store.add(batch([f"new-{len(store.versions())}-id"]))
    store.publish(command="ingest", message=message)


def record(store: PairStore, images: list[str]) -> None:
    model = Model(store, store.version(), PAPER, device="cpu")
    sides = [vectors([side], TEXT).flatten().to_numpy().astype("f4")[None] for side in ("a", "b")]
    labels = model.label_vectors(dict(zip(("a", "b"), sides, strict=True)))
    flat = vectors(images, IMAGE).flatten().to_numpy().astype("f4").reshape(-1, IMAGE)
    with Recorder(store, labels, model.recipe) as run:
        for prediction in model.classify_vectors(images, flat, labels):
            run.add(prediction)


def images(store: PairStore) -> set[str]:
    return set(open_table(store.uri, "predictions").to_table()["image"].to_pylist())


def test_predictions_go_by_whole_paths_and_names(tmp_path: Path) -> None:
    store = filled(tmp_path, caption="elephant", image_uri="1.jpg")
    kept = ["11.jpg", "21.jpg", "1.jpg.bak", "zoo/elephant/a.png", "elephants/1.png", "a p1.jpg"]
    gone = ["1.jpg", "photos/1.jpg", "p1", "by id/p1/a.png"]
    record(store, kept + gone)
    receipt = forget(store, ["p1"], reason="asked to")
    assert images(store) == set(kept)
    assert (receipt.clean, receipt.elsewhere["predictions"]) == (True, 2 * len(gone))
    assert verify_receipt(store, receipt.receipt_id).clean


def test_what_other_pairs_share_stays(tmp_path: Path) -> None:
    shared = {"image_uri": "photos/both.jpg", "caption": "A dog.", "image_sha256": "ab" * 32}
    store = filled(tmp_path, **shared)
    twin = batch(["twin"], **{name: [value] for name, value in shared.items()})
    store.add(twin)
    say(store, "now with A dog. under photos/both.jpg, cc, good one")
    store.add_rejects("x", [Reject("cc", "photos/both.jpg", "no caption: A dog.")])
    record(store, ["photos/both.jpg"])
    message = store.version().message
    receipt = forget(store, ["p1"], reason="cc, good one")
    assert (receipt.clean, images(store)) == (True, {"photos/both.jpg"})
    assert (store.version().message, len(store.rejects())) == (message, 1)


@pytest.mark.parametrize(
    ("pair_id", "columns", "quoted"),
    [
        ("Ann", {}, "Ann"),
        ("b c d e", {}, "b c d e"),
        ("pp", {"caption": "Joe X"}, "Joe X"),
        ("pp", {"caption": "A cat."}, "A cat."),
        ("p1", {"source": "jane-doe-private"}, "jane-doe-private"),
        ("p1", {"license": "NDA Jane Doe 1980-01-02"}, "NDA Jane Doe 1980-01-02"),
        ("p1", {"attributes": '{"of": [{"mail": "j@x.io"}]}'}, "j@x.io"),
    ],
)
def test_short_and_rare_texts_are_sought_everywhere(
    tmp_path: Path, pair_id: str, columns: dict[str, str], quoted: str
) -> None:
    store = filled(tmp_path, pair_id, **columns)
    say(store, f"without {quoted}, as it was")
    say(store, f"with x{quoted}x")
    store.add_rejects("x", [Reject("s", "row 1", f"same as '{quoted}'"), Reject("s", "row 2", "?")])
    earlier = forget(store, OTHERS[:1], reason=f"before {quoted}: it came up")
    receipt = forget(store, [pair_id], reason="asked to")
    assert receipt.clean, receipt.findings
    assert [v.message for v in store.versions()][1:] == [
        "without [forgotten], as it was", f"with x{quoted}x",
    ]  # fmt: skip
    assert store.rejects()["item"].to_pylist() == ["row 2"]
    assert load_receipts(store.uri)[0].reason == "[forgotten]"
    assert (receipt.elsewhere["messages"], receipt.elsewhere["receipts"]) == (1, 1)
    for one in (earlier, receipt):
        assert verify_receipt(store, one.receipt_id).verdict == "confirmed"


@pytest.mark.parametrize("mark", ["{}", "[]", '""', "':", "{}}", "null", "{}{}"])
def test_marks_that_lance_writes_are_no_finding(tmp_path: Path, mark: str) -> None:
    store = filled(tmp_path, caption=mark, attributes=f'{{"of": {json.dumps(mark)}}}')
    receipt = forget(store, ["p1"], reason="asked to")
    assert receipt.clean, receipt.findings
    assert verify_receipt(store, receipt.receipt_id).verdict == "confirmed"


def test_where_words_are_not_spaced_each_character_is_one(tmp_path: Path) -> None:
    store = filled(tmp_path, "小猫")
    say(store, "没有小猫了")
    assert forget(store, ["小猫"], reason="asked to").clean
    assert store.version().message == "没有[forgotten]了"


def test_a_number_of_a_row_is_no_id(tmp_path: Path) -> None:
    store = filled(tmp_path, "12", attributes='{"n": "v1"}')
    store.add_rejects("x", [Reject("s.csv", "row 12", "no image"), Reject("12", "row 1", "?")])
    receipt = forget(store, ["12"], reason="asked to")
    assert (receipt.clean, store.rejects()["item"].to_pylist()) == (True, ["row 12"])


def test_a_reason_is_signed_without_being_in_what_is_signed(tmp_path: Path) -> None:
    store = filled(tmp_path)
    receipt = forget(store, ["p1"], reason="a certain reason")
    document, _ = load_document(store.uri, receipt.receipt_id)
    assert document.envelope is not None
    assert b"a certain reason" not in document.envelope.payload
    assert document.signed_by_its_signer()
    table = lance.dataset(f"{store.uri}/receipts.lance")
    [row] = table.to_table().to_pylist()
    row = {**row, "reason": "another", "body": row["body"].replace("a certain reason", "another")}
    lance.write_dataset(
        pa.Table.from_pylist([row], schema=table.schema), table.uri, mode="overwrite"
    )
    assert verify_receipt(store, receipt.receipt_id).verdict == "refuted"


def text_file(path: Path, text: str) -> None:
    path.write_text(f"about {text}, and more")


def table_by_another_name(path: Path, text: str) -> None:
    pq.write_table(pa.table({"words": [f"about {text}", "x"]}), path)


def packed(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(f'{{"who": "{text}"}}'.encode()))


def named(path: Path, text: str) -> None:
    (path.parent / f"{text}.txt").write_text("x")


@pytest.mark.parametrize("write", [text_file, table_by_another_name, packed, named])
@pytest.mark.parametrize("text", ["Ann", "b c", "a caption about Ann"])
def test_files_that_nobody_knows_are_searched_behind_links_too(
    tmp_path: Path, write: Any, text: str
) -> None:
    pair_id = text.removeprefix("a caption about ")
    store = filled(tmp_path, pair_id)
    elsewhere = tmp_path / "another disk"
    shutil.move(f"{store.uri}/pairs.lance", elsewhere)
    Path(store.uri, "pairs.lance").symlink_to(elsewhere)
    receipt = forget(store, [pair_id], reason="asked to")
    assert verify_receipt(store, receipt.receipt_id).clean
    folder = elsewhere / "unknown"
    folder.mkdir()
    write(folder / "leftover", text if write is not named else pair_id)
    report = verify_receipt(store, receipt.receipt_id)
    assert report.verdict == "refuted"
    assert any(f.startswith("pairs.lance/unknown/") for f in report.findings)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    store = filled(tmp_path)
    Path(store.uri, "elsewhere").symlink_to(tmp_path / "a disk that is not there")
    receipt = forget(store, ["p1"], reason="asked to")
    assert (receipt.clean, receipt.findings) == (False, ("elsewhere: unreadable",))
    assert {s.name: s.verdict for s in receipt.surfaces}["other files"] == "not covered"


def test_the_receipt_says_what_is_not_sought(tmp_path: Path) -> None:
    receipt = forget(filled(tmp_path), ["p1"], reason="asked to")
    assert any(one.startswith("single characters") for one in receipt.not_covered)
    assert any(one.startswith("labels and templates") for one in receipt.not_covered)


def test_vectors_of_other_pairs_pictures_stay(tmp_path: Path) -> None:
    store = filled(tmp_path, image_uri="one.jpg")
    record(store, ["p1 again", OTHERS[1]])
    before = open_table(store.uri, "queries").to_table()
    forget(store, ["p1"], reason="asked to")
    after = open_table(store.uri, "queries").to_table()
    assert len(before) == len(after) == 2
    assert np.array_equal(before["vector"].to_pylist(), after["vector"].to_pylist())
    assert pc.all(pc.equal(before["prediction_id"], after["prediction_id"])).as_py()


def test_a_number_is_no_part_of_a_longer_one_in_any_file() -> None:
    rows = batch(["one"], caption=["000000000"])
    content = Content(b"some key of 32 bytes, or so, it is", rows)
    named = b"\x0a\x21pairs/0110000000001bb862d441e8.lance\x12\x00"
    assert not list(content.match_bytes(named))
    assert list(content.match_bytes(b"\x0a\x09000000000\x12\x04"))
    assert list(content.match_bytes(b"'000000000'"))
