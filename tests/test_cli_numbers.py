"""Numbers without meaning, for every option of every command: a line, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import numpy as np
import polars as pl
import pytest
from asif_lance.cli.parameter_types import Choices, ColumnChoice, Device
from conftest import IMAGE_DIM, TEXT_DIM, Cli, Ran, entry_point, pairs_frame

from asif_lance.audit import Audit
from asif_lance.audit.runs import RetentionRule, Run
from asif_lance.errors import InputError
from asif_lance.relative import make_recipe
from asif_lance.store import PairStore, moment_before, prunable_versions

DB = ("--db", "t.lancedb")
TASK = ("test.parquet", "--label-vectors", "labels.parquet")
VECTORS = ("--vectors", "test.parquet", "--label-vectors", "labels.parquet")

#: What each command with numbers needs beside them; all of it does little.
NEEDED = {
    "classify": VECTORS,
    "search": ("a text",),
    "versions prune": ("--dry-run",),
    "ingest": ("pairs.parquet",),
    "diff": ("v1", "v1"),
    "evaluate": TASK,
    "tune": (*TASK, "--ks", "5", "--ps", "3"),
    "scaling": (*TASK, "--setting", "5:3"),
    "diagnose": (),
    "adapt": (*TASK, "--trials", "2"),
    "explain": ("labels.parquet", "--label-vectors", "labels.parquet"),
    "what-if delete": ("p1", *VECTORS),
    "what-if add": ("pairs.parquet", *VECTORS),
    "prune": ("--dry-run",),
    "audit": ("SELECT 1",),
    "serve": ("--new-token", "read"),
    "runs keep": (),
    "runs prune": (),
    "index build": ("--keep", "--sample", "5", "--agreement", "0.1"),
}

VALUES = ("nan", "inf", "-1", "0", "1e300", "5:nan", "9" * 30, str(2**31 - 1), "99999999999d")


def commands(group: click.Command, *path: str) -> Iterator[tuple[str, click.Command]]:
    if path:
        yield " ".join(path), group
    for name, below in getattr(group, "commands", {}).items():
        yield from commands(below, *path, name)


def numeric(command: click.Command) -> list[str]:
    """The options of a command that take numbers, sizes or times."""
    return [
        option.opts[0]
        for option in command.params
        if isinstance(option, click.Option)
        and not option.is_flag
        and not isinstance(option.type, click.Choice | click.Path | Choices | ColumnChoice | Device)
        and option.type.name not in ("text", "FILE")
    ]


NUMERIC = {name: found for name, command in commands(entry_point()) if (found := numeric(command))}


@pytest.fixture
def filled(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> Cli:
    """A database of 60 pairs, and 12 labelled pictures of three classes, as vectors."""
    pairs_frame(60, rng).write_parquet(tmp_path / "pairs.parquet")
    vectors = rng.standard_normal((12, IMAGE_DIM)).astype(np.float32)
    rows = {"id": [f"q{i}" for i in range(12)], "label": list("abc") * 4, "vector": vectors}
    pl.DataFrame(rows).write_parquet(tmp_path / "test.parquet")
    texts = rng.standard_normal((3, TEXT_DIM)).astype(np.float32)
    pl.DataFrame({"label": list("abc"), "vector": texts}).write_parquet(tmp_path / "labels.parquet")
    assert cli(*DB, "ingest", "pairs.parquet").status == 0
    return cli


def is_told(done: Ran) -> bool:
    """Whether the command worked, or said in its last line what is wrong."""
    if done.status == 0:
        return "nan" not in done.out
    return done.err.splitlines()[-1].startswith(("asif-lance: ", "Error: "))


def test_every_command_with_numbers_is_tried() -> None:
    assert set(NUMERIC) == set(NEEDED)


@pytest.mark.parametrize("command", NEEDED)
def test_a_number_without_meaning_ends_no_command_in_a_traceback(filled: Cli, command: str) -> None:
    for option in NUMERIC[command]:
        for value in VALUES:
            done = filled(*DB, *command.split(), *NEEDED[command], f"{option}={value}")
            assert is_told(done), (option, value, done)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("audit", "SELECT 1", "--timeout", "nan"), "'nan' is not a finite number"),
        (("tune", *TASK, "--seed", "-1"), "-1 is not in the range x>=0"),
        (("tune", *TASK, "--ks", "0,5"), "'0,5' has 0: each must be above 0"),
        (("tune", *TASK, "--ps", "5,nan"), "'5,nan' has nan: each must be above 0"),
        (("tune", *TASK, "--holdout", "nan"), "'nan' is not a finite number"),
        (("adapt", *TASK, "--per-class", "0"), "'0' has 0: each must be above 0"),
        (("scaling", *TASK, "--sizes", "5,0"), "'5,0' has 0: each must be above 0"),
        (("scaling", *TASK, "--setting", "5:nan"), "'nan' has nan: each must be above 0"),
        (("index", "build", "--agreement", "nan"), "'nan' is not a finite number"),
        (("versions", "prune", "--older-than", "99999999999d"), "is not an age like 90d"),
        (("search", "x", "--memory-limit", "9" * 30 + "TB"), "is more than any machine has"),
        (("search", "x", "--as-of", "0001-01-01T00:00+14:00"), "is not a time like 2026-01-31"),
        (("scaling", *TASK, "--repetitions", "2000000000"), "give at most 10,000"),
    ],
)
def test_a_number_without_meaning_is_wrong_usage_and_told(
    filled: Cli, arguments: tuple[str, ...], reason: str
) -> None:
    done = filled(*DB, *arguments)
    assert (done.status, reason in done.err) == (2, True), done.err


def test_an_age_beyond_the_calendar_is_older_than_all(filled: Cli, tmp_path: Path) -> None:
    assert filled(*DB, "versions", "prune", "--older-than", "999999999d").err == "nothing to drop\n"
    store = PairStore.open(str(tmp_path / "t.lancedb"))
    run = Run("r", datetime.now(UTC), "v1", "paper", "", 1, 1, None)
    assert not RetentionRule(younger_than=timedelta.max).dropped([run])
    assert moment_before(timedelta.max).year == 1
    with pytest.raises(InputError, match="negative"):
        prunable_versions(store, older_than=timedelta(days=-1))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 0, -1, 1e300])
def test_a_time_limit_is_a_real_one(filled: Cli, tmp_path: Path, seconds: float) -> None:
    with pytest.raises(InputError, match="at most 604,800 seconds"):
        Audit(PairStore.open(str(tmp_path / "t.lancedb")), seconds=seconds)


@pytest.mark.parametrize("p", [float("nan"), (8.0, float("nan")), (float("inf"), 8.0), 0.0])
def test_a_recipe_has_finite_powers(p: float | tuple[float, float]) -> None:
    with pytest.raises(InputError, match="p must be above 0 and finite"):
        make_recipe(p=p)
