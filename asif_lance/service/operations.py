"""What a service does, without HTTP: each operation names the version that answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.encoders import decode_image, read_picture
from asif_lance.errors import ImageError, InputError, printable
from asif_lance.model import Model, Prediction
from asif_lance.records import Float32Array, Int64Array, Reject
from asif_lance.service.failures import RequestError
from asif_lance.service.held_pictures import HeldPictures, UploadedPicture, hash_of, shown_name
from asif_lance.service.messages import (
    Classified,
    DecidingLabel,
    Explained,
    FewestAnswer,
    FoundPair,
    LabelScore,
    Pair,
    PairsAnswer,
    PairShare,
    Question,
    Rejected,
    SearchAnswer,
)
from asif_lance.service.open_models import OpenModel, OpenModels
from asif_lance.service.question import Comparison
from asif_lance.service.settings import ServiceSettings
from asif_lance.service.shared_searches import SharedSearches
from asif_lance.whatif import (
    PredictionChange,
    compare_states,
    find_fewest_flip,
    without_pairs,
)

Made = TypeVar("Made")

#: Pixels of the long side of a picture, and of a thumbnail.
PICTURE, THUMBNAIL = 640, 160

#: Pairs that are taken out to flip an answer, and smaller sets of them that are tried.
MOST_FLIP, TRIES = 30, 300

#: Labels of a view.
SHOWN_LABELS = 10

_COLUMNS = ["pair_id", "caption", "captions", "source", "license", "image_sha256"]


class Operations:
    """Reading operations over the open models. Safe from threads."""

    def __init__(self, settings: ServiceSettings, observe: Callable[[int], None]) -> None:
        """Open the database.

        Raises:
            DatabaseError: there is none, or it cannot be used.
        """
        self.settings = settings
        self.models = OpenModels(settings.uri, settings.device)
        self.pictures = HeldPictures(settings.held_bytes)
        self.searches = SharedSearches(observe)

    # Pictures

    def hold(
        self, files: Sequence[tuple[str | None, bytes]]
    ) -> tuple[list[UploadedPicture], list[Rejected]]:
        """Encode uploaded files, each once, and hold them; those that cannot be used are told.

        Raises:
            InputError: none, too many, or a database without an encoder of pictures.
        """
        if not 0 < len(files) <= self.settings.pictures:
            raise InputError(f"give 1 to {self.settings.pictures} pictures, not {len(files)}")
        held, rejected = [], []
        for name, content in files:
            shown, sha256 = shown_name(name), hash_of(content)
            found = self.pictures.find(sha256)
            if found is None:
                rejects: list[Reject] = []
                _, vectors = self.models.encoding.encode([content], rejects=rejects)
                if rejects:
                    rejected.append(Rejected(image=shown, reason=rejects[0].reason))
                    continue
                found = UploadedPicture(sha256, shown, content, vectors[0])
                self.pictures.add(found)
            held.append(replace(found, name=shown))
        return held, rejected

    def vectors_of(
        self, hashes: Sequence[str], vectors: Sequence[Sequence[float]]
    ) -> tuple[list[str], Float32Array]:
        """Names and vectors of what a request asks about.

        Raises:
            InputError: both or none, too many, or vectors of several lengths.
            RequestError: a picture that is not held.
        """
        if bool(hashes) == bool(vectors):
            raise InputError("give pictures or vectors, one of the two")
        if len(hashes) + len(vectors) > self.settings.pictures:
            raise InputError(f"give at most {self.settings.pictures} pictures or vectors at once")
        if hashes:
            held = [self.pictures.get(sha256) for sha256 in hashes]
            return [picture.name for picture in held], np.stack([p.vector for p in held])
        if len({len(vector) for vector in vectors}) > 1:
            raise InputError("the vectors have different lengths")
        names = [f"vector {number}" for number in range(1, len(vectors) + 1)]
        return names, np.array(vectors, dtype=np.float32)

    # Answers

    def classify(
        self,
        question: Question,
        names: list[str],
        vectors: Float32Array,
        make: Callable[[Prediction], Made],
    ) -> list[Made]:
        """What a version says of (m, d) vectors, searched with whatever else is asked now.

        `make` makes the answers while the version is as it was searched.
        """
        asked = question.asked(self.settings.labels)

        def ask(opened: OpenModel) -> list[Made]:
            labels = opened.labels(asked)
            return [make(p) for p in self.searches.classify(opened, labels, names, vectors)]

        return self.models.answer(question.model, question.comparison(), ask)

    def compare_without(
        self,
        question: Question,
        without: Sequence[str],
        names: list[str],
        vectors: Float32Array,
        make: Callable[[PredictionChange], Made],
    ) -> tuple[str, int, list[Made]]:
        """The version, how many of some pairs it has, and what would change without them."""
        asked = question.asked(self.settings.labels)

        def ask(opened: OpenModel) -> tuple[str, int, list[Made]]:
            model = opened.model
            after, removed = without_pairs(model, without)
            changes = compare_states(model, after, names, vectors, opened.prompts(asked))
            return model.version.name, removed, list(map(make, changes))

        return self.models.answer(question.model, question.comparison(), ask)

    def explain(
        self, question: Question, picture: UploadedPicture, without: Sequence[str], pairs: int
    ) -> Explained:
        """One picture's answer taken apart, on request without some pairs."""
        names, vectors = [picture.name], picture.vector[None]
        if not without:
            (found,) = self.classify(
                question, names, vectors, lambda p: _explained(p, picture, pairs)
            )
            return found

        def make(change: PredictionChange) -> Explained:
            explained = _explained(change.after, picture, pairs)
            explained.answer.model = change.before.model
            explained.before = to_classified(change.before, SHOWN_LABELS, picture.sha256)
            return explained

        _, removed, (explained,) = self.compare_without(question, without, names, vectors, make)
        explained.without, explained.removed = list(without), removed
        return explained

    def fewest(self, question: Question, picture: UploadedPicture) -> FewestAnswer:
        """The fewest pairs found without which a picture has another label."""
        asked = question.asked(self.settings.labels)

        def ask(opened: OpenModel) -> FewestAnswer:
            model, prompts = opened.model, opened.prompts(asked)
            found = find_fewest_flip(model, picture.vector, prompts, most=MOST_FLIP, tries=TRIES)
            before = next(
                model.classify_vectors([""], picture.vector[None], opened.labels(asked))
            ).label
            return FewestAnswer(
                model=model.version.name,
                pairs=list(found.pair_ids) if found else [],
                exact=found is not None and found.exact,
                before=before,
                after=found.change.after.label if found else None,
            )

        return self.models.answer(question.model, question.comparison(), ask)

    def search_text(self, model: str, how: Comparison, text: str, top: int) -> SearchAnswer:
        """Pairs whose pictures fit a text."""
        return self.models.answer(model, how, lambda opened: _search(opened.model, text, top))

    def search_picture(
        self, model: str, how: Comparison, picture: UploadedPicture, top: int
    ) -> SearchAnswer:
        """Pairs whose captions fit a picture."""
        return self.models.answer(
            model, how, lambda opened: _search(opened.model, picture.content, top)
        )

    # Pairs

    def pairs(self, model: str, pair_ids: Sequence[str]) -> PairsAnswer:
        """Those of some pairs that a version has."""

        def ask(opened: OpenModel) -> PairsAnswer:
            rows = _rows_of(opened.model, pair_ids, _COLUMNS)
            found, name = [to_pair(row) for row in rows], opened.model.version.name
            return PairsAnswer(model=name, pairs=found, total=len(found), next=None)

        return self.models.answer(model, Comparison(), ask)

    def page_of_pairs(self, model: str, offset: int, limit: int) -> PairsAnswer:
        """The pairs of a version from an offset on, in the order of the table."""

        def ask(opened: OpenModel) -> PairsAnswer:
            anchors = opened.model.anchors
            live = np.flatnonzero(anchors.live)
            rows = anchors.rows(live[offset : offset + limit], _COLUMNS)
            end = offset + len(rows)
            return PairsAnswer(
                model=opened.model.version.name,
                pairs=[to_pair(row) for row in rows],
                total=len(live),
                next=end if end < len(live) else None,
            )

        return self.models.answer(model, Comparison(), ask)

    def thumbnail(self, model: str, pair_id: str) -> bytes | None:
        """A pair's picture, small, as JPEG; None if it has none that can be read here.

        Raises:
            RequestError: the version has no such pair.
        """
        rows = self.models.answer(
            model, Comparison(), lambda opened: _rows_of(opened.model, [pair_id], ["image_uri"])
        )
        if not rows:
            raise RequestError(404, f"{model} has no such pair")
        uri = rows[0]["image_uri"]
        try:
            return small_jpeg(read_picture(uri), THUMBNAIL) if uri else None
        except ImageError:
            return None


