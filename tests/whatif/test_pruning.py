"""Pruning takes what recorded predictions do without, and says truly how many still agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from pairs_at_hand import names, new_store, pairs

import asif_lance
from asif_lance.audit import recorder
from asif_lance.errors import InputError
from asif_lance.model.labels import prompts_from_vectors
from asif_lance.model.model import Model
from asif_lance.store.pair_store import PairStore
from asif_lance.whatif.pruning import Pruning, prunable_pairs

COUNT = 300
LABELS = prompts_from_vectors(
    {f"label {i}": np.random.default_rng(i).normal(size=4).astype(np.float32) for i in range(6)}
)
IMAGES = np.random.default_rng(9).normal(size=(60, 8)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path)
    store.add(pairs(names(0, COUNT)))
    store.publish(command="ingest")
    return store


def labels_of(model: Model, images: np.ndarray = IMAGES) -> list[str]:
    ids = [f"image {i}" for i in range(len(images))]
    return [p.label for p in model.classify_vectors(ids, images, model.compile(LABELS))]


def record(store: PairStore, images: np.ndarray = IMAGES) -> str:
    model = asif_lance.open(store.uri, k=25, p=3, device="cpu")
    labels = model.compile(LABELS)
    with recorder.Recorder(store, labels, model.recipe, pairs=5) as run:
        ids = [f"image {i}" for i in range(len(images))]
        for prediction in model.classify_vectors(ids, images, labels):
            run.add(prediction)
    return run.run_id


def really(store: PairStore, found: Pruning, images: np.ndarray = IMAGES) -> float:
    """The share of labels that stay when the pairs are really deleted."""
    before = labels_of(asif_lance.open(store.uri, k=25, p=3, device="cpu"), images)
    store.delete(found.removable)
    store.publish(command="prune")
    after = labels_of(asif_lance.open(store.uri, k=25, p=3, device="cpu"), images)
    return float(np.mean([a == b for a, b in zip(before, after, strict=True)]))


@pytest.mark.parametrize("agreement", [1.0, 0.95, 0.5])
def test_the_agreement_told_is_that_of_really_deleting(store: PairStore, agreement: float) -> None:
    record(store)
    found = prunable_pairs(store, agreement=agreement, device="cpu")
    assert 0 < len(found.removable) < COUNT
    assert found.agreement >= agreement
    assert really(store, found) == pytest.approx(found.agreement)


def test_fewer_need_to_agree_the_more_can_go(store: PairStore) -> None:
    record(store)
    strict, loose = (prunable_pairs(store, agreement=a, device="cpu") for a in (1.0, 0.8))
    assert len(strict.removable) <= len(loose.removable)
    assert set(strict.removable) <= set(loose.removable)


def test_a_budget_is_kept_or_refused(store: PairStore) -> None:
    record(store)
    found = prunable_pairs(store, keep=250, agreement=0.0, device="cpu")
    assert (len(found.removable), found.pairs) == (50, COUNT)
    with pytest.raises(InputError, match=r"with 1 pair .* fewer than the 100\.0% asked for"):
        prunable_pairs(store, keep=1, agreement=1.0, device="cpu")


def test_runs_of_older_versions_are_asked_of_the_newest(store: PairStore) -> None:
    first = record(store)
    store.add(pairs(names(COUNT, COUNT + 40)))
    store.delete(names(0, 40))  # as many pairs as before, but others
    store.publish(command="ingest")
    found = prunable_pairs(store, [first], agreement=0.9, device="cpu")
    assert (found.version, found.pairs) == ("v2", COUNT)
    assert not set(found.removable) & set(names(0, 40))
    assert really(store, found) == pytest.approx(found.agreement)


def test_pairs_of_no_attribution_are_counted_and_go_first(store: PairStore) -> None:
    run = record(store)
    from asif_lance.database.tables import open_table

    rows = open_table(store.uri, "attributions").to_table(columns=["pair_id"])
    used = set(rows["pair_id"].to_pylist())
    found = prunable_pairs(store, [run], agreement=0.9, device="cpu")
    assert found.unused == COUNT - len(used)
    assert not set(found.removable[: found.unused]) & used


def test_nothing_to_agree_with_is_refused(store: PairStore) -> None:
    with pytest.raises(InputError, match="no run is recorded"):
        prunable_pairs(store)
    record(store)
    with pytest.raises(InputError, match="no run 'r1'"):
        prunable_pairs(store, ["r1"])
    with pytest.raises(InputError, match="between 0 and 1"):
        prunable_pairs(store, agreement=2.0)


def test_the_command_makes_a_version_unless_told_not_to(
    cli: Cli, pairs_file: Path, query_file: Path, label_file: Path
) -> None:
    db = ("--db", "t.lancedb")
    assert cli(*db, "ingest", pairs_file).status == 0
    assert "no run is recorded" in cli(*db, "prune").err
    asked = ("--vectors", query_file, "--label-vectors", label_file, "--k", 20)
    cli(*db, "classify", *asked, "--record")
    (dry,) = cli(*db, "prune", "--dry-run", "--format", "json").objects
    assert (dry["version"], dry["dry_run"], dry["pairs"], dry["predictions"]) == (
        "v1",
        True,
        200,
        20,
    )
    assert dry["agreement"] >= 0.99
    done = cli(*db, "prune")
    assert (done.status, "the newest model is v2" in done.err) == (0, True)
    assert done.out.startswith(f"{dry['pruned']} of 200 pairs went; ")
    newest = cli(*db, "versions", "--format", "json").objects[-1]
    assert (newest["pairs"], newest["command"]) == (200 - dry["pruned"], "prune")
    assert cli(*db, "prune", "--agreement", 2).status == 2
