"""What is wrong with arguments is told before torch is imported, which takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from conftest import picture
from pairs_at_hand import names, new_store, pairs

pytestmark = pytest.mark.slow  # a process for each command

#: A command in a process that cannot import torch.
_WITHOUT_TORCH = """
import importlib.util, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name == "torch" else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        raise SystemExit("torch was imported")
sys.meta_path.insert(0, NoTorch())
from asif_lance.cli import main
main(prog_name="asif-lance")
"""

LABELS_FILES = {
    "none.txt": None,
    "empty.txt": b"",
    "comments.txt": b"# cat\n",
    "latin.txt": b"caf\xe9\n",
    "number.json": b"[1, 2]",
    "object.json": b'{"cat": 1}',
    "cut.json": b'["cat", ',
    "twice.txt": b"cat\ncat\n",
    "unclosed.txt": b'"cat\n',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose encoders have names, labelled pictures, files of labels and vectors."""
    folder = tmp_path_factory.mktemp("early")
    store = new_store(folder)
    store.add(pairs(names(0, 30)))
    store.publish(command="ingest")
    for i, label in enumerate(("cat", "dog") * 2):
        picture(folder / "test" / label / f"{i}.png", i)
    for name, content in LABELS_FILES.items():
        if content is not None:
            (folder / name).write_bytes(content)
    three = [[1.0, 0.0, 0.0]] * 2
    for name, key in (("short.parquet", "id"), ("short-labels.parquet", "label")):
        pl.DataFrame({key: ["a", "b"], "vector": three}).write_parquet(folder / name)
    (folder / "no.parquet").write_bytes(b"PAR1")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, "--db", "db", *arguments],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "ASIF_LANCE_DB"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_that_can_be_answered_would_import_torch(folder: Path) -> None:
    done = run(folder, "classify", "test", "--labels", "cat,dog")
    assert done.stderr == "torch was imported\n"


@pytest.mark.parametrize("name", LABELS_FILES)
def test_a_labels_file_without_labels_is_told_before_torch(folder: Path, name: str) -> None:
    done = run(folder, "classify", "test", "--labels-file", name)
    assert done.returncode in (1, 2)
    assert name in done.stderr.splitlines()[-1]


ASKED = ("--labels-file", "cut.json")
WRONG = {
    "evaluate": (("evaluate", "test", *ASKED), "cut.json"),
    "tune": (("tune", "test", *ASKED), "cut.json"),
    "tune without pictures": (("tune", "--self-test", *ASKED), "cut.json"),
    "scaling": (("scaling", "test", *ASKED), "cut.json"),
    "adapt": (("adapt", "test", *ASKED), "cut.json"),
    "diagnose": (("diagnose", *ASKED), "cut.json"),
    "explain": (("explain", "test/cat/0.png", *ASKED), "cut.json"),
    "what-if": (("what-if", "delete", "x", "--images", "test", *ASKED), "cut.json"),
    "diff": (("diff", "v1", "v1", "--images", "test", *ASKED), "cut.json"),
    "index": (("index", "build", *ASKED), "cut.json"),
    "together": (("classify", "test", "--with", "db@v2", "--labels", "a,b"), "version 'v2'"),
    "a template": (("classify", "test", "--labels", "a", "--template", "x"), "has no {}"),
    "a set of templates": (("classify", "test", "--labels", "a", "--templates", "x"), "set 'x'"),
    "a recipe": (("classify", "test", "--labels", "a,b", "--recipe", "x"), "no recipe 'x'"),
    "a recipe to try": (("tune", "test", "--try-recipe", "x"), "no recipe 'x'"),
    "a version": (("evaluate", "test", "--model", "v9"), "version 'v9'"),
    "no picture": (("classify", "gone.png", "--labels", "a,b"), "gone.png: missing file"),
    "vectors": (("classify", "--vectors", "no.parquet", "--labels", "a,b"), "no.parquet"),
    "short vectors": (
        ("classify", "--vectors", "short.parquet", "--labels", "a,b"),
        "image vectors",
    ),
    "short label vectors": (
        ("classify", "test", "--label-vectors", "short-labels.parquet"),
        "label vectors",
    ),
    "pictures to calibrate": (
        ("classify", "test", "--labels", "cat,cow", "--confidence", "--calibrate", "test"),
        "the class 'dog' is not among",
    ),
    "classes": (("evaluate", "test", "--labels", "cat"), "the class 'dog' is not among"),
    "pictures": (("evaluate", "cut.json"), "cut.json"),
    "too few pictures": (("tune", "test", "--holdout", "0.999"), "too few to hold out"),
    "a source": (("ingest", "gone"), "there is no source at gone"),
    "a source of encoders": (
        ("ingest", "test", "--image-encoder", "sentence-transformers/x"),
        "unknown image encoder",
    ),
    "a source to try": (("what-if", "add", "gone", "--images", "test", "--labels", "a"), "gone"),
    "a predicate": (
        ("what-if", "delete", "--where", "x = 1", "--images", "test", "--labels", "a"),
        "x = 1",
    ),
    "queries": (("index", "build", "--queries", "no.parquet"), "no.parquet"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_is_told_before_torch(folder: Path, wrong: str) -> None:
    arguments, reason = WRONG[wrong]
    done = run(folder, *arguments)
    assert done.returncode in (1, 2)
    assert reason in done.stderr.splitlines()[-1]
