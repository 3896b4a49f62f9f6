"""Pictures that several pairs show are found, by their bytes and by their vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Cli, pairs_frame
from hypothesis import given
from hypothesis import strategies as st

import asif_lance
from asif_lance.errors import InputError
from asif_lance.evaluation import duplicates as library
from asif_lance.evaluation import find_duplicates
from asif_lance.evaluation.duplicates import _join


@pytest.fixture
def database(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> str:
    """40 pairs; p1 and p2 are near p0, p39 is p5 again."""
    frame = pairs_frame(40, rng)
    vectors = frame["image_vector"].to_numpy().copy()
    vectors[1] = vectors[0] + 0.05 * vectors[7]
    vectors[2] = vectors[1] + 0.05 * vectors[8]
    vectors[39] = vectors[5]
    captions = ["IMG_0001.jpg" if i == 3 else c for i, c in enumerate(frame["caption"])]
    frame.with_columns(image_vector=pl.Series(vectors), caption=pl.Series(captions)).write_parquet(
        tmp_path / "p.parquet"
    )
    assert cli("--db", "d", "ingest", tmp_path / "p.parquet").status == 0
    return str(tmp_path / "d")


@pytest.mark.parametrize("block", [3, 4096])
def test_near_duplicates_are_grouped_whatever_the_blocks(
    database: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_BLOCK", block)
    found = find_duplicates(asif_lance.open(database), similarity=0.98)
    assert [group.pair_ids for group in found.groups] == [("p0", "p1", "p2"), ("p39", "p5")]
    assert (found.pairs, found.similar, found.hashed, found.identical) == (40, 5, 0, 0)
    assert found.captions.examples == ("IMG_0001.jpg",)


@pytest.mark.parametrize("similarity", [0.0, 1.5, float("nan")])
def test_a_similarity_that_means_nothing_is_told(database: str, similarity: float) -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        find_duplicates(asif_lance.open(database), similarity=similarity)


@given(links=st.lists(st.tuples(*[st.integers(0, 7)] * 2), max_size=12))
def test_links_in_any_pieces_give_the_groups_of_all_of_them(links: list[tuple[int, int]]) -> None:
    whole = {i: {i} for i in range(8)}
    joined = np.arange(8)
    for left, right in links:
        joined = _join(joined, np.array([left]), np.array([right]))
        both = whole[left] | whole[right]
        whole.update(dict.fromkeys(both, both))
    assert all((joined[i] == joined[j]) == (j in whole[i]) for i in range(8) for j in range(8))


def test_the_command_tells_groups_and_counts(cli: Cli, database: str) -> None:
    done = cli("--db", database, "diagnose", "--duplicates", "--similarity", "0.98")
    assert done.status == 0, done.err
    assert "5 of 40 pairs in 2 groups" in done.out
    assert "3  unknown     caption 0" in done.out
    told = cli("--db", database, "diagnose", "--duplicates", "--format", "json").objects
    assert told[0]["pairs"] == 40


def test_options_of_the_other_examination_are_refused(cli: Cli, database: str) -> None:
    assert cli("--db", database, "diagnose", "--duplicates", "--labels", "a").status == 2
    assert cli("--db", database, "diagnose", "--similarity", "0.9").status == 2
