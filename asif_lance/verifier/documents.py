"""What a receipt says, and how it is written down and signed.

A receipt is an in-toto statement in canonical JSON (RFC 8785), in a DSSE envelope with an Ed25519
signature. The statement's subjects are the files that were searched; its predicate is the rest,
but for the reason: that lies beside the envelope, and what is signed is a salted hash of it. So a
reason that quotes what is forgotten later can go, and signature and chain still hold.
Releases before that stored plain JSON, unsigned, with the salt of its fingerprints beside them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from asif_lance.errors import ReceiptError
from asif_lance.verifier.files import FileRecord
from asif_lance.verifier.inputs import read_file

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:asif-lance:forgetting:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"

#: Verdicts on a surface, one place where something of the pairs could lie. It is erased if
#: something was taken out of it and nothing was found afterwards; without a baseline if nothing
#: was found, but nothing was known to be there before either.
ERASED, RESIDUAL, NO_BASELINE, NOT_COVERED = "erased", "residual", "no baseline", "not covered"


#: What stands where forgotten content stood in the words of users.
REDACTED = "[forgotten]"


@dataclass(frozen=True, slots=True)
class Surface:
    """One place where something of the pairs could lie.

    Attributes:
        name: a table, its indices, a directory of caches, or what no program here can read.
        verdict: `erased`, `residual`, `no baseline` or `not covered`.
    """

    name: str
    verdict: str


@dataclass(frozen=True, slots=True)
class RewrittenVersion:
    """What forgetting did to one model version.

    Attributes:
        name: `v3`.
        lance_before: the Lance version that the name meant.
        lance_after: the one that it means now; the same when nothing had to change.
        pairs_before: how many pairs it had.
        pairs_after: how many it has now.
    """

    name: str
    lance_before: int
    lance_after: int
    pairs_before: int
    pairs_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Proof of one forgetting.

    Attributes:
        receipt_id: names it.
        created_at: when the forgetting began; UTC.
        reason: why, in the user's words; `REDACTED` if it quoted what was forgotten later.
        pairs: how many pairs were forgotten.
        ids: fingerprints of the pairs' ids.
        values: fingerprints of their ids, texts and pictures.
        vectors: fingerprints of their vectors.
        shared: fingerprints of what pairs that stay have too; how many, if only that was kept.
        versions: what happened to each model version.
        indices: search indices that were dropped, for they remember rows.
        elsewhere: rows removed or changed in other tables and caches, by eraser.
        fragments: how many fragments were rewritten, each once.
        bytes_written: the size of what was written for them.
        bytes_freed: how much the clean-up removed.
        files_scanned: files that were searched afterwards, all there were.
        bytes_scanned: their size.
        findings: what was found nevertheless, `file: where`; empty when clean.
        clean: nothing was found.
        resumed: the forgetting had been killed, and was finished later.
        not_covered: what the receipt does not cover.
        surfaces: a verdict for each place.
        twins: how many pairs that stayed had the same picture as one of these; None if nobody
            looked, as in earlier receipts.
        number: counts the database's receipts from 1; 0 in receipts of the earlier format.
        previous: the link of the receipt before, see `Document.link`; empty for the first.
        key_id: the id of the key of the fingerprints; empty in the earlier format.
        signer: hex of the Ed25519 key that signs; empty in the earlier format.
        reason_hash: see `hash_reason`; empty in receipts that sign the reason itself.
        salt: hex key of the fingerprints in the earlier format; empty since.
        record: the files that were searched; empty in the earlier format.
    """

    receipt_id: str
    created_at: datetime
    reason: str
    pairs: int
    ids: tuple[str, ...]
    values: tuple[str, ...]
    vectors: tuple[str, ...]
    shared: tuple[str, ...] | int
    versions: tuple[RewrittenVersion, ...]
    indices: tuple[str, ...]
    elsewhere: dict[str, int]
    fragments: int
    bytes_written: int
    bytes_freed: int
    files_scanned: int
    bytes_scanned: int
    findings: tuple[str, ...]
    clean: bool
    resumed: bool
    not_covered: tuple[str, ...]
    surfaces: tuple[Surface, ...] = ()
    twins: int | None = None
    number: int = 0
    previous: str = ""
    key_id: str = ""
    signer: str = ""
    reason_hash: str = ""
    salt: str = ""
    record: tuple[FileRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A receipt as it is stored or handed out.

    Attributes:
        receipt: what it says.
        body: the JSON text.
        envelope: what signatures are about; None in the earlier format.
        reason_salt: of the reason that lies beside it; empty if there is none.
    """

    receipt: Receipt
    body: str
    envelope: Envelope | None
    reason_salt: str = ""

    @classmethod
    def parse(cls, body: str) -> Document:
        """Reads a receipt of any format.

        Raises:
            ReceiptError: this is none.
        """
        try:
            content = json.loads(body)
            if "payload" not in content:
                return cls(_read_fields(content), body, None)
            envelope = Envelope.from_dict(content)
            statement = json.loads(envelope.payload)
            if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
                raise ReceiptError(f"a statement of another kind: {statement['predicateType']}")
            subject = [(s["name"], s["digest"], s["annotations"]) for s in statement["subject"]]
            record = tuple(FileRecord(name, a["bytes"], d["sha256"]) for name, d, a in subject)
            aside = content.get("reason", {"text": REDACTED, "salt": ""})
            predicate = {"reason": aside["text"], **statement["predicate"]}
            receipt = replace(_read_fields(predicate), record=record)
        except json.JSONDecodeError as error:
            raise ReceiptError(f"not a receipt, or cut off: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ReceiptError("not a receipt of forgetting") from error
        return cls(receipt, body, envelope, aside["salt"])

    @classmethod
    def read(cls, path: Path) -> Document:
        """Reads a receipt that was handed out.

        Raises:
            InputError: the file cannot be read.
            ReceiptError: it is none.
        """
        try:
            return cls.parse(read_file(path).decode(errors="replace"))
        except ReceiptError as error:
            raise ReceiptError(f"{path}: {error}") from error

    def link(self, previous: str) -> str:
        """What the next receipt has to name; for the earlier format it covers all before."""
        if self.envelope is None:
            return hashlib.sha256((previous + self.body).encode()).hexdigest()
        return hashlib.sha256(self.envelope.payload).hexdigest()

    @property
    def sealed(self) -> bytes:
        """Receipt and signatures in their one spelling; what a timestamp is about."""
        return rfc8785.dumps(self.envelope.to_dict()) if self.envelope else self.body.encode()

    @property
    def signed(self) -> bool:
        """Whether there is any signature, right or wrong."""
        return self.envelope is not None and bool(self.envelope.signatures)

    def signed_by(self, key: SSlibKey) -> bool:
        """Whether the holder of this key has signed what the receipt says."""
        try:
            signed = self.envelope is not None and bool(self.envelope.verify([key], 1))
            return signed and self._reason_is_its_own()
        except VerificationError:
            return False

    def _reason_is_its_own(self) -> bool:
        receipt, salt = self.receipt, self.reason_salt
        if not receipt.reason_hash:  # the reason itself is signed
            return True
        if not salt:
            return receipt.reason == REDACTED
        return hash_reason(receipt.reason, salt) == receipt.reason_hash

    def signed_by_its_signer(self) -> bool:
        """Whether the holder of the key that it names has signed it: nobody altered it since."""
        try:
            return self.signed_by(public_key(self.receipt.signer))
        except ReceiptError:
            return False


def hash_reason(reason: str, salt: str) -> str:
    """What a receipt signs of its reason; nobody can test guesses once the salt is gone."""
    return hashlib.sha256(salt.encode() + reason.encode()).hexdigest()


def public_key(raw: str) -> SSlibKey:
    """The key that a receipt names as its signer's.

    Raises:
        ReceiptError: it names none.
    """
    try:
        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(raw)))
    except ValueError as error:
        raise ReceiptError(f"not an Ed25519 key: {raw!r}") from error


def _read_fields(values: dict[str, Any]) -> Receipt:
    known = {name: values[name] for name in values.keys() & {f.name for f in fields(Receipt)}}
    known["created_at"] = datetime.fromisoformat(known["created_at"])
    known["versions"] = [RewrittenVersion(**version) for version in known["versions"]]
    known["surfaces"] = [Surface(**surface) for surface in known.get("surfaces", [])]
    lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return Receipt(**{**known, **lists})
