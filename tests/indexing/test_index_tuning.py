"""Search through an index, and of a sample: near exact search, and right after every change."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pytest
from pairs_at_hand import names, new_store, pairs

import asif_lance
from asif_lance.anchors import search_settings
from asif_lance.anchors.approximate import Approximation
from asif_lance.anchors.index_search import IndexSearch
from asif_lance.anchors.sampled_search import SampledSearch, in_sample
from asif_lance.anchors.search_settings import INDEX, MeasuredSetting, SearchSetting
from asif_lance.errors import DatabaseError, InputError, SearchUnavailableError
from asif_lance.indexing import index_tuning
from asif_lance.indexing.agreement import AgreementTest, agreement_at_least
from asif_lance.indexing.trial_queries import make_trial_queries
from asif_lance.model.labels import prompts_from_vectors
from asif_lance.model.model import Model
from asif_lance.relative.vectors import scores
from asif_lance.search.query_grid import unit_queries
from asif_lance.store.forget import forget
from asif_lance.store.maintenance import optimize
from asif_lance.store.pair_store import PairStore

N, K = 2000, 50
IMAGE, TEXT = 64, 16


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(pairs(names(0, N), image=IMAGE, text=TEXT))
    store.publish(command="ingest")
    return store


def opened(store: PairStore, search: str = "exact", model: str = "latest") -> Model:
    return asif_lance.open(store.uri, model, k=K, p=4.0, device="cpu", search=search)


def built(
    store: PairStore, kind: str | None = "ivf-sq", *, target: float = 0.99, keep: bool = True
) -> search_settings.SearchChoice:
    """An index, though exact search takes less time for so few pairs."""
    model = opened(store)
    return index_tuning.build_index(
        model, make_trial_queries(model, count=40), kind=kind, target=target, keep=keep
    )


@pytest.fixture
def queries(rng: np.random.Generator) -> np.ndarray:
    return unit_queries(rng.standard_normal((12, IMAGE)))


@pytest.fixture
def labels(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.standard_normal(TEXT).astype(np.float32) for name in "abc"}


def everywhere(metric: str = index_tuning.METRIC) -> IndexSearch:
    """All partitions are looked into: what is missed then is missed for another reason."""
    return IndexSearch(SearchSetting(nprobes=1000, candidates=4.0), metric)


def same_as_exact(store: PairStore, queries: np.ndarray, version: str = "latest") -> bool:
    anchors = opened(store, model=version).anchors
    exact = anchors.top_k("image", queries, K)
    found = everywhere().top_k(anchors, queries, K)
    return bool(
        np.array_equal(found.indices, exact.indices)
        and np.array_equal(found.similarities, exact.similarities)
    )


def rows_in_index(store: PairStore, version: str = "latest") -> int:
    held = [i for i in store.dataset(version).describe_indices() if i.name == INDEX]
    return held[0].num_rows_indexed if held else 0


# Lance trains the codes of ivf-pq from a random start: of twelve queries some agree one time and
# not the next.
@pytest.mark.parametrize(
    ("kind", "target"),
    [("ivf-rq", 0.9), ("ivf-pq", 0.5), ("ivf-sq", 0.9), ("ivf-hnsw-sq", 0.9), ("ivf-flat", 0.9)],
)
def test_every_kind_of_index_is_built_and_answers_what_it_promises(
    store: PairStore, kind: str, target: float, labels: dict[str, np.ndarray], queries: np.ndarray
) -> None:
    model = opened(store)
    asked = make_trial_queries(model, queries, prompts_from_vectors(labels))
    choice = index_tuning.build_index(model, asked, kind=kind, target=target, keep=True)
    assert choice.measured.agreement >= target
    assert (choice.kind, choice.version, choice.queries) == (kind, "v1", len(queries))
    said = [
        [
            p.label
            for p in m.classify_vectors(list("abcdefghijkl"), queries, m.compile(asked.prompts))
        ]
        for m in (opened(store), opened(store, "index"))
    ]
    agreement = np.mean([a == b for a, b in zip(*said, strict=True)])
    assert agreement == choice.measured.agreement


def test_neighbors_come_with_their_true_similarities(store: PairStore, queries: np.ndarray) -> None:
    built(store, "ivf-rq", target=0.5)
    anchors = opened(store).anchors
    found = everywhere().top_k(anchors, queries, K)
    vectors = anchors.vectors("image", found.indices.ravel()).reshape(*found.indices.shape, -1)
    true = np.einsum("mkd,md->mk", vectors.astype(np.float64), queries.astype(np.float64))
    np.testing.assert_allclose(found.similarities, true, atol=1e-7)


def test_lance_really_uses_the_index(store: PairStore, queries: np.ndarray) -> None:
    choice = built(store, "ivf-pq", target=0.5)
    nearest = {"column": "image_vector", "q": queries[0], "k": 5, "metric": choice.metric}
    assert "ANN" in store.dataset().scanner(nearest=nearest).explain_plan()


def test_an_index_of_whole_vectors_finds_exactly_the_nearest(
    store: PairStore, queries: np.ndarray
) -> None:
    built(store, "ivf-flat")
    assert same_as_exact(store, queries)


def test_rows_added_later_are_found(store: PairStore, queries: np.ndarray) -> None:
    built(store, "ivf-flat")
    store.add(pairs(names(N, N + 300), image=IMAGE, text=TEXT))
    store.publish(command="ingest")
    assert rows_in_index(store) == N
    assert same_as_exact(store, queries)
    found = everywhere().top_k(opened(store).anchors, queries, K)
    assert (found.indices >= N).any()


def test_deleted_rows_are_not_found_and_old_versions_still_find_them(
    store: PairStore, queries: np.ndarray
) -> None:
    built(store, "ivf-flat")
    anchors = opened(store).anchors
    gone = anchors.ids(np.unique(anchors.top_k("image", queries, 20).indices))
    store.delete(gone)
    store.publish(command="delete")
    assert same_as_exact(store, queries, "v2")
    assert same_as_exact(store, queries, "v1")


def test_forgotten_rows_are_in_no_file_and_not_found_in_any_version(
    store: PairStore, queries: np.ndarray
) -> None:
    built(store, "ivf-flat")
    store.add(pairs(names(N, N + 300), image=IMAGE, text=TEXT))
    store.publish(command="ingest")
    anchors = opened(store).anchors
    gone = anchors.ids(np.unique(anchors.top_k("image", queries[:3], 5).indices))
    receipt = forget(store, gone, reason="test")
    assert receipt.clean
    assert same_as_exact(store, queries)
    assert rows_in_index(store) == N + 300 - len(gone)
    assert opened(store, "index").approximate is not None
    with pytest.raises(SearchUnavailableError, match="v1 has nothing measured"):
        opened(store, "index", "v1")


def test_compacting_keeps_the_index_and_takes_later_rows_in(
    store: PairStore, queries: np.ndarray
) -> None:
    built(store, "ivf-flat")
    store.delete(names(0, 900))
    store.add(pairs(names(N, N + 300), image=IMAGE, text=TEXT))
    store.publish(command="ingest")
    optimize(store)
    assert rows_in_index(store) == N + 300 - 900
    assert same_as_exact(store, queries)


def test_a_query_that_the_index_finds_too_little_for_is_searched_exactly(
    store: PairStore, queries: np.ndarray
) -> None:
    built(store, "ivf-flat")
    store.delete(names(0, N - 60))
    store.publish(command="delete")
    anchors = opened(store).anchors
    found = IndexSearch(SearchSetting(nprobes=1, candidates=1.0), index_tuning.METRIC).top_k(
        anchors, queries, K
    )
    np.testing.assert_array_equal(found.indices, anchors.top_k("image", queries, K).indices)


def test_old_versions_have_no_index_and_the_error_names_the_command(store: PairStore) -> None:
    store.delete(names(0, 3))
    store.publish(command="delete")
    built(store)
    assert opened(store, "index").approximate is not None
    with pytest.raises(SearchUnavailableError, match="`asif-lance index build`"):
        opened(store, "index", "v1")


def test_a_rollback_brings_back_what_the_old_version_could(store: PairStore) -> None:
    built(store)
    store.delete(names(0, 3))
    store.publish(command="delete")
    index_tuning.drop_index(store)
    with pytest.raises(SearchUnavailableError):
        opened(store, "index", "v2")
    store.rollback("v1")
    assert opened(store, "index").version.name == "v3"


def test_another_recipe_than_the_measured_one_is_refused(store: PairStore) -> None:
    built(store)
    with pytest.raises(SearchUnavailableError, match="was measured with"):
        asif_lance.open(store.uri, k=K + 1, p=4.0, search="index")


def test_an_unknown_search_is_refused(store: PairStore) -> None:
    with pytest.raises(InputError, match="there are: exact, index, sampled"):
        opened(store, "fast")


def test_an_index_is_built_of_the_newest_version_only(store: PairStore) -> None:
    store.delete(names(0, 3))
    store.publish(command="delete")
    model = opened(store, model="v1")
    with pytest.raises(InputError, match="which is v2, not v1"):
        index_tuning.build_index(model, make_trial_queries(model, count=40))


def test_an_index_that_lance_cannot_build_is_one_line(tmp_path: Path) -> None:
    store = new_store(tmp_path, 12, TEXT)
    store.add(pairs(names(0, 300), image=12, text=TEXT))
    store.publish(command="ingest")
    with pytest.raises(InputError, match="no ivf-rq index over 300 pairs"):
        built(store, "ivf-rq")
    assert rows_in_index(store) == 0
    assert index_tuning.default_kind(12) == "ivf-sq"
    assert built(store, None).measured.agreement >= 0.99


def test_a_handful_of_pairs_is_served_too(tmp_path: Path, queries: np.ndarray) -> None:
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(pairs(names(0, 20), image=IMAGE, text=TEXT))
    store.publish(command="ingest")
    assert built(store, "ivf-pq").measured.agreement == 1.0
    assert same_as_exact(store, queries)


def test_a_target_that_nothing_reaches_leaves_nothing_behind(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poor(self: AgreementTest, approximation: Approximation) -> MeasuredSetting:
        return MeasuredSetting(approximation.setting, 0.5, 0.6, 9.0, 0.1)

    monkeypatch.setattr(AgreementTest, "measure", poor)
    with pytest.raises(DatabaseError, match=r"no setting of ivf-sq agrees .* the best on 60.0%"):
        built(store)
    assert rows_in_index(store) == 0
    with pytest.raises(SearchUnavailableError):
        opened(store, "index")


def test_what_is_slower_than_exact_search_is_kept_on_request_only(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(self: AgreementTest, approximation: Approximation) -> MeasuredSetting:
        return MeasuredSetting(approximation.setting, 1.0, 1.0, 0.5, 3.0)

    monkeypatch.setattr(AgreementTest, "measure", slow)
    with pytest.raises(DatabaseError, match=r"takes 3.00 ms instead of 1.50 ms .* --keep keeps it"):
        built(store, keep=False)
    assert rows_in_index(store) == 0
    assert index_tuning.index_status(store, "latest") == []
    built(store, keep=True)
    assert rows_in_index(store) == N


def test_of_the_settings_that_agree_often_enough_the_fastest_is_kept(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(self: AgreementTest, approximation: Approximation) -> MeasuredSetting:
        candidates = approximation.setting.candidates
        return MeasuredSetting(approximation.setting, 0.9, 0.95, 5.0 - abs(candidates - 2), 1.0)

    monkeypatch.setattr(AgreementTest, "measure", told)
    assert built(store, target=0.9, keep=False).setting == SearchSetting(nprobes=1, candidates=2.0)
    assert opened(store, "index").approximate.setting.candidates == 2.0


def test_dropping_takes_the_index_from_the_newest_version(store: PairStore) -> None:
    built(store)
    built(store, "sampled", target=0.5)
    assert index_tuning.drop_index(store) == ["index", "sampled"]
    assert rows_in_index(store) == 0
    assert index_tuning.index_status(store, "latest") == []
    assert index_tuning.drop_index(store) == []


def test_status_tells_what_was_measured_and_what_came_later(store: PairStore) -> None:
    choice = built(store)
    store.add(pairs(names(N, N + 7), image=IMAGE, text=TEXT))
    store.publish(command="ingest")
    (found,) = index_tuning.index_status(store, "latest")
    assert (found.version, found.rows, found.later) == ("v2", N, 7)
    assert found.choice == choice
    assert found.bytes > N * IMAGE


def test_measuring_changes_no_row_and_names_no_pair(store: PairStore) -> None:
    before = store.dataset().to_table().sort_by("pair_id")
    built(store)
    assert store.dataset().to_table().sort_by("pair_id").equals(before)
    assert [v.name for v in store.versions()] == ["v1"]
    told = str(lance.dataset(f"{store.uri}/pairs.lance").config())
    assert not any(name in told for name in names(0, N))


def test_questions_of_the_table_itself_leave_out_every_copy_of_their_pictures(
    tmp_path: Path,
) -> None:
    store = new_store(tmp_path, IMAGE, TEXT)
    ids = names(0, 400)
    rows = pairs(ids, image=IMAGE, text=TEXT)
    five = rows["image_vector"].take([i - i % 5 for i in range(400)])
    store.add(rows.set_column(rows.schema.names.index("image_vector"), "image_vector", five))
    store.publish(command="ingest")
    model = opened(store)
    asked = make_trial_queries(model, count=10)
    assert len(asked.queries) == 10
    near = model.anchors.top_k("image", asked.queries, 6)
    for indices_, similar in zip(near.indices, near.similarities, strict=True):
        assert (similar[:5] > 0.999).all()
        assert similar[5] < 0.999
        assert set(model.anchors.ids(indices_[:5])) <= set(asked.left_out)


# A sample of the anchors


@pytest.fixture
def model(store: PairStore) -> Model:
    return opened(store)


@pytest.mark.parametrize("fraction", [1.0, 0.0])
def test_with_all_anchors_in_the_sample_or_none_the_answer_is_the_exact_one(
    model: Model, queries: np.ndarray, labels: dict[str, np.ndarray], fraction: float
) -> None:
    compiled = model.label_vectors(labels)
    exact = list(model.classify_vectors(list("abcdefghijkl"), queries, compiled))
    model.approximate = SampledSearch(SearchSetting(fraction=fraction))
    found = list(model.classify_vectors(list("abcdefghijkl"), queries, compiled))
    assert [p.ranking for p in found] == [p.ranking for p in exact]


def test_a_sample_compares_the_anchors_of_the_labels_and_its_share_of_the_others(
    model: Model, labels: dict[str, np.ndarray]
) -> None:
    compiled = model.label_vectors(labels).compiled
    part = SampledSearch(SearchSetting(fraction=0.2)).compared(model.anchors, compiled)
    weighty = compiled.anchors
    assert set(weighty) <= set(part.positions)
    assert part.counts.sum() == pytest.approx(N)
    assert len(part.positions) - len(weighty) == pytest.approx(0.2 * (N - len(weighty)), rel=0.2)


def test_a_picture_whose_label_the_sample_leaves_open_is_compared_with_all(
    model: Model, queries: np.ndarray, labels: dict[str, np.ndarray]
) -> None:
    compiled = model.label_vectors(labels).compiled
    sampled = SampledSearch(SearchSetting(fraction=0.02))(
        model.anchors, model.recipe, queries, compiled
    )
    exact = SampledSearch(SearchSetting(fraction=1.0))(
        model.anchors, model.recipe, queries, compiled
    )
    asked = (sampled.values == exact.values).all(axis=1)
    assert 0 < asked.sum() < len(queries)
    best = [scores(each, compiled).argmax(axis=1) for each in (sampled, exact)]
    assert np.array_equal(best[0][asked], best[1][asked])


def test_scores_of_a_sample_are_near_the_exact_ones(
    model: Model, queries: np.ndarray, labels: dict[str, np.ndarray]
) -> None:
    compiled = model.label_vectors(labels)
    errors = []
    for fraction in (0.05, 0.5):
        relative = SampledSearch(SearchSetting(fraction=fraction))(
            model.anchors, model.recipe, queries, compiled.compiled
        )
        exact = SampledSearch(SearchSetting(fraction=1.0))(
            model.anchors, model.recipe, queries, compiled.compiled
        )
        difference = scores(relative, compiled.compiled) - scores(exact, compiled.compiled)
        errors.append(np.abs(difference).mean() / scores(exact, compiled.compiled).mean())
    assert errors[1] < errors[0]
    assert errors[1] < 0.15


def test_the_sample_is_the_same_whatever_the_order_and_grows_with_its_share() -> None:
    ids = names(0, 1000)
    small, large = in_sample(ids, 0.1), in_sample(ids, 0.4)
    assert (small <= large).all()
    assert np.array_equal(in_sample(ids[::-1], 0.1)[::-1], small)
    assert large.mean() == pytest.approx(0.4, abs=0.08)


def test_a_measured_sample_serves_later_versions_and_no_other_recipe(
    store: PairStore, queries: np.ndarray, labels: dict[str, np.ndarray]
) -> None:
    choice = built(store, "sampled", target=0.9)
    assert choice.measured.agreement >= 0.9
    store.add(pairs(names(N, N + 50), image=IMAGE, text=TEXT))
    store.delete(names(0, 50))
    store.publish(command="ingest")
    model = opened(store, "sampled")
    exact = opened(store)
    said = [
        [
            p.label
            for p in m.classify_vectors(list("abcdefghijkl"), queries, m.label_vectors(labels))
        ]
        for m in (model, exact)
    ]
    assert np.mean([a == b for a, b in zip(*said, strict=True)]) >= 0.75
    with pytest.raises(SearchUnavailableError, match="--kind sampled"):
        asif_lance.open(store.uri, k=K, p=5.0, search="sampled")


# Measuring


def test_exact_search_agrees_with_itself(
    model: Model, queries: np.ndarray, labels: dict[str, np.ndarray]
) -> None:
    compiled = model.compile(prompts_from_vectors(labels))
    comparison = AgreementTest(model.anchors, model.recipe, queries, compiled)
    measured = comparison.measure(SampledSearch(SearchSetting(fraction=1.0)))
    assert (measured.recall, measured.agreement) == (1.0, 1.0)


def test_an_agreement_is_at_least_the_lower_end_of_wilsons_interval() -> None:
    assert agreement_at_least(1.0, 300) == pytest.approx(0.98736, abs=1e-4)
    assert agreement_at_least(0.5, 100) == pytest.approx(0.40383, abs=1e-4)
