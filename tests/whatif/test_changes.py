"""What-if says what really deleting or adding would make of predictions, without doing it."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import Cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pairs_at_hand import names, new_store, pairs

import asif_lance
from asif_lance.anchors.hypothetical import HypotheticalAnchors
from asif_lance.audit import recorder, replay, runs
from asif_lance.audit.replay import ReplayRecords
from asif_lance.errors import InputError
from asif_lance.forgetting.content import Content
from asif_lance.model.labels import ENSEMBLES, Prompts, prompts_from_vectors
from asif_lance.model.model import Model
from asif_lance.model.predictions import Prediction
from asif_lance.relative.recipes import RECIPES
from asif_lance.store.forget import forget
from asif_lance.store.pair_store import PairStore
from asif_lance.verifier import scan
from asif_lance.whatif import changes
from asif_lance.whatif.hypothetical import with_pairs, without_pairs
from asif_lance.whatif.recorded_flips import RecordedFlips, find_recorded_flips

COUNT, K = 300, 25
NAMES = sorted(RECIPES)
LABELS = prompts_from_vectors(
    {f"label {i}": np.random.default_rng(i).normal(size=4).astype(np.float32) for i in range(6)}
)
IMAGES = np.random.default_rng(9).normal(size=(40, 8)).astype(np.float32)
IDS = [f"image {i}" for i in range(len(IMAGES))]


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some changes touch the sample that whitenings are fitted on, some do not."""
    monkeypatch.setattr("asif_lance.anchors.whitened.SAMPLE", 12)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path)
    store.add(pairs(names(0, COUNT)))
    store.publish(command="ingest")
    return store


def model_of(store: PairStore, version: str | None = None, recipe: str = "paper") -> Model:
    return asif_lance.open(store.uri, version, recipe=recipe, k=K, p=3, device="cpu")


def classified(model: Model, prompts: Prompts = LABELS) -> list[Prediction]:
    return list(model.classify_vectors(IDS, IMAGES, model.compile(prompts)))


def same(imagined: list[Prediction], real: list[Prediction]) -> None:
    assert [p.ranking for p in imagined] == [p.ranking for p in real]
    for one, other in zip(imagined, real, strict=True):
        assert one.attributions(5) == other.attributions(5)


@pytest.mark.slow
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=COUNT - 2), st.sampled_from(NAMES))
def test_deleting_in_thought_equals_deleting(
    store: PairStore, chosen: set[int], recipe: str
) -> None:
    ids = [names(0, COUNT)[i] for i in sorted(chosen)]
    before = model_of(store, "v1", recipe)
    after, count = without_pairs(before, ids)
    assert count == len(ids)
    imagined = list(changes.compare_states(before, after, IDS, IMAGES, LABELS))
    store.delete(ids)
    store.publish(command="delete")
    try:
        same([c.after for c in imagined], classified(model_of(store, recipe=recipe)))
        same([c.before for c in imagined], classified(before))
    finally:
        store.rollback("v1")


@pytest.mark.parametrize("recipe", NAMES)
@pytest.mark.parametrize("more", [1, 7, 150])
def test_adding_in_thought_equals_adding(store: PairStore, more: int, recipe: str) -> None:
    new = pairs(names(COUNT - 5, COUNT + more))  # five are there already
    before = model_of(store, recipe=recipe)
    after, count = with_pairs(before, new)
    assert count == more
    imagined = list(changes.compare_states(before, after, IDS, IMAGES, LABELS))
    store.add(new)
    store.publish(command="ingest")
    same([c.after for c in imagined], classified(model_of(store, recipe=recipe)))


def record(model: Model, prompts: Prompts = LABELS, **limits: int) -> ReplayRecords:
    """What a run of all images recorded."""
    labels = model.compile(prompts)
    with recorder.Recorder(model.store, labels, model.recipe, **limits) as run:
        for prediction in model.classify_vectors(IDS, IMAGES, labels):
            run.add(prediction)
    return replay.load_replay(model.store, run.run_id, len(prompts.names))


def flips_of(old: list[Prediction], new: list[Prediction]) -> list[tuple[object, ...]]:
    both = zip(old, new, strict=True)
    return [(a.image, a.ranking, b.ranking) for a, b in both if a.label != b.label]


