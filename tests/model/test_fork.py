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
import torch
from conftest import IMAGE_DIM, TEXT_DIM
from PIL import Image

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


@pytest.mark.encoders
def test_what_computes_says_why_it_cannot_though_a_worker_may_prepare(tmp_path: Path) -> None:
    for shade in range(40, 240, 5):
        Image.new("RGB", (64, 64), (shade, 0, 255 - shade)).save(tmp_path / f"{shade}.png")
        (tmp_path / f"{shade}.txt").write_text(f"A colour of shade {shade}.")
    ingest_sources(tmp_path / "t.lancedb", [tmp_path])
    model = asif_lance.open(tmp_path / "t.lancedb")
    pixels = np.zeros((40, 40, 3), np.uint8)
    batch = torch.stack([model.preprocess(pixels)] * 4)
    vectors = np.random.default_rng(0).standard_normal((40, model.store.image.dimension))
    assert model.encode_image(batch).shape == (4, 40)
    for work in (
        lambda: model.encode_image(batch),
        lambda: model.encode(pixels),
        lambda: model.relate_images(vectors),
        lambda: model.encode_text(model.tokenizer(["a cat"])),
        lambda: model.search_text("a cat"),
        lambda: model.search_image(pixels),
    ):
        told = in_child(work)
        assert told.startswith(ForkedProcessError.__name__), told


def test_a_process_forked_before_anything_was_opened_opens_what_it_likes() -> None:
    program = (
        "import os, sys, warnings; warnings.simplefilter('ignore'); import asif_lance.store\n"
        "child = os.fork()\n"
        "if child: sys.exit(os.waitpid(child, 0)[1])\n"
        "try: asif_lance.open('nowhere.lancedb')\n"
        "except asif_lance.errors.DatabaseNotFoundError: os._exit(0)\n"
    )
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", program) == 0