def small_jpeg(content: bytes, side: int) -> bytes:
    """A picture made small, as JPEG.

    Raises:
        ImageError: it cannot be read.
    """
    image, out = decode_image(content, min_side=side), BytesIO()
    image.thumbnail((side, side))
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


def to_classified(
    prediction: Prediction, top: int, sha256: str | None = None, explain: int = 0
) -> Classified:
    """A prediction as the API answers it, of the `top` best labels."""
    prompts = prediction.evidence.labels.prompts
    return Classified(
        image=printable(prediction.image),
        sha256=sha256,
        **{key: value for key, value in prediction.to_dict(top).items() if key in _SAID},
        templates=prompts.templates or None,
        ensemble=prompts.ensemble if prompts.templates else None,
        predictions=[LabelScore(label=x, score=score) for x, score in prediction.ranking[:top]],
        pairs=to_shares(prediction, prediction.label, explain) if explain else None,
    )


_SAID = ("model", "recipe", "k", "p")


def to_shares(prediction: Prediction, label: str, count: int) -> list[PairShare]:
    """The pairs that add most to a label's score, with source and license."""
    evidence = prediction.evidence
    found = evidence.attributions(label, count)
    positions = evidence.contributions(label, count).positions
    rows = evidence.anchors.rows(positions, ["source", "license"])
    return [
        PairShare(
            pair_id=one.pair_id,
            caption=one.caption,
            captions=list(one.captions),
            role=one.role,
            label=label,
            source=row["source"],
            license=row["license"],
            image_similarity=one.image_similarity,
            text_similarity=one.text_similarity,
            contribution=one.contribution,
        )
        for one, row in zip(found, rows, strict=True)
    ]


