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
from asif_lance.errors import ImageError, InputError
from asif_lance.evaluation import Calibration
from asif_lance.model import Model, Prediction
from asif_lance.records import Float32Array, Int64Array, Reject
from asif_lance.service.answers import PAIR_COLUMNS, to_pair
from asif_lance.service.failures import RequestError
from asif_lance.service.held_pictures import HeldPictures, UploadedPicture, hash_of, shown_name
from asif_lance.service.messages import FewestAnswer, FoundPair, PairsAnswer, Rejected, SearchAnswer
from asif_lance.service.open_models import OpenModel, OpenModels
from asif_lance.service.question import Asked, ChosenRecipe
from asif_lance.service.requests import PackedVectors, Question
from asif_lance.service.settings import ServiceSettings
from asif_lance.service.shared_searches import SharedSearches, Wanted
from asif_lance.whatif import (
    PredictionChange,
    compare_states,
    find_fewest_flip,
    without_pairs,
)

Made = TypeVar("Made")

#: Pixels of the long side of a picture, and of a thumbnail.
PICTURE, THUMBNAIL = 640, 160

#: Pairs that are taken out to flip an answer, smaller sets of them that are tried, and seconds.
MOST_FLIP, TRIES, FLIP_SECONDS = 30, 300, 10.0


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
        self.searches = SharedSearches(self.models, observe)

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
        self, hashes: Sequence[str], vectors: Sequence[Sequence[float]] | PackedVectors
    ) -> tuple[list[str], Float32Array]:
        """Names and vectors of what a request asks about.

        Raises:
            InputError: both or none, too many, or vectors of several lengths.
            RequestError: a picture that is not held.
        """
        given: Sequence[Sequence[float]] | Float32Array = (
            vectors.unpack() if isinstance(vectors, PackedVectors) else vectors
        )
        if bool(hashes) == bool(len(given)):
            raise InputError("give pictures or vectors, one of the two")
        if len(hashes) + len(given) > self.settings.pictures:
            raise InputError(f"give at most {self.settings.pictures} pictures or vectors at once")
        if hashes:
            held = [self.pictures.get(sha256) for sha256 in hashes]
            return [picture.name for picture in held], np.stack([p.vector for p in held])
        if len({len(vector) for vector in given}) > 1:
            raise InputError("the vectors have different lengths")
        names = [f"vector {number}" for number in range(1, len(given) + 1)]
        return names, np.array(given, dtype=np.float32)

    def asked(self, question: Question) -> Asked:
        """The labels of a question, within the limits."""
        return question.asked(self.settings.labels)

    # Answers

    def classify(
        self,
        question: Question,
        names: list[str],
        vectors: Float32Array,
        make: Callable[[Prediction, Calibration | None], Made],
        *,
        confidence: bool = False,
    ) -> list[Made]:
        """What a version says of (m, d) vectors, searched with whatever else is asked now.

        `make` makes the answers while the version is as it was searched, from predictions and what
        they are calibrated by, if confidence is asked for and the pairs are enough.
        """
        how, asked = question.comparison(), self.asked(question)
        wanted = Wanted(question.model, how, asked, vectors.shape[1])

        def ask() -> list[Made]:
            opened, found = self.searches.classify(wanted, names, vectors)
            calibration = opened.calibration(asked) if confidence else None
            return [make(prediction, calibration) for prediction in found]

        return self.models.try_again(ask)

    def compare_without(
        self,
        question: Question,
        without: Sequence[str],
        names: list[str],
        vectors: Float32Array,
        make: Callable[[PredictionChange, Calibration | None], Made],
        *,
        confidence: bool = False,
    ) -> tuple[str, int, list[Made]]:
        """The version, how many of some pairs it has, and what would change without them."""
        asked = self.asked(question)

        def ask(opened: OpenModel) -> tuple[str, int, list[Made]]:
            model = opened.model
            calibration = opened.calibration(asked) if confidence else None
            after, removed = without_pairs(model, without)
            changes = compare_states(model, after, names, vectors, opened.prompts(asked))
            return model.version.name, removed, [make(change, calibration) for change in changes]

        return self.models.answer(question.model, question.comparison(), ask)

    def fewest(self, question: Question, picture: UploadedPicture) -> FewestAnswer:
        """The fewest pairs found without which a picture has another label."""
        asked = self.asked(question)

        def ask(opened: OpenModel) -> FewestAnswer:
            model, prompts = opened.model, opened.prompts(asked)
            limits: Any = {"most": MOST_FLIP, "tries": TRIES, "seconds": FLIP_SECONDS}
            found = find_fewest_flip(model, picture.vector, prompts, **limits)
            before = next(
                model.classify_vectors([""], picture.vector[None], opened.labels(asked))
            ).label
            return FewestAnswer(
                model=model.version.name,
                pairs=list(found.pair_ids) if found else [],
                exact=found is not None and found.exact,
                at_least=found.at_least if found else None,
                before=before,
                after=found.change.after.label if found else None,
            )

        return self.models.answer(question.model, question.comparison(), ask)

    def search_text(self, model: str, how: ChosenRecipe, text: str, top: int) -> SearchAnswer:
        """Pairs whose pictures fit a text."""
        return self.models.answer(model, how, lambda opened: _search(opened.model, text, top))

    def search_picture(
        self, model: str, how: ChosenRecipe, picture: UploadedPicture, top: int
    ) -> SearchAnswer:
        """Pairs whose captions fit a picture."""
        return self.models.answer(
            model, how, lambda opened: _search(opened.model, picture.content, top)
        )

    # Pairs

    def pairs(self, model: str, pair_ids: Sequence[str]) -> PairsAnswer:
        """Those of some pairs that a version has."""

        def ask(opened: OpenModel) -> PairsAnswer:
            rows = _rows_of(opened.model, pair_ids, PAIR_COLUMNS)
            found, name = [to_pair(row) for row in rows], opened.model.version.name
            return PairsAnswer(model=name, pairs=found, total=len(found), next=None)

        return self.models.answer(model, ChosenRecipe(), ask)

    def thumbnail(self, model: str, pair_id: str) -> bytes | None:
        """A pair's picture, small, as JPEG; None if it has none that can be read here.

        Raises:
            RequestError: the version has no such pair.
        """
        rows = self.models.answer(
            model, ChosenRecipe(), lambda opened: _rows_of(opened.model, [pair_id], ["image_uri"])
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
