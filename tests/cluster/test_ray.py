"""The same on a real Ray of two workers, of which some are lost and some are slow."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Cli, picture
from recorded_rows import record_alone, recorded
from shared_sources import DIMENSION, content, refused, row, write_rows, write_sources

from asif_lance.anchors import ShardQuestion, search_shard
from asif_lance.audit import list_runs
from asif_lance.cluster import (
    SearchActors,
    Task,
    ingest_with_ray,
    plan_ingest,
    plan_recording,
    ray_cluster,
    record_with_ray,
    share_with_ray,
)
from asif_lance.cluster.ray_cluster import ATTEMPTS, size_workers
from asif_lance.cluster.ray_engine import WorkerPool
from asif_lance.errors import ShardsFailedError, StaleModelError
from asif_lance.ingest import ingest_sources
from asif_lance.model import Model, Prompts, open_model, prompts_from_vectors, share_model
from asif_lance.store import PairStore
from asif_lance.store.forget import forget

CALIBRATED = ["photos", "--confidence", "--calibrate", "photos"]

ray = pytest.importorskip("ray", reason="Ray is not installed: `make cluster` has it")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ray on this machine, with room for two; its workers know the S3 server, if there is one."""
    with suppress(pytest.skip.Exception):
        request.getfixturevalue("s3_server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # it listens on this machine alone
        patch.setenv("OMP_NUM_THREADS", "1")
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=10**8)
        yield
        ray.shutdown()


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    return write_sources(tmp_path / "sources")


def test_ray_makes_the_model_of_one_process(cli: Cli, tmp_path: Path, sources: list[Path]) -> None:
    expected = ingest_sources(tmp_path / "alone.lancedb", sources)
    done = cli("--db", "t.lancedb", "ingest", *sources, "--engine", "ray", "--format", "json")
    assert done.status == 0, done.err
    assert done.objects[0]["added"] == expected.added
    assert done.objects[0]["rejected"] == len(expected.rejects)
    assert content(tmp_path / "t.lancedb").equals(content(tmp_path / "alone.lancedb"))