def to_pair(row: dict[str, Any]) -> Pair:
    """A row of the pairs table."""
    captions = row["captions"] or ([row["caption"]] if row["caption"] else [])
    return Pair(**{**row, "captions": captions})


def _explained(prediction: Prediction, picture: UploadedPicture, pairs: int) -> Explained:
    deciding = [
        DecidingLabel(label=label, score=score, pairs=to_shares(prediction, label, pairs))
        for label, score in prediction.ranking[:2]
    ]
    answer = to_classified(prediction, SHOWN_LABELS, picture.sha256)
    return Explained(answer=answer, deciding=deciding, before=None)


def _search(model: Model, asked: str | bytes, top: int) -> SearchAnswer:
    if isinstance(asked, str):
        found = model.search_text(asked, top=top)
    else:
        found = model.search_image(asked, top=top)
    return SearchAnswer(
        model=model.version.name,
        found=[FoundPair(pair_id=m.pair_id, caption=m.caption, score=m.score) for m in found],
    )


def _rows_of(model: Model, pair_ids: Sequence[str], columns: list[str]) -> list[dict[str, Any]]:
    """Columns of the live ones among some pairs."""
    anchors = model.anchors
    ids = anchors.pair_ids.combine_chunks()
    live = pc.if_else(pa.array(anchors.live), ids, None)
    found = pc.drop_null(pc.index_in(pa.array(pair_ids, pa.string()), value_set=live))
    positions: Int64Array = found.to_numpy().astype(np.int64)
    return anchors.rows(positions, columns)
