"""After a fork, where Lance would wait for ever, whatever reads a database says why it cannot."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import IMAGE_DIM, TEXT_DIM

import asif_lance
from asif_lance.errors import ForkedProcessError
from asif_lance.ingest import ingest_sources
from asif_lance.model import LabelSet, Model

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

DEADLINE = 60  # seconds, for a process that waits for ever


@pytest.fixture
def model(tmp_path: Path, pairs_file: Path) -> Model:
    ingest_sources(tmp_path / "t.lancedb", [pairs_file])
    return asif_lance.open(tmp_path / "t.lancedb")


@pytest.fixture
def labels(model: Model, rng: np.random.Generator) -> LabelSet:
    return model.label_vectors(
        {name: rng.standard_normal(TEXT_DIM).astype(np.float32) for name in "ab"}
    )


def in_child(work: Callable[[], object]) -> str:
    """What a forked process says of its work: its result, or its error."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lance and Python warn of what is tested here
        child = os.fork()
    if child == 0:
        signal.alarm(DEADLINE)
        try:
            told = str(work())
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        told = answer.read()
    assert os.waitpid(child, 0)[1] == 0, "the process waited for ever"
    return told


def test_what_reads_the_database_says_why_it_cannot(model: Model, labels: LabelSet) -> None:
    vectors = np.ones((1, IMAGE_DIM), np.float32)
    (prediction,) = model.classify_vectors(["x"], vectors, labels)
    for work in (
        lambda: asif_lance.open(model.store.uri),
        lambda: list(model.classify_vectors(["x"], vectors, labels)),
        lambda: prediction.attributions(2),
        lambda: model.store.version("latest"),
    ):
        told = in_child(work)
        assert told.startswith(ForkedProcessError.__name__), told
        assert "'spawn' or 'forkserver'" in told


def test_a_process_forked_before_anything_was_opened_opens_what_it_likes() -> None:
    program = (
        "import os, sys, warnings; warnings.simplefilter('ignore'); import asif_lance.store\n"
        "child = os.fork()\n"
        "if child: sys.exit(os.waitpid(child, 0)[1])\n"
        "try: asif_lance.open('nowhere.lancedb')\n"
        "except asif_lance.errors.DatabaseNotFoundError: os._exit(0)\n"
    )
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", program) == 0