def test_a_lost_worker_costs_no_more_than_its_shard(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ingest_sources(tmp_path / "alone.lancedb", sources)
    given: list[Task] = []
    lost: list[Task] = []
    give = WorkerPool.give

    def give_and_lose(pool: WorkerPool, task: Task) -> None:
        give(pool, task)
        given.append(task)
        if not any(one.kind == task.kind for one in lost):
            lost.append(task)
            (actor,) = (actor for actor, own, _ in pool.busy.values() if own == task)
            ray.kill(actor)

    monkeypatch.setattr(WorkerPool, "give", give_and_lose)
    report = ingest_with_ray(tmp_path / "t.lancedb", sources, workers=2, shard_rows=20)
    assert [task.kind for task in lost] == ["name", "encode"]
    again = {task for task in given if given.count(task) > 1}
    assert set(lost) <= again
    assert content(tmp_path / "t.lancedb").equals(content(tmp_path / "alone.lancedb"))
    assert refused(report) == refused(expected)


def test_a_shard_that_fails_everywhere_surfaces_when_the_others_are_done(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [row(n, n, pair_id=f"{name}{n}") for n in range(30)]
        write_rows(tmp_path / f"{name}.parquet", rows)
    uri, path = tmp_path / "t.lancedb", tmp_path / "b.parquet"
    sources, whole = [tmp_path / "a.parquet", path], path.read_bytes()
    plan = plan_ingest(uri, sources, shard_rows=10)
    pool = WorkerPool(ray, ray.remote(Failing), 2)
    tasks = [Task(str(uri), plan.ingest_id, plan.commit_id, "name", (n,)) for n in range(6)]
    with pytest.raises(ShardsFailedError, match=r"^1 shard failed \(no such luck\); what is done"):
        pool.run(tasks)
    pool.close()
    path.write_bytes(whole)


class Failing:
    """Answers for a worker, of which one shard always fails."""

    def run(self, task: Task) -> str | None:
        return "no such luck" if task.shards == (4,) else None


class Sleeping:
    """Answers for a worker that sleeps over the first shard, where nobody had it before."""

    def run(self, task: Task) -> str | None:
        place = Path(task.uri)
        begun = any(place.glob("*-0"))
        (place / f"{os.getpid()}-{time.time_ns()}-{task.shards[0]}").touch()
        if task.shards == (0,) and not begun:
            time.sleep(300)
        time.sleep(0.05)
        return None


def test_a_worker_that_takes_long_is_given_up_for_another(tmp_path: Path) -> None:
    tasks = [Task(str(tmp_path), "", "", "encode", (n,)) for n in range(6)]
    pool = WorkerPool(ray, ray.remote(Sleeping), 2)
    pool.run(tasks)
    pool.close()
    begun = [path.name.split("-")[-1] for path in tmp_path.iterdir()]
    assert begun.count("0") == 2
    assert len(begun) == 7


def test_ray_that_is_not_there_is_told_in_one_line(
    cli: Cli, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)
    done = cli("--db", "t.lancedb", "ingest", pairs_file, "--engine", "ray")
    assert (done.status, done.out) == (1, "")
    assert "--engine ray needs Ray: pip install 'asif-lance[ray]'" in done.err
    assert ATTEMPTS > 1


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Seven fragments; some pairs tie across them."""
    for number in range(7):
        rows = [row(n % 50, n) for n in range(12 * number, 12 * number + 12)]
        source = write_rows(tmp_path / f"{number}.parquet", rows)
        ingest_sources(tmp_path / "t.lancedb", [source])
    return tmp_path / "t.lancedb"


def predict(model: Model) -> list[tuple]:
    rng = np.random.default_rng(5)
    questions, prompts = (rng.standard_normal((n, DIMENSION)).astype("f4") for n in (5, 3))
    labels = model.label_vectors(dict(zip("abc", prompts, strict=True)))
    found = model.classify_vectors([str(n) for n in range(5)], questions, labels)
    return [(one.ranking, one.attributions(20)) for one in found]


def test_a_pool_of_ray_shares_the_search_of_a_model(database: Path) -> None:
    from ray.util.multiprocessing import Pool

    model = open_model(database, k=10)
    with Pool(2) as pool:
        assert predict(share_model(model, pool.map, 3)) == predict(model)


def test_actors_share_the_search_of_a_model_in_any_number_of_shards(database: Path) -> None:
    for recipe in ("paper", "centred", "white"):
        model = open_model(database, recipe=recipe, k=10)
        expected = predict(model)
        with SearchActors.start(2) as actors:
            for shards in (1, 2, 7):
                assert predict(actors.share(model, shards)) == expected


def test_a_shard_is_always_asked_at_the_same_actor() -> None:
    with SearchActors.start(2) as actors:
        first = actors.map(tell_process, range(5))
        assert actors.map(tell_process, range(5)) == first
        assert len(set(first)) == 2
        assert first[0] == first[2] == first[4]


def tell_process(_: int) -> int:
    return os.getpid()


def test_an_actor_that_dies_while_it_searches_is_replaced_and_asked_again(database: Path) -> None:
    model = open_model(database, k=10)
    expected = predict(model)
    with SearchActors.start(2) as actors:
        shared = actors.share(model, 7)
        assert predict(shared) == expected
        before = actors.map(tell_process, range(2))
        mark = str(database.with_suffix(".begun"))
        assert actors.map(die_once, [mark, ""]) == ["alive", "alive"]
        after = actors.map(tell_process, range(2))
        assert before[0] != after[0]
        assert before[1] == after[1]
        assert predict(shared) == expected


def die_once(mark: str) -> str:
    """Ends its process, unless that was done."""
    if mark and not Path(mark).exists():
        Path(mark).touch()
        os._exit(1)
    return "alive"


def test_an_actor_that_dies_again_and_again_is_told_of() -> None:
    with SearchActors.start(1) as actors, pytest.raises(ShardsFailedError, match="was lost"):
        actors.map(os._exit, [1])


def test_what_an_actor_refuses_is_raised_as_it_would_be_here(
    database: Path, tmp_path: Path
) -> None:
    model = open_model(database, k=10)
    with share_with_ray(model, workers=2) as shared:
        predict(shared)
        pair = model.anchors.ids(np.array([0]))
        forget(model.store, pair, reason="asked to", folder=tmp_path / "keys")
        with pytest.raises(StaleModelError) as found:
            shared.anchors._map(search_shard, [ShardQuestion(shared.anchors.shards[0], "image")])
    assert found.value.uri == str(database)


def write_questions(folder: Path) -> dict[str, Path]:
    """Vectors of pictures, of labels, and of labelled pictures."""
    rng = np.random.default_rng(6)
    draw = rng.standard_normal((9, DIMENSION)).astype("f4").tolist()
    tables = {
        "vectors": {"id": list("abcde"), "vector": draw[:5]},
        "labels": {"label": ["cat", "dog"], "vector": draw[5:7]},
        "task": {"label": ["cat", "dog"] * 3, "vector": draw[:6]},
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return {name: folder / f"{name}.parquet" for name in tables}


@pytest.mark.parametrize(
    "command",
    [
        ["classify", "--vectors", "vectors", "--explain", "3"],
        ["classify", "--vectors", "vectors", "--recipe", "centred", "--k", "5"],
        ["evaluate", "task"],
        ["tune", "task", "--ks", "5,10", "--ps", "2"],
    ],
)
def test_commands_answer_on_ray_as_they_do_alone(
    cli: Cli, database: Path, command: list[str]
) -> None:
    files = write_questions(database.parent)
    asked = [files.get(word, word) for word in command]
    asked += ["--label-vectors", files["labels"], "--format", "json"]
    alone = cli("--db", database, *asked)
    shared = cli("--db", database, *asked, "--engine", "ray", "--workers", "2")
    assert (alone.status, shared.status) == (0, 0), shared.err
    assert shared.out == alone.out


@pytest.mark.parametrize(
    ("further", "told"),
    [
        (["--workers", "2"], "--workers is for --engine ray"),
        (["--engine", "ray", "--device", "cpu"], "--device is for one process"),
        (["--engine", "ray", "--search", "index"], "--search is for one process"),
        (["--engine", "ray", "--memory-limit", "1GB"], "--memory-limit is for one process"),
        (["--engine", "ray", "--server", "http://127.0.0.1:1"], "--engine needs the database"),
    ],
)
def test_options_that_do_not_go_with_an_engine_are_refused(
    cli: Cli, database: Path, further: list[str], told: str
) -> None:
    files = write_questions(database.parent)
    asked = ["--vectors", files["vectors"], "--label-vectors", files["labels"], *further]
    db = [] if "--server" in further else ["--db", database]
    done = cli(*db, "classify", *asked)
    assert (done.status, done.out) == (2, "")
    assert told in done.err


@pytest.fixture
def prompts() -> Prompts:
    found = np.random.default_rng(5).standard_normal((3, 1, DIMENSION)).astype("f4")
    return prompts_from_vectors(dict(zip("abc", found, strict=True)), "max")


def test_a_run_that_ray_records_is_that_of_one_process(database: Path, prompts: Prompts) -> None:
    vectors, model = write_questions(database.parent)["vectors"], open_model(database, k=10)
    expected = recorded(database, record_alone(model, prompts, vectors))
    for shards in (1, 2, 7):
        plan = plan_recording(model, prompts, vectors=vectors, shard_pictures=2)
        done = record_with_ray(plan, workers=2, shards=shards)
        assert recorded(database, done.run.run_id) == expected


def test_workers_and_searchers_that_are_lost_cost_a_recording_nothing(
    database: Path, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, model = write_questions(database.parent)["vectors"], open_model(database, k=10)
    expected = recorded(database, record_alone(model, prompts, vectors))
    given: list[Task] = []
    give = WorkerPool.give

    def give_and_lose(pool: WorkerPool, task: Task) -> None:
        give(pool, task)
        given.append(task)
        if len(given) == 2:
            (actor,) = (actor for actor, own, _ in pool.busy.values() if own == task)
            ray.kill(actor)
        if len(given) == 4:
            searchers = pool.given[0].__self__
            ray.kill(searchers.actors[0], no_restart=False)

    monkeypatch.setattr(WorkerPool, "give", give_and_lose)
    plan = plan_recording(model, prompts, vectors=vectors, shard_pictures=1)
    done = record_with_ray(plan, workers=2)
    assert given.count(given[1]) == 2
    assert len(given) == 6
    assert recorded(database, done.run.run_id) == expected


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_the_command_records_on_ray_and_tells_what_it_tells_alone(
    cli: Cli, database: Path, output: str
) -> None:
    files = write_questions(database.parent)
    asked = ["classify", "--vectors", files["vectors"], "--label-vectors", files["labels"]]
    asked += ["--record", "--top", "2", "--attributions", "6", "--format", output]
    alone = cli("--db", database, *asked)
    shared = cli("--db", database, *asked, "--engine", "ray", "--workers", "2")
    assert (alone.status, shared.status) == (0, 0), shared.err
    assert shared.out == alone.out
    first, second = (run.run_id for run in list_runs(PairStore.open(str(database))))
    assert recorded(database, second) == recorded(database, first)
    assert f"recorded as run {second}" in shared.err
    report = cli("--db", database, "audit", "--report", "drivers", "--format", "json")
    assert report.status == 0, report.err


@pytest.mark.encoders
def test_workers_encode_the_pictures_that_one_process_would(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        photo = picture(tmp_path / "photos" / f"{number}.png", number)
        photo.with_suffix(".txt").write_text(f"A cat, or dog number {number}.")
    ingest_sources(tmp_path / "p.lancedb", [tmp_path / "photos"])
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    asked = ["--db", "p.lancedb", "classify", "photos", "--labels", "cat,dog", "--record"]
    asked += ["--truth-is-folder", "--format", "json"]
    alone, shared = cli(*asked), cli(*asked, "--engine", "ray", "--workers", "2")
    assert (alone.status, shared.status) == (1, 1)  # for the picture that is none
    assert "broken.png: " in shared.err
    told = [[(o["image"], *describe(o["predictions"])) for o in c.objects] for c in (alone, shared)]
    assert told[0] == told[1]
    runs = (run.run_id for run in list_runs(PairStore.open("p.lancedb")))
    first, second = (recorded(Path("p.lancedb"), run) for run in runs)
    named = ("prediction_id", "image", "truth", "label", "rank")
    rows = [[[row[name] for name in named] for row in r["predictions"]] for r in (first, second)]
    assert rows[0] == rows[1]
    # The encoder rounds by how many threads it has.
    queries = [np.array([row["vector"] for row in r["queries"]]) for r in (first, second)]
    assert np.allclose(*queries, atol=1e-5)


def describe(predictions: list[dict]) -> list[tuple[str, float]]:
    return [(one["label"], round(one["score"], 4)) for one in predictions]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos by class, which are the pairs of the database `p.lancedb` beside it."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(24):
        photo = picture(folder / "photos" / ("cat", "dog")[number % 2] / f"{number}.png", number)
        photo.with_suffix(".txt").write_text(f"A cat, or dog number {number}.")
    ingest_sources(folder / "p.lancedb", [folder / "photos"])
    (folder / "photos" / "cat" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.mark.encoders
@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["classify", "photos", "--labels", "cat,dog"], 1),  # for the picture that is none
        (["classify", "photos", "--labels", "cat,dog", "--explain", "3"], 1),
        (["classify", "photos", "--labels", "cat,dog", "--confidence"], 1),
        (["classify", *CALIBRATED, "--labels", "cat,dog"], 1),
        (["classify", *CALIBRATED, "--labels", "cat,dog", "--record", "--explain", "2"], 1),
        (["evaluate", "photos"], 1),
        (["tune", "photos", "--ks", "5,10", "--ps", "2"], 1),
        (["search", "--image", "photos/cat/4.png"], 0),
    ],
)
def test_commands_have_pictures_encoded_on_ray_alone(
    cli: Cli,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    only_there: Callable[[], None],
    command: list[str],
    status: int,
) -> None:
    monkeypatch.chdir(photos)
    asked = ["--db", "p.lancedb", *command, "--format", "json"]
    alone = cli(*asked)
    only_there()
    shared = cli(*asked, "--engine", "ray", "--workers", "2")
    assert (alone.status, shared.status) == (status, status), shared.err
    assert round_all(shared.objects) == round_all(alone.objects)
    refused = [
        [line for line in done.err.splitlines() if "broken" in line] for done in (alone, shared)
    ]
    assert refused[0] == refused[1]
    assert bool(refused[0]) == bool(status)


def round_all(found: Any) -> Any:
    """Answers without what an encoder rounds by how many threads it has."""
    if isinstance(found, dict):
        return {name: round_all(value) for name, value in found.items()}
    if isinstance(found, list):
        return [round_all(value) for value in found]
    return pytest.approx(found, abs=1e-4) if isinstance(found, float) else found


@pytest.mark.encoders
def test_a_worker_that_is_lost_while_it_encodes_costs_nothing(
    photos: Path, monkeypatch: pytest.MonkeyPatch, only_there: Callable[[], None]
) -> None:
    model = open_model(photos / "p.lancedb")
    names, expected = model.encode(photos / "photos", rejects=[], batch_size=4)
    only_there()
    lost: list[int] = []
    take = SearchActors._take

    def take_and_lose(actors: SearchActors, place: int, answer: Any) -> Any:
        if not lost:
            lost.append(place)
            ray.kill(actors.actors[place], no_restart=False)
        return take(actors, place, answer)

    monkeypatch.setattr(SearchActors, "_take", take_and_lose)
    with share_with_ray(open_model(photos / "p.lancedb"), workers=2) as shared:
        found = shared.encode(photos / "photos", rejects=[], batch_size=4)
    assert lost == [0]
    assert found[0] == names
    assert np.allclose(found[1], expected, atol=1e-5)


def test_no_gpu_is_asked_for_where_there_is_none() -> None:
    assert size_workers(ray, None, 1, None) == (2, 0)
    assert size_workers(ray, 5, 1, None) == (5, 0)


@pytest.mark.encoders
def test_a_text_is_searched_for_on_ray_as_alone(cli: Cli, tmp_path: Path) -> None:
    for number in range(4):
        photo = picture(tmp_path / "photos" / f"{number}.png", number)
        photo.with_suffix(".txt").write_text(f"A cat, or dog number {number}.")
    ingest_sources(tmp_path / "p.lancedb", [tmp_path / "photos"])
    asked = ["--db", tmp_path / "p.lancedb", "search", "dog number 2", "--format", "json"]
    alone, shared = cli(*asked), cli(*asked, "--engine", "ray", "--workers", "2")
    assert (alone.status, shared.status) == (0, 0), shared.err
    assert shared.out == alone.out


def test_ray_shares_an_ingest_into_an_object_store(
    cli: Cli, bucket: str, tmp_path: Path, sources: list[Path]
) -> None:
    ingest_sources(tmp_path / "alone.lancedb", sources)
    uri = f"{bucket}/t.lancedb"
    done = cli("--db", uri, "ingest", *sources, "--engine", "ray", "--workers", "2")
    assert done.status == 0, done.err
    assert content(uri).equals(content(tmp_path / "alone.lancedb"))
