"""Receipts told right and wrong: honest, altered, cut, swapped, and content that came back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from pairs_at_hand import AGAIN, names, new_store, pairs

from asif_lance.errors import (
    CorruptDatabaseError,
    ForgottenPairError,
    InputError,
    ReceiptError,
)
from asif_lance.forgetting import Keys, find_keys, obtain_keys
from asif_lance.forgetting.receipts import load_documents, write_document
from asif_lance.store.forget import forget, plan
from asif_lance.store.pair_store import PairStore
from asif_lance.verifier import Document, Receipt, Report, verify

IMAGE, TEXT = 64, 32
GONE = names(3, 7)


def batch(ids: list[str], **columns: Any) -> pa.Table:
    return pairs(ids, image=IMAGE, text=TEXT, **columns)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> PairStore:
    """Pairs 0-39, and three receipts: for 3-6, for 10, for 11."""
    store = new_store(tmp_path_factory.mktemp("origin"), IMAGE, TEXT)
    store.add(batch(names(0, 40)))
    store.publish(command="ingest")
    for gone in (GONE, names(10, 11), names(11, 12)):
        forget(store, gone, reason=f"{len(gone)} asked to")
    return store


@pytest.fixture
def store(origin: PairStore, tmp_path: Path) -> PairStore:
    return replace(origin, uri=str(shutil.copytree(origin.uri, tmp_path / "copy")))


@pytest.fixture
def keys() -> Keys:
    keys = find_keys()
    assert keys is not None
    return keys


def check(
    store: PairStore, which: int | Path = 0, *, keys: Keys, search: bool = True, **options: Any
) -> Report:
    """A receipt (by its place in the chain, or a file) checked with the signer's public key."""
    receipt = str(which) if isinstance(which, Path) else load_ids(store)[which]
    options = {"public_keys": [keys.signer.public_key], **options}
    return verify(Path(store.uri), receipt, key=keys.fingerprint if search else None, **options)


def load_ids(store: PairStore) -> list[str]:
    rows = lance.dataset(f"{store.uri}/receipts.lance").to_table().sort_by("created_at")
    return [str(i) for i in rows["receipt_id"].to_pylist()]


def wrong(report: Report) -> dict[str, str]:
    return {c.name: c.told for c in report.checks if c.holds is False}


def open_questions(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.holds is None}


Rows = list[dict[str, Any]]


def forge(store: PairStore, change: Callable[[Rows], Rows]) -> None:
    """Writes the table of receipts anew."""
    table = lance.dataset(f"{store.uri}/receipts.lance")
    rows = sorted(table.to_table().to_pylist(), key=lambda row: row["number"] or 0)
    changed = pa.Table.from_pylist(change(rows), schema=table.schema)
    lance.write_dataset(changed, table.uri, mode="overwrite")


