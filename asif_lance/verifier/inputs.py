"""Files that whoever checks a receipt is given: keys and certificates.

What cannot be read, and what is something else, are told apart.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import SSlibKey

from asif_lance.errors import InputError, KeysError
from asif_lance.verifier.fingerprints import KEY_BYTES


def read_file(path: Path) -> bytes:
    """All of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def read_key(path: Path) -> bytes:
    """A key of fingerprints from its file, which holds it in hex.

    Raises:
        InputError: the file cannot be read.
        KeysError: there is none in it.
    """
    content = read_file(path)
    try:
        key = bytes.fromhex(content.decode().strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise KeysError(f"{path}: not a key of fingerprints: that is {2 * KEY_BYTES} hex digits")
    return key


def read_public_key(path: Path) -> SSlibKey:
    """A public key from its PEM file.

    Raises:
        InputError: the file cannot be read, or there is none in it.
    """
    content = read_file(path)
    if b"PRIVATE KEY" in content:
        raise InputError(f"{path}: a private key; signatures are checked with the public one")
    try:
        return SSlibKey.from_crypto(load_pem_public_key(content))
    except ValueError as error:
        raise InputError(f"{path}: not a public key in PEM") from error


def read_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file.

    Raises:
        InputError: the file cannot be read, or there are none in it.
    """
    content = read_file(path)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise InputError(f"{path}: no certificates in PEM") from error
