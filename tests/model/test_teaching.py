"""Examples teach their labels, leave all others alone, and go when they are forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_at_hand import names, new_store, pairs, vectors

from asif_lance.audit.recorder import Recorder
from asif_lance.audit.replay import load_replay
from asif_lance.audit.sql import Audit
from asif_lance.model import LabelSet, Model, Prediction
from asif_lance.records import EXAMPLE
from asif_lance.relative import make_recipe
from asif_lance.search import unit_queries
from asif_lance.store import PairStore
from asif_lance.store.forget import forget
from asif_lance.whatif import without_pairs
from asif_lance.whatif.recorded_flips import find_recorded_flips

IMAGE, TEXT = 16, 8
KINDS = ("ant", "bee", "cat")
RECIPE = make_recipe(k=10)


def matrix(ids: Sequence[str], width: int) -> np.ndarray:
    return vectors(ids, width).flatten().to_numpy().reshape(-1, width).astype(np.float32)


def rows(image: np.ndarray, text: np.ndarray) -> dict[str, pa.Array]:
    """Unit vectors as columns of pairs."""
    both = {"image_vector": image, "text_vector": text}
    units = {n: v / np.linalg.norm(v, axis=1, keepdims=True) for n, v in both.items()}
    return {
        name: pa.FixedSizeListArray.from_arrays(pa.array(v.astype("f2").ravel()), v.shape[1])
        for name, v in units.items()
    }


def pictures(ids: Sequence[str]) -> np.ndarray:
    """Vectors of pictures of what the ids begin with."""
    return 2.0 * matrix([i.split("-")[0] for i in ids], IMAGE) + matrix(ids, IMAGE)


def examples(ids: Sequence[str]) -> pa.Table:
    """Labelled pictures; their captions' vectors are those of their kind."""
    columns = rows(pictures(ids), matrix([i.split("-")[0] for i in ids], TEXT))
    return pairs(ids, image=IMAGE, text=TEXT, role=[EXAMPLE] * len(ids), **columns)


def ordinary(ids: Sequence[str]) -> pa.Table:
    return pairs(ids, image=IMAGE, text=TEXT)


def some(kinds: Sequence[str], count: int) -> list[str]:
    return [f"{kind}-{i:03d}-picture" for kind in kinds for i in range(count)]


def add(store: PairStore, table: pa.Table) -> None:
    store.add(table)
    store.publish(command="ingest")


def opened(store: PairStore) -> Model:
    return Model(store, store.version(), RECIPE, device="cpu")


def ask(model: Model, kinds: Sequence[str] = KINDS) -> tuple[list[Prediction], LabelSet]:
    labels = model.label_vectors({kind: matrix([kind], TEXT) for kind in kinds})
    asked = [f"{kind}-{i}" for kind in KINDS for i in range(8)]
    return list(model.classify_vectors(asked, pictures(asked), labels)), labels


def share_right(answers: Sequence[Prediction]) -> float:
    return float(np.mean([answer.label == answer.image.split("-")[0] for answer in answers]))


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """Forty pairs that know nothing of the kinds."""
    made = new_store(tmp_path, IMAGE, TEXT)
    add(made, ordinary(names(0, 40)))
    return made


def test_a_few_examples_teach_at_once_and_shares_sum_to_every_score(store: PairStore) -> None:
    before, _ = ask(opened(store))
    add(store, examples(some(KINDS, 4)))
    after, labels = ask(opened(store))
    assert labels.taught is not None
    assert share_right(after) > 0.8 > share_right(before)
    for answer in after:
        for label, score in answer.ranking:
            shares = answer.attributions(1000, label)
            assert sum(a.contribution for a in shares) == pytest.approx(score, abs=1e-12)
            of_label = {a.pair_id for a in shares if a.role == EXAMPLE}
            assert all(i.startswith(f"{label}-") for i in of_label)
            assert [a.contribution for a in shares] == sorted(
                (a.contribution for a in shares), reverse=True
            )
    taught = [a for a in after[0].attributions(1000) if a.role == EXAMPLE]
    assert [a.text_similarity for a in taught] == pytest.approx([1.0] * 4, abs=1e-3)