def rewrite(row: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A row whose receipt says something else; its signature stays as it was."""
    content = json.loads(row["body"])
    document = Document.parse(row["body"])
    changed = json.loads(write_document(replace(document.receipt, **changes), None).body)
    body = json.dumps({**content, "payload": changed["payload"]})
    columns = {name: value for name, value in changes.items() if name in row}
    return {**row, **columns, "body": body}


# Honest


@pytest.mark.parametrize("which", range(3))
def test_an_honest_receipt_is_confirmed_with_the_key(
    store: PairStore, keys: Keys, which: int
) -> None:
    report = check(store, which, keys=keys)
    assert (report.verdict, wrong(report), report.findings) == ("confirmed", {}, ())
    assert report.files > 20


def test_without_the_key_the_newest_is_confirmed_by_the_files_that_were_searched(
    store: PairStore, keys: Keys
) -> None:
    report = check(store, 2, keys=keys, search=False)
    assert report.verdict == "confirmed"
    assert any("all files were searched when it was made" in c.told for c in report.checks)


def test_without_the_key_what_came_later_leaves_it_undecided(store: PairStore, keys: Keys) -> None:
    report = check(store, 0, keys=keys, search=False)  # two more forgets rewrote files since
    assert (report.verdict, open_questions(report)) == ("undecided", {"files", "content"})
    assert {s.name: s.verdict for s in report.surfaces}["pairs"] == "not covered"


@pytest.mark.parametrize("place", ["receipts.lance/data/more.lance", "receipts.lance/more.txt"])
def test_what_is_no_receipt_does_not_hide_among_them(
    store: PairStore, keys: Keys, place: str
) -> None:
    data = next(Path(store.uri).glob("pairs.lance/data/*"))
    shutil.copy(data, Path(store.uri) / place)
    report = check(store, 2, keys=keys, search=False)
    assert {s.name: s.verdict for s in report.surfaces}["receipts"] == "not covered"
    assert report.verdict == "undecided"


def test_without_a_public_key_nobody_can_say_whose_signature_it_is(
    store: PairStore, keys: Keys
) -> None:
    report = check(store, 2, keys=keys, public_keys=[])
    assert (report.verdict, open_questions(report)) == ("undecided", {"signature"})


def test_another_key_of_fingerprints_is_told_from_none(
    store: PairStore, keys: Keys, tmp_path: Path
) -> None:
    other = obtain_keys(store.uri, tmp_path / "other")
    for key, told in ((None, "without the key"), (other.fingerprint, "with another key")):
        report = verify(Path(store.uri), load_ids(store)[0], key=key)
        [content] = [c for c in report.checks if c.name == "content"]
        assert content.holds is None
        assert content.told.startswith(f"not searched {told}")
        assert content.told.endswith(f"the receipt needs {keys.key_id}")


def test_each_place_gets_a_verdict(store: PairStore, keys: Keys) -> None:
    verdicts = {s.name: s.verdict for s in check(store, 2, keys=keys).surfaces}
    assert verdicts["pairs"] == "erased"
    assert verdicts["predictions"] == "no baseline"
    assert verdicts["memory of processes that read the database before"] == "not covered"


def test_a_receipt_is_an_in_toto_statement(store: PairStore) -> None:
    envelope = load_documents(store.uri)[0].envelope
    assert envelope is not None
    read = json_format.Parse(envelope.payload, statement_pb2.Statement())
    Statement.copy_from_pb(read).validate()


def test_nothing_of_the_pairs_can_be_read_in_a_receipt(store: PairStore, keys: Keys) -> None:
    envelope = load_documents(store.uri)[0].envelope
    assert envelope is not None
    assert b"pair-000003" not in envelope.payload
    assert keys.fingerprint.hex().encode() not in envelope.payload
    for path in Path(store.uri).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert keys.fingerprint not in data
            assert keys.fingerprint.hex().encode() not in data


def test_one_value_has_one_fingerprint_in_all_receipts(tmp_path: Path) -> None:
    store = new_store(tmp_path, IMAGE, TEXT)
    for _ in range(2):
        store.add(batch(names(0, 3)), waiver=AGAIN)
        store.publish(command="ingest")
        forget(store, names(1, 2), reason="again")
    first, second = (document.receipt for document in load_documents(store.uri))
    assert (first.ids, first.values, first.vectors) == (second.ids, second.values, second.vectors)


# Altered

ALTERED: dict[str, Callable[[Receipt], dict[str, Any]]] = {
    "fingerprints emptied": lambda r: {"ids": (), "values": (), "vectors": ()},
    "a fingerprint taken out": lambda r: {"ids": r.ids[1:], "pairs": r.pairs - 1},
    "a count": lambda r: {"pairs": r.pairs + 1},
    "the reason": lambda r: {"reason": "no reason"},
    "the verdicts": lambda r: {"surfaces": ()},
    "the files that were searched": lambda r: {"record": r.record[1:]},
    "the key of the fingerprints": lambda r: {"key_id": "00" * 16},
}


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_receipt_is_refuted(
    store: PairStore, keys: Keys, what: str, search: bool
) -> None:
    def change(rows: Rows) -> Rows:
        changes = ALTERED[what](Document.parse(rows[0]["body"]).receipt)
        return [rewrite(rows[0], **changes), *rows[1:]]

    forge(store, change)
    report = check(store, keys=keys, search=search)
    assert report.verdict == "refuted"
    assert {"signature", "chain"} <= wrong(report).keys()
    # The others are not what was altered, and their chain is broken all the same.
    assert wrong(check(store, 2, keys=keys)).keys() == {"chain"}


def test_columns_that_say_something_else_than_the_receipt_are_told(
    store: PairStore, keys: Keys
) -> None:
    forge(store, lambda rows: [{**rows[0], "pairs": 1, "clean": False}, *rows[1:]])
    told = wrong(check(store, keys=keys))["chain"]
    assert "the table says something else than the receipt: pairs" in told
    assert "the table says something else than the receipt: clean" in told


def test_swapped_receipts_are_told(store: PairStore, keys: Keys) -> None:
    def swap(rows: Rows) -> Rows:
        bodies = [row["body"] for row in rows]
        order = (1, 0, 2)
        return [{**row, "body": bodies[i]} for row, i in zip(rows, order, strict=True)]

    forge(store, swap)
    assert "chain" in wrong(check(store, keys=keys))


def other_database(folder: Path) -> PairStore:
    """Other pairs, forgotten from another database by the same signer."""
    store = new_store(folder, IMAGE, TEXT)
    store.add(batch(names(100, 140)))
    store.publish(command="ingest")
    for gone in names(100, 103):
        forget(store, [gone], reason="asked to")
    return store


def test_a_receipt_of_another_database_of_the_same_signer_is_refuted(
    store: PairStore, keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    [theirs, *_] = load_documents(other_database(tmp_path / "other").uri)
    handed = tmp_path / "receipt.json"
    handed.write_text(theirs.body)
    for search in (True, False):
        report = check(store, handed, keys=keys, search=search)
        assert report.verdict == "refuted"
        assert "this is another or an older database" in wrong(report)["chain"]


def test_all_receipts_swapped_with_another_databases_are_not_confirmed(
    store: PairStore, keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = other_database(tmp_path / "other")
    for table in ("receipts.lance", "sealed_hashes.lance", "digests.lance"):
        shutil.rmtree(f"{store.uri}/{table}")
        shutil.copytree(f"{other.uri}/{table}", f"{store.uri}/{table}")
    for which in range(3):
        report = check(store, which, keys=keys)
        assert report.verdict == "undecided"
        assert {"files"} <= open_questions(report)
    with pytest.raises(CorruptDatabaseError):
        PairStore.open(store.uri)


def test_one_receipt_swapped_with_another_databases_is_told(
    store: PairStore, keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = other_database(tmp_path / "other")
    theirs = lance.dataset(f"{other.uri}/receipts.lance").to_table().to_pylist()
    theirs.sort(key=lambda row: row["number"])
    forge(store, lambda rows: [theirs[0], *rows[1:]])
    for which in range(3):
        assert "chain" in wrong(check(store, which, keys=keys))
    with pytest.raises(CorruptDatabaseError, match=r"receipts\.lance"):
        PairStore.open(store.uri)


def test_databases_of_one_signer_forget_and_remember_each_for_itself(
    store: PairStore, keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = other_database(tmp_path / "other")
    other.add(batch(GONE))  # forgotten there, never here
    other.publish(command="ingest")
    with pytest.raises(ForgottenPairError):
        store.add(batch(GONE))
    with pytest.raises(ForgottenPairError):
        other.add(batch(names(100, 101)))
    assert check(store, keys=keys).verdict == "confirmed"
    assert check(other, keys=keys).verdict == "confirmed"


def test_a_chain_may_have_several_signers_whose_keys_have_to_be_given(
    store: PairStore, keys: Keys, tmp_path: Path
) -> None:
    other = obtain_keys(store.uri, tmp_path / "other")
    forget(store, names(20, 21), reason="another's", keys=other)
    report = check(store, 0, keys=keys)
    assert (wrong(report), open_questions(report)) == ({}, {"chain"})
    both = [keys.signer.public_key, other.signer.public_key]
    assert check(store, 0, keys=keys, public_keys=both).verdict == "confirmed"


def test_another_signers_receipts_are_told(store: PairStore, keys: Keys, tmp_path: Path) -> None:
    other = obtain_keys(store.uri, tmp_path / "other")

    def sign_anew(rows: Rows) -> Rows:
        receipts, link = [], ""
        for row in rows:
            receipt = replace(Document.parse(row["body"]).receipt, signer=other.public)
            document = write_document(replace(receipt, previous=link), other.signer)
            link = document.link(link)
            receipts.append({**row, "body": document.body})
        return receipts

    forge(store, sign_anew)
    report = check(store, keys=keys)
    assert (wrong(report).keys(), open_questions(report)) == ({"signature"}, {"chain"})
    assert "not with the one that was given" in wrong(report)["signature"]
    assert wrong(check(store, keys=other, search=False)) == {}


def test_an_unsigned_copy_of_a_receipt_does_not_pass_for_it(store: PairStore, keys: Keys) -> None:
    def strip(rows: Rows) -> Rows:
        receipt = replace(Document.parse(rows[0]["body"]).receipt, reason="another")
        return [
            {**rows[0], "reason": "another", "body": write_document(receipt, None).body},
            *rows[1:],
        ]

    forge(store, strip)
    report = check(store, keys=keys)
    assert wrong(report).keys() == {"chain"}
    assert "signature" in open_questions(report)


# Cut


def test_a_receipt_taken_out_of_the_middle_is_told(store: PairStore, keys: Keys) -> None:
    forge(store, lambda rows: [rows[0], rows[2]])
    told = wrong(check(store, keys=keys))["chain"]
    assert "receipt 3" in told
    assert "it is number 2 of those that are here" in told


def test_receipts_cut_off_at_the_end_are_told_by_the_hashes_that_were_stored_before_them(
    store: PairStore, keys: Keys
) -> None:
    cut_off = load_ids(store)[1:]
    forge(store, lambda rows: rows[:1])
    told = wrong(check(store, 0, keys=keys))["chain"]
    assert all(f"receipt {one} is missing" in told for one in cut_off)


def test_what_was_cut_off_with_its_hashes_is_told_by_a_receipt_that_was_handed_out(
    store: PairStore, keys: Keys, tmp_path: Path
) -> None:
    handed = tmp_path / "receipt.json"
    handed.write_text(load_documents(store.uri)[2].body)
    assert check(store, handed, keys=keys).verdict == "confirmed"
    lance.dataset(f"{store.uri}/sealed_hashes.lance").delete(f"receipt_id = '{load_ids(store)[2]}'")
    forge(store, lambda rows: rows[:2])
    assert check(store, 0, keys=keys).verdict == "confirmed"  # nothing here can tell
    report = check(store, handed, keys=keys)
    assert "the database does not list this receipt" in wrong(report)["chain"]


def test_a_receipt_that_was_handed_out_is_compared_with_the_databases(
    store: PairStore, keys: Keys, tmp_path: Path
) -> None:
    handed = tmp_path / "receipt.json"
    first = load_documents(store.uri)[0].receipt
    handed.write_text(write_document(replace(first, reason="other"), keys.signer).body)
    assert "another receipt under this id" in wrong(check(store, handed, keys=keys))["chain"]


@pytest.mark.parametrize("length", [0, 1, 1000])
def test_a_file_that_was_cut_is_no_receipt(
    store: PairStore, keys: Keys, tmp_path: Path, length: int
) -> None:
    handed = tmp_path / "receipt.json"
    handed.write_text(load_documents(store.uri)[0].body[:length])
    with pytest.raises(ReceiptError, match="not a receipt"):
        check(store, handed, keys=keys)


def test_a_database_without_receipts_lists_none(
    store: PairStore, keys: Keys, tmp_path: Path
) -> None:
    handed = tmp_path / "receipt.json"
    handed.write_text(load_documents(store.uri)[0].body)
    shutil.rmtree(Path(store.uri) / "receipts.lance")
    assert check(store, handed, keys=keys).verdict == "refuted"
    with pytest.raises(InputError, match="not a directory"):
        verify(tmp_path / "nowhere", str(handed))


def test_a_data_file_that_was_cut_cannot_be_told_clean(store: PairStore, keys: Keys) -> None:
    data = max(Path(store.uri).glob("pairs.lance/data/*"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:500])
    for search in (True, False):
        report = check(store, 2, keys=keys, search=search)
        assert "content" in open_questions(report)
        assert {s.name: s.verdict for s in report.surfaces}["pairs"] == "not covered"


# Back again


def test_a_pair_that_came_back_is_residual(store: PairStore, keys: Keys) -> None:
    store.add(batch(GONE[:1]), waiver=AGAIN)
    report = check(store, keys=keys)
    assert "content" in wrong(report)
    assert any(finding.endswith(": image_vector") for finding in report.findings)
    assert {s.name: s.verdict for s in report.surfaces}["pairs"] == "residual"
    assert check(store, 2, keys=keys).verdict == "confirmed"  # which is not about that pair


def test_without_the_key_a_pair_that_came_back_is_not_confirmed(
    store: PairStore, keys: Keys
) -> None:
    store.add(batch(names(11, 12)), waiver=AGAIN)
    assert check(store, 2, keys=keys, search=False).verdict == "undecided"


def test_a_picture_that_came_back_under_another_id_is_residual(
    store: PairStore, keys: Keys
) -> None:
    vector = batch(GONE[:1])["image_vector"].combine_chunks()
    other = batch(["another"], caption=["other words"])
    index = other.schema.get_field_index("image_vector")
    store.add(other.set_column(index, "image_vector", vector), waiver=AGAIN)
    assert "image_vector of another pair" in wrong(check(store, keys=keys))["content"]


def test_a_picture_that_others_had_all_along_is_no_finding(tmp_path: Path) -> None:
    store = new_store(tmp_path, IMAGE, TEXT)
    both = batch(["one-of-two", "two-of-two"])
    index = both.schema.get_field_index("image_vector")
    vector = both["image_vector"].combine_chunks().take([0, 0])
    store.add(both.set_column(index, "image_vector", vector))
    store.publish(command="ingest")
    forget(store, ["one-of-two"], reason="asked to")
    keys = find_keys()
    assert keys is not None
    assert check(store, keys=keys).verdict == "confirmed"


def test_a_caption_that_came_back_with_a_picture_that_others_have_is_residual(
    tmp_path: Path,
) -> None:
    store = new_store(tmp_path, IMAGE, TEXT)
    both = batch(["gone", "twin"], caption=["a name at home", "somebody in a room"])
    index = both.schema.get_field_index("image_vector")
    both = both.set_column(
        index, "image_vector", both["image_vector"].combine_chunks().take([0, 0])
    )
    store.add(both)
    store.publish(command="ingest")
    forget(store, ["gone"], reason="asked to")
    store.add(batch(["another"], caption=["a name at home"]))  # by somebody else, of another scene
    keys = find_keys()
    assert keys is not None
    assert check(store, keys=keys).verdict == "confirmed"
    again = both.take([0]).set_column(0, "pair_id", pa.array(["other"]))
    store.add(again, waiver=AGAIN)
    found = wrong(check(store, keys=keys))["content"]
    assert "caption of another pair" in found
    assert "text_vector of another pair" in found


def test_the_same_words_of_another_pair_are_no_finding(store: PairStore, keys: Keys) -> None:
    store.add(batch(["another"], caption=[f"a caption about {GONE[0]}"]))
    assert check(store, keys=keys).verdict == "confirmed"


def test_what_lies_behind_a_link_is_read(store: PairStore, keys: Keys, tmp_path: Path) -> None:
    shutil.move(f"{store.uri}/pairs.lance", tmp_path / "elsewhere")
    (Path(store.uri) / "pairs.lance").symlink_to(tmp_path / "elsewhere")
    assert check(store, 2, keys=keys, search=False).verdict == "confirmed"
    (tmp_path / "elsewhere" / "left.txt").write_text(f"'{GONE[0]}'")
    assert check(store, keys=keys).verdict == "refuted"


@pytest.mark.parametrize("target", [".", "..", "pairs.lance", "../elsewhere/back"])
def test_a_link_to_what_is_read_anyway_changes_nothing(
    store: PairStore, keys: Keys, target: str
) -> None:
    root = Path(store.uri)
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere/back").symlink_to(root)
    (root / "a link").symlink_to(target)
    assert plan(store, names(30, 31)).copies == ()
    receipt = forget(store, names(30, 31), reason="asked to")
    assert receipt.findings == ()
    assert not any(file.path.startswith("a link") for file in receipt.record)
    assert check(store, 3, keys=keys).verdict == "confirmed"


# What is no file of Lance


@pytest.mark.parametrize("content", [b"", b"cut off" * 99], ids=["empty", "cut off"])
def test_forgetting_beside_an_unreadable_file_goes_on_and_names_it(
    store: PairStore, keys: Keys, content: bytes
) -> None:
    Path(store.uri, "x.lance").write_bytes(content)
    receipt = forget(store, names(30, 31), reason="asked to")
    assert (receipt.findings, receipt.clean) == (("x.lance: unreadable: OSError",), False)
    report = check(store, 3, keys=keys)
    assert (report.verdict, open_questions(report)) == ("undecided", {"content"})


def test_a_table_of_receipts_without_its_columns_is_told(
    store: PairStore, keys: Keys, tmp_path: Path
) -> None:
    out = tmp_path / "receipt.json"
    out.write_text(load_documents(store.uri)[0].body)
    path = f"{store.uri}/receipts.lance"
    lance.write_dataset(lance.dataset(path).to_table(["receipt_id"]), path, mode="overwrite")
    assert "has no column 'created_at'" in wrong(check(store, out, keys=keys))["chain"]
    shutil.rmtree(path)
    assert "there is no table of receipts" in wrong(check(store, out, keys=keys))["chain"]


@pytest.mark.parametrize("file", ["_versions/*.manifest", "data/*.lance"])
def test_a_table_of_receipts_that_is_cut_off_is_told(
    store: PairStore, keys: Keys, file: str, tmp_path: Path
) -> None:
    out = tmp_path / "receipt.json"
    out.write_text(load_documents(store.uri)[0].body)
    for path in Path(store.uri, "receipts.lance").glob(file):
        path.write_bytes(path.read_bytes()[:40])
    assert "cannot be read" in wrong(check(store, out, keys=keys))["chain"]