def check_recorded(
    before: Model, after: Model, asked: ReplayRecords, real: Model, prompts: Prompts = LABELS
) -> RecordedFlips:
    found = find_recorded_flips(before, after, asked)
    imagined = [(c.before.image, c.before.ranking, c.after.ranking) for c in found.flips]
    assert imagined == flips_of(classified(before, prompts), classified(real, prompts))
    return found


SEVERAL = {
    f"label {i}": np.random.default_rng(i).normal(size=(1 + i % 3, 4)).astype(np.float32)
    for i in range(20)
}


@pytest.mark.slow
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_recorded_predictions_flip_as_really_deleting_and_adding_flips_them(
    store: PairStore, data: st.DataObject
) -> None:
    """Deletes some, adds some and does both; few pairs, so that bounds have something to say."""
    ensemble = data.draw(st.sampled_from(ENSEMBLES))
    prompts = prompts_from_vectors(SEVERAL, ensemble)  # type: ignore[arg-type]
    k, p = data.draw(st.sampled_from([(K, 3), (60, 8), (COUNT - 1, 5), (COUNT + 50, 2)]))
    how = {"recipe": data.draw(st.sampled_from(NAMES)), "k": k, "p": p, "device": "cpu"}
    before = asif_lance.open(store.uri, "v1", **how)
    asked = record(before, prompts)
    chosen = sorted(data.draw(st.sets(st.integers(0, COUNT - 1), max_size=8)))
    ids = [names(0, COUNT)[i] for i in chosen]
    new = pairs(names(COUNT, COUNT + data.draw(st.integers(0 if ids else 1, 6))))
    after, _ = with_pairs(without_pairs(before, ids)[0], new)
    store.delete(ids)
    store.add(new)
    store.publish(command="test")
    try:
        real = asif_lance.open(store.uri, **how)
        check_recorded(before, after, asked, real, prompts)
    finally:
        store.rollback("v1")


def test_most_recorded_predictions_need_no_search(store: PairStore) -> None:
    before = model_of(store)
    asked = record(before)
    strongest = classified(before)[0].attributions(2)
    ids = [a.pair_id for a in strongest]
    after, _ = without_pairs(before, ids)
    store.delete(ids)
    store.publish(command="delete")
    found = check_recorded(before, after, asked, model_of(store))
    assert found.predictions == len(IDS)
    assert found.searched < len(IDS) / 2


def test_recorded_queries_and_prompts_are_the_vectors_that_were_asked(store: PairStore) -> None:
    model = model_of(store)
    for ensemble in ENSEMBLES:
        prompts = prompts_from_vectors(SEVERAL, ensemble)  # type: ignore[arg-type]
        asked = record(model, prompts)
        again = model.classify_neighbors(
            asked.images,
            asked.queries,
            model.neighbors(asked.queries),
            model.compile(asked.prompts),
        )
        assert [p.ranking for p in again] == [p.ranking for p in classified(model, prompts)]


def test_after_forgetting_recorded_predictions_are_all_asked_again(store: PairStore) -> None:
    asked = record(model_of(store))
    forget(store, names(0, 3), reason="asked to")
    before = model_of(store, "v1")
    after, _ = without_pairs(before, names(3, 20))
    store.delete(names(3, 20))
    store.publish(command="delete")
    assert check_recorded(before, after, asked, model_of(store)).searched == len(IDS)


def test_forgetting_takes_queries_and_prompts_that_are_a_forgotten_pair(store: PairStore) -> None:
    row = store.read().filter(pc.field("pair_id") == names(4, 5)[0])
    picture = np.array(row["image_vector"][0].as_py(), dtype=np.float32)
    caption = np.array(row["text_vector"][0].as_py(), dtype=np.float32)
    model = model_of(store)
    labels = model.compile(prompts_from_vectors({"the caption": caption, "other": -caption}))
    with recorder.Recorder(store, labels, model.recipe) as run:
        vectors = np.stack([picture, IMAGES[0]])
        for prediction in model.classify_vectors(["a copy of it", "another"], vectors, labels):
            run.add(prediction)
    receipt = forget(store, names(4, 5), reason="asked to")
    assert receipt.clean, receipt.findings
    assert (receipt.elsewhere["predictions"], receipt.elsewhere["prompts"]) == (2, 2)
    assert not scan(store.uri, Content(b"salt", row)).hits
    left = lance.dataset(f"{store.uri}/queries.lance").to_table()
    assert left["prediction_id"].to_pylist() == [f"{run.run_id}-1"]
    with pytest.raises(InputError, match="does not have its prompts"):
        replay.load_replay(store, run.run_id, 2)