def test_labels_without_examples_answer_as_before_bit_by_bit(store: PairStore) -> None:
    before, _ = ask(opened(store), ("dog", "elk"))
    add(store, examples(some(KINDS, 4)))
    after, labels = ask(opened(store), ("dog", "elk"))
    assert labels.taught is None
    assert [a.ranking for a in after] == [b.ranking for b in before]


@settings(max_examples=12, deadline=None)
@given(
    order=st.permutations(some(KINDS, 3)),
    cut=st.integers(1, 8),
    dropped=st.sets(st.sampled_from(some(KINDS, 3)), max_size=6),
    forgets=st.booleans(),
)
def test_a_fresh_database_answers_as_any_history_does(
    tmp_path_factory: pytest.TempPathFactory,
    order: list[str],
    cut: int,
    dropped: set[str],
    forgets: bool,
) -> None:
    made = new_store(tmp_path_factory.mktemp("history"), IMAGE, TEXT)
    add(made, examples(order[:cut]))
    add(made, ordinary(names(0, 30)))
    add(made, examples(order[cut:]))
    if dropped and forgets:
        forget(made, sorted(dropped), reason="asked to")
    elif dropped:
        made.delete(sorted(dropped))
        made.publish(command="delete")
    fresh = new_store(tmp_path_factory.mktemp("fresh"), IMAGE, TEXT)
    add(fresh, ordinary(names(0, 30)))
    add(fresh, examples(sorted(set(order) - dropped)))
    for one, other in zip(ask(opened(made))[0], ask(opened(fresh))[0], strict=True):
        assert one.ranking == other.ranking
        assert one.attributions(1000) == other.attributions(1000)


def test_what_if_finds_what_recorded_answers_lose_with_examples(store: PairStore) -> None:
    add(store, examples(some(KINDS, 4)))
    model = opened(store)
    answers, labels = ask(model)
    with Recorder(store, labels, model.recipe) as run:
        for answer in answers:
            run.add(answer)
    recorded = load_replay(store, run.run_id, len(KINDS))
    gone = some(("bee",), 4)
    after, count = without_pairs(model, gone)
    assert count == 4
    found = find_recorded_flips(model, after, recorded)
    store.delete(gone)
    store.publish(command="delete")
    really, _ = ask(opened(store))
    flipped = [b.image for a, b in zip(answers, really, strict=True) if a.label != b.label]
    assert flipped
    assert [change.before.image for change in found.flips] == flipped
    influence = found.flips[0].because(100)
    assert {i.role for i in influence} == {None, EXAMPLE}
    assert all(i.role == EXAMPLE for i in influence if i.pair_id in gone)


def test_forgetting_an_example_is_noticed_by_recorded_answers(store: PairStore) -> None:
    add(store, examples(some(KINDS, 2)))
    model = opened(store)
    answers, labels = ask(model)
    with Recorder(store, labels, model.recipe) as run:
        for answer in answers:
            run.add(answer)
    receipt = forget(store, ["ant-000-picture"], reason="asked to")
    assert receipt.clean
    assert "ant-000-picture" not in {
        a.pair_id for answer in ask(opened(store))[0] for a in answer.attributions(1000)
    }


def test_sql_knows_the_role_in_states_of_before_and_after(store: PairStore) -> None:
    add(store, examples(some(KINDS, 2)))
    with Audit(store) as audit:
        counted = "SELECT role, count(*) AS n FROM {} GROUP BY role ORDER BY n DESC"
        assert audit.query(counted.format("pairs")).to_pylist() == [
            {"role": None, "n": 40},
            {"role": "example", "n": 6},
        ]
        assert audit.query(counted.format("pairs_at('v1')")).to_pylist() == [
            {"role": None, "n": 40}
        ]


def test_an_example_has_no_place_among_the_neighbors(store: PairStore) -> None:
    add(store, examples(some(KINDS, 2)))
    anchors = opened(store).anchors
    assert (anchors.count, len(anchors.examples)) == (40, 6)
    assert anchors.ids(anchors.examples) == sorted(some(KINDS, 2))
    found = anchors.top_k("image", unit_queries(pictures(some(KINDS, 2))), 100, measure="centred")
    assert not np.isin(found.indices, anchors.examples).any()
