"""What was open while another process forgot: it notices, and writes nothing back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pairs_at_hand import names, new_store, pairs

from asif_lance import Together
from asif_lance.anchors import INDEX, IndexSearch, SearchSetting
from asif_lance.audit import Audit, list_runs
from asif_lance.audit.recorder import Recorder
from asif_lance.database import (
    DISTANCES,
    PROMPT_VECTORS,
    TABLES,
    open_table,
    save_cache,
)
from asif_lance.errors import (
    ForgottenPairError,
    NewerDatabaseError,
    StaleModelError,
    VersionNotFoundError,
)
from asif_lance.forgetting.content import Content
from asif_lance.ingest import IngestOptions, TableSource, ingest_sources
from asif_lance.model import LabelSet, Model, Prediction
from asif_lance.records import Reject
from asif_lance.relative.recipes import PAPER
from asif_lance.store import PairStore, optimize, prune_versions
from asif_lance.store.forget import forget
from asif_lance.verifier import JOURNAL_FILE, scan

# Enough dimensions that no two random vectors point the same way.
IMAGE, TEXT = 64, 32
OLD, NEW = names(0, 40), names(40, 80)
GONE = NEW[3]

_FORGET = """
import sys
from asif_lance.store import PairStore
from asif_lance.store.forget import forget
assert forget(PairStore.open(sys.argv[1]), sys.argv[2:], reason="asked to").clean
"""


def forget_elsewhere(store: PairStore, *pair_ids: str) -> None:
    """Another process opens the database and forgets pairs."""
    subprocess.run([sys.executable, "-c", _FORGET, store.uri, *pair_ids], check=True)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """v1: 0-39; v2: 0-79, in another fragment."""
    store = new_store(tmp_path, IMAGE, TEXT)
    for ids in (OLD, NEW):
        store.add(pairs(ids, image=IMAGE, text=TEXT))
        store.publish(command="ingest")
    return store


def vectors(ids: Sequence[str], side: str) -> np.ndarray:
    return np.array(pairs(ids, image=IMAGE, text=TEXT)[f"{side}_vector"].to_pylist(), np.float32)


class Opened:
    """A model version with a label set of two captions and answers about its own pictures."""

    def __init__(self, store: PairStore, version: str, ids: Sequence[str]) -> None:
        self.ids, self.images = ids, vectors(ids, "image")
        first, second = vectors(ids[:2], "text")
        self.vectors = {"one": first, "two": second}
        self.model = Model(store, store.version(version), PAPER, device="cpu")
        self.labels = self.model.label_vectors(self.vectors)

    def ask(self, model: Model | None = None, labels: LabelSet | None = None) -> list[Prediction]:
        asked = model or self.model
        return list(asked.classify_vectors(self.ids, self.images, labels or self.labels))

    def reopened(self) -> list[Prediction]:
        model = self.model.reopened()
        return self.ask(model, model.label_vectors(self.vectors))


def named(predictions: Sequence[Prediction]) -> set[str]:
    return {pair.pair_id for one in predictions for pair in one.attributions(100)}


def residue(store: PairStore, rows: pa.Table) -> list[str]:
    """Where files still hold something of pairs."""
    return [hit.file for hit in scan(store.uri, Content(b"a test", rows)).hits]


def rows_of(store: PairStore, *pair_ids: str) -> pa.Table:
    table = store.read("v2")
    return table.filter(pa.compute.is_in(table["pair_id"], pa.array(pair_ids)))


def has_rows_of(store: PairStore, run_id: str) -> list[str]:
    """The tables that have something of a run."""
    tables = [table for table in TABLES if table.run_column]
    return [
        table.name
        for table in tables
        if open_table(store.uri, table.name).count_rows(
            f"starts_with({table.run_column}, '{run_id}')"
        )
    ]


# Models


def test_an_open_model_notices_before_its_next_answer_and_can_be_reopened(
    store: PairStore,
) -> None:
    opened = Opened(store, "v2", NEW[:10])
    earlier = opened.ask()
    assert GONE in named(earlier)
    forget_elsewhere(store, GONE)
    with pytest.raises(StaleModelError, match="forgotten since it was opened: reopen it"):
        opened.ask()
    with pytest.raises(StaleModelError, match="reopen it"):
        opened.model.label_vectors(opened.vectors)
    for answer in (lambda: earlier[0].attributions(), lambda: opened.model.anchors.ids([0])):
        with pytest.raises(StaleModelError, match="reopen it"):
            answer()
    assert GONE not in named(opened.reopened())
    assert opened.model.reopened().version.pairs == 79


def test_a_forget_that_did_not_touch_the_version_leaves_its_model_in_use(store: PairStore) -> None:
    opened = Opened(store, "v1", OLD[:10])
    earlier = opened.ask()
    forget_elsewhere(store, GONE)
    assert opened.ask() == earlier
    assert named(earlier) == named(opened.ask()) <= set(OLD)


def test_answers_half_given_stop_with_the_next_batch(store: PairStore) -> None:
    opened = Opened(store, "v2", NEW[:10])
    answers = opened.model.classify_vectors(
        opened.ids * 200, np.tile(opened.images, (200, 1)), opened.labels
    )
    next(answers)
    forget_elsewhere(store, GONE)
    with pytest.raises(StaleModelError):
        list(answers)


def test_models_that_answer_together_notice_too(store: PairStore) -> None:
    opened = Opened(store, "v2", NEW[:10])
    both = Together({"old": Opened(store, "v1", OLD[:10]).model, "new": opened.model})
    labels = [model.label_vectors(opened.vectors) for model in both.models.values()]
    (earlier, *_) = both.classify_vectors(opened.ids, [opened.images] * 2, labels)
    forget_elsewhere(store, GONE)
    with pytest.raises(StaleModelError):
        list(both.classify_vectors(opened.ids, [opened.images] * 2, labels))
    with pytest.raises(StaleModelError):
        earlier.attributions()


def test_a_label_set_from_before_does_not_fit_the_reopened_model(store: PairStore) -> None:
    opened = Opened(store, "v2", NEW[:10])
    forget_elsewhere(store, GONE)
    with pytest.raises(StaleModelError, match="compile it again"):
        opened.ask(opened.model.reopened())


def test_after_upkeep_elsewhere_a_model_goes_on_or_says_reopen(store: PairStore) -> None:
    store.delete(NEW[20:])
    store.publish(command="delete")
    prune_versions(store, keep_last=1)
    opened = Opened(store, "v3", NEW[:10])
    earlier = opened.ask()
    expected = named(earlier)
    optimize(store, grace=timedelta(0))
    assert [p.ranking for p in opened.ask()] == [p.ranking for p in earlier]
    with pytest.raises(StaleModelError, match="rewritten or removed since it was opened"):
        named(earlier)
    assert named(opened.reopened()) == expected
    store.add(pairs(names(100, 101), image=IMAGE, text=TEXT))
    store.publish(command="ingest")
    prune_versions(store, keep_last=1)
    with pytest.raises(VersionNotFoundError):
        opened.model.reopened()


# Recordings


def record(run: Recorder, opened: Opened, interfere: Callable[[], None], *, after: int) -> None:
    with run:
        for number, prediction in enumerate(opened.ask()):
            run.add(prediction)
            if number == after:
                interfere()


def test_a_recording_that_was_open_leaves_nothing_of_itself(store: PairStore) -> None:
    opened, sought = Opened(store, "v2", NEW[:10]), rows_of(store, GONE)
    run = Recorder(store, opened.labels, opened.model.recipe)
    with pytest.raises(StaleModelError, match="reopen"):
        record(run, opened, lambda: forget_elsewhere(store, GONE), after=9)
    assert list_runs(store) == []
    assert has_rows_of(store, run.run_id) == []
    assert residue(store, sought) == []


def test_what_a_recording_has_written_already_goes_too(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asif_lance.audit.recorder._PREDICTIONS_PER_COMMIT", 4)
    opened, sought = Opened(store, "v1", OLD[:10]), rows_of(store, NEW[7])
    run = Recorder(store, opened.labels, opened.model.recipe)

    def interfere() -> None:
        assert has_rows_of(store, run.run_id)
        forget_elsewhere(store, NEW[7])

    with pytest.raises(StaleModelError):
        record(run, opened, interfere, after=5)
    assert has_rows_of(store, run.run_id) == []
    assert residue(store, sought) == []


def test_labels_from_before_a_forget_are_not_recorded_until_they_are_compiled_again(
    store: PairStore,
) -> None:
    opened = Opened(store, "v1", OLD[:10])
    forget_elsewhere(store, GONE)
    with pytest.raises(StaleModelError), Recorder(store, opened.labels, opened.model.recipe):
        pass
    labels = opened.model.label_vectors(opened.vectors)
    with Recorder(store, labels, opened.model.recipe) as run:
        for prediction in opened.ask(labels=labels):
            run.add(prediction)
    assert [one.run_id for one in list_runs(store)] == [run.run_id]


# Ingests


def frame(ids: Sequence[str]) -> pl.DataFrame:
    table = pairs(ids, image=IMAGE, text=TEXT).to_pylist()
    columns = ("pair_id", "caption", "image_vector", "text_vector")
    return pl.DataFrame({name: [row[name] for row in table] for name in columns})


def test_an_ingest_does_not_write_back_what_it_had_in_hand(store: PairStore) -> None:
    changed = frame(NEW[:10]).with_columns(caption=pl.col("caption") + " now")
    sought, versions = rows_of(store, GONE), store.versions()
    forgotten = []

    def forget_once(items: int) -> None:
        if not forgotten:
            forgotten.append(GONE)
            forget_elsewhere(store, GONE)

    encoders = {"image_encoder": store.image.name, "text_encoder": store.text.name}
    options = IngestOptions(on_conflict="update", **encoders)
    with pytest.raises(ForgottenPairError, match=GONE):
        ingest_sources(store.uri, [TableSource("s", changed)], options, progress=forget_once)
    assert not store.existing([GONE])
    assert residue(store, sought) == []
    assert len(store.versions()) == len(versions)
    others = changed.filter(pl.col("pair_id") != GONE)
    assert ingest_sources(store.uri, [TableSource("s", others)], options).updated == 9


def test_rejects_and_messages_from_before_a_forget_are_not_written(store: PairStore) -> None:
    since = store.epoch()
    forget_elsewhere(store, GONE)
    assert store.epoch() > since
    reject = Reject("s", f"photos/{GONE}.jpg", "a duplicate")
    with pytest.raises(StaleModelError):
        store.add_rejects("x", [reject], since=since)
    store.delete(OLD[:1])
    with pytest.raises(StaleModelError):
        store.publish(command="delete", message=f"without {GONE}", since=since)
    assert store.rejects().num_rows == 0
    assert store.publish(command="delete", since=store.epoch())


# Caches, SQL


@pytest.mark.parametrize("directory", [PROMPT_VECTORS, DISTANCES])
def test_caches_made_before_a_forget_are_not_kept(store: PairStore, directory: str) -> None:
    arrays = {"vectors": vectors([GONE], "text")}
    since = store.epoch()
    save_cache(store.uri, directory, "before", arrays, (), since=since)
    assert list(Path(store.uri, directory).iterdir())
    forget_elsewhere(store, GONE)
    save_cache(store.uri, directory, "late", arrays, (), since=since)
    assert not list(Path(store.uri, directory).iterdir())


def test_an_open_sql_session_sees_what_is_left(store: PairStore) -> None:
    gone = f"SELECT count(*) AS n FROM pairs_at('v2') WHERE pair_id = '{GONE}'"
    counts = "SELECT pairs FROM versions WHERE name = 'v2'"
    with Audit(store) as audit:
        assert audit.query(gone)["n"].to_pylist() == [1]
        assert audit.query("SELECT count(*) AS n FROM pairs")["n"].to_pylist() == [80]
        forget_elsewhere(store, GONE)
        assert audit.query(gone)["n"].to_pylist() == [0]
        assert audit.query("SELECT count(*) AS n FROM pairs")["n"].to_pylist() == [79]
        assert audit.query(counts)["pairs"].to_pylist() == [79]


# Kills, releases


def test_a_forget_that_was_killed_counts_once_it_is_finished(store: PairStore) -> None:
    opened, sought, since = Opened(store, "v2", NEW[:10]), rows_of(store, GONE), store.epoch()
    command = [sys.executable, "-c", _FORGET, store.uri, GONE]
    process = subprocess.Popen(command)
    journal = Path(store.uri, JOURNAL_FILE)
    while not journal.exists() and process.poll() is None:
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(StaleModelError):
        store.add(pairs([GONE], image=IMAGE, text=TEXT), since=since)
    assert not journal.exists()
    with pytest.raises(StaleModelError):
        opened.ask()
    assert residue(store, sought) == []


def test_a_handle_on_a_database_that_became_newer_is_refused_at_its_next_write(
    store: PairStore,
) -> None:
    opened = Opened(store, "v2", NEW[:10])
    store.tag("prod", "v1")
    table = open_table(store.uri, "migrations")
    row: dict[str, Any] = {**table.to_table().to_pylist()[-1], "id": "m9999_future"}
    lance.write_dataset(pa.Table.from_pylist([row], schema=table.schema), table, mode="append")
    writes = (
        lambda: store.delete([GONE]),
        lambda: store.tag("prod", "v2"),
        lambda: forget(store, [GONE], reason="asked to"),
        lambda: store.add(pairs(["another"], image=IMAGE, text=TEXT)),
    )
    for write in writes:
        with pytest.raises(NewerDatabaseError, match="m9999_future"):
            write()
    arrays = {"vectors": vectors([GONE], "text")}
    save_cache(store.uri, PROMPT_VECTORS, "x", arrays, (), since=store.epoch())
    assert not Path(store.uri, PROMPT_VECTORS).exists()
    assert named(opened.ask()) >= {GONE}  # reading goes on


def test_search_through_an_index_goes_on_or_says_reopen(store: PairStore) -> None:
    table = open_table(store.uri, "pairs")
    table.create_index("image_vector", "IVF_FLAT", name=INDEX, metric="cosine", num_partitions=1)
    store.adopt_head()
    search = IndexSearch(SearchSetting(nprobes=1, candidates=2.0), "cosine")
    opened = Opened(store, "v2", NEW[:10])
    opened.model.approximate = search
    earlier = [one.ranking for one in opened.ask()]
    store.add(pairs(names(100, 101), image=IMAGE, text=TEXT))
    forget_elsewhere(store, *names(100, 101))  # which no version has; indices are made anew
    with contextlib.suppress(StaleModelError):
        assert [one.ranking for one in opened.ask()] == earlier
    assert [one.ranking for one in opened.reopened()] == earlier
    forget_elsewhere(store, GONE)
    with pytest.raises(StaleModelError):
        opened.ask()
