"""What the processes of `chaos` do until they are killed, or while others are."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import pyarrow as pa

from asif_lance.audit import recorder, runs
from asif_lance.database import run_migrations
from asif_lance.errors import StaleModelError, VersionNotFoundError
from asif_lance.model import Model, Prediction
from asif_lance.relative.recipes import PAPER
from asif_lance.store import maintenance
from asif_lance.store.forget import forget
from asif_lance.store.pair_store import PairStore

DIMENSION = 48


def pairs(ids: list[str]) -> pa.Table:
    """Pairs whose content follows from their ids, none of which may be a part of another."""
    return pa.table(
        {
            "pair_id": pa.array(ids, pa.string()),
            "caption": [f"caption of {i}" for i in ids],
            "image_uri": [f"photos/{i}.jpg" for i in ids],
            "image_vector": vectors(ids, 1),
            "text_vector": vectors(ids, 2),
        }
    )


def vectors(ids: list[str], side: int) -> pa.FixedSizeListArray:
    """Unit vectors that follow from ids."""
    rows = [np.random.default_rng([side, *i.encode()]).normal(size=DIMENSION) for i in ids]
    unit = np.array([row / np.linalg.norm(row) for row in rows] or np.empty((0, DIMENSION)))
    return pa.FixedSizeListArray.from_arrays(pa.array(unit.astype(np.float16).ravel()), DIMENSION)


class Opened:
    """The newest model, asked about some of its own pictures with its own captions as labels."""

    def __init__(self, store: PairStore, dice: random.Random) -> None:
        self._store, self._dice = store, dice
        self.model = Model(store, store.version(), PAPER, device="cpu")
        columns = ["pair_id", "image_vector", "text_vector"]
        self._known = store.read(self.model.version.name, columns).to_pylist()

    def record(self) -> recorder.Recorder:
        """A run of other pictures and labels."""
        asked = self._dice.sample(self._known, min(30, len(self._known)))
        self.names = [row["pair_id"] for row in asked]
        self.images = np.array([row["image_vector"] for row in asked], np.float32)
        self.labels = self.model.label_vectors(
            {row["pair_id"]: np.array(row["text_vector"], np.float32) for row in asked[:5]}
        )
        return recorder.Recorder(self._store, self.labels, PAPER)

    def ask(self) -> list[Prediction]:
        """The model's answers."""
        return list(self.model.classify_vectors(self.names, self.images, self.labels))


def stay_open(uri: str, pipe: Connection, seed: int) -> None:
    """Has a model and a recording open while others work, and ends the recording afterwards.

    Tells how often it was refused, and which pairs the model named in the end.
    """
    opened, refused, named = Opened(PairStore.open(uri), random.Random(seed)), 0, set[str]()
    run, earlier = opened.record(), opened.ask()
    try:
        with run:
            for prediction in earlier:
                run.add(prediction)
            pipe.send(True)
            pipe.recv()
    except StaleModelError:
        refused += 1
    for give in (lambda: earlier, opened.ask):
        try:
            named |= {pair.pair_id for one in give() for pair in one.attributions(50)}
        except StaleModelError:
            refused += 1
    pipe.send((refused, named))


# What the killed processes do. Each begins with `ready`, so that kills hit the work itself.

Ready = Callable[[], None]


def do_ingest(uri: str, ready: Ready, seed: int) -> None:
    """Adds chunks and publishes, over and over."""
    store = PairStore.open(uri)
    ready()
    for number in range(1000):
        ids = [
            f"seed{seed}-number{number:04}-chunk{c}-row{r:02}" for c in range(3) for r in range(20)
        ]
        for start in range(0, len(ids), 20):
            store.add(pairs(ids[start : start + 20]))
        store.join_fragments()
        store.publish(command="ingest")


def do_delete(uri: str, ready: Ready, seed: int) -> None:
    """Deletes a few pairs and publishes, over and over."""
    store, dice = PairStore.open(uri), random.Random(seed)
    ready()
    while True:
        known = store.read(columns=["pair_id"])["pair_id"].to_pylist()
        store.delete(dice.sample(known, min(5, len(known))))
        store.publish(command="delete")


def do_forget(uri: str, ready: Ready, seed: int) -> None:
    """Forgets a few pairs, over and over; each lot is written down before it is begun."""
    store, dice = PairStore.open(uri), random.Random(seed)
    ready()
    while True:
        known = sorted(store.read(columns=["pair_id"])["pair_id"].to_pylist())
        # The intent is in the journal or nothing has happened: either is right.
        forget(store, dice.sample(known, min(4, len(known))), reason="chaos")


def do_prune(uri: str, ready: Ready, seed: int) -> None:
    """Drops all but a few versions, and gives it something to drop."""
    store = PairStore.open(uri)
    ready()
    for number in range(1000):
        store.add(pairs([f"prune{seed}-number{number:04}"]))
        store.publish(command="ingest")
        maintenance.prune_versions(store, keep_last=3)


def do_optimize(uri: str, ready: Ready, seed: int) -> None:
    """Compacts what it scatters."""
    store = PairStore.open(uri)
    ready()
    for number in range(1000):
        store.add(pairs([f"optimize{seed}-number{number:04}"]))
        maintenance.optimize(store)


def do_rollback(uri: str, ready: Ready, seed: int) -> None:
    """Goes back to an old version, over and over."""
    store, dice = PairStore.open(uri), random.Random(seed)
    ready()
    while True:
        store.rollback(dice.choice(store.versions()).name)


def do_record(uri: str, ready: Ready, seed: int) -> None:
    """Records what the model says of its own pictures, with its own captions as labels.

    Now and then all but a few runs are dropped.
    """
    store, dice = PairStore.open(uri), random.Random(seed)
    ready()
    while True:
        with contextlib.suppress(StaleModelError, VersionNotFoundError):
            opened = Opened(store, dice)
            while True:
                runs.set_retention(store, runs.RetentionRule(last=dice.choice([None, 5])))
                with opened.record() as run:
                    for prediction in opened.ask():
                        run.add(prediction)


def do_migrate(uri: str, ready: Ready, seed: int) -> None:
    """Upgrades a database of the first release."""
    ready()
    time.sleep(random.Random(seed).random() * 0.02)
    run_migrations(uri)


COMMANDS: dict[str, Callable[[str, Ready, int], None]] = {
    "ingest": do_ingest,
    "delete": do_delete,
    "forget": do_forget,
    "prune": do_prune,
    "optimize": do_optimize,
    "rollback": do_rollback,
    "record": do_record,
    "migrate": do_migrate,
}
