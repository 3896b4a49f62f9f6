"""Pairs without what is required are refused; marks that reserve rights are seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Cli, pairs_frame

from asif_lance.errors import InputError
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.ingest.admission import find_reserved
from asif_lance.store import PairStore

MARKS = {
    '{"noai": true}': "noai",
    '{"No-AI": 1, "noai": "yes", "noindex": "false"}': "noai",
    '{"tdm-reservation": "1", "noImageAI": 1}': "noimageai, tdm_reservation",
    '{"X-Robots-Tag": "googlebot: NoIndex, noai"}': "noai, noindex",
    '{"robots": ["noimageindex"]}': "noimageindex",
    '{"error_message": "Use of image disallowed by X-Robots-Tag directive"}': "x_robots_tag",
    '{"noai": false, "noindex": 0, "tdm_reservation": "0", "noimageai": null}': None,
    '{"robots": "index, follow", "text": "noai noindex", "error_message": null}': None,
    "{}": None,
}


def brought(path: Path, rng: np.random.Generator, **columns: object) -> Path:
    pairs_frame(4, rng).drop("license").with_columns(**columns).write_parquet(path)
    return path


@pytest.mark.parametrize(("attributes", "marks"), MARKS.items())
def test_marks_that_reserve_rights_are_told_from_those_that_do_not(
    attributes: str, marks: str | None
) -> None:
    assert find_reserved(pl.Series([attributes, None])).to_list() == [marks, None]


def test_a_pair_without_licence_or_source_of_its_own_is_refused(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    file = brought(
        tmp_path / "p.parquet",
        rng,
        license=pl.Series(["mit", None, " ", "mit"]),
        source=pl.Series(["web", "web", "web", None]),
    )
    done = cli("--db", "d", "ingest", file, "--require", "license,source", "--format", "json")
    assert (done.objects[0]["added"], done.objects[0]["rejected"]) == (1, 3)
    reasons = PairStore.open("d").rejects()["reason"].to_pylist()
    assert sorted(reasons) == ["no license", "no license", "no source"]
    named = cli("--db", "d", "ingest", file, "--require", "source", "--source-name", "given")
    assert "added 3, already there 1, rejected 0" in named.err
    given = cli("--db", "e", "ingest", file, "--require", "license", "--license", "mit")
    assert "added 3, already there 0, rejected 1" in given.err  # a blank licence is one of its own


def test_what_cannot_be_required_is_told(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    file = brought(tmp_path / "p.parquet", rng)
    done = cli("--db", "d", "ingest", file, "--require", "license,colour")
    assert done.status == 2
    assert "'colour' is none of license, source" in done.err
    with pytest.raises(InputError, match="cannot require 'colour'"):
        ingest_sources(tmp_path / "d", [file], IngestOptions(require=("colour",)))


def test_reserved_pairs_are_flagged_or_refused_as_asked(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    file = brought(tmp_path / "p.parquet", rng, noai=pl.Series([True, False, None, True]))
    assert "added 4" in cli("--db", "as-before", "ingest", file).err
    assert "rights_reserved" not in str(PairStore.open("as-before").read())
    assert (
        "added 2, already there 0, rejected 2"
        in cli("--db", "without", "ingest", file, "--rights", "refuse").err
    )
    assert set(PairStore.open("without").rejects()["reason"].to_pylist()) == {
        "rights reserved (noai)"
    }
    assert "added 4" in cli("--db", "flagged", "ingest", file, "--rights", "flag").err
    stored = PairStore.open("flagged").read().sort_by("pair_id")["attributes"].to_pylist()
    assert [json.loads(text).get("rights_reserved") for text in stored] == [
        "noai", None, None, "noai"
    ]  # fmt: skip
    asked = "SELECT count(*) AS n FROM pairs WHERE attributes->>'rights_reserved' IS NOT NULL"
    assert cli("--db", "flagged", "audit", asked, "--format", "json").objects == [{"n": 2}]
