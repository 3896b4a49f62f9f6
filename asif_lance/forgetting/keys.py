"""The two keys of forgetting: one for fingerprints, one that signs. They never lie in a database.

`fingerprint.key` is 32 random bytes in hex. Without it nobody can tell what a receipt is about, its
owner neither; with it, guesses can be tested. `signing.pem` is an Ed25519 key; `signing.pub.pem`,
made with it, is for whoever checks receipts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from asif_lance.database import local_path
from asif_lance.errors import InputError, KeysError
from asif_lance.verifier import KEY_BYTES, name_key, read_key, read_public_key

KEYS_VARIABLE = "ASIF_LANCE_KEYS"
FINGERPRINT_FILE, SIGNING_FILE, PUBLIC_FILE = "fingerprint.key", "signing.pem", "signing.pub.pem"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of whoever forgets.

    Attributes:
        folder: where they lie.
        fingerprint: the key of the fingerprints.
        signer: signs receipts.
        made: they were not there before.
    """

    folder: Path
    fingerprint: bytes = field(repr=False)
    signer: CryptoSigner = field(repr=False)
    made: bool = False

    @property
    def key_id(self) -> str:
        """The id of the key of the fingerprints."""
        return name_key(self.fingerprint)

    @property
    def public(self) -> str:
        """Hex of the key that checks signatures."""
        return str(self.signer.public_key.keyval["public"])

    @property
    def public_pem(self) -> bytes:
        """The same as a file to hand out."""
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public))
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def find_keys_folder(folder: Path | None = None) -> Path:
    """The folder named, or that of `ASIF_LANCE_KEYS`, or one in the user's configuration."""
    named = folder or os.environ.get(KEYS_VARIABLE) or platformdirs.user_config_dir("asif-lance")
    return Path(named).expanduser().absolute()


def find_keys(folder: Path | None = None) -> Keys | None:
    """The keys of a folder, or None if there are none.

    Raises:
        KeysError: the key of the fingerprints is missing beside the other, or a file is no key.
    """
    home = find_keys_folder(folder)
    if not (home / SIGNING_FILE).exists():
        return None
    if not (home / FINGERPRINT_FILE).exists():
        raise KeysError(
            f"{home} has {SIGNING_FILE} but no {FINGERPRINT_FILE}: bring that back from your copy, "
            "or move the other away to begin with new keys"
        )
    return Keys(home, read_key(home / FINGERPRINT_FILE), _read_signer(home))


def find_fingerprint_keys(folder: Path | None = None) -> dict[str, bytes]:
    """All keys of fingerprints in a folder, by their ids: every file that ends in `.key`.

    One that new keys replaced is still needed to tell what was forgotten with it.

    Raises:
        KeysError: a file is no key.
    """
    keys = map(read_key, sorted(find_keys_folder(folder).glob("*.key")))
    return {name_key(key): key for key in keys}


def find_public_keys(folder: Path | None = None) -> list[SSlibKey]:
    """All keys in a folder that check signatures: every file that ends in `.pub.pem`.

    Raises:
        KeysError: a file is no key.
    """
    return [read_public_key(path) for path in sorted(find_keys_folder(folder).glob("*.pub.pem"))]


def obtain_keys(uri: str, folder: Path | None = None) -> Keys:
    """The keys of a folder, made if there are none.

    Raises:
        InputError: the folder is the database's, or in it.
        KeysError: the key of the fingerprints is missing beside the other, a file is no key, or
            none can be made.
    """
    home, database = find_keys_folder(folder), local_path(uri)
    if database is not None and home.resolve().is_relative_to(database.resolve()):
        raise InputError(f"{home} is in the database: keys must lie elsewhere")
    return find_keys(home) or _make_keys(home)


def _make_keys(home: Path) -> Keys:
    """Another process may make them at the same time: the first to write a file wins."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_once(home / FINGERPRINT_FILE, secrets.token_hex(KEY_BYTES).encode() + b"\n")
        _write_once(home / SIGNING_FILE, CryptoSigner.generate_ed25519().private_bytes)
        keys = Keys(home, read_key(home / FINGERPRINT_FILE), _read_signer(home), made=True)
        _write_public_key(home / PUBLIC_FILE, keys.public_pem)
    except OSError as error:
        reason = "it is a file" if home.is_file() else error.strerror
        raise KeysError(f"cannot make keys in {home}: {reason}") from error
    return keys


def _write_public_key(path: Path, content: bytes) -> None:
    """One of a signing key that was replaced is kept: it checks earlier receipts."""
    if path.exists() and path.read_bytes() != content:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.replace(path.with_name(f"{digest[:8]}.{path.name}"))
    _write_once(path, content)


def _write_once(path: Path, content: bytes) -> None:
    """Writes a file that only its owner reads, whole or not at all, and never over another."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _read_signer(home: Path) -> CryptoSigner:
    path = home / SIGNING_FILE
    try:
        private = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:  # TypeError: it has a password
        reason = error.strerror if isinstance(error, OSError) else "damaged, or with a password"
        raise KeysError(f"{path}: not a private key: {reason}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeysError(f"{path}: not an Ed25519 key")
    return CryptoSigner(private)
