"""What changed between two versions: pairs in, out and changed, and what became of answers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from asif_lance.database import Diff
from asif_lance.records import ModelVersion
from asif_lance.service.answers import SHOWN_LABELS, to_classified
from asif_lance.service.held_pictures import UploadedPicture
from asif_lance.service.messages import ComparedVersions, Counts, Influential, Since
from asif_lance.service.open_models import OpenModel
from asif_lance.service.operations import Operations
from asif_lance.service.requests import Question
from asif_lance.whatif import Influence, PredictionChange

#: Pairs that are named as what changed an answer most.
BECAUSE = 6

_DIFFS = 16  # kept; the ones not asked for longest go first


@dataclass(frozen=True, slots=True)
class _Found:
    """A difference with its ids as sets."""

    diff: Diff
    added: frozenset[str]
    removed: frozenset[str]

    @property
    def counts(self) -> Counts:
        changes = self.diff.changes
        return Counts(
            added=len(changes.added), removed=len(changes.removed), changed=len(changes.changed)
        )

    def state_of(self, pair_id: str) -> str:
        return "in" if pair_id in self.added else "out" if pair_id in self.removed else "both"


class VersionChanges:
    """Differences of versions, found once while they are asked for. Safe from threads."""

    def __init__(self, operations: Operations) -> None:
        """Compare versions of the database of these operations."""
        self._operations, self._models = operations, operations.models
        self._diffs: OrderedDict[tuple[ModelVersion, ModelVersion], _Found] = OrderedDict()
        self._lock = threading.Lock()

    def since(self, question: Question, picture: UploadedPicture, old: str) -> Since:
        """What became of a picture's answer since another version."""
        asked, how = self._operations.asked(question), question.comparison()
        vector = picture.vector[None]

        def compare(before: OpenModel, after: OpenModel) -> Since:
            first, second = (
                next(one.model.classify_vectors([picture.name], vector, one.labels(asked)))
                for one in (before, after)
            )
            change = PredictionChange(first, second)
            found = self._find(before.model.version, after.model.version)
            return Since(
                answer=to_classified(first, SHOWN_LABELS, picture.sha256),
                flips=change.flips,
                pairs=found.counts,
                because=[_to_influential(one, found) for one in change.because(BECAUSE)],
            )

        def open_new(before: OpenModel) -> Since:
            ask: Callable[[OpenModel], Since] = lambda after: compare(before, after)  # noqa: E731
            return self._models.answer(question.model, how, ask)

        return self._models.answer(old, how, open_new)

    def compare(self, old: str, new: str, limit: int) -> ComparedVersions:
        """The pairs that one version has and the other has not, or has otherwise.

        Raises:
            VersionNotFoundError: there is no such version.
        """
        before, after = self._models.store.version(old), self._models.store.version(new)
        found = self._find(before, after)
        changes, pairs = found.diff.changes, self._operations.pairs
        return ComparedVersions(
            old=before.name,
            new=after.name,
            pairs=found.counts,
            by_source={name: Counts(**n) for name, n in found.diff.by_source.items()},
            by_license={name: Counts(**n) for name, n in found.diff.by_license.items()},
            added=pairs(after.name, changes.added[:limit]).pairs,
            removed=pairs(before.name, changes.removed[:limit]).pairs,
            changed=pairs(after.name, changes.changed[:limit]).pairs,
        )

    def forget(self) -> None:
        """Keep nothing: it may name pairs that are gone."""
        with self._lock:
            self._diffs.clear()

    def _find(self, old: ModelVersion, new: ModelVersion) -> _Found:
        with self._lock:
            found = self._diffs.get((old, new))
            if found is None:
                while len(self._diffs) >= _DIFFS:
                    self._diffs.popitem(last=False)
                diff = self._models.store.diff(old.name, new.name)
                added, removed = map(frozenset, (diff.changes.added, diff.changes.removed))
                found = self._diffs[old, new] = _Found(diff, added, removed)
            self._diffs.move_to_end((old, new))
            return found


def _to_influential(one: Influence, found: _Found) -> Influential:
    return Influential(
        pair_id=one.pair_id,
        caption=one.caption or "",
        label=one.label,
        before=one.before,
        after=one.after,
        state=found.state_of(one.pair_id),  # type: ignore[arg-type]  # one of three
    )
