"""Kills at random moments, and what is left of a database afterwards.

    python tests/chaos.py [--rounds 200] [--seed N]

Each round starts one command (ingest, delete, forget, record, prune, optimize, …) in a
process of its own and kills it with SIGKILL at a random moment, while two writers ingest, two
readers read, an open model answers and an open recording goes on. Then the database is opened,
which has to make good what the kill left, and must hold: every pair there exactly once, every
version answering as recorded less what was forgotten, every finished run with all its predictions
less what was forgotten, no forgotten content in any file, no leftover file after upkeep. Content
of the last rounds is sought again in each. Prints rounds, kills by command, forgotten content that
was found afterwards, and losses (these at once, to stderr, as well as at the end); exit status 1 if
there is any.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from chaos_work import COMMANDS, DIMENSION, pairs, stay_open

from asif_lance.audit import runs
from asif_lance.database import is_draft, open_table, run_migrations
from asif_lance.errors import AsifError
from asif_lance.forgetting import find_keys
from asif_lance.forgetting.content import Content
from asif_lance.forgetting.receipts import load_receipts
from asif_lance.records import EncoderPin
from asif_lance.store import maintenance
from asif_lance.store.pair_store import PairStore
from asif_lance.verifier import hash_value, scan

# Forked from a server that has imported what survives a fork (LanceDB, with its threads, does not):
# half of the time that starting a process takes.
SERVED = multiprocessing.get_context("forkserver")
SERVED.set_forkserver_preload(["duckdb", "polars", "torch"])
PINS = EncoderPin("vectors", "", DIMENSION), EncoderPin("vectors", "", DIMENSION)
LONGEST = 1.2  # seconds until a kill
PAUSE = 0.02  # seconds between two reads, which leave the writers something of the processors
MANY, MANY_VERSIONS = 2_000, 12
ROUNDS_SOUGHT = 20  # what was forgotten in the last rounds is sought again
OLD = Path(__file__).parent / "assets" / "database-m0001.tar.gz"


def work(command: str, uri: str, pipe: object, seed: int) -> None:
    """The body of a process."""
    COMMANDS[command](uri, lambda: pipe.send(True), seed)  # type: ignore[attr-defined]


def read_on(uri: str, stop: object, faults: object) -> None:
    """A reader: versions change only by whole forgets, and reading them never fails."""
    store = PairStore.open(uri)
    while not stop.is_set():  # type: ignore[attr-defined]
        for version in store.versions()[-4:]:
            try:
                rows = store.read(version.name, ["pair_id", "caption"])
            except AsifError as error:
                if "no model version" not in str(error):  # pruned meanwhile
                    faults.put(f"reader: {error}")  # type: ignore[attr-defined]
                continue
            ids = rows["pair_id"].to_pylist()
            if len(set(ids)) != len(ids):
                faults.put(f"reader: {version.name} has a pair twice")  # type: ignore[attr-defined]
            time.sleep(PAUSE)


@dataclass
class Chaos:
    """One database under attack, and what it has to hold.

    Attributes:
        root: a directory of its own.
        seed: makes the choice of commands and moments repeatable.
        kills: how often each command was killed.
        losses: what was found wrong.
        sound: version name -> ids, as last seen in good order.
        recorded: run -> how many predictions it has, as last seen in good order.
        seen: receipts that were looked at already.
        forgotten: the rows of pairs that were forgotten in the last rounds.
        found: how often forgotten content was found in a file, or named by an open model.
        refused: how often a model or a recording that was open was told to reopen.
        slowest: the longest that opening a database took, repair included; seconds.
    """

    root: Path
    seed: int
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    losses: list[str] = field(default_factory=list)
    sound: dict[str, frozenset[str]] = field(default_factory=dict)
    recorded: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    forgotten: list[pa.Table] = field(default_factory=list)
    found: int = 0
    refused: int = 0
    slowest: float = 0.0

    @property
    def uri(self) -> str:
        """The database."""
        return str(self.root / "db")

    def set_up(self) -> None:
        """A database with a few versions."""
        store = PairStore.create(self.uri, image=PINS[0], text=PINS[1])
        for number in range(4):
            store.add(pairs([f"begin{number}-row{row:03}" for row in range(100)]))
            store.publish(command="ingest")
        store.tag("prod", "v2")
        self.remember(store)

    def run(self, rounds: int) -> None:
        """All rounds; two readers stay throughout."""
        stop, faults = SERVED.Event(), SERVED.Queue()
        readers = [SERVED.Process(target=read_on, args=(self.uri, stop, faults)) for _ in range(2)]
        for reader in readers:
            reader.start()
        dice = random.Random(self.seed)
        for number in range(rounds):
            before = len(self.losses)
            self.round(number, dice)
            print(
                f"round {number + 1} of {rounds}",
                *self.losses[before:],
                file=sys.stderr,
                sep="\n  ",
            )
        stop.set()
        for reader in readers:
            reader.join()
        while not faults.empty():
            self.losses.append(faults.get())

    def round(self, number: int, dice: random.Random) -> None:
        """One command killed while a writer goes on; then all has to be in order."""
        command = dice.choice([*COMMANDS, "forget", "forget"])
        if command == "migrate":
            self.kill_migration(number, dice)
            return
        content = self.content()
        here, there = SERVED.Pipe()
        staying = SERVED.Process(target=stay_open, args=(self.uri, there, number))
        staying.start()
        there.close()  # so that nobody waits for a process that has failed
        here.recv()
        both = [("ingest", number * 2 + 1_000_000), (command, number * 2)]
        started = self.start(both, self.uri)
        time.sleep(dice.random() ** 2 * LONGEST)
        for process in reversed(started):
            kill(process)
        self.kills[command] += 1
        self.kills["ingest"] += 1
        here.send(True)
        refused, named = here.recv()
        staying.join()
        self.refused += refused
        self.check(f"round {number} ({command})", content, named)

    def start(self, commands: list[tuple[str, int]], uri: str) -> list[BaseProcess]:
        """Processes that have opened the database and begin to work."""
        pipes = [SERVED.Pipe() for _ in commands]
        both = zip(commands, pipes, strict=True)
        started: list[BaseProcess] = [
            SERVED.Process(target=work, args=(name, uri, there, seed))
            for (name, seed), (_, there) in both
        ]
        for process in started:
            process.start()
        for here, _ in pipes:
            here.poll(60)
        return started

    def content(self) -> pa.Table:
        """Everything that the named versions hold, to be looked for once it is forgotten."""
        store = PairStore.open(self.uri)
        tables = [store.read(version.name) for version in store.versions()]
        return pa.concat_tables(tables)

    def check(self, when: str, content: pa.Table, named: set[str]) -> None:
        """The invariants, and that an open model has named no forgotten pair."""
        start = time.perf_counter()
        store = PairStore.open(self.uri)
        self.slowest = max(self.slowest, time.perf_counter() - start)
        receipts = [r for r in load_receipts(self.uri) if r.receipt_id not in self.seen]
        self.seen |= {receipt.receipt_id for receipt in receipts}
        keys = find_keys()
        assert keys is not None or not receipts
        prints = {digest for receipt in receipts for digest in receipt.ids}
        ids = set(content["pair_id"].to_pylist()) if keys else set()
        gone = {i for i in ids if keys and hash_value(keys.fingerprint, i.encode()) in prints}
        lost = [f"{when}: receipt {r.receipt_id} is not clean" for r in receipts if not r.clean]
        if gone & named:
            lost.append(f"an open model named {sorted(gone & named)}")
            self.found += 1
        lost += self.check_versions(store, gone)
        lost += self.check_runs(store, gone)
        lost += self.check_files(store, content, gone)
        self.losses += [f"{when}: {loss}" for loss in lost]
        keep_small(store)
        self.remember(store)

    def check_versions(self, store: PairStore, gone: set[str]) -> list[str]:
        """Every version as recorded, less what was forgotten; every pair once."""
        lost = []
        for version in store.versions():
            ids = store.read(version.name, ["pair_id"])["pair_id"].to_pylist()
            if len(ids) != len(set(ids)):
                lost.append(f"{version.name} has a pair twice")
            if len(ids) != version.pairs:
                lost.append(f"{version.name} has {len(ids)} pairs, recorded are {version.pairs}")
            expected = self.sound.get(version.name)
            if expected is not None and set(ids) != expected - gone:
                lost.append(f"{version.name} has changed by {set(ids) ^ (expected - gone)}")
            if gone & set(ids):
                lost.append(f"{version.name} still has forgotten pairs")
        names = {version.name for version in store.versions()}
        if "prod" in self.sound and store.version("prod").name not in names:
            lost.append("prod is gone")
        return lost

    def check_runs(self, store: PairStore, gone: set[str]) -> list[str]:
        """Every finished run has its predictions; only forgetting takes some of them away."""
        lost, rows = [], open_table(store.uri, "predictions").to_table(filter="rank = 1")
        there = collections.Counter(rows["run_id"].to_pylist())
        for run in runs.list_runs(store):
            expected, found = self.recorded.get(run.run_id, run.predictions), there[run.run_id]
            if found > expected or (found < expected and not gone):
                lost.append(f"{run.run_id} has {found} predictions instead of {expected}")
            self.recorded[run.run_id] = found
        return lost

    def check_files(self, store: PairStore, content: pa.Table, gone: set[str]) -> list[str]:
        """No forgotten byte; and upkeep leaves nothing that it would remove the next time."""
        rows = content.filter(pc.is_in(content["pair_id"], pa.array(sorted(gone), pa.string())))
        lost = []
        self.forgotten = [*self.forgotten, rows][-ROUNDS_SOUGHT:]
        sought = pa.concat_tables(self.forgotten)
        if len(sought):
            report = scan(self.uri, Content(b"chaos", sought))
            lost += [f"forgotten content in {hit.file} ({hit.where})" for hit in report.hits]
            self.found += len(report.hits)
        maintenance.optimize(store, grace=timedelta(0))
        told = maintenance.info(store)
        left = told.bytes_reclaimable + told.bytes_waiting
        orphans = [file for file in Path(self.uri).rglob("*") if is_draft(file.name)]
        if orphans or left > 100_000:
            lost.append(f"upkeep leaves {left} bytes and {orphans}")
        return lost

    def remember(self, store: PairStore) -> None:
        """Takes the state in good order as the one to hold from here."""
        versions = [*(v.name for v in store.versions()), "prod"]
        reads = ((name, store.read(name, ["pair_id"])) for name in versions)
        self.sound = {name: frozenset(rows["pair_id"].to_pylist()) for name, rows in reads}

    def kill_migration(self, number: int, dice: random.Random) -> None:
        """Upgrades a fresh copy of an old database, killed on the way and then completed."""
        where = self.root / f"old{number}"
        with tarfile.open(OLD) as archive:
            archive.extractall(where, filter="data")
        (process,) = self.start([("migrate", number)], str(where / "db"))
        time.sleep(dice.random() * 0.06)
        kill(process)
        self.kills["migrate"] += 1
        run_migrations(str(where / "db"))
        store = PairStore.open(str(where / "db"))
        if [version.pairs for version in store.versions()] != [20, 30, 25]:
            self.losses.append(f"round {number} (migrate): {store.versions()}")
        shutil.rmtree(where)


def keep_small(store: PairStore) -> None:
    """Rounds take the same time at the end as at the beginning."""
    known = sorted(store.read(columns=["pair_id"])["pair_id"].to_pylist())
    if len(known) > MANY:
        store.delete(known[::2])
        store.publish(command="delete")
    if len(store.versions()) > MANY_VERSIONS:
        maintenance.prune_versions(store, keep_last=MANY_VERSIONS // 2)


def kill(process: BaseProcess) -> None:
    """SIGKILL, which nothing can catch."""
    process.kill()
    process.join()


def main() -> None:
    """Runs the rounds and prints the tally."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        os.environ["ASIF_LANCE_KEYS"] = f"{where}/keys"  # not the user's
        chaos = Chaos(Path(where), options.seed)
        chaos.set_up()
        chaos.run(options.rounds)
        receipts = load_receipts(chaos.uri)
    tally = {
        "rounds": options.rounds,
        "kills": sum(chaos.kills.values()),
        "by command": dict(chaos.kills),
        "forgets finished after a kill": sum(receipt.resumed for receipt in receipts),
        "forgets": len(receipts),
        "slowest opening, s": round(chaos.slowest, 2),
        "open models and recordings refused": chaos.refused,
        "losses": len(chaos.losses),
        "content found afterwards": chaos.found,
    }
    print(json.dumps(tally, indent=2))
    for loss in chaos.losses:
        print(loss, file=sys.stderr)
    sys.exit(1 if chaos.losses else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
