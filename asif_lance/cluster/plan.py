"""The plan of a shared ingest: its shards, options and encoders, written once.

Its id is a hash of the sources (with their sizes and times), the options and the encoders' pins: so
whoever asks for the same ingest while it is open goes on with it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asif_lance.cluster.open_work import (
    ID_LENGTH,
    RECORDING_PREFIX,
    OpenWork,
    begin_work,
    read_plan,
)
from asif_lance.database import PLAN_FILE, list_open_ingests, open_table
from asif_lance.errors import InputError, SourceError, printable
from asif_lance.ingest import (
    Destination,
    IngestOptions,
    PictureList,
    Preparation,
    Source,
    SourceParts,
    expand_sources,
    source_name,
    split_source,
)
from asif_lance.object_files import describe_state, is_object, list_objects, open_place
from asif_lance.object_stores import is_there, remove_folder
from asif_lance.store import PairStore

#: Rows of a shard where sources can be cut so: a dead worker costs no more, and a fragment holds
#: them. A multiple of what readers give at once, so that batches are the same in any shard.
SHARD_ROWS = 9 * 1024


@dataclass(frozen=True, slots=True)
class Shard:
    """Some consecutive items, which one process reads.

    Attributes:
        number: of its source, among all.
        source: what is read.
        state: of the objects that it lies in, when it was planned; "" where it is no object.
    """

    number: int
    source: SourceParts | PictureList
    state: str = ""

    def check_unchanged(self) -> None:
        """Passes while its objects are what they were when the ingest was planned.

        Raises:
            SourceError: they are not, or cannot be looked at.
        """
        if not self.state or isinstance(self.source, PictureList):
            return
        file, place = self.source.parts[0][0], open_place(self.source.source)
        place, what = place / file if file else place, "has changed"
        try:
            if describe_state(place) == self.state:
                return
        except FileNotFoundError:
            what = "is gone"
        except OSError as error:
            what = f"cannot be read ({error.strerror})"
        name = printable(str(place))
        raise SourceError(f"{name} {what} since the ingest was planned: run it again to plan anew")


@dataclass(frozen=True, slots=True)
class Plan(OpenWork):
    """An ingest that several processes share.

    Attributes:
        shards: in the order of the sources.
        options: how to ingest.
        message: of the version.
        head: the Lance version of the pairs when it was planned.
    """

    shards: tuple[Shard, ...]
    options: IngestOptions
    message: str
    head: int

    @property
    def alone(self) -> bool:
        """Whether there is a single source, which fails as a whole if it cannot be read."""
        return self.shards[-1].number == 0


def plan_ingest(
    uri: str | Path,
    sources: Sequence[Any],
    options: IngestOptions | None = None,
    *,
    shard_rows: int = SHARD_ROWS,
) -> Plan:
    """Plans an ingest, or finds the same one that is open, and makes the database when missing.

    Args:
        uri: the database, in a folder that all workers see or in an object store.
        sources: as for `ingest_sources`; none that is in memory.
        options: likewise, except `on_conflict`, `checks` and `waiver`, which take one process.
        shard_rows: about as many rows are a shard, where a source can be cut.

    Raises:
        SourceError: a source cannot be read, or nothing in them can be a pair.
        InputError: sources or options that cannot be shared.
        EncoderMismatchError, EncoderUnavailableError, StorageError: as for `ingest_sources`.
        StaleModelError: pairs were forgotten while it was planned.
    """
    options, sources = options or IngestOptions(), expand_sources(sources)
    _check_options(options)
    if not sources:
        raise InputError("there are no sources")
    cut = [split_source(source, options.format, shard_rows) for source in sources]
    shards = tuple(one for number, parts in enumerate(cut) for one in _as_shards(number, parts))
    store = _open_or_make(str(uri), sources, options)
    described = {
        "sources": [_describe(source) for source in sources],
        "shards": [_shard_as_json(shard) for shard in shards],
        "options": _options_as_json(options),
        "encoders": [asdict(store.image), asdict(store.text)],
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    plan = {
        **described,
        "message": options.message or ", ".join(map(source_name, sources)),
        "commit_id": uuid.uuid4().hex,
        "epoch": store.epoch(),
        "head": open_table(store.uri, "pairs").version,
    }
    ingest_id = digest[:ID_LENGTH]
    begin_work(store, ingest_id, plan)
    return load_plan(store.uri, ingest_id)


def load_plan(uri: str, ingest_id: str) -> Plan:
    """An open ingest.

    Raises:
        DatabaseError: there is none of this id.
    """
    found = read_plan(uri, ingest_id)
    return Plan(
        uri=uri,
        ingest_id=ingest_id,
        commit_id=found["commit_id"],
        shards=tuple(map(_shard_from_json, found["shards"])),
        options=_options_from_json(found["options"]),
        message=found["message"],
        epoch=found["epoch"],
        head=found["head"],
    )


def list_plans(uri: str | Path) -> list[Plan]:
    """All ingests of a database that are open."""
    found = (path for path in list_open_ingests(str(uri)) if is_there(path / PLAN_FILE))
    names = [path.name for path in found]
    return [load_plan(str(uri), name) for name in names if not name.startswith(RECORDING_PREFIX)]


def abandon(plan: OpenWork) -> None:
    """Gives an open ingest or recording up; upkeep frees what it has written."""
    with plan.writing(current=False), suppress(FileNotFoundError):
        remove_folder(plan.folder)


def _check_options(options: IngestOptions) -> None:
    """Passes what comes out the same wherever items are read."""
    refused = {
        "--on-conflict": options.on_conflict != "skip",
        "--check": bool(options.checks),
        "--allow-forgotten and --without-key": options.waiver is not None,
    }
    for name, given in refused.items():
        if given:
            raise InputError(f"{name}: not for an ingest that several processes share")


def _open_or_make(uri: str, sources: Sequence[Source], options: IngestOptions) -> PairStore:
    """The database; a new one is for the encoders of the first pairs, and has none of them yet."""
    destination = Destination(uri, options)
    if destination.store is not None:
        return destination.store
    prepared = Preparation(destination, options)
    with closing(prepared.tables(sources)) as tables:
        first = next(tables, None)
    if first is None:
        why = "".join(f": {one.item}: {one.reason}" for one in prepared.rejects[:1])
        raise SourceError(f"nothing in the sources can be a pair{why}")
    return destination.open_for(first)


def _describe(source: Source) -> list[Any]:
    """What tells a source from another, and from what it becomes when it changes."""
    if isinstance(source, PictureList):
        return [str(source.folder), *map(str, source.files)]
    if is_object(source):
        return [str(source)]  # its shards have their states
    path = Path(str(source)).expanduser().absolute()
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def _as_shards(number: int, parts: Sequence[SourceParts | PictureList]) -> Iterator[Shard]:
    """The parts of a source, with the states of the objects in which they lie.

    Raises:
        SourceError: the store refused.
    """
    first, states = parts[0], dict[str, str]()
    if isinstance(first, SourceParts) and is_object(first.source):
        place, lies_in_files = open_place(first.source), bool(first.parts[0][0])
        try:
            states = list_objects(place) if lies_in_files else {"": describe_state(place)}
        except FileNotFoundError:  # for which reading it has the words
            pass
        except OSError as error:
            raise SourceError(f"{first.source} cannot be read ({error.strerror})") from error
    for part in parts:
        file = part.parts[0][0] if isinstance(part, SourceParts) else ""
        yield Shard(number, part, states.get(file, ""))


# As JSON


def _shard_as_json(shard: Shard) -> dict[str, Any]:
    if isinstance(shard.source, PictureList):
        files = list(map(str, shard.source.files))
        return {"number": shard.number, "folder": str(shard.source.folder), "files": files}
    found = {"number": shard.number, "source": shard.source.source, "parts": shard.source.parts}
    return found | ({"state": shard.state} if shard.state else {})


def _shard_from_json(found: dict[str, Any]) -> Shard:
    if "files" in found:
        files = tuple(map(Path, found["files"]))
        return Shard(found["number"], PictureList(Path(found["folder"]), files))
    parts = tuple((file, tuple(span) if span else None) for file, span in found["parts"])
    return Shard(found["number"], SourceParts(found["source"], parts), found.get("state", ""))


def _options_as_json(options: IngestOptions) -> dict[str, Any]:
    found = asdict(options)
    return {key: str(one) if isinstance(one, Path) else one for key, one in found.items()}


def _options_from_json(found: dict[str, Any]) -> IngestOptions:
    paths = {key: Path(found[key]) for key in ("image_root", "keys_folder") if found[key]}
    return IngestOptions(**{**found, **paths, "require": tuple(found["require"])})
