"""RFC 3161 timestamps: an authority's word that a receipt was there at a time.

What is timestamped is the whole envelope, so the signature was there too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rfc3161_client
from rfc3161_client import HashAlgorithm, TimestampRequestBuilder, VerifierBuilder

from asif_lance.errors import InputError
from asif_lance.verifier.documents import Document
from asif_lance.verifier.inputs import read_certificates
from asif_lance.verifier.report import Check

_NAME = "timestamp"
# Of DER: the tag of the certificates in what is signed, and the mark of a length of several bytes.
_CERTIFICATES, _LONG = 0xA0, 0x80


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
        answer = rfc3161_client.decode_timestamp_response(_sort_certificates(response))
        info = answer.tst_info
        imprint = info.message_imprint.message
    except (ValueError, IndexError):
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


def _sort_certificates(response: bytes) -> bytes:
    """The response with its certificates in the order of DER.

    The client reads no other, and OpenSSL, which many authorities run, writes them as it got them.
    No signature is about that order.

    Raises:
        IndexError: it has no such structure.
    """
    whole = _list_elements(response, 0, len(response))[0]
    token = _list_elements(response, *whole.inside)[1]  # after the status
    content = _list_elements(response, *token.inside)[1]  # after its type
    signed = _list_elements(response, *content.inside)[0]
    for part in _list_elements(response, *signed.inside):
        if response[part.start] == _CERTIFICATES:
            ones = [response[c.start : c.end] for c in _list_elements(response, *part.inside)]
            start, end = part.inside
            return response[:start] + b"".join(sorted(ones)) + response[end:]
    return response


@dataclass(frozen=True, slots=True)
class _Element:
    """Where an element of DER lies: from its tag on, and what is inside."""

    start: int
    inside: tuple[int, int]

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.inside[1]


def _list_elements(data: bytes, start: int, end: int) -> list[_Element]:
    found = []
    while start < end:
        size, body = data[start + 1], start + 2
        if size & _LONG:
            body += size & ~_LONG
            size = int.from_bytes(data[start + 2 : body])
        found.append(_Element(start, (body, body + size)))
        start = body + size
    return found
