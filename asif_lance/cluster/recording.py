"""Pictures classified and recorded by many processes: each shard apart, and all as one run.

A worker classifies the pictures of a shard as one process would, writes what is recorded of them
as fragments of the tables of runs, and puts a manifest of these. The driver commits the fragments
of all shards, a table at a time; what has something of the run by then is not committed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from lance.fragment import FragmentMetadata

from asif_lance.anchors import Mapper
from asif_lance.audit import Run
from asif_lance.audit.run_rows import PREDICTION_TABLES, PredictionRows, finish_run, has_rows
from asif_lance.cluster.open_work import Fragments
from asif_lance.cluster.recording_plan import RecordingPlan, predictions_file
from asif_lance.database import append_fragments, close_ingest, storage_errors, write_rows_apart
from asif_lance.encoders import HeldPicture, read_bytes, read_vectors
from asif_lance.errors import DatabaseError
from asif_lance.model import LabelSet, Model, Prediction, average_prompts, share_model
from asif_lance.object_stores import is_there
from asif_lance.records import Float32Array, Reject

if TYPE_CHECKING:
    from asif_lance.cluster.tasks import Task


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run that several processes have recorded.

    Attributes:
        run: as `list_runs` has it.
        rejects: pictures that could not be used.
        dropped: ids of older runs that the retention rule dropped.
    """

    run: Run
    rejects: tuple[Reject, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordingManifest:
    """What became of the pictures of a shard.

    Attributes:
        fragments: of each table.
        predictions: how many there are.
        pairs_there: how many pairs the model had; 0 without a prediction.
        rejects: the pictures without one: source, item and reason.
    """

    fragments: Fragments
    predictions: int
    pairs_there: int
    rejects: list[tuple[str, str, str]]

    @staticmethod
    def read(path: Path) -> RecordingManifest:
        """One that was put."""
        return RecordingManifest(**json.loads(path.read_bytes()))

    def list_fragments(self, table: str) -> list[FragmentMetadata]:
        """The fragments of a table as Lance commits them."""
        found = self.fragments.get(table, [])
        return [FragmentMetadata.from_json(json.dumps(one)) for one in found]


@dataclass
class ShardRecorder:
    """A process at work for one recording; see `LoadedWork`."""

    plan: RecordingPlan
    _shared: Model | None = None

    @cached_property
    def model(self) -> Model:
        """What compares, here."""
        return self.plan.open_model()

    @cached_property
    def labels(self) -> LabelSet:
        """The label set, compiled."""
        return (self._shared or self.model).compile(self.plan.read_prompts())

    @cached_property
    def vectors(self) -> tuple[list[str], Float32Array]:
        """The ids and vectors that were given instead of pictures."""
        assert self.plan.vectors is not None
        return read_vectors(self.plan.vectors)

    def do(self, task: Task, mapper: Mapper | None, shards: int) -> None:
        """Classify and record one shard, unless somebody has done it; others search, if any do."""
        if mapper is not None and self._shared is None:
            self._shared = share_model(self.model, mapper, shards, encode=False)
        self.record(task.shards[0])

    def record(self, number: int) -> None:
        """Write the rows of a shard, and a manifest of them."""
        plan, rejects = self.plan, list[Reject]()
        if is_there(plan.folder / predictions_file(number)):
            return
        rows = PredictionRows(plan.run, self.model.store, plan.top, plan.pairs)
        first = plan.places(number).start
        for place, prediction in enumerate(self._predict(number, rejects), first):
            rows.add(prediction, place, plan.find_truth(prediction.image))
        count, kept, fragments = len(rows), False, Fragments()
        try:
            for table, own in rows.take().items():
                # Under the lock, so that nothing of what a forget takes out is written after it.
                with plan.writing():
                    plan.check_open()
                    written = write_rows_apart(plan.uri, table, own)
                fragments[table] = [fragment.to_json() for fragment in written]
            refused = [(one.source, one.item, one.reason) for one in rejects]
            manifest = RecordingManifest(fragments, count, rows.pairs_there, refused)
            text = json.dumps(asdict(manifest))
            kept = plan.put(predictions_file(number), lambda path: path.write_text(text))
        finally:
            if not kept:
                plan.remove_files(fragments)

    def _predict(self, number: int, rejects: list[Reject]) -> Iterable[Prediction]:
        model, at = self._shared or self.model, self.plan.places(number)
        if self.plan.vectors is not None:
            ids, vectors = self.vectors
            return model.classify_vectors(ids[at], vectors[at], self.labels)
        held = [self._hold(name) for name in self.plan.pictures[at]]
        return model.classify(held, self.labels, rejects=rejects)

    def _hold(self, name: str) -> HeldPicture:
        """A picture under the name that was given, wherever this process runs."""
        return HeldPicture(name, partial(read_bytes, Path(self.plan.folder_of_names, name)))


def commit_recording(plan: RecordingPlan) -> RecordedRun | None:
    """Adds all predictions that workers have written, as one run.

    Returns:
        The run. None where files are gone: then `list_tasks` has the shards that are to be done
        again.

    Raises:
        DatabaseError: a task is not done yet, or the recording is not open any more.
        StaleModelError: pairs were forgotten since it was planned.
        StorageError: the disk refused; calling again goes on.
    """
    with plan.writing(), storage_errors(plan.uri):
        plan.check_open()
        manifests = _read_manifests(plan)
        missing = [
            table
            for table, column in PREDICTION_TABLES.items()
            if not has_rows(plan.uri, table, column, plan.run.run_id)
        ]
        if void := _find_void(plan, manifests, missing):
            for number in void:
                (plan.folder / predictions_file(number)).unlink()
            return None
        for table in missing:
            fragments = [one for m in manifests for one in m.list_fragments(table)]
            append_fragments(plan.uri, table, fragments)
    run = replace(plan.run, predictions=sum(one.predictions for one in manifests))
    pairs_there = max(one.pairs_there for one in manifests)
    prompts = average_prompts(plan.read_prompts())
    dropped = finish_run(plan.open_store(), run, prompts, pairs_there, plan.epoch)
    close_ingest(plan.folder)
    rejects = tuple(Reject(*found) for one in manifests for found in one.rejects)
    return RecordedRun(run, rejects, tuple(dropped))


def _read_manifests(plan: RecordingPlan) -> list[RecordingManifest]:
    try:
        return [RecordingManifest.read(plan.folder / predictions_file(n)) for n in plan.shards]
    except FileNotFoundError as error:
        raise DatabaseError(
            f"{plan.uri}: not all shards of recording {plan.ingest_id} are done"
        ) from error


def _find_void(
    plan: RecordingPlan, manifests: list[RecordingManifest], missing: list[str]
) -> list[int]:
    """Shards of which files are gone that are still to be committed to some tables."""
    needed = [{table: one.fragments.get(table, []) for table in missing} for one in manifests]
    return [n for n in plan.shards if not all(map(is_there, plan.list_paths(needed[n])))]
