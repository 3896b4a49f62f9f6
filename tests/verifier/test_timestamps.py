"""Timestamps of a real authority, which openssl plays."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from pairs_at_hand import names, new_store, pairs

from asif_lance.errors import InputError
from asif_lance.forgetting import attach_timestamp, find_keys, load_document
from asif_lance.store.forget import forget, verify_receipt
from asif_lance.store.pair_store import PairStore
from asif_lance.verifier import Check, Document, check_timestamp, make_request, verify

CONFIGURATION = """
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[tsa]
extendedKeyUsage = critical,timeStamping
[tsa_config]
serial = serial
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha512
"""

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl plays the authority")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_authority(folder: Path) -> Path:
    folder.mkdir()
    (folder / "ts.cnf").write_text(CONFIGURATION)
    (folder / "serial").write_text("01")
    for name in ("root", "tsa"):
        new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"]
        openssl(folder, *new, "-keyout", f"{name}.key", "-out", f"{name}.csr")
    sign = ["x509", "-req", "-days", "3650", "-extfile", "ts.cnf"]
    openssl(
        folder, *sign, "-extensions", "ca", "-in", "root.csr", "-signkey", "root.key",
        "-out", "root.pem",
    )  # fmt: skip
    openssl(
        folder, *sign, "-extensions", "tsa", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey",
        "root.key", "-CAcreateserial", "-out", "tsa.pem",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("authority") / "tsa")


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 20)))
    store.publish(command="ingest")
    for number in range(2):
        forget(store, names(number, number + 1), reason="asked to")
    return store


def documents(store: PairStore) -> list[Document]:
    from asif_lance.forgetting.receipts import load_documents

    return load_documents(store.uri)


def respond(authority: Path, request: bytes, *more: str) -> bytes:
    (authority / "request.tsq").write_bytes(request)
    openssl(
        authority, "ts", "-reply", "-config", "ts.cnf", "-section", "tsa_config", "-queryfile",
        "request.tsq", "-signer", "tsa.pem", "-inkey", "tsa.key", "-out", "response.tsr", *more,
    )  # fmt: skip
    return (authority / "response.tsr").read_bytes()


def test_an_authoritys_word_about_a_receipt_is_confirmed(store: PairStore, authority: Path) -> None:
    first, second = documents(store)
    response = respond(authority, make_request(first))
    roots = [authority / "root.pem"]
    assert check_timestamp(first, response, roots).holds is True
    assert check_timestamp(first, response).holds is None
    assert "of something else" in check_timestamp(second, response, roots).told


def test_an_authority_may_send_its_certificates_in_any_order(
    store: PairStore, authority: Path, tmp_path: Path
) -> None:
    [first, second] = documents(store)
    both = [(authority / "root.pem").read_text()]
    both.append((make_authority(tmp_path / "other") / "root.pem").read_text())
    for order in (both, both[::-1]):
        (authority / "chain.pem").write_text("".join(order))
        response = respond(authority, make_request(first), "-chain", "chain.pem")
        assert check_timestamp(first, response, [authority / "root.pem"]).holds is True
        assert "of something else" in check_timestamp(second, response).told


def test_whatever_is_cut_or_no_timestamp_is_told(store: PairStore, authority: Path) -> None:
    [first, _] = documents(store)
    response = respond(authority, make_request(first))
    noise = [b"", b"\x30", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x00" * 40, b"{}"]
    for other in (*noise, *(response[:length] for length in range(0, len(response), 7))):
        assert check_timestamp(first, other).told == "not a timestamp (RFC 3161)"


def test_another_authoritys_word_is_told(store: PairStore, authority: Path, tmp_path: Path) -> None:
    other = make_authority(tmp_path / "other")
    [first, _] = documents(store)
    response = respond(authority, make_request(first))
    check = check_timestamp(first, response, [other / "root.pem"])
    assert check.holds is False
    assert "not signed by this authority" in check.told


def test_a_response_is_kept_with_its_receipt_which_stays_right(
    store: PairStore, authority: Path
) -> None:
    first, second = documents(store)
    name = first.receipt.receipt_id
    response = respond(authority, make_request(first))
    told = attach_timestamp(store.uri, name, response)
    assert told.endswith("give the authority's certificate to check it")
    assert load_document(store.uri, name)[1] == response
    keys = find_keys()
    assert keys is not None
    report = verify(
        Path(store.uri),
        name,
        key=keys.fingerprint,
        public_keys=[keys.signer.public_key],
        authorities=[authority / "root.pem"],
    )
    assert report.verdict == "confirmed"
    assert [c.holds for c in report.checks if c.name == "timestamp"] == [True]
    assert verify_receipt(store, second.receipt.receipt_id).verdict == "confirmed"
    with pytest.raises(InputError, match=r"not a timestamp of .*of something else"):
        attach_timestamp(store.uri, second.receipt.receipt_id, response)


def test_a_request_says_nothing_of_the_receipt(store: PairStore) -> None:
    [first, _] = documents(store)
    assert len(make_request(first)) < 100


@pytest.mark.parametrize("response", [b"", b"nonsense", bytes(100)])
def test_what_is_no_timestamp_is_told(store: PairStore, response: bytes) -> None:
    check: Check = check_timestamp(documents(store)[0], response)
    assert check.holds is False
    assert check.told.startswith("not a timestamp")
