"""A model in the shape of a CLIP: code that is written for those runs on it unchanged.

`encode_image` and `encode_text` give dense relative vectors, of the model's own recipe. Their dot
products are its scores; a class of several prompts gets the mean of its vectors, as under the
ensemble `mean-relative`. What examples teach belongs to a label set and is not in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asif_lance.anchors import Anchors
from asif_lance.arguments import take_texts
from asif_lance.encoders import (
    ImageEncoder,
    PictureInput,
    prepare_item,
    take_picture,
    to_image_item,
)
from asif_lance.errors import InputError
from asif_lance.forks import check_not_forked
from asif_lance.model.label_compiler import find_prompt_neighbors
from asif_lance.model.prompt_vectors import EncodedTexts
from asif_lance.model.requirements import to_matrix
from asif_lance.records import Float32Array, RelativeVectors
from asif_lance.relative import Recipe, densify, relative_vectors
from asif_lance.search import unit_queries

_END = -1  # after the last byte of a text that is shorter than others


class ClipInterface(ABC):
    """What CLIP-shaped code asks for, of something that has encoders, anchors and a recipe."""

    recipe: Recipe
    store: Any

    @property
    @abstractmethod
    def anchors(self) -> Anchors:
        """Both matrices."""

    @property
    @abstractmethod
    def image_encoder(self) -> ImageEncoder:
        """The encoder of pictures."""

    @abstractmethod
    def encode_texts(self, texts: str | Sequence[str]) -> EncodedTexts:
        """Embed texts."""

    def preprocess(self, image: PictureInput) -> Tensor:
        """A picture as `encode_image` takes it, of one shape for all: a data set's transform.

        Raises:
            ImageError: it cannot be used.
            InputError: it is not one picture.
        """
        picture = take_picture(image, "preprocess")
        return prepare_item(self.image_encoder, to_image_item(picture))

    def tokenizer(self, texts: str | Sequence[str]) -> Tensor:
        """Texts as `encode_text` takes them: a row of UTF-8 bytes each, filled up with -1.

        The text encoder cuts them into its own tokens.
        """
        coded = (list(text.encode("utf-8", "replace")) for text in take_texts("texts", texts))
        rows = [torch.tensor(row, dtype=torch.int16) for row in coded]
        if not rows:
            return torch.empty((0, 0), dtype=torch.int16)
        return pad_sequence(rows, batch_first=True, padding_value=_END)

    def encode_image(self, batch: Tensor) -> Tensor:
        """(b, n) float32 relative vectors of pictures that `preprocess` made, over n anchors.

        Raises:
            InputError: they are of another shape or kind.
            ForkedProcessError: the model was opened before this process was forked.
        """
        check_not_forked()
        if not isinstance(batch, Tensor):
            kind = type(batch).__name__
            raise InputError(f"encode_image takes a tensor of what `preprocess` made, not {kind}")
        self._check_prepared(batch)
        with torch.autocast(batch.device.type, enabled=False):
            found = densify(self.relate_images(self.image_encoder.encode(batch)))
        return torch.from_numpy(found).to(batch.device)

    def _check_prepared(self, batch: Tensor) -> None:
        if hasattr(self.image_encoder, "decode"):
            return  # only the encoder knows what it takes
        blank = self.preprocess(Image.new("RGB", (1, 1)))
        if batch.shape[1:] != blank.shape or batch.dtype != blank.dtype:
            raise InputError(
                f"encode_image takes what `preprocess` of the model made, {blank.dtype} of shape "
                f"(b, {', '.join(map(str, blank.shape))}), not {batch.dtype} of shape "
                f"{tuple(batch.shape)}; `encode` takes pictures of any kind"
            )

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(t, n) float32 relative vectors of texts that `tokenizer` made, over n anchors.

        Raises:
            InputError: they are another tokenizer's.
        """
        if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.dtype != torch.int16:
            raise InputError("encode_text takes what `tokenizer` of the model made")
        rows = tokens.cpu().tolist()
        texts = [bytes(byte for byte in row if byte != _END).decode() for row in rows]
        with torch.autocast(tokens.device.type, enabled=False):
            found = densify(self.relate_texts(self.encode_texts(texts).vectors))
        return torch.from_numpy(found).to(tokens.device)

    def relate_images(self, vectors: Float32Array) -> RelativeVectors:
        """The relative vectors of (m, d) image embeddings, of any length but not zero.

        Raises:
            DimensionError, InvalidVectorError: vectors that cannot be compared.
        """
        matrix = to_matrix("image vectors", self.store.image.dimension, vectors)
        k, p, measure = self.recipe.k[0], self.recipe.p[0], self.recipe.measures[0]
        near = self.anchors.top_k("image", unit_queries(matrix), k, measure=measure)
        return relative_vectors(near, p, len(self.anchors))

    def relate_texts(self, vectors: Float32Array) -> RelativeVectors:
        """The relative vectors of (m, d) embeddings of texts; as `relate_images`."""
        matrix = to_matrix("text vectors", self.store.text.dimension, vectors)
        k, p, measure = self.recipe.k[1], self.recipe.p[1], self.recipe.measures[1]
        near = find_prompt_neighbors(self.anchors, unit_queries(matrix), k, measure=measure)
        return relative_vectors(near, p, len(self.anchors))
