"""The plan of a shared recording: its pictures in shards, its label set and its run, written once.

Its id is a hash of the pictures (with their sizes and times), the model version, the recipe and
the label set: so whoever asks for the same recording while it is open goes on with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from asif_lance.audit import Run
from asif_lance.audit.run_rows import LABELS, PAIRS, begin_run, check_limits, fingerprint
from asif_lance.cluster.open_work import (
    ID_LENGTH,
    RECORDING_PREFIX,
    OpenWork,
    begin_work,
    read_plan,
)
from asif_lance.database import PLAN_FILE, ROWS_PREFIX, list_open_ingests
from asif_lance.encoders import ImageFile, read_vectors
from asif_lance.errors import InputError
from asif_lance.model import Model, Prompts, average_prompts, to_matrix
from asif_lance.object_stores import fetch_file, is_there
from asif_lance.relative import Recipe, recipe_from_values

#: Pictures of a shard: a dead worker costs no more. A multiple of what is encoded at once, so that
#: batches are the same in any shard.
SHARD_PICTURES = 1024

_PROMPTS = "prompts.npz"


@dataclass(frozen=True, slots=True)
class RecordingPlan(OpenWork):
    """A run of predictions that several processes make and record.

    Attributes:
        run: what it will be; the number of its predictions is known at the end.
        recipe: that the model compares with.
        names: the labels.
        ensemble: how a class's prompts become one score.
        templates: how labels were asked, as `Prompts` has it.
        folder_of_names: where relative names of pictures begin.
        pictures: their names as given; none where vectors were.
        vectors: a Parquet file with ids and vectors, instead.
        count: how many pictures or vectors there are.
        shard_pictures: how many are a shard.
        top: labels recorded per picture; None for all.
        pairs: attributions recorded per label; None for all.
        truth_is_folder: whether the name of a picture's folder is recorded as its true label.
    """

    run: Run
    recipe: Recipe
    names: tuple[str, ...]
    ensemble: Any
    templates: str
    folder_of_names: Path
    pictures: tuple[str, ...]
    vectors: Path | None
    count: int
    shard_pictures: int
    top: int | None
    pairs: int | None
    truth_is_folder: bool
    kind: ClassVar[str] = "recording"

    @property
    def shards(self) -> range:
        """The numbers of all shards."""
        return range(-(-self.count // self.shard_pictures))

    def places(self, number: int) -> slice:
        """Which pictures, or vectors, are those of a shard."""
        return slice(number * self.shard_pictures, (number + 1) * self.shard_pictures)

    def open_model(self) -> Model:
        """What compares."""
        store = self.open_store()
        return Model(store, store.version(self.run.model), self.recipe)

    def find_truth(self, name: str) -> str | None:
        """The true label of a picture of this name, if it is known."""
        path = Path(self.folder_of_names, name)
        return path.parent.name if self.truth_is_folder else None

    def read_prompts(self) -> Prompts:
        """The label set, not yet compared with any pair."""
        with fetch_file(self.folder / _PROMPTS) as file, np.load(file, allow_pickle=False) as found:
            owner, vectors = found["owner"], found["vectors"]
        return Prompts(self.names, owner, vectors, self.ensemble, self.templates)


def plan_recording(
    model: Model,
    prompts: Prompts,
    *,
    pictures: Sequence[ImageFile] = (),
    vectors: Path | None = None,
    top: int | None = LABELS,
    pairs: int | None = PAIRS,
    truth_is_folder: bool = False,
    shard_pictures: int = SHARD_PICTURES,
) -> RecordingPlan:
    """Plans the classification of many pictures, or finds the same one that is open.

    Args:
        model: an opened version that searches exactly; nothing of it is searched here.
        prompts: the labels, from the model's `prompts`.
        pictures: files that all workers see.
        vectors: a Parquet file with `id` and `vector`, instead of pictures.
        top: labels recorded per picture, best first; None for all.
        pairs: attributions recorded per label, largest first; None for all.
        truth_is_folder: the name of a picture's folder is its true label.
        shard_pictures: so many pictures are a shard.

    Raises:
        InputError: no pictures and no vectors, or such as cannot be shared.
        DimensionError: vectors of another length.
    """
    check_limits(top, pairs)
    names, count = _list_names(model, pictures, vectors)
    if vectors is not None:
        vectors = Path(vectors).expanduser().absolute()
    asked = {
        "recipe": model.recipe.as_values(),
        "names": list(prompts.names),
        "ensemble": prompts.ensemble,
        "templates": prompts.templates,
        "folder_of_names": str(Path.cwd()),
        "pictures": names,
        "vectors": None if vectors is None else str(vectors),
        "count": count,
        "shard_pictures": shard_pictures,
        "top": top,
        "pairs": pairs,
        "truth_is_folder": truth_is_folder,
    }
    store = model.store
    files = [_describe(Path(name)) for name in names] if vectors is None else [_describe(vectors)]
    told = [asked, files, model.version.name, fingerprint(prompts)]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    run = begin_run(average_prompts(prompts), model.recipe, model.version.name)
    plan = {**asked, "commit_id": run.run_id, "epoch": store.epoch(), "run": _run_as_json(run)}
    recording_id = RECORDING_PREFIX + digest[:ID_LENGTH]
    write = partial(_write_prompts, prompts)
    begin_work(store, recording_id, plan, {_PROMPTS: write})
    return load_recording(store.uri, recording_id)


def _list_names(
    model: Model, pictures: Sequence[ImageFile], vectors: Path | None
) -> tuple[list[str], int]:
    """The names of pictures, and how many pictures or vectors there are, if they can be shared."""
    if model.approximate is not None:
        raise InputError("only predictions of exact search are recorded: what-if relies on them")
    if (vectors is None) == (not pictures):
        raise InputError("give pictures, or a file of vectors, one of the two")
    if vectors is None:
        return [_check_file(picture) for picture in pictures], len(pictures)
    matrix = read_vectors(vectors)[1]
    return [], len(to_matrix("image vectors", model.store.image.dimension, matrix))


def load_recording(uri: str, recording_id: str) -> RecordingPlan:
    """An open recording.

    Raises:
        DatabaseError: there is none of this id.
    """
    found = read_plan(uri, recording_id)
    run = found.pop("run")
    return RecordingPlan(
        uri=uri,
        ingest_id=recording_id,
        run=Run(**{**run, "created_at": datetime.fromisoformat(run["created_at"])}),
        recipe=recipe_from_values(found.pop("recipe")),
        names=tuple(found.pop("names")),
        pictures=tuple(found.pop("pictures")),
        folder_of_names=Path(found.pop("folder_of_names")),
        vectors=None if (vectors := found.pop("vectors")) is None else Path(vectors),
        **found,
    )


def list_recordings(uri: str | Path) -> list[RecordingPlan]:
    """All recordings of a database that are open; `abandon` gives one up."""
    found = (path for path in list_open_ingests(str(uri)) if is_there(path / PLAN_FILE))
    names = [path.name for path in found]
    return [load_recording(str(uri), name) for name in names if name.startswith(RECORDING_PREFIX)]


def predictions_file(number: int) -> str:
    """The file with the manifest of a shard."""
    return f"{ROWS_PREFIX}{number:06d}.json"


def _check_file(picture: ImageFile) -> str:
    """The name of a picture that other processes can read."""
    if not isinstance(picture, str | Path):
        raise InputError("only pictures in files can be classified by several processes")
    return str(picture)


def _describe(path: Path) -> list[Any] | None:
    """What tells a file from what it becomes when it changes; None where it cannot be read."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _run_as_json(run: Run) -> dict[str, Any]:
    return {**asdict(run), "created_at": run.created_at.isoformat()}


def _write_prompts(prompts: Prompts, path: Path) -> None:
    np.savez(path, owner=prompts.owner, vectors=prompts.vectors)
