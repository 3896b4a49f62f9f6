"""Fixtures shared by all tests: real tables, real files, the command as users run it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import settings
from PIL import Image
from s3_server import bucket, s3_server, vector_cache
from slow_tests import SlowTestList, mark_slow_tests

# Triton's kernels run as Python, without a GPU; to be set before anything imports Triton.
os.environ.setdefault("TRITON_INTERPRET", "1")

# Speed is measured elsewhere: a busy machine fails no test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

IMAGE_DIM, TEXT_DIM = 16, 12

__all__ = ["bucket", "s3_server", "vector_cache"]  # of a server that all folders of tests share


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--list-slow", action="store_true", help="write tests/slow_tests.txt anew")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--list-slow"):
        config.pluginmanager.register(SlowTestList())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_slow_tests(items)


@pytest.fixture(scope="session", autouse=True)
def keys_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keys of forgetting for the tests alone, not the user's."""
    folder = tmp_path_factory.mktemp("configuration") / "keys"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASIF_LANCE_KEYS", str(folder))
        yield folder


@dataclass(frozen=True)
class Ran:
    """One finished command."""

    status: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Ran]


def entry_point() -> Any:
    """The command as users run it."""
    (entry,) = entry_points(group="console_scripts", name="asif-lance")
    return entry.load()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run `asif-lance` through its entry point, in a folder of its own."""
    main = entry_point()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASIF_LANCE_DB", raising=False)

    def run(*arguments: object) -> Ran:
        done = CliRunner().invoke(main, [str(a) for a in arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ran(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def only_there(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on nothing loads an image encoder in this process."""
    from asif_lance.encoders import by_name

    def refuse(*_: object) -> None:
        raise AssertionError("an image encoder was loaded by the process that asks")

    return lambda: monkeypatch.setattr(by_name, "_load_images", refuse)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20221004)


def pairs_frame(n: int, rng: np.random.Generator, *, start: int = 0) -> pl.DataFrame:
    """n pairs with random vectors of both sides, ids p0, p1, …"""
    return pl.DataFrame(
        {
            "pair_id": [f"p{i}" for i in range(start, start + n)],
            "caption": [f"caption {i}" for i in range(start, start + n)],
            "license": ["CC-BY" if i % 2 else "CC-BY-NC" for i in range(start, start + n)],
            "image_vector": rng.standard_normal((n, IMAGE_DIM)).astype(np.float32),
            "text_vector": rng.standard_normal((n, TEXT_DIM)).astype(np.float32),
        }
    )


def picture(path: Path, seed: int) -> Path:
    """A small photo-like picture: smooth noise, different for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((160, 120), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def pairs_file(tmp_path: Path, rng: np.random.Generator) -> Path:
    """200 pairs with vectors, as users bring them."""
    path = tmp_path / "pairs.parquet"
    pairs_frame(200, rng).write_parquet(path)
    return path


@pytest.fixture
def query_file(tmp_path: Path, rng: np.random.Generator) -> Path:
    """20 image vectors with ids."""
    path = tmp_path / "queries.parquet"
    vectors = rng.standard_normal((20, IMAGE_DIM)).astype(np.float32)
    pl.DataFrame({"id": [f"q{i}" for i in range(20)], "vector": vectors}).write_parquet(path)
    return path


@pytest.fixture
def label_file(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Five label vectors."""
    path = tmp_path / "labels.parquet"
    vectors = rng.standard_normal((5, TEXT_DIM)).astype(np.float32)
    pl.DataFrame({"label": list("abcde"), "vector": vectors}).write_parquet(path)
    return path
