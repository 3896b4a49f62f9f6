"""Marks inside of pictures: XMP packets and C2PA manifests that reserve their rights."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import c2pa
import pytest
from conftest import Cli, picture
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from asif_lance.ingest.picture_marks import find_picture_marks
from asif_lance.store import PairStore

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description %s</rdf:Description>'
    b"</rdf:RDF></x:xmpmeta>"
)


def jpeg(xmp: bytes | None = None) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(out, "JPEG", **({"xmp": XMP % xmp} if xmp else {}))
    return out.getvalue()


@cache
def signer() -> c2pa.Signer:
    """Somebody who signs, with a certificate of an authority of the test's own."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    chain = b"".join(
        certificate(f"{i}", keys[i], keys[1], ca=i == 1).public_bytes(serialization.Encoding.PEM)
        for i in range(2)
    )
    private = keys[0].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=private, ta_url=None)
    return c2pa.Signer.from_info(info)


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    subject, authority = (
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)]) for text in (name, "1")
    )
    usage = [True, False, False, False, False, ca, ca, False, False]
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    built = (
        x509.CertificateBuilder(authority, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.KeyUsage(*usage), critical=True)
        .add_extension(ski, critical=False)
        .add_extension(aki, critical=False)
    )
    if not ca:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        built = built.add_extension(purpose, critical=False)
    return built.sign(issuer, hashes.SHA256())


def signed(label: str, **uses: str) -> bytes:
    """A picture with a manifest that says which uses are allowed."""
    entries = {f"c2pa.{name}": {"use": use} for name, use in uses.items()}
    made = {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCE}]}
    manifest = {
        "claim_generator_info": [{"name": "test", "version": "1"}],
        "assertions": [
            {"label": label, "data": {"entries": entries}},
            {"label": "c2pa.actions", "data": made},
        ],
    }
    out = io.BytesIO()
    builder = c2pa.Builder(json.dumps(manifest))
    builder.sign(signer(), "image/jpeg", io.BytesIO(jpeg()), out)
    return out.getvalue()


SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


@pytest.mark.parametrize(
    ("xmp", "marks"),
    [
        (b'xmlns:tdm="http://www.w3.org/ns/tdmrep/" tdm:reservation="1">', "tdm_reservation"),
        (b"><tdm:reservation>1</tdm:reservation>", "tdm_reservation"),
        (b'tdm:reservation="0">', None),
        (
            b'plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING">',
            "plus_data_mining",
        ),
        (b'plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-ALLOWED">', None),
        (b">DMI-PROHIBITED c2pa", None),
    ],
)
def test_marks_in_xmp_are_told_from_those_that_allow(xmp: bytes, marks: str | None) -> None:
    assert find_picture_marks([jpeg(xmp), jpeg()]) == [marks, None]


def test_uses_that_a_manifest_does_not_allow_are_read() -> None:
    none = signed("c2pa.training-mining", ai_training="notAllowed", data_mining="allowed")
    some = signed("cawg.training-mining", ai_training="constrained", data_mining="notAllowed")
    every = signed("c2pa.training-mining", ai_training="allowed")
    assert find_picture_marks([none, some, every]) == [
        "c2pa_ai_training",
        "c2pa_ai_training, c2pa_data_mining",
        None,
    ]


@settings(deadline=None)
@given(cut=st.integers(0, 4000), flip=st.integers(0, 3999))
def test_damaged_manifests_are_none(cut: int, flip: int) -> None:
    content = bytearray(SIGNED())
    content[flip] ^= 0xFF
    for damaged in (bytes(content[:cut]), bytes(content)):
        assert len(find_picture_marks([damaged])) == 1


@cache
def SIGNED() -> bytes:
    return signed("c2pa.training-mining", ai_training="notAllowed")


@pytest.mark.encoders
def test_marked_pictures_are_flagged_or_refused_as_asked(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    picture(folder / "free.png", 1)
    (folder / "marked.jpg").write_bytes(SIGNED())
    for name in ("free", "marked"):
        (folder / f"{name}.txt").write_text(f"A picture that is {name}.")
    assert "added 2" in cli("--db", "a", "ingest", folder, "--rights", "flag").err
    stored = PairStore.open("a").read().sort_by("caption")["attributes"].to_pylist()
    flags = [json.loads(text or "{}").get("rights_reserved") for text in stored]
    assert flags == [None, "c2pa_ai_training"]
    refused = cli("--db", "b", "ingest", folder, "--rights", "refuse")
    assert "added 1, already there 0, rejected 1" in refused.err
    reasons = PairStore.open("b").rejects()["reason"].to_pylist()
    assert reasons == ["rights reserved (c2pa_ai_training)"]
