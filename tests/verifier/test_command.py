"""The verifier as a stranger has it: with a copy of a database, a receipt and a public key."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import lance
import pytest
from pairs_at_hand import AGAIN, names, new_store, pairs

import asif_lance
from asif_lance.forgetting import find_keys, load_document
from asif_lance.store.forget import forget
from asif_lance.store.pair_store import PairStore

IMAGE, TEXT = 64, 32
GONE = names(3, 4)
LIBRARIES = (
    "lance", "pyarrow", "numpy", "securesystemslib", "cryptography", "_cffi_backend", "rfc8785",
    "rfc3161_client",
)  # fmt: skip
START = "import sys; sys.path.insert(0, sys.argv.pop(1)); import asif_lance.verifier.command as c; "
LOADED = "print(*(m for m in sys.modules if m.startswith('asif_lance.')), file=sys.stderr); "


@dataclass(frozen=True)
class Handed:
    """What a stranger was given."""

    database: Path
    receipt: Path
    public_key: Path
    key: Path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the verifier and its libraries, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    for library in LIBRARIES:
        spec = find_spec(library)
        assert spec is not None
        assert spec.origin is not None
        place = Path(spec.origin)
        place = place.parent if spec.submodule_search_locations else place
        (folder / place.name).symlink_to(place)
        if (place.parent / f"{library}.libs").exists():
            (folder / f"{library}.libs").symlink_to(place.parent / f"{library}.libs")
    home = Path(asif_lance.__file__).parent
    (folder / "asif_lance").mkdir()
    for name in (
        *("__init__.py", "errors.py", "object_stores.py", "progress.py", "records.py", "verifier"),
    ):
        (folder / "asif_lance" / name).symlink_to(home / name)
    return folder


@pytest.fixture
def handed(tmp_path: Path) -> Handed:
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(pairs(names(0, 20), image=IMAGE, text=TEXT))
    store.publish(command="ingest")
    document, _ = load_document(store.uri, forget(store, GONE, reason="asked to").receipt_id)
    (tmp_path / "receipt.json").write_text(document.body)
    keys = find_keys()
    assert keys is not None
    copy = Path(shutil.copytree(store.uri, tmp_path / "copy"))
    return Handed(
        copy,
        tmp_path / "receipt.json",
        keys.folder / "signing.pub.pem",
        keys.folder / "fingerprint.key",
    )


def altered(handed: Handed) -> None:
    content = json.loads(handed.receipt.read_text())
    payload = base64.b64decode(content["payload"]).replace(b'"pairs":1', b'"pairs":2')
    content["payload"] = base64.b64encode(payload).decode()
    handed.receipt.write_text(json.dumps(content))


def cut(handed: Handed) -> None:
    lance.dataset(str(handed.database / "receipts.lance")).delete("true")


def inserted(handed: Handed) -> None:
    PairStore.open(str(handed.database)).add(pairs(GONE, image=IMAGE, text=TEXT), waiver=AGAIN)


@pytest.mark.parametrize(
    ("change", "without_key", "with_key"),
    [
        (lambda handed: None, "confirmed", "confirmed"),
        (altered, "refuted", "refuted"),
        (cut, "refuted", "refuted"),
        (inserted, "undecided", "refuted"),
    ],
    ids=["honest", "altered", "cut", "inserted"],
)
def test_a_stranger_gets_the_right_verdict(
    bare: Path, handed: Handed, change: Callable[[Handed], None], without_key: str, with_key: str
) -> None:
    change(handed)
    status = {"confirmed": 0, "refuted": 1, "undecided": 3}
    for options, verdict in (([], without_key), (["--key", str(handed.key)], with_key)):
        done = run(bare, handed, *options)
        assert done.returncode == status[verdict], done.stdout + done.stderr
        told = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("verdict")]
        assert told == [f"{verdict}:"], done.stdout
        assert not {"asif_lance.forgetting", "asif_lance.store", "asif_lance.database"} & set(
            done.stderr.split()
        )


def run(bare: Path, handed: Handed, *options: str) -> subprocess.CompletedProcess[str]:
    code = f"{START}status = c.main(); {LOADED}sys.exit(status)"
    asked = [str(handed.database), str(handed.receipt), "--public-key", str(handed.public_key)]
    command = [sys.executable, "-I", "-S", "-c", code, str(bare), *asked, *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=bare)


def test_a_program_reads_the_same(bare: Path, handed: Handed) -> None:
    done = run(bare, handed, "--format", "json")
    report = json.loads(done.stdout)
    assert report["verdict"] == "confirmed"
    assert {"name": "pairs", "verdict": "erased"} in report["surfaces"]


def test_the_database_is_left_as_it_was(bare: Path, handed: Handed) -> None:
    def state() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in handed.database.rglob("*") if p.is_file()}

    before = state()
    run(bare, handed, "--key", str(handed.key))
    assert state() == before


NO_RECEIPTS = (
    *("{}", "[]", "null", "5", "", "\x03\x00\ufffd", "[" * 100_000),
    '{"payload": 5, "payloadType": "x"}',
    '{"payload": "no base64", "payloadType": "x", "signatures": []}',
    '{"payload": "W10=", "payloadType": "x", "signatures": []}',
    '{"payload": "e30=", "payloadType": "x", "signatures": null}',
)


@pytest.mark.parametrize("content", NO_RECEIPTS, ids=range(len(NO_RECEIPTS)))
def test_what_is_no_receipt_is_told_in_one_line_and_nothing_was_checked(
    bare: Path, handed: Handed, content: str
) -> None:
    handed.receipt.write_text(content)
    done = run(bare, handed)
    (line,) = [text for text in done.stderr.splitlines() if "not a receipt" in text]
    assert line.startswith(f"asif-lance-verify: {handed.receipt}: not a receipt")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_an_empty_folder_is_no_database(bare: Path, handed: Handed, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run(bare, replace(handed, database=empty))
    assert done.returncode == 2
    assert f"asif-lance-verify: {empty}: no database" in done.stderr


@pytest.mark.parametrize("file", ["x.lance", "x.idx", "pairs.lance/data/x.lance"])
@pytest.mark.parametrize("size", [0, 500, -30])
def test_beside_a_file_of_lance_that_is_cut_off_not_all_can_be_told(
    bare: Path, handed: Handed, file: str, size: int
) -> None:
    whole = next(handed.database.glob("pairs.lance/data/*.lance")).read_bytes()
    (handed.database / file).write_bytes(whole[:size])
    done = run(bare, handed, "--key", str(handed.key))
    assert (done.returncode, "panicked" in done.stderr) == (3, False)
    assert f"{file}: unreadable" in done.stdout


def test_keys_that_are_missing_or_others_are_no_verdict(bare: Path, handed: Handed) -> None:
    private = handed.public_key.with_name("signing.pem")
    for option, path, told in (
        ("--key", handed.key.with_name("nowhere"), "cannot be read: No such file or directory"),
        ("--key", handed.public_key, "not a key of fingerprints: that is 64 hex digits"),
        ("--public-key", private, "a private key; signatures are checked with the public one"),
        ("--public-key", handed.key, "not a public key in PEM"),
    ):
        done = run(bare, handed, option, str(path))
        assert done.returncode == 2
        assert f"asif-lance-verify: {path}: {told}" in done.stderr.splitlines()


@pytest.mark.parametrize("redirection", ["> /dev/full", "| true", ">&-"])
def test_an_answer_that_cannot_be_written_is_no_verdict(
    handed: Handed, tmp_path: Path, redirection: str
) -> None:
    told = tmp_path / "told"
    asked = shlex.join(
        [
            *(sys.executable, "-m", "asif_lance.verifier.command"),
            *(str(handed.database), str(handed.receipt), "--public-key", str(handed.public_key)),
        ]
    )
    shell = f"{{ sleep 0.1; {asked} 2> {told}; echo $? >> {told}; }} {redirection}"
    subprocess.run(["bash", "-c", shell], check=False)
    *lines, status = told.read_text().splitlines()
    assert status == "2"
    assert [line for line in lines if "Warning" not in line] == [
        line for line in lines if line.startswith("asif-lance-verify: cannot write the answer")
    ]
