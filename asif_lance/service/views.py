"""Views of pictures: an answer taken apart, without pairs, beside another version or picture."""

from __future__ import annotations

from asif_lance.evaluation import Calibration
from asif_lance.model import Prediction
from asif_lance.service.answers import SHOWN_LABELS, to_classified, to_explained
from asif_lance.service.held_pictures import UploadedPicture
from asif_lance.service.messages import Classified, Explained, SeveralAnswer
from asif_lance.service.operations import Operations
from asif_lance.service.queries import SeveralQuery, ViewQuery
from asif_lance.service.requests import Question
from asif_lance.service.version_changes import VersionChanges
from asif_lance.whatif import PredictionChange


class Views:
    """Makes views of held pictures. Safe from threads."""

    def __init__(self, operations: Operations, changes: VersionChanges) -> None:
        """Show what these operations answer."""
        self._operations, self._changes = operations, changes

    def explain(self, picture: UploadedPicture, query: ViewQuery) -> Explained:
        """A picture's answer with all that the query asks for.

        Raises:
            RequestError: the pinned picture is not held.
        """
        view = self._without(picture, query) if query.without else self._whole(picture, query)
        here = query.model_copy(update={"model": view.answer.model})
        if query.since is not None and query.since != view.answer.model:
            view.since = self._changes.since(here.question(), picture, query.since)
        if query.pin is not None:
            view.pinned = self._pinned(here, query.pin)
        return view

    def several(self, query: SeveralQuery) -> SeveralAnswer:
        """The answers of several pictures, on request beside those of another version."""
        names, vectors = self._operations.vectors_of(query.picture, [])

        def ask(question: Question) -> list[Classified]:
            found: list[Classified] = self._operations.classify(
                question,
                names,
                vectors,
                lambda p, calibration: to_classified(p, SHOWN_LABELS, None, 0, calibration),
                confidence=True,
            )
            for answer, sha256 in zip(found, query.picture, strict=True):
                answer.sha256 = sha256
            return found

        answers = ask(query.question())
        since = [] if query.since is None else ask(query.question(query.since))
        pairs = zip(answers, since, strict=False)
        flips = sum(a.predictions[0].label != b.predictions[0].label for a, b in pairs)
        return SeveralAnswer(model=answers[0].model, answers=answers, since=since, flips=flips)

    def _whole(self, picture: UploadedPicture, query: ViewQuery) -> Explained:
        (found,) = self._operations.classify(
            query.question(),
            [picture.name],
            picture.vector[None],
            lambda p, calibration: to_explained(p, picture, query.pairs, calibration),
            confidence=True,
        )
        return found

    def _without(self, picture: UploadedPicture, query: ViewQuery) -> Explained:
        """The same without some pairs; probabilities are calibrated on the version as it is."""

        def make(change: PredictionChange, calibration: Calibration | None) -> Explained:
            view = to_explained(change.after, picture, query.pairs, calibration)
            view.answer.model = change.before.model
            view.before = to_classified(change.before, SHOWN_LABELS, picture.sha256)
            return view

        _, removed, (view,) = self._operations.compare_without(
            query.question(),
            query.without,
            [picture.name],
            picture.vector[None],
            make,
            confidence=True,
        )
        view.without, view.removed = list(query.without), removed
        return view

    def _pinned(self, query: ViewQuery, sha256: str) -> Classified:
        pinned = self._operations.pictures.get(sha256)

        def make(prediction: Prediction, calibration: Calibration | None) -> Classified:
            return to_classified(prediction, SHOWN_LABELS, sha256, 0, calibration)

        names, vectors = [pinned.name], pinned.vector[None]
        (found,) = self._operations.classify(
            query.question(), names, vectors, make, confidence=True
        )
        return found
