"""The same pairs under other encoders: a new database with the same versions, ids and provenance.

Version by version, oldest first: what it has more than the one before is encoded, what it has less
is deleted, and then it gets its name. Run again after it was stopped, or after the old database has
gone on, it does what is left to do.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database import check_epoch, find_changes, open_table, resolve_uri
from asif_lance.encoders import encoder_name
from asif_lance.errors import IngestInterruptedError, InputError, format_count
from asif_lance.ingest.destination import Destination
from asif_lance.ingest.options import IngestOptions
from asif_lance.ingest.picture_pieces import PIECE_ROWS
from asif_lance.ingest.pipeline import UNCOMMITTED_ROWS, UNCOMMITTED_SECONDS
from asif_lance.ingest.preparation import Preparation, write_rejects
from asif_lance.ingest.stored_pairs import StoredPairs, StoredPictures
from asif_lance.progress import step
from asif_lance.records import EncoderPin, ModelVersion, Reject
from asif_lance.store import PairStore
from asif_lance.store.copying import copy_records
from asif_lance.store.forget import forget

_NO_IDS = pa.array([], pa.string())
_FORGOTTEN = "forgotten in the database that this one is encoded from"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReencodeOptions:
    """How to encode anew.

    Attributes:
        image_encoder, text_encoder: `timm/NAME`, `sentence-transformers/NAME`; the vectors of a
            side whose encoder is not named, or stays the same, are kept as they are.
        image_root: pictures are sought in this folder first.
        allow_missing: make versions without the pairs that cannot be encoded.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: pictures encoded at once.
        keys_folder: where the keys are that tell what was forgotten; by default the user's.
    """

    image_encoder: str | None = None
    text_encoder: str | None = None
    image_root: Path | None = None
    allow_missing: bool = False
    device: str = "auto"
    batch_size: int = 32
    keys_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class ReencodedVersion:
    """A version of the new database.

    Attributes:
        name: as in the old one.
        pairs: how many it has.
        missing: pairs of the old version that it lacks.
    """

    name: str
    pairs: int
    missing: int


@dataclass(frozen=True, slots=True)
class ReencodeReport:
    """What became of the pairs.

    Attributes:
        versions: those that are made, now or before; oldest first.
        unfinished: the version that is not made since pairs of it are missing, and how many; it
            has to wait, or `allow_missing` makes it without them.
        encoded: pairs that were encoded now.
        forgotten: pairs that the old database has forgotten since, and now the new one.
        rejects: pairs that could not be encoded, each once, by id.
        cut_captions: captions of which the encoder did not read the end.
    """

    versions: tuple[ReencodedVersion, ...]
    unfinished: tuple[str, int] | None
    encoded: int
    forgotten: int
    rejects: tuple[Reject, ...]
    cut_captions: int

    def write_rejects(self, path: Path) -> None:
        """Write the pairs that could not be encoded as CSV: source, item, reason."""
        write_rejects(self.rejects, path)


def reencode(uri: str | Path, new_uri: str | Path, options: ReencodeOptions) -> ReencodeReport:
    """Make a database of the same pairs and versions with other encoders, or go on with it.

    Ids, captions, sources, licences, attributes and times stay; versions keep their names,
    messages, times and aliases; receipts, waivers and rejects are taken over. Pictures are those
    that the database keeps, or files where they were; one whose bytes are known to be others by now
    is missing. What is done is committed every few hundred pairs.

    Args:
        uri: the database.
        new_uri: the new one, which may have been begun before.
        options: how.

    Raises:
        InputError: no encoder is another one, the new database holds something else, or the image
            root is no folder.
        EncoderMismatchError: the new database was begun with other encoders.
        EncoderUnavailableError: an encoder cannot be had.
        KeysError: the key is missing with which it could be told what was forgotten.
        DatabaseError: both databases have forgotten since, each its own.
        StaleModelError: pairs were forgotten meanwhile; running again goes on.
        IngestInterruptedError: a KeyboardInterrupt came; what was done is committed.
    """
    old, new_uri = PairStore.open(str(uri)), resolve_uri(str(new_uri))
    old.check_own("reencode")
    if new_uri == old.uri:
        raise InputError("the new database has to be another one")
    return _Reencoding(old, new_uri, options).run()


class _Reencoding:
    def __init__(self, old: PairStore, new_uri: str, options: ReencodeOptions) -> None:
        given = {"image": options.image_encoder, "text": options.text_encoder}
        asked = {side: encoder_name(side, one) for side, one in given.items()}
        pins = {"image": old.image, "text": old.text}
        self._sides = [side for side in pins if asked[side] not in (None, pins[side].name)]
        if not self._sides:
            raise InputError(
                f"name another encoder: {old.uri} has {old.image.name} and {old.text.name}"
            )
        names = {f"{side}_encoder": given[side] or pins[side].name for side in pins}
        self._old, self._options, self._epoch = old, options, old.epoch()
        self._pictures = StoredPictures(options.image_root)
        self._how = IngestOptions(
            **names,  # type: ignore[arg-type]
            device=options.device,
            batch_size=options.batch_size,
            on_conflict="update",
            keys_folder=options.keys_folder,
        )
        kept = [pins[side].name for side in pins if side not in self._sides]
        self._to = Destination(new_uri, self._how, pinned=kept)
        self._new = self._to.store or self._create(new_uri, pins)
        self._to.store = self._new
        self._rejects: dict[str, Reject] = {}
        self._encoded = self._cut = 0

    def _create(self, uri: str, pins: dict[str, EncoderPin]) -> PairStore:
        self._to.load(*self._sides)
        made = {"image": self._to.image_encoder.pin} if "image" in self._sides else {}
        made |= {"text": self._to.text_encoder.pin} if "text" in self._sides else {}
        return PairStore.create(uri, **{**pins, **made})

    def run(self) -> ReencodeReport:
        old, new = self._old.versions(), self._new.versions()
        self._check_lineage(old, new)
        copy_records(self._old, self._new)
        forgotten = self._forget_strangers(old, new)
        self._to.look_up_forgotten()
        versions = [self._compare(version.name) for version in new]
        unfinished = None
        for version in old[len(new) :]:
            missing = self._bring(versions[-1].name if versions else None, version.name)
            if missing and not self._options.allow_missing:
                unfinished = (version.name, missing)
                break
            self._publish(version)
            versions.append(self._compare(version.name))
        rejects = tuple(self._rejects.values())
        if unfinished is None:
            self._tag(old)
            self._new.add_rejects(uuid.uuid4().hex[:12], rejects)
        check_epoch(self._old.uri, self._epoch)
        return ReencodeReport(
            tuple(versions), unfinished, self._encoded, forgotten, rejects, self._cut
        )

    def _check_lineage(self, old: list[ModelVersion], new: list[ModelVersion]) -> None:
        """The new database's versions are the old one's first ones."""
        theirs = [(version.name, version.created_at) for version in old]
        for place, ours in enumerate(new):
            if theirs[place : place + 1] != [(ours.name, ours.created_at)]:
                raise InputError(
                    f"{self._new.uri} has a version {ours.name} that is none of {self._old.uri}: "
                    "name another place"
                )

    def _forget_strangers(self, old: list[ModelVersion], new: list[ModelVersion]) -> int:
        """Forgets in the new database what the old one has forgotten since; says how many pairs.

        Versions never change but by forgetting, so a pair that only the new one has was forgotten.
        At head it may also be somebody else's, if nothing was forgotten at all.
        """
        begun = [*new[-1:], *old[len(new) : len(new) + 1]]
        left = [_read_ids(self._old.dataset(version.name)) for version in begun]
        at_head = _without(_read_ids(self._head()), pa.concat_arrays([_NO_IDS, *left]))
        if len(at_head) and not self._new.epoch():
            raise InputError(
                f"{self._new.uri} has {format_count(len(at_head), 'pair')} that {self._old.uri} "
                "has not: name another place"
            )
        gone = set(at_head.to_pylist())
        for version in new:
            here, there = (_read_ids(s.dataset(version.name)) for s in (self._new, self._old))
            gone |= set(_without(here, there).to_pylist())
        if gone:
            folder = self._options.keys_folder
            forget(self._new, sorted(gone), reason=_FORGOTTEN, folder=folder)
        return len(gone)

    def _bring(self, before: str | None, version: str) -> int:
        """Makes head hold the pairs of a version; says how many it lacks.

        Args:
            before: the version that head held until then.
            version: the old database's.
        """
        state, head = self._old.dataset(version), _read_ids(self._head())
        wanted = _read_ids(state)
        if len(surplus := _without(head, wanted)):
            self._new.delete(surplus.to_pylist())
        new = _without(wanted, head)
        if before is not None:
            changed = find_changes(self._old.dataset(before), state).changed
            new = pa.concat_arrays([new, pa.array(changed, pa.string())]).unique()
        self._encode(version, state, _without(new, pa.array(self._rejects, pa.string())))
        return len(_without(wanted, _read_ids(self._head())))

    def _encode(self, version: str, state: lance.LanceDataset, ids: pa.Array) -> None:
        pairs = StoredPairs(self._old.uri, state, ids, self._sides, self._pictures)
        with step(f"encode pairs of {version}", len(ids)) as advance:
            prepared = Preparation(self._to, self._how, skip_known=True, progress=advance)
            waiting: list[pa.Table] = []
            try:
                for rows in _in_commits(map(pairs.keep, prepared.tables([pairs])), waiting):
                    self._add(rows)
            except KeyboardInterrupt as stop:
                self._add(pa.concat_tables(waiting)) if waiting else None
                if self._to.store is not None:
                    self._to.store.settle()
                raise IngestInterruptedError(self._encoded) from stop
        self._cut += prepared.cut_captions
        self._rejects |= {r.item: r for r in (*prepared.rejects, *pairs.rejects)}

    def _add(self, rows: pa.Table) -> None:
        check_epoch(self._old.uri, self._epoch)
        self._to.add(rows, replace=True)
        self._encoded += len(rows)

    def _publish(self, version: ModelVersion) -> None:
        check_epoch(self._old.uri, self._epoch)
        self._new.publish(
            command=version.command,
            message=version.message,
            like=version,
            looked_up=self._to.forgotten,
        )

    def _tag(self, old: list[ModelVersion]) -> None:
        here = {alias: v.name for v in self._new.versions() for alias in v.aliases}
        for version in old:
            for alias in version.aliases:
                if here.get(alias) != version.name:
                    self._new.tag(alias, version.name)

    def _compare(self, version: str) -> ReencodedVersion:
        here, there = (_read_ids(store.dataset(version)) for store in (self._new, self._old))
        return ReencodedVersion(version, len(here), len(_without(there, here)))

    def _head(self) -> lance.LanceDataset:
        return open_table(self._new.uri, "pairs")


def _in_commits(tables: Iterator[pa.Table], waiting: list[pa.Table]) -> Iterator[pa.Table]:
    """The rows, gathered until a kill would cost much; `waiting` has what is not handed on yet."""
    since = time.monotonic()
    for rows in tables:
        waiting.append(rows)
        late = time.monotonic() - since > UNCOMMITTED_SECONDS
        if late or sum(map(len, waiting)) >= UNCOMMITTED_ROWS - PIECE_ROWS:
            yield pa.concat_tables(waiting)
            waiting.clear()
            since = time.monotonic()
    if waiting:
        yield pa.concat_tables(waiting)
        waiting.clear()


def _read_ids(state: lance.LanceDataset) -> pa.Array:
    return state.to_table(columns=["pair_id"])["pair_id"].combine_chunks()


def _without(ids: pa.Array, others: pa.Array) -> pa.Array:
    return ids.filter(pc.invert(pc.is_in(ids, others)))
