"""Receipts stored, signed at once or later, and those of earlier releases."""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from pairs_at_hand import AGAIN, names, new_store, pairs

from asif_lance.database import run_migrations
from asif_lance.errors import DatabaseError, ForgottenPairError, InputError, KeysError
from asif_lance.forgetting import (
    execution,
    load_document,
    load_receipts,
    obtain_keys,
    receipt_page,
    sign_receipt,
)
from asif_lance.forgetting.receipts import write_document
from asif_lance.store.forget import forget, verify_receipt
from asif_lance.store.pair_store import PairStore
from asif_lance.verifier import CONTENT_FILE, JOURNAL_FILE

ASSETS = Path(__file__).parents[1] / "assets"


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 20)))
    store.publish(command="ingest")
    return store


class Killed(BaseException):
    """Nothing after it happens, as in a process that is gone."""


@contextlib.contextmanager
def killed_before(step: str) -> Iterator[None]:
    """A forget that is killed when it comes to this function."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(execution, step, killed)
        yield


def unpacked(asset: str, where: Path) -> PairStore:
    """A database of an earlier release, brought up to date."""
    with tarfile.open(ASSETS / asset) as archive:
        archive.extractall(where, filter="data")
    run_migrations(str(where / "db"))
    return PairStore.open(str(where / "db"))


def test_receipts_are_numbered_and_linked_in_the_order_of_their_making(store: PairStore) -> None:
    made = [forget(store, names(i, i + 1), reason=str(i)) for i in range(3)]
    assert load_receipts(store.uri) == made
    assert [receipt.number for receipt in made] == [1, 2, 3]
    links = [load_document(store.uri, receipt.receipt_id)[0].link("") for receipt in made]
    assert [receipt.previous for receipt in made] == ["", links[0], links[1]]


def test_a_damaged_receipt_keeps_nobody_from_forgetting(store: PairStore) -> None:
    first = forget(store, names(0, 1), reason="one")
    table = lance.dataset(f"{store.uri}/receipts.lance")
    [row] = table.to_table().to_pylist()
    damaged = pa.Table.from_pylist([{**row, "body": "{"}], schema=table.schema)
    lance.write_dataset(damaged, table.uri, mode="overwrite")
    second = forget(store, names(1, 2), reason="two")
    report = verify_receipt(store, second.receipt_id)
    [chain] = [check for check in report.checks if check.name == "chain"]
    assert report.verdict == "refuted"
    assert f"receipt {first.receipt_id}: not a receipt" in chain.told


@pytest.mark.parametrize("step", ["_load_content", "erase_derived", "scan", "_make_receipt"])
def test_a_forget_is_finished_without_its_keys_and_the_receipt_signed_later(
    store: PairStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    keys = obtain_keys(store.uri)
    with killed_before(step):
        forget(store, names(3, 5), reason="asked to")
    assert keys.fingerprint.hex() not in (Path(store.uri) / JOURNAL_FILE).read_text()
    with monkeypatch.context() as patch:
        patch.setenv("ASIF_LANCE_KEYS", str(tmp_path / "nowhere"))
        notice = PairStore.open(store.uri).notice
    assert notice is not None
    [receipt] = load_receipts(store.uri)
    assert f"not signed: run `asif-lance receipt sign {receipt.receipt_id}`" in notice
    assert not (tmp_path / "nowhere").exists()
    assert not (Path(store.uri) / CONTENT_FILE).exists()
    assert verify_receipt(store, receipt.receipt_id).verdict == "undecided"
    assert (receipt.key_id, len(receipt.ids), receipt.clean) == (keys.key_id, 2, True)
    sign_receipt(store.uri, receipt.receipt_id, keys)
    assert verify_receipt(store, receipt.receipt_id).verdict == "confirmed"
    forget(store, names(5, 6), reason="one more")
    assert verify_receipt(store, receipt.receipt_id).verdict == "confirmed"
    with pytest.raises(InputError, match="is signed already"):
        sign_receipt(store.uri, receipt.receipt_id, keys)


def test_others_keys_do_not_finish_a_receipt(
    store: PairStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_before("scan"):
        forget(store, names(3, 5), reason="asked to")
    others = obtain_keys(store.uri, tmp_path / "others")
    with monkeypatch.context() as patch:
        patch.setenv("ASIF_LANCE_KEYS", str(others.folder))
        assert "not signed" in str(PairStore.open(store.uri).notice)
    [receipt] = load_receipts(store.uri)
    with pytest.raises(KeysError, match="names another signer"):
        sign_receipt(store.uri, receipt.receipt_id, others)


def test_a_forget_that_an_earlier_release_began_is_finished_and_signed(tmp_path: Path) -> None:
    store = unpacked("interrupted-m0006.tar.gz", tmp_path)
    assert store.notice is not None
    assert store.notice.startswith("finished an interrupted forget of 2 pairs: receipt f20")
    last = load_receipts(store.uri)[-1]
    assert (last.number, last.resumed, last.clean, last.reason) == (3, True, True, "killed")
    assert verify_receipt(store, last.receipt_id).verdict == "confirmed"
    assert not (Path(store.uri) / JOURNAL_FILE).exists()


def test_where_no_keys_can_be_made_a_database_with_such_a_forget_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ASIF_LANCE_KEYS", str(tmp_path / "file" / "keys"))
    store = unpacked("interrupted-m0006.tar.gz", tmp_path)
    assert str(store.notice).startswith("an interrupted forget could not be finished yet: ")
    assert store.read("v1").num_rows > 0
    with pytest.raises(DatabaseError, match="cannot make keys in"):
        store.add(pairs(names(0, 1)))


def test_receipts_of_earlier_releases_are_read_and_said_to_be_unsigned(tmp_path: Path) -> None:
    store = unpacked("receipts-m0006.tar.gz", tmp_path)
    told = [(r.reason, r.pairs, r.number, r.clean) for r in load_receipts(store.uri)]
    assert told == [("asked to", 2, 0, True), ("a second time", 1, 0, True)]
    old = load_receipts(store.uri)[0]
    report = verify_receipt(store, old.receipt_id)
    answers = {check.name: (check.holds, check.told) for check in report.checks}
    assert report.verdict == "undecided"
    assert answers["content"][0] is True
    assert "test guesses" in answers["signature"][1]
    with pytest.raises(ForgottenPairError, match=old.receipt_id):
        store.add(pairs(names(0, 1)))
    store.add(pairs(names(0, 1)), waiver=AGAIN)
    assert verify_receipt(store, old.receipt_id).verdict == "refuted"


def test_a_signed_receipt_vouches_for_the_unsigned_ones_before_it(tmp_path: Path) -> None:
    store = unpacked("receipts-m0006.tar.gz", tmp_path)
    old = load_receipts(store.uri)
    new = forget(store, names(9, 10), reason="signed")
    assert new.number == 3
    for receipt in (*old, new):
        [chain] = [c for c in verify_receipt(store, receipt.receipt_id).checks if c.name == "chain"]
        assert chain.holds, chain.told
    table = lance.dataset(f"{store.uri}/receipts.lance")
    rows = table.to_table().sort_by("created_at").to_pylist()
    rows[0]["body"] = rows[0]["body"].replace("asked to", "asked ot")
    rows[0]["reason"] = "asked ot"
    lance.write_dataset(
        pa.Table.from_pylist(rows, schema=table.schema), table.uri, mode="overwrite"
    )
    for receipt in (*old, new):
        assert verify_receipt(store, receipt.receipt_id).verdict == "refuted"


def test_emptied_fingerprints_of_an_unsigned_receipt_are_told_by_its_counts(tmp_path: Path) -> None:
    store = unpacked("receipts-m0006.tar.gz", tmp_path)
    table = lance.dataset(f"{store.uri}/receipts.lance")
    rows = table.to_table().sort_by("created_at").to_pylist()
    emptied = {"ids": [], "values": [], "vectors": []}
    rows[0]["body"] = json.dumps({**json.loads(rows[0]["body"]), **emptied})
    lance.write_dataset(
        pa.Table.from_pylist(rows, schema=table.schema), table.uri, mode="overwrite"
    )
    assert verify_receipt(store, rows[0]["receipt_id"]).verdict == "refuted"


def test_the_page_of_an_altered_receipt_says_so(store: PairStore) -> None:
    receipt = forget(store, names(0, 1), reason="asked to")
    document, _ = load_document(store.uri, receipt.receipt_id)
    assert "It is signed with the Ed25519 key" in receipt_page(document)
    forged = write_document(replace(receipt, reason="another"), None).envelope
    assert forged is not None
    assert document.envelope is not None
    forged.signatures = document.envelope.signatures
    assert "altered after it was signed" in receipt_page(replace(document, envelope=forged))
