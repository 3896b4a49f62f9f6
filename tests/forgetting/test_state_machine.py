"""Whatever is open while others change, forget and tidy up: nothing forgotten comes back.

Models, recordings and batches of pairs stay open over changes, deletions, forgets, optimizing,
pruning and rolling back, in any order. ASIF_STATE_EXAMPLES=1000 makes a long run of it.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from pairs_at_hand import names, new_store, pairs

from asif_lance.audit import list_runs
from asif_lance.audit.recorder import Recorder
from asif_lance.database import TABLES, open_table
from asif_lance.errors import EmptyModelError, StaleModelError, VersionNotFoundError
from asif_lance.forgetting.content import Content
from asif_lance.model import Model, Prediction
from asif_lance.relative import make_recipe
from asif_lance.store import PairStore, optimize, prune_versions
from asif_lance.store.forget import forget
from asif_lance.verifier import scan

# Enough dimensions that no two random vectors point the same way.
IMAGE, TEXT = 64, 32
RECIPE = make_recipe("paper", k=5, p=1.0)

State = dict[str, str]  # captions by pair id
Files = dict[str, tuple[int, int]]  # what tells a file from another of its name
HINT = "latest_version_hint.json"


def rows_of(state: State) -> pa.Table:
    """Pairs as they are to be stored: vectors follow from ids, captions change with updates."""
    return pairs(list(state), image=IMAGE, text=TEXT, caption=list(state.values()))


def vectors_of(ids: Sequence[str], side: str) -> np.ndarray:
    rows = pairs(ids, image=IMAGE, text=TEXT)
    return np.array(rows[f"{side}_vector"].to_pylist(), np.float32)


@dataclass
class Opened:
    """A model version with labels, and what it has answered so far."""

    store: PairStore
    model: Model
    ids: list[str]
    epoch: int = 0
    given: list[Prediction] = field(default_factory=list)

    def __post_init__(self) -> None:
        first, last = vectors_of([self.ids[0], self.ids[-1]], "text")
        self.epoch = self.store.epoch()
        self.labels = self.model.label_vectors({"one": first, "two": last})

    def ask(self) -> list[Prediction]:
        asked = self.ids[:3]
        return list(self.model.classify_vectors(asked, vectors_of(asked, "image"), self.labels))


@dataclass
class Recording:
    """A run under way."""

    run: Recorder
    opened: Opened


def named(predictions: Sequence[Prediction]) -> set[str]:
    return {pair.pair_id for one in predictions for pair in one.attributions(100)}


def find_files(store: PairStore, *folders: str) -> Files:
    """The files in some folders; but for a hint of Lance, they are never written again."""
    root = Path(store.uri)
    found = (file for folder in folders for file in root.glob(f"{folder}/**/*.*"))
    stamps = ((str(file), file.stat()) for file in found if file.name != HINT)
    return {name: (stamp.st_ino, stamp.st_mtime_ns) for name, stamp in stamps}


@functools.cache
def empty_database() -> tempfile.TemporaryDirectory[str]:
    """A folder with a database that every example begins with a copy of."""
    folder = tempfile.TemporaryDirectory()
    new_store(Path(folder.name), IMAGE, TEXT)
    return folder


class WhileOthersForget(RuleBasedStateMachine):
    """Everything that is open, and what the database has to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        copy = shutil.copytree(empty_database().name, self.folder.name, dirs_exist_ok=True)
        self.store = PairStore.open(f"{copy}/db")
        self.looked_at: object = None
        self.files: Files = {}
        self.read: dict[str, tuple[int, State]] = {}
        self.made = 0
        self.head: State = {}
        self.versions: dict[str, State] = {}
        self.forgotten: list[pa.Table] = []
        self.gone: set[str] = set()
        self.ever: dict[str, set[str]] = {}
        self.tidied = 0  # how often files may have been moved or removed otherwise
        self.models: list[tuple[Opened, int]] = []
        self.recordings: list[Recording] = []
        self.in_hand: list[tuple[State, int]] = []

    @initialize()
    def begin(self) -> None:
        self.add(8)
        self.add(4)

    # Changes

    def new(self, count: int) -> State:
        self.made += count
        return {i: f"caption of {i}" for i in names(self.made - count, self.made)}

    def stored(self, rows: State) -> None:
        self.head |= rows
        for pair_id, caption in rows.items():
            self.ever.setdefault(pair_id, set()).add(caption)

    def publish(self, command: str) -> None:
        version = self.store.publish(command=command)
        if version is not None:
            self.versions[version.name] = dict(self.head)

    @rule(count=st.integers(1, 4))
    def add(self, count: int) -> None:
        rows = self.new(count)
        self.store.add(rows_of(rows))
        self.stored(rows)
        self.publish("ingest")

    @precondition(lambda self: len(self.head) > 2)
    @rule(place=st.integers(0, 99))
    def delete(self, place: int) -> None:
        gone = sorted(self.head)[place % len(self.head)]
        self.store.delete([gone])
        del self.head[gone]
        self.publish("delete")

    @rule(places=st.lists(st.integers(0, 99), min_size=1, max_size=2))
    def forget(self, places: list[int]) -> None:
        known = sorted({i for state in (self.head, *self.versions.values()) for i in state})
        if not known:
            return
        gone = {known[place % len(known)] for place in places}
        before = self.store.epoch()
        assert forget(self.store, sorted(gone), reason="asked to").clean
        assert self.store.epoch() > before
        self.forgotten += [
            rows_of({i: caption}) for i in gone for caption in sorted(self.ever.get(i, ()))
        ]
        self.gone |= gone
        for state in (self.head, *self.versions.values()):
            for pair_id in gone & state.keys():
                del state[pair_id]

    @rule()
    def optimize(self) -> None:
        optimize(self.store)
        self.tidied += 1

    @rule(keep=st.integers(1, 3))
    def prune(self, keep: int) -> None:
        dropped = prune_versions(self.store, keep_last=keep).dropped
        for name in dropped:
            del self.versions[name]
        self.tidied += 1

    @rule(place=st.integers(0, 99))
    def roll_back(self, place: int) -> None:
        name = list(self.versions)[place % len(self.versions)]
        version = self.store.rollback(name)
        self.head = dict(self.versions[name])
        self.versions[version.name] = dict(self.head)

    # An ingest that others overtake

    @rule(count=st.integers(0, 2), place=st.integers(0, 99))
    def take_in_hand(self, count: int, place: int) -> None:
        rows = self.new(count)
        if self.head:
            again = sorted(self.head)[place % len(self.head)]
            rows[again] = f"caption of {again}, edition {self.made}-{place}"
        self.in_hand.append((rows, self.store.epoch()))

    @precondition(lambda self: self.in_hand)
    @rule(place=st.integers(0, 99))
    def put_down(self, place: int) -> None:
        rows, since = self.in_hand.pop(place % len(self.in_hand))
        try:
            if rows:
                self.store.add(rows_of(rows), replace=True, since=since)
        except StaleModelError:
            assert self.store.epoch() != since
            return
        self.stored(rows)
        self.publish("ingest")

    # Models

    def open(self, name: str) -> Opened | None:
        ids = sorted(self.versions[name])
        if not ids:
            return None
        model = Model(self.store, self.store.version(name), RECIPE, device="cpu")
        return Opened(self.store, model, ids)

    @rule(place=st.integers(0, 99), used=st.booleans())
    def open_model(self, place: int, used: bool) -> None:
        opened = self.open(list(self.versions)[place % len(self.versions)])
        if opened:
            self.models.append((opened, self.tidied))
            opened.given = opened.ask() if used else []

    @precondition(lambda self: self.models)
    @rule()
    def ask_all(self) -> None:
        models, self.models = self.models, []
        for opened, tidied in models:
            self.ask(opened, tidied)

    def ask(self, opened: Opened, tidied: int) -> None:
        name = opened.model.version.name
        try:
            answers = opened.ask()
            assert not self.gone & set(opened.ids), "it answers from forgotten pairs"
            assert not named(answers) & self.gone
            assert not named(opened.given) & self.gone
            opened.given = answers
            self.models.append((opened, tidied))
        except StaleModelError:
            assert opened.epoch != self.store.epoch() or tidied != self.tidied
            self.reopen(opened)
            return
        again = self.open(name) if name in self.versions else None
        if again and sorted(again.ids) == opened.ids:
            assert [one.ranking for one in again.ask()] == [one.ranking for one in answers]

    def reopen(self, opened: Opened) -> None:
        name = opened.model.version.name
        try:
            model = opened.model.reopened()
            ids = sorted(self.versions[name])
            if ids:
                fresh = Opened(self.store, model, ids)
                assert named(fresh.ask()) <= set(ids)
                self.models.append((fresh, self.tidied))
        except VersionNotFoundError:
            assert name not in self.versions
        except EmptyModelError:
            assert not self.versions[name]

    # Recordings

    @precondition(lambda self: self.models)
    @rule(place=st.integers(0, 99))
    def begin_recording(self, place: int) -> None:
        opened, _ = self.models[place % len(self.models)]
        run = Recorder(self.store, opened.labels, RECIPE)
        try:
            run.__enter__()
        except StaleModelError:
            assert opened.labels.epoch != self.store.epoch()
            return
        self.recordings.append(Recording(run, opened))

    @precondition(lambda self: self.recordings)
    @rule(place=st.integers(0, 99), ends=st.booleans())
    def record(self, place: int, ends: bool) -> None:
        place %= len(self.recordings)
        recording = self.recordings[place]
        error: StaleModelError | None = None
        try:
            for prediction in recording.opened.ask():
                recording.run.add(prediction)
        except StaleModelError as stale:
            error = stale
        if error is None and not ends:
            return
        del self.recordings[place]
        recorded = recording.run.run_id
        try:
            recording.run.__exit__(None if error is None else type(error), error, None)
        except StaleModelError as stale:
            error = stale
        assert (recorded in {run.run_id for run in list_runs(self.store)}) == (error is None)

    # What holds

    @invariant()
    def all_is_in_order(self) -> None:
        """Looked at again whenever a file, or what should be in it, is another than before."""
        files = find_files(self.store, "*.lance")
        now = files, set(self.gone), {name: dict(rows) for name, rows in self.versions.items()}
        if now != self.looked_at:
            self.versions_hold_what_they_held_less_what_was_forgotten()
            self.no_table_names_a_forgotten_pair()
            self.looked_at = now

    def versions_hold_what_they_held_less_what_was_forgotten(self) -> None:
        """A version is read again if it is another state, or a file that it may need has gone."""
        versions = {version.name: version.lance_version for version in self.store.versions()}
        assert versions.keys() == self.versions.keys()
        files = find_files(self.store, "pairs.lance/[!_]*", "pairs.lance/_[vd]*")
        if not self.files.items() <= files.items():
            self.read.clear()
        self.files = files
        for name, state in self.versions.items():
            if self.read.get(name) == (versions[name], state):
                continue
            rows = self.store.read(name, ["pair_id", "caption", "image_vector"]).sort_by("pair_id")
            expected = rows_of(dict(sorted(state.items())))
            assert rows["pair_id"].to_pylist() == expected["pair_id"].to_pylist()
            assert rows["caption"].to_pylist() == expected["caption"].to_pylist()
            assert rows["image_vector"].to_pylist() == expected["image_vector"].to_pylist()
            self.read[name] = versions[name], dict(state)

    def no_table_names_a_forgotten_pair(self) -> None:
        for table in TABLES:
            if table.pair_column:
                column = open_table(self.store.uri, table.name).to_table([table.pair_column])
                assert not self.gone & set(column[table.pair_column].to_pylist()), table.name

    def teardown(self) -> None:
        PairStore.open(self.store.uri)
        if self.forgotten:
            content = Content(b"a test", pa.concat_tables(self.forgotten))
            assert not scan(self.store.uri, content).hits
        self.folder.cleanup()


TestWhileOthersForget = WhileOthersForget.TestCase
TestWhileOthersForget.pytestmark = [pytest.mark.slow]
TestWhileOthersForget.settings = settings(
    max_examples=int(os.environ.get("ASIF_STATE_EXAMPLES", "5")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
