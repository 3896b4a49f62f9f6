"""Copies that Lance or others keep beside our tables: told before the deed, never silently left."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from conftest import Cli
from pairs_at_hand import names, new_store, pairs

from asif_lance.errors import DatabaseError
from asif_lance.forgetting import Copy
from asif_lance.store.forget import forget, plan, verify_receipt
from asif_lance.store.maintenance import optimize, prune_versions
from asif_lance.store.pair_store import PairStore

IMAGE, TEXT = 64, 32
GONE = names(3, 6)


def batch(ids: Sequence[str], **columns: Any) -> pa.Table:
    return pairs(ids, image=IMAGE, text=TEXT, **columns)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """v1: 0-39; v2: without 3."""
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(batch(names(0, 40)))
    store.publish(command="ingest")
    store.delete(names(3, 4))
    store.publish(command="delete")
    return store


def head(store: PairStore) -> lance.LanceDataset:
    return lance.dataset(f"{store.uri}/pairs.lance")


def list_ours(store: PairStore) -> list[str]:
    return sorted(path.name for path in Path(store.uri).iterdir() if path.name.startswith(".asif"))


# What others put there


def copy_by_lancedb(store: PairStore) -> None:
    lancedb.connect(store.uri).create_table("pairs_copy", store.read("v1"))


def copy_and_delete(store: PairStore) -> None:
    """A soft delete hides the rows, and they are there."""
    table = lancedb.connect(store.uri).create_table("hidden", store.read("v1"))
    table.delete("pair_id is not null")


def materialise_a_view(store: PairStore) -> None:
    words = store.read("v1", ["caption"]).rename_columns(["words"])
    lance.write_dataset(words, f"{store.uri}/words.lance")


def clone_deeply(store: PairStore) -> None:
    head(store).deep_clone(f"{store.uri}/deep.lance", store.version("v1").lance_version)


def back_up(store: PairStore) -> None:
    shutil.copytree(f"{store.uri}/pairs.lance", f"{store.uri}/backup/pairs.lance")


def export(store: PairStore) -> None:
    Path(store.uri, "notes.csv").write_text("\n".join(GONE[:2]) + "\n")


def leave_a_branch_without_its_name(store: PairStore) -> None:
    """As a `create_branch` or `delete` that was killed leaves it."""
    branch = head(store).create_branch("exp", "v1")
    lance.write_dataset(store.read("v1").slice(3, 3), branch, mode="append")
    Path(store.uri, "pairs.lance/_refs/branches/exp.json").unlink()


BESIDE: list[tuple[Callable[[PairStore], None], Copy]] = [
    (copy_by_lancedb, Copy("pairs_copy.lance", 3)),
    (copy_and_delete, Copy("hidden.lance", 3)),
    (materialise_a_view, Copy("words.lance", 3)),
    (clone_deeply, Copy("deep.lance", 3)),
    (back_up, Copy("backup", 3)),
    (export, Copy("notes.csv", 2)),
    (leave_a_branch_without_its_name, Copy("pairs.lance/tree", 3)),
]


@pytest.mark.parametrize(("make", "copy"), BESIDE, ids=lambda value: getattr(value, "__name__", ""))
def test_what_holds_pairs_beside_ours_is_in_the_plan_and_residual_in_the_receipt(
    store: PairStore, make: Callable[[PairStore], None], copy: Copy
) -> None:
    make(store)
    assert plan(store, GONE).copies == (copy,)
    receipt = forget(store, GONE, reason="asked to")
    assert not receipt.clean
    assert all(finding.startswith(copy.place) for finding in receipt.findings)
    assert "residual" in {surface.verdict for surface in receipt.surfaces}
    shutil.rmtree(Path(store.uri, copy.place), ignore_errors=True)
    Path(store.uri, copy.place).unlink(missing_ok=True)
    assert not verify_receipt(store, receipt.receipt_id).findings


def test_a_pair_that_only_a_copy_has_any_more_is_told(store: PairStore, cli: Cli) -> None:
    copy_by_lancedb(store)
    assert not forget(store, GONE[:1], reason="asked to").clean
    planned = plan(store, [GONE[0], "nowhere-at-all"])
    assert (planned.pairs, planned.copies) == ((), (Copy("pairs_copy.lance", 1),))
    both = plan(store, GONE)
    assert (both.unknown, both.copies) == (tuple(GONE[:1]), (Copy("pairs_copy.lance", 3),))
    done = cli("--db", store.uri, "forget", GONE[0], "--yes")
    assert (done.status, "pairs_copy.lance holds 1 of these" in done.err) == (1, True)


def test_nothing_of_ours_is_taken_for_a_copy(store: PairStore) -> None:
    head(store).create_scalar_index("pair_id", "BTREE")
    forget(store, names(30, 31), reason="asked to")
    optimize(store)
    lancedb.connect(store.uri).create_table("others", pairs(names(700, 702)))
    assert plan(store, GONE).copies == ()


def test_the_command_names_copies_before_the_deed_and_ends_with_status_1(
    cli: Cli, pairs_file: Path
) -> None:
    assert cli("--db", "d", "ingest", str(pairs_file)).status == 0
    rows = lancedb.connect("d").open_table("pairs").to_arrow()
    lancedb.connect("d").create_table("pairs_copy", rows)
    told = cli("--db", "d", "forget", "p3", "--dry-run")
    assert told.status == 0
    assert "pairs_copy.lance holds 1 of these pairs and is not ours" in told.err
    done = cli("--db", "d", "forget", "p3", "--reason", "asked to", "--yes", "--format", "json")
    assert done.status == 1
    assert "pairs_copy.lance holds 1 of these pairs and is not ours" in done.err


# What is refused


def add_blobs(store: PairStore) -> None:
    column = lance.blob_array([bytes(100_000)] * head(store).count_rows())
    schema = pa.schema([lance.blob_field("picture")])
    head(store).add_columns(pa.table([column], schema=schema).to_reader())


def clone_beside(store: PairStore) -> None:
    head(store).shallow_clone(f"{store.uri}/clone.lance", store.version("v1").lance_version)


def branch(store: PairStore) -> None:
    head(store).create_branch("exp/one", "v1")


def tag_the_attributions(store: PairStore) -> None:
    lance.dataset(f"{store.uri}/attributions.lance").tags.create("june", 1)


REFUSED = [
    (tag_the_attributions, r"the attributions table has tags, .*\.tags\.delete\('june'\)"),
    (branch, r"branches, .* \(exp/one\); .*branches\.delete\('exp/one'\)"),
    (clone_beside, r"clone\.lance is a shallow clone .*drop_table\('clone'\)"),
    (add_blobs, r"a column 'picture' of blobs"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_what_lance_shares_is_refused_before_anything_happens(
    store: PairStore, make: Callable[[PairStore], None], reason: str
) -> None:
    make(store)
    with pytest.raises(DatabaseError, match=reason):
        plan(store, GONE)
    with pytest.raises(DatabaseError, match=reason):
        forget(store, GONE, reason="asked to")
    assert list_ours(store) == [".asif-lock"]
    assert set(GONE[1:]) <= store.existing(GONE)


def test_after_the_branch_is_removed_as_told_forgetting_works(store: PairStore) -> None:
    branch(store)
    lance.dataset(f"{store.uri}/pairs.lance").branches.delete("exp/one")
    assert forget(store, GONE, reason="asked to").clean


def test_after_the_clone_is_dropped_as_told_forgetting_works(store: PairStore) -> None:
    clone_beside(store)
    lancedb.connect(store.uri).drop_table("clone")
    assert forget(store, GONE, reason="asked to").clean


def test_a_table_that_reads_files_elsewhere_is_refused(store: PairStore, tmp_path: Path) -> None:
    other = tmp_path / "other"
    left_out = shutil.ignore_patterns("pairs.lance", "digests.lance")
    shutil.copytree(store.uri, other, ignore=left_out)
    version = store.version("v1").lance_version
    head(store).shallow_clone(str(other / "pairs.lance"), version)
    with pytest.raises(DatabaseError, match=r"reads files of .*pairs\.lance, which .* cannot"):
        forget(PairStore.open(str(other)), GONE, reason="asked to")


def test_branches_survive_pruning_and_upkeep(store: PairStore) -> None:
    branch(store)
    prune_versions(store, keep_last=1)
    optimize(store)
    kept = head(store).checkout_version(("exp/one", None))
    assert np.array_equal(
        np.sort(kept.to_table(columns=["pair_id"])["pair_id"].to_numpy()), names(0, 40)
    )


def test_a_version_whose_tag_somebody_deleted_keeps_nobody_from_forgetting(
    store: PairStore,
) -> None:
    head(store).tags.delete("v1")
    assert plan(store, GONE).versions == ("v2",)
    receipt = forget(store, GONE, reason="asked to")
    assert receipt.clean
    assert [version.name for version in receipt.versions] == ["v2"]
