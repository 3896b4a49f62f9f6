"""Versions answer as ones built anew do; a version that does not is told."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pytest
from conftest import Cli
from pairs_at_hand import names, new_store, pairs

from asif_lance.database import Ledger
from asif_lance.evaluation import load_proofs, prove_equivalence
from asif_lance.store import PairStore, optimize
from asif_lance.store.forget import forget


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """Three versions; the first and the last have the same pairs."""
    store = new_store(tmp_path)
    store.add(pairs(names(0, 60)))
    store.publish(command="ingest")
    store.add(pairs(names(60, 90)))
    store.delete(names(5, 9))
    store.publish(command="ingest")
    store.rollback("v1")
    return store


def test_every_version_answers_as_one_built_anew(store: PairStore) -> None:
    receipt = forget(store, [*names(3, 7), *names(70, 72)], reason="asked to")
    proof = prove_equivalence(store, receipt.receipt_id)
    assert proof.holds
    assert sorted(proof.versions) == ["v1", "v2", "v3"]
    assert proof.pairs == 56 + 82  # v1 and v3 are built once
    assert proof.recipes == ("paper", "centred", "white")
    assert load_proofs(store.uri, receipt.receipt_id) == [proof]


def test_answers_do_not_depend_on_what_upkeep_did(store: PairStore) -> None:
    forget(store, names(3, 7), reason="asked to")
    before = prove_equivalence(store, "f1", seed=7)
    optimize(store)
    after = prove_equivalence(store, "f1", seed=7)
    assert (after.holds, after.digest) == (True, before.digest)


def test_a_version_that_answers_otherwise_is_told(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asif_lance.evaluation import equivalence

    build = equivalence._build

    def build_less(rows: lance.LanceDataset, store: PairStore, folder: Path) -> PairStore:
        fresh = build(rows, store, folder)
        fresh.delete(names(1, 2))
        fresh.publish(command="delete")
        return fresh

    monkeypatch.setattr(equivalence, "_build", build_less)
    proof = prove_equivalence(store, "f1")
    assert not proof.holds
    assert set(proof.different) == {"v1", "v2", "v3"}


def test_versions_that_lost_all_pairs_count_as_proven(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 3)))
    store.publish(command="ingest")
    receipt = forget(store, names(0, 3), reason="asked to")
    proof = prove_equivalence(store, receipt.receipt_id)
    assert (proof.holds, proof.versions, proof.pairs) == (True, ("v1",), 0)


def test_a_proof_leaves_the_versions_as_they_are(store: PairStore) -> None:
    before = Ledger(store.uri).lance_versions()
    prove_equivalence(store, "f1")
    assert Ledger(store.uri).lance_versions() == before


def test_recorded_queries_are_asked(cli: Cli, pairs_file: Path, query_file: Path) -> None:
    labels = pairs_file.with_name("labels.parquet")
    import polars as pl

    vectors = np.random.default_rng(1).standard_normal((3, 12)).astype(np.float32)
    pl.DataFrame({"label": list("abc"), "vector": vectors}).write_parquet(labels)
    cli("ingest", pairs_file)
    asked = ("classify", "--vectors", query_file, "--label-vectors", labels, "--record")
    assert cli(*asked).status == 0
    done = cli("forget", "p3", "--reason", "asked to", "--yes", "--prove")
    assert done.status == 0
    assert "answer 148 queries as models built anew do, bit for bit" in done.out
    [receipt] = cli("receipt", "list", "--format", "json").objects
    assert "proof" in cli("receipt", "show", receipt["receipt_id"]).out
    again = cli("receipt", "prove", receipt["receipt_id"], "--format", "json")
    assert again.objects[0]["holds"] is True
    assert cli("receipt", "prove", "f-none").status == 1
