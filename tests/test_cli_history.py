"""forget, diff, prune, optimize and info as users run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, pairs_frame

DB = ("--db", "t.lancedb")


@pytest.fixture
def grown(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> Cli:
    """v1 has p0 to p99, v2 p0 to p199, v3 lacks p0 and p150."""
    for number, start in enumerate((0, 100)):
        pairs_frame(100, rng, start=start).write_parquet(tmp_path / f"{number}.parquet")
        assert cli(*DB, "ingest", f"{number}.parquet").status == 0
    assert cli(*DB, "delete", "p0", "p150").status == 0
    return cli


def pairs_by_version(cli: Cli) -> dict[str, int]:
    return {v["name"]: v["pairs"] for v in cli(*DB, "versions", "--format", "json").objects}


def test_forgetting_says_what_it_touches_and_prints_a_receipt_that_can_be_checked(
    grown: Cli,
) -> None:
    done = grown(*DB, "forget", "p0", "p150", "--reason", "asked to", "--yes", "--format", "json")
    assert done.status == 0
    (receipt,) = done.objects
    assert (receipt["pairs"], receipt["clean"], receipt["reason"]) == (2, True, "asked to")
    assert pairs_by_version(grown) == {"v1": 99, "v2": 198, "v3": 198}
    checked = grown(*DB, "forget", "--verify", receipt["receipt_id"], "--format", "json")
    assert checked.status == 0
    assert checked.objects[0]["clean"] is True


def test_a_pair_that_came_back_fails_the_check_of_its_receipt(grown: Cli) -> None:
    done = grown(*DB, "forget", "p7", "--yes", "--format", "json")
    receipt = done.objects[0]["receipt_id"]
    agreed = ("--allow-forgotten", "--reason", "agreed again")
    assert grown(*DB, "ingest", "0.parquet", *agreed).status == 0
    checked = grown(*DB, "forget", "--verify", receipt)
    assert checked.status == 1
    assert "FOUND: " in checked.err


def test_a_dry_run_changes_nothing(grown: Cli) -> None:
    done = grown(*DB, "forget", "--where", "license = 'CC-BY'", "--dry-run")
    assert done.status == 0
    assert done.err.startswith("100 pairs in 3 versions (v1, v2, v3); 2 fragments to rewrite, ")
    assert pairs_by_version(grown) == {"v1": 100, "v2": 200, "v3": 198}


def test_without_a_yes_nothing_is_forgotten(grown: Cli) -> None:
    done = grown(*DB, "forget", "p5")
    assert done.status == 1
    assert "This cannot be undone. Forget them? [y/N]" in done.err
    assert pairs_by_version(grown) == {"v1": 100, "v2": 200, "v3": 198}


def test_unknown_pairs_are_nothing_to_forget(grown: Cli) -> None:
    done = grown(*DB, "forget", "nobody", "--yes")
    assert done.err == "1 of the ids is in no version\nnothing to forget\n"


def test_an_unknown_receipt_is_one_line(grown: Cli) -> None:
    done = grown(*DB, "forget", "--verify", "f1")
    assert done.status == 2  # nothing was checked
    assert done.err.startswith("asif-lance: ")
    assert done.err.count("\n") == 1


def test_a_diff_counts_and_lists_what_changed(grown: Cli) -> None:
    (found,) = grown(*DB, "diff", "v1", "v3", "--rows", "2", "--format", "json").objects
    assert (found["old"], found["new"]) == ("v1", "v3")
    assert (found["added"], found["removed"], found["changed"]) == (99, 1, 0)
    assert found["removed_ids"] == ["p0"]
    told = grown(*DB, "diff", "v1", "v3", "--rows", "1")
    assert told.err == "99 added, 1 removed, 0 changed\n"
    assert "caption 0" in told.out


def test_a_diff_with_an_unknown_version_names_the_known_ones(grown: Cli) -> None:
    done = grown(*DB, "diff", "v1", "v9")
    assert done.status == 1
    assert "v9" in done.err
    assert "v1, v2, v3" in done.err


def test_pruning_drops_old_versions_and_keeps_those_with_an_alias(grown: Cli) -> None:
    grown(*DB, "tag", "prod", "v1")
    dry = grown(*DB, "versions", "prune", "--keep-last", "1", "--dry-run")
    assert dry.err == "1 version to drop: v2\n"
    done = grown(*DB, "versions", "prune", "--keep-last", "1", "--yes")
    assert done.status == 0
    assert pairs_by_version(grown) == {"v1": 100, "v3": 198}
    again = grown(*DB, "versions", "prune", "--keep-last", "1", "--yes")
    assert again.err == "nothing to drop\n"


def test_young_versions_are_kept_by_age(grown: Cli) -> None:
    done = grown(*DB, "versions", "prune", "--keep-last", "1", "--older-than", "90d", "--yes")
    assert done.err == "nothing to drop\n"
    wrong = grown(*DB, "versions", "prune", "--older-than", "soon")
    assert wrong.status == 2
    assert "'soon' is not an age like 90d" in wrong.err


def test_optimizing_joins_fragments_and_info_tells_the_state(grown: Cli) -> None:
    (before,) = grown(*DB, "info", "--format", "json").objects
    assert (before["versions"], before["pairs"], before["fragments"]) == (3, 198, 2)
    done = grown(*DB, "optimize", "--now")
    assert done.err.startswith("fragments: 2 before, 1 now; size: ")
    assert grown(*DB, "optimize", "--now").err.startswith("nothing to do: 1 fragment, ")
    assert pairs_by_version(grown) == {"v1": 100, "v2": 200, "v3": 198}
    (after,) = grown(*DB, "info", "--format", "json").objects
    assert (after["fragments"], after["newest"]) == (1, "v3")