def test_pruning_runs_takes_queries_and_prompts_along(store: PairStore) -> None:
    record(model_of(store))
    runs.prune_runs(store, keep_last=0)
    tables = (lance.dataset(f"{store.uri}/{name}.lance") for name in ("queries", "prompts"))
    assert [table.count_rows() for table in tables] == [0, 0]


def test_only_touched_images_are_searched_again(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model_of(store)
    nearest = classified(before)[0].evidence.relative.indices[0, :2]
    after, _ = without_pairs(before, before.anchors.ids(nearest))
    searched: list[int] = []
    search = HypotheticalAnchors.top_k

    def noted(
        self: HypotheticalAnchors, side: str, queries: np.ndarray, k: int, *, measure: str
    ) -> object:
        if side == "image":
            searched.append(len(queries))
        return search(self, side, queries, k, measure=measure)

    monkeypatch.setattr(HypotheticalAnchors, "top_k", noted)
    list(changes.compare_states(before, after, IDS, IMAGES, LABELS))
    assert 0 < sum(searched) < len(IMAGES)


def test_a_flip_names_the_pairs_that_did_it(store: PairStore) -> None:
    before = model_of(store)
    first = classified(before)[0]
    strongest = [a.pair_id for a in first.attributions(15)]
    after, _ = without_pairs(before, strongest)
    change = next(iter(changes.compare_states(before, after, IDS, IMAGES, LABELS)))
    assert change.flips
    why = change.because(3)
    assert why[0].pair_id in strongest
    assert (why[0].after, why[0].label) == (0.0, first.label)
    assert why[0].caption == f"a caption about {why[0].pair_id}"


def test_a_deleted_pair_of_another_version_is_no_part_of_it(store: PairStore) -> None:
    store.delete(names(0, 10))
    store.publish(command="delete")
    _, count = without_pairs(model_of(store), names(5, 15))
    assert count == 5


def test_deleting_everything_is_refused(store: PairStore) -> None:
    with pytest.raises(InputError, match="no pair would be left"):
        without_pairs(model_of(store), names(0, COUNT))


def test_vectors_of_another_width_are_refused(store: PairStore) -> None:
    with pytest.raises(InputError, match="image vectors: expected dimension 8, got 9"):
        with_pairs(model_of(store), pairs(names(900, 901), image=9))


def test_nothing_is_written(store: PairStore) -> None:
    files = sorted(str(p) for p in Path(store.uri).rglob("*"))
    before = model_of(store)
    after, _ = with_pairs(without_pairs(before, names(0, 9))[0], pairs(names(700, 709)))
    list(changes.compare_states(before, after, IDS, IMAGES, LABELS))
    assert sorted(str(p) for p in Path(store.uri).rglob("*")) == files


def test_the_command_tells_the_flips_and_leaves_the_model_alone(
    cli: Cli, pairs_file: Path, query_file: Path, label_file: Path
) -> None:
    db = ("--db", "t.lancedb")
    assert cli(*db, "ingest", pairs_file).status == 0
    asked = ("--vectors", query_file, "--label-vectors", label_file, "--k", 20, "--format", "json")
    done = cli(*db, "what-if", "delete", "--where", "license = 'CC-BY-NC'", *asked)
    assert done.status == 0
    assert done.objects
    assert list(done.objects[0]) == ["image", "before", "after", "because"]
    assert len(done.objects[0]["because"]) == 3
    assert "v1 without 100 of its 200 pairs" in done.err
    classify = (*db, "classify", *asked)
    before = {o["image"]: o["predictions"][0] for o in cli(*classify).objects}
    cli(*db, "delete", "--where", "license = 'CC-BY-NC'")
    after = {o["image"]: o["predictions"][0] for o in cli(*classify).objects}
    flips = {i for i in before if before[i]["label"] != after[i]["label"]}
    assert {o["image"]: (o["before"], o["after"]) for o in done.objects} == {
        i: (before[i], after[i]) for i in flips
    }


def test_the_command_asks_the_newest_recorded_run(
    cli: Cli, pairs_file: Path, query_file: Path, label_file: Path
) -> None:
    db = ("--db", "t.lancedb")
    assert cli(*db, "ingest", pairs_file).status == 0
    none = cli(*db, "what-if", "delete", "p1")
    assert (none.status, "no run is recorded" in none.err) == (1, True)
    asked = ("--vectors", query_file, "--label-vectors", label_file, "--k", "20,30", "--p", "2.7,8")
    cli(*db, "classify", *asked, "--record")
    cut = ("what-if", "delete", "--where", "license = 'CC-BY-NC'", "--format", "json")
    given, recorded = cli(*db, *cut, *asked), cli(*db, *cut)
    assert recorded.objects == given.objects != []
    assert f"{len(given.objects)} of 20 predictions of r" in recorded.err
    (run,) = cli(*db, "runs", "--format", "json").objects
    assert cli(*db, *cut, "--run", run["run_id"]).objects == given.objects
    assert cli(*db, *cut, "--run", "r1").err == (
        "asif-lance: no run 'r1'; `classify --record` makes one, `runs` lists them\n"
    )
    assert "not in v1: 2 of the ids\nv1 without 1 of its 200 pairs\n" in (
        cli(*db, "what-if", "delete", "p1", "no-id", "no-id", "nor-this").err
    )
    assert cli(*db, *cut, "--k", 3).status == 2
    assert cli(*db, *cut, *asked, "--run", run["run_id"]).status == 2


def test_adding_what_is_there_changes_nothing(
    cli: Cli, pairs_file: Path, query_file: Path, label_file: Path
) -> None:
    db = ("--db", "t.lancedb")
    assert cli(*db, "ingest", pairs_file).status == 0
    asked = ("--vectors", query_file, "--label-vectors", label_file)
    done = cli(*db, "what-if", "add", pairs_file, *asked)
    assert (done.status, done.out) == (0, "")
    assert "v1 with 0 more pairs" in done.err
    assert "0 of 20 predictions change; 0 have other scores" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("delete", "x", "--labels", "a,b"), "give --images, or --vectors"),
        (("delete",), "name the pairs by ID or by --where"),
        (("add", "--labels", "a"), "Missing argument"),
    ],
)
def test_wrong_usage_says_what_is_missing(
    cli: Cli, pairs_file: Path, arguments: tuple[str, ...], message: str
) -> None:
    cli("--db", "t.lancedb", "ingest", pairs_file)
    done = cli("--db", "t.lancedb", "what-if", *arguments)
    assert done.status == 2
    assert message in done.err


def test_new_pairs_are_compared_as_they_would_be_stored(store: PairStore) -> None:
    new = pairs(names(COUNT, COUNT + 1))
    assert new["image_vector"].type.value_type == pa.float16()
    after, _ = with_pairs(model_of(store), new)
    assert (
        after.anchors.image[-1].numpy().tobytes()
        == np.array(new["image_vector"].combine_chunks().flatten()).tobytes()
    )


def test_diff_tells_which_predictions_two_versions_disagree_on(
    cli: Cli, pairs_file: Path, query_file: Path, label_file: Path
) -> None:
    db = ("--db", "t.lancedb")
    assert cli(*db, "ingest", pairs_file).status == 0
    cli(*db, "delete", "--where", "license = 'CC-BY-NC'")
    asked = ("--vectors", query_file, "--label-vectors", label_file, "--format", "json")
    there = cli(*db, "diff", "v1", "v2", *asked)
    back = cli(*db, "diff", "v2", "v1", *asked)
    assert there.status == back.status == 0
    assert there.objects
    turned = {o["image"]: (o["after"], o["before"]) for o in back.objects}
    assert {o["image"]: (o["before"], o["after"]) for o in there.objects} == turned
    assert cli(*db, "diff", "v1", "v1", *asked).out == ""
