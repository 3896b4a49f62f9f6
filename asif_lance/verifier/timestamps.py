"""RFC 3161 timestamps: an authority's word that a receipt was there at a time.

What is timestamped is the whole envelope, so the signature was there too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import rfc3161_client
from rfc3161_client import HashAlgorithm, TimestampRequestBuilder, VerifierBuilder

from asif_lance.errors import InputError
from asif_lance.verifier.documents import Document
from asif_lance.verifier.inputs import read_certificates
from asif_lance.verifier.report import Check

_NAME = "timestamp"


def make_request(document: Document) -> bytes:
    """What an authority is sent: a `.tsq`, which holds a hash and nothing else of the receipt.

    Raises:
        InputError: the receipt is not signed.
    """
    if not document.signed:
        raise InputError(f"receipt {document.receipt.receipt_id} is not signed")
    builder = TimestampRequestBuilder().data(document.sealed)
    return builder.hash_algorithm(HashAlgorithm.SHA256).nonce(nonce=True).build().as_bytes()


def check_timestamp(document: Document, response: bytes, authorities: Sequence[Path] = ()) -> Check:
    """Whether a response (a `.tsr`) is about this receipt, and whose.

    Args:
        document: the receipt.
        response: what the authority answered.
        authorities: files in PEM with their certificates: roots, and whatever leads to them.
    """
    try:
        answer = rfc3161_client.decode_timestamp_response(response)
        info = answer.tst_info
        imprint = info.message_imprint.message
    except ValueError:
        return Check(_NAME, False, "not a timestamp (RFC 3161)")
    when = f"{info.gen_time:%Y-%m-%d %H:%M:%S} UTC"
    if imprint not in [hashlib.new(n, document.sealed).digest() for n in ("sha256", "sha512")]:
        return Check(_NAME, False, f"{when}, but of something else")
    certificates = [one for path in authorities for one in read_certificates(path)]
    if not certificates:
        told = f"{when}, if it is true: give the authority's certificate to check it"
        return Check(_NAME, None, told)
    verifier = VerifierBuilder(roots=certificates).build()
    try:
        verifier.verify_message(answer, document.sealed)
    except rfc3161_client.VerificationError as error:
        return Check(_NAME, False, f"{when}, but it is not signed by this authority: {error}")
    return Check(_NAME, True, when)
