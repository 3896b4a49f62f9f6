"""One model version: classifies images, retrieves across modes, attributes scores to pairs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from asif_lance.anchors import Anchors, Approximation
from asif_lance.arguments import COUNT, LIST, instance_of, take_texts, takes
from asif_lance.database import AttachedState, retry_read
from asif_lance.devices import pick_device
from asif_lance.encoders import (
    ImageEncoder,
    ImageFile,
    PictureInput,
    PicturesInput,
    TextEncoder,
    encode_pictures,
    expand_folders,
    image_encoder,
    iterate_pictures,
    take_picture,
    text_encoder,
)
from asif_lance.errors import EmptyModelError, InputError, StaleModelError
from asif_lance.model.clip_interface import ClipInterface
from asif_lance.model.label_compiler import compile_prompts
from asif_lance.model.label_ranking import LabelRanking
from asif_lance.model.labels import (
    DEFAULT_TEMPLATES,
    Ensemble,
    LabelSet,
    NamesInput,
    Prompts,
    check_text,
    fill_templates,
    list_names,
    parse_ensemble,
    prompts_from_vectors,
    resolve_templates,
)
from asif_lance.model.prediction_lists import Predictions
from asif_lance.model.predictions import Evidence, Prediction
from asif_lance.model.prompt_vectors import EncodedTexts, encode_prompts
from asif_lance.model.requirements import check_labels, name_encoder, to_matrix
from asif_lance.model.retrieval import Match, retrieve, score_pairs
from asif_lance.model.teaching import teach_labels
from asif_lance.progress import step, track_batches
from asif_lance.records import (
    SPARE,
    Float32Array,
    Float64Array,
    ModelVersion,
    Neighbors,
    Reject,
    RelativeVectors,
)
from asif_lance.relative import Recipe, best_scores, relative_vectors, single_vector
from asif_lance.relative import scores as relative_scores
from asif_lance.search import unit_queries
from asif_lance.store import PairStore

#: Vectors classified at once: bounds what a long list of them holds in memory.
BATCH = 1024

#: Scores of pictures with prompts that are held at once.
SCORES_AT_ONCE = 2**24

#: Pictures searched at once: one per this many anchors, and no more than the limit. More need fewer
#: passes over the anchors, but delay the first answers.
ANCHORS_PER_PICTURE, SEARCH_BATCH = 1000, 256


class Model(ClipInterface):
    """The pairs of one version with the encoders that made their vectors.

    Encoders and anchors are loaded at first use. Reading is safe from several threads. Whatever
    answers raises `StaleModelError` once pairs of the version were forgotten: see `reopened`.

    Attributes:
        store: the database.
        version: the model version.
        recipe: how it compares.
        ensemble: how a class's prompts become one score by default.
        templates: the default prompt templates.
        approximate: how pictures are compared if not with all anchors.
    """

    def __init__(
        self,
        store: PairStore,
        version: ModelVersion,
        recipe: Recipe,
        *,
        ensemble: Ensemble = "max",
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        device: str = "auto",
        memory_limit: int | None = None,
        approximate: Approximation | None = None,
    ) -> None:
        self.store, self.version, self.recipe = store, version, recipe
        self.ensemble, self.templates, self.approximate = ensemble, templates, approximate
        self._memory_limit, self._device = memory_limit, pick_device(device)
        self._anchors: Anchors | None = None

    def __repr__(self) -> str:
        """One line, with what its answers name."""
        return f"Model({self.store.uri!r}, {self.version.name!r}, {self.recipe})"

    def __copy__(self) -> Model:
        """The same over the same vectors and encoders, where unpickling opens the version anew."""
        other = Model(self.store, self.version, self.recipe)
        vars(other).update(vars(self))
        return other

    @takes(recipe=instance_of("a Recipe of asif_lance.relative", Recipe))
    def under(self, recipe: Recipe) -> Model:
        """The same version under another recipe; vectors and encoders are shared."""
        self.anchors  # noqa: B018  # so that the copy has them
        other = copy.copy(self)
        other.recipe = recipe
        return other

    def with_anchors(self, name: str, anchors: Anchors) -> Model:
        """A state of this name that compares with other anchors; encoders are shared."""
        other = copy.copy(self)
        other.version = replace(self.version, name=name)
        other._anchors = anchors
        return other

    def reopened(self) -> Model:
        """The same version as it is stored now, whatever was read before; encoders are shared.

        What to do about `StaleModelError`; label sets have to be compiled anew.

        Raises:
            VersionNotFoundError: it was pruned.
        """
        other = copy.copy(self)
        other.version = self.store.version(self.version.name)
        other._anchors = None
        return other

    @property
    def anchors(self) -> Anchors:
        """Both matrices of this version, opened at first use.

        Raises:
            EmptyModelError: the version has no pairs.
        """
        if self._anchors is None:
            anchors = retry_read(self.store.uri, self._open_anchors)
            if not anchors.count:
                there = self.store.attachment
                raise EmptyModelError(self.version.name, there and there.table)
            self._anchors = anchors
        return self._anchors

    def _open_anchors(self) -> Anchors:
        epoch = self.store.epoch()
        return Anchors(
            self.store.dataset(self.version.name),
            device=str(self._device),
            memory_limit=self._memory_limit,
            epoch=epoch,
        )

    def left_out(self) -> dict[str, int]:
        """Rows of somebody else's table that are no pairs, counted by reason; none of our own."""
        stored = self.anchors.dataset
        return stored.left_out() if isinstance(stored, AttachedState) else {}

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        """The encoder that made the image vectors."""
        name = name_encoder(self.store.uri, "image", self.store.image.name, "--vectors")
        return image_encoder(name, device=str(self._device))

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The encoder that made the caption vectors."""
        name = name_encoder(self.store.uri, "text", self.store.text.name, "--label-vectors")
        return text_encoder(name, device=str(self._device))

    def labels(
        self,
        names: NamesInput,
        templates: str | Sequence[str] | None = None,
        ensemble: Ensemble | None = None,
    ) -> LabelSet:
        """Compile class names × templates (or a named set of them) against this version.

        Raises:
            InputError: unusable names or templates.
        """
        return self.compile(self.prompts(names, templates, ensemble))

    def prompts(
        self,
        names: NamesInput,
        templates: str | Sequence[str] | None = None,
        ensemble: Ensemble | None = None,
    ) -> Prompts:
        """Embed class names × templates, not yet compared with any pair.

        Raises:
            InputError: unusable names or templates.
        """
        names = list_names(names)
        filled, name = resolve_templates(self.templates if templates is None else templates)
        texts, owner = fill_templates(names, filled)
        found = self.encode_texts(texts)
        kind = parse_ensemble(ensemble or self.ensemble)
        return Prompts(tuple(names), owner, found.vectors, kind, name, found.cut, found.max_tokens)

    def encode_texts(self, texts: str | Sequence[str]) -> EncodedTexts:
        """Embed texts with the model's text encoder, which is loaded unless they are kept.

        A string is one text, never a row of letters.
        """
        pin, listed = self.store.text, take_texts("texts", texts)
        for text in listed:
            check_text("text", text)
        return encode_prompts(self.store.uri, pin, lambda: self.text_encoder, listed)

    def label_vectors(
        self, vectors: Mapping[str, Float32Array], ensemble: Ensemble | None = None
    ) -> LabelSet:
        """Compile labels given as embeddings: label -> (d,) or (prompts, d) float32."""
        return self.compile(
            prompts_from_vectors(vectors, parse_ensemble(ensemble or self.ensemble))
        )

    def compile(self, prompts: Prompts) -> LabelSet:
        """Compile prompts against this version."""
        to_matrix("label vectors", self.store.text.dimension, prompts.vectors)
        labels = compile_prompts(prompts, self.anchors, self.recipe, self.version.name)
        return teach_labels(labels, self.anchors)

    @takes(rejects=LIST.or_none, batch_size=COUNT)
    def classify(
        self,
        images: PicturesInput,
        labels: LabelSet | NamesInput,
        *,
        rejects: list[Reject] | None = None,
        batch_size: int = 32,
    ) -> Predictions[Prediction]:
        """Classify pictures, in order, in batches.

        Args:
            images: one or several, see `PictureInput`; a folder's path stands for the pictures in
                it and below.
            labels: from `labels` of this very model, or class names, which are compiled first.
            rejects: gathers the pictures that cannot be used; without it the first one raises.
            batch_size: pictures encoded at once.

        Raises:
            ImageError: a picture cannot be used and `rejects` was not given.
            InputError: no pictures, or unusable labels.
        """
        pictures = expand_folders(iterate_pictures(images), rejects)
        label_set = labels if isinstance(labels, LabelSet) else self.labels(labels)
        return Predictions(self._classify_pictures(pictures, label_set, rejects, batch_size))

    def _classify_pictures(
        self,
        pictures: Iterator[ImageFile],
        labels: LabelSet,
        rejects: list[Reject] | None,
        batch_size: int,
    ) -> Iterator[Prediction]:
        together = max(min(self.anchors.count // ANCHORS_PER_PICTURE, SEARCH_BATCH), 1)
        batches = encode_pictures(self.image_encoder, pictures, rejects, batch_size, together)
        for names, vectors in batches:
            yield from self.classify_vectors(names, vectors, labels)

    @takes(rejects=LIST.or_none, batch_size=COUNT)
    def encode(
        self,
        images: PicturesInput,
        *,
        rejects: list[Reject] | None = None,
        batch_size: int = 32,
    ) -> tuple[list[str], Float32Array]:
        """Embed pictures with the model's image encoder: names and (m, d) float32.

        Args and errors are those of `classify`.
        """
        pictures = expand_folders(iterate_pictures(images), rejects)
        names: list[str] = []
        parts = [np.empty((0, self.store.image.dimension), dtype=np.float32)]
        encoded = encode_pictures(self.image_encoder, pictures, rejects, batch_size)
        count = len(images) if isinstance(images, list | tuple) else None
        with step("encode pictures", count) as advance:
            for usable, vectors in encoded:
                names += usable
                parts.append(vectors)
                advance(len(usable))
        return names, np.concatenate(parts)

    def classify_vectors(
        self, ids: Sequence[str], vectors: Float32Array, labels: LabelSet
    ) -> Iterator[Prediction]:
        """Classify image embeddings: (m, d) float32, of any length but not zero.

        Raises:
            DimensionError, InvalidVectorError: vectors that cannot be compared.
            InputError: the label set belongs to another version or recipe.
            StaleModelError: pairs of the version were forgotten since it was opened.
        """
        check_labels(labels, self.version.name, self.recipe)
        if labels.state != self.anchors.state:
            raise StaleModelError(
                self.store.uri,
                f"{labels.version} was reopened since the label set was compiled: compile it again",
            )
        vectors = to_matrix("image vectors", self.store.image.dimension, vectors)
        ids = take_texts("ids", ids)
        if len(ids) != len(vectors):
            raise InputError(f"{len(ids):,} ids for {len(vectors):,} vectors")
        size = max(min(BATCH, SCORES_AT_ONCE // max(labels.compiled.count, 1)), 1)
        for batch in track_batches("classify vectors", len(ids), size):
            yield from self._classify_batch(ids[batch], unit_queries(vectors[batch]), labels)

    @takes(top=COUNT, candidates=COUNT.or_none)
    def search_text(
        self, text: str, *, top: int = 10, candidates: int | None = None
    ) -> list[Match]:
        """The pictures of this version that fit a text best; see `retrieve`."""
        if not "".join(take_texts("text", text)).strip():
            raise InputError("the text to search for is empty")
        vector = self.encode_texts([text]).vectors
        return retrieve(self.anchors, self.recipe, "text", vector, top, candidates)

    def score_pairs(self, text: str, pair_ids: Sequence[str]) -> Float64Array:
        """How well the picture of each of m pairs fits a text; 0 for those not in this version."""
        vector = self.encode_texts([text]).vectors
        return score_pairs(self.anchors, self.recipe, vector, take_texts("pair_ids", pair_ids))

    @takes(top=COUNT, candidates=COUNT.or_none)
    def search_image(
        self, image: PictureInput, *, top: int = 10, candidates: int | None = None
    ) -> list[Match]:
        """The captions of this version that fit a picture best; as `search_text`."""
        picture = take_picture(image, "search_image")
        ((_, vectors),) = encode_pictures(self.image_encoder, [picture], None, 1)
        vector = unit_queries(vectors)
        return retrieve(self.anchors, self.recipe, "image", vector, top, candidates)

    def _classify_batch(
        self, ids: Sequence[str], queries: Float32Array, labels: LabelSet
    ) -> Iterator[Prediction]:
        if self.approximate is None:
            neighbors = self.neighbors(queries, spare=SPARE)
            return self.classify_neighbors(ids, queries, neighbors, labels)
        self.anchors.check_current()
        relative = self.approximate(self.anchors, self.recipe, queries, labels.compiled)
        return self._score(ids, queries, relative, np.empty((len(queries), 0), "f4"), labels)

    def neighbors(self, queries: Float32Array, *, spare: int = 0) -> Neighbors:
        """The anchors most similar to (m, d) unit image queries: the recipe's k, and some more."""
        recipe = self.recipe
        return self.anchors.top_k("image", queries, recipe.k[0] + spare, measure=recipe.measures[0])

    def classify_neighbors(
        self,
        ids: Sequence[str],
        queries: Float32Array,
        neighbors: Neighbors,
        labels: LabelSet,
    ) -> Iterator[Prediction]:
        """Classify m unit queries whose nearest image anchors, k or more of them, are known."""
        k, similarities = self.recipe.k[0], neighbors.similarities
        nearest = Neighbors(neighbors.indices[:, :k], similarities[:, :k])
        relative = relative_vectors(nearest, self.recipe.p[0], len(self.anchors))
        return self._score(ids, queries, relative, similarities, labels)

    def _score(
        self,
        ids: Sequence[str],
        queries: Float32Array,
        relative: RelativeVectors,
        similarities: Float32Array,
        labels: LabelSet,
    ) -> Iterator[Prediction]:
        prompt_scores = relative_scores(relative, labels.compiled)
        scores = best_scores(prompt_scores, labels.owner)
        if labels.taught is not None:
            scores = labels.taught.teaching.add(scores, queries)
        for i, name in enumerate(ids):
            vector = single_vector(relative, i)
            found = queries[i], similarities[i], vector, prompt_scores[i]
            ranking = LabelRanking(labels.names, scores[i])
            made_of = Evidence(self.anchors, labels, *found)
            yield Prediction(name, self.version.name, self.recipe, ranking, made_of)
