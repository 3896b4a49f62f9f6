from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pairs_at_hand import names, new_store, pairs

from asif_lance.errors import InputError, KeysError
from asif_lance.forgetting import find_keys, find_keys_folder, keys, obtain_keys
from asif_lance.store.forget import forget, verify_receipt
from asif_lance.verifier import JOURNAL_FILE


def test_keys_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    made = obtain_keys("db", tmp_path / "keys")
    found = obtain_keys("db", tmp_path / "keys")
    assert (made.made, found.made) == (True, False)
    assert (made.fingerprint, made.public) == (found.fingerprint, found.public)
    files = sorted((tmp_path / "keys").iterdir())
    assert [f.name for f in files] == ["fingerprint.key", "signing.pem", "signing.pub.pem"]
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert len(made.fingerprint) == 32
    assert made.fingerprint.hex() not in repr(made)


def test_the_folder_is_named_by_the_caller_the_environment_or_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASIF_LANCE_KEYS", str(tmp_path / "named"))
    assert find_keys_folder(tmp_path / "given") == tmp_path / "given"
    assert find_keys_folder() == tmp_path / "named"
    monkeypatch.delenv("ASIF_LANCE_KEYS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    assert find_keys_folder().name == "asif-lance"
    assert find_keys() is None or sys.platform != "linux"


@pytest.mark.parametrize("inside", [".", "keys", "deep/er"])
def test_a_folder_in_the_database_is_refused(tmp_path: Path, inside: str) -> None:
    store = new_store(tmp_path)
    (tmp_path / "link").symlink_to(store.uri)
    for folder in (Path(store.uri) / inside, tmp_path / "link" / inside):
        with pytest.raises(InputError, match="is in the database: keys must lie elsewhere"):
            obtain_keys(store.uri, folder)
    assert not list(Path(store.uri).rglob("*.pem"))


def test_nothing_is_forgotten_when_keys_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 3)))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ASIF_LANCE_KEYS", str(tmp_path / "file" / "keys"))
    with pytest.raises(KeysError, match=r"cannot make keys in .*: Not a directory"):
        forget(store, names(0, 1), reason="asked to")
    assert store.existing(names(0, 3)) == set(names(0, 3))
    assert not (Path(store.uri) / JOURNAL_FILE).exists()


@pytest.mark.parametrize("replaced", [["signing.pem"], ["signing.pem", "fingerprint.key"]])
def test_receipts_of_keys_that_were_replaced_are_still_the_users_own(
    tmp_path: Path, replaced: list[str]
) -> None:
    store, folder = new_store(tmp_path), tmp_path / "keys"
    store.add(pairs(names(0, 3)))
    receipts = [forget(store, names(0, 1), reason="asked to", folder=folder)]
    old = {name: (folder / name).rename(folder / f"old.{name}") for name in replaced}
    receipts.append(forget(store, names(1, 2), reason="asked to", folder=folder))
    for receipt in receipts:
        report = verify_receipt(store, receipt.receipt_id, folder=folder)
        assert (report.verdict, report.checks[-1].told[:7]) == ("confirmed", "none of")
    assert old["signing.pem"].exists()
    made = find_keys(folder)
    assert made is not None
    assert (folder / "signing.pub.pem").read_bytes() == made.public_pem
    assert len(list(folder.glob("*.pub.pem"))) == 2


def test_a_key_that_is_gone_is_not_made_anew_beside_the_other(tmp_path: Path) -> None:
    obtain_keys("db", tmp_path)
    (tmp_path / keys.FINGERPRINT_FILE).unlink()
    with pytest.raises(KeysError, match=r"has signing.pem but no fingerprint.key: bring that back"):
        obtain_keys("db", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (keys.FINGERPRINT_FILE, b"no hex", "not a key of fingerprints"),
        (keys.FINGERPRINT_FILE, b"abcd", "that is 64 hex digits"),
        (keys.SIGNING_FILE, b"-----BEGIN", "not a private key"),
    ],
)
def test_a_damaged_key_is_told(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    obtain_keys("db", tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KeysError, match=told):
        obtain_keys("db", tmp_path)


def test_two_processes_that_make_keys_at_once_have_the_same(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from asif_lance.forgetting import obtain_keys;"
        "sys.stdin.readline(); k = obtain_keys('db', Path(sys.argv[1])); print(k.key_id, k.public)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "keys")]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert len({process.communicate("\n")[0] for process in running}) == 1
    found = obtain_keys("db", tmp_path / "keys")
    assert (tmp_path / "keys" / keys.PUBLIC_FILE).read_bytes() == found.public_pem
