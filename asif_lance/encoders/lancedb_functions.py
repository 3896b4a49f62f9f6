"""Both encoders as LanceDB embedding functions, `asif-timm` and `asif-sentence-transformers`.

Importing this module registers them; no model is loaded before it is used.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from lancedb.embeddings import EmbeddingFunction, register

from asif_lance.encoders.by_name import DEFAULT_IMAGE, DEFAULT_TEXT, image_encoder, text_encoder
from asif_lance.encoders.protocols import ImageEncoder, ImageItem, TextEncoder
from asif_lance.encoders.streaming import encode_images
from asif_lance.errors import ImageError

# LanceDB makes a new function object for every add and search: they share the loaded models.
_shared_image_encoder = lru_cache(maxsize=2)(image_encoder)
_shared_text_encoder = lru_cache(maxsize=2)(text_encoder)


class _LocalEmbeddings(EmbeddingFunction):  # type: ignore[misc]  # lancedb ships no types
    """Common to both sides: LanceDB retries what fails, but a local failure is final."""

    device: str = "auto"

    def compute_source_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> Any:
        return self.compute_source_embeddings(*args, **kwargs)

    def compute_query_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> Any:
        return self.compute_query_embeddings(*args, **kwargs)


@register("asif-timm")
class TimmEmbeddings(_LocalEmbeddings):
    """Embeds a LanceDB column of images (paths or encoded bytes) with `image_encoder(name)`."""

    name: str = DEFAULT_IMAGE

    def ndims(self) -> int:
        """Length of the vectors."""
        return self._encoder().pin.dimension

    def compute_source_embeddings(self, images: Any) -> list[list[float] | None]:
        """One vector per image; None, and a warning, for one that cannot be used.

        LanceDB's `on_bad_vectors` decides what becomes of those rows (by default: an error).
        """
        items = [_image_item(image) for image in self.sanitize_input(images)]
        vectors: list[list[float] | None] = []
        for batch in encode_images(self._encoder(), items):
            for row in batch.rows:
                if isinstance(row, ImageError):
                    warnings.warn(f"image {len(vectors)} of this batch: {row}", stacklevel=2)
                vectors.append(None if isinstance(row, ImageError) else batch.vectors[row].tolist())
        return vectors

    def compute_query_embeddings(self, query: Any) -> list[list[float]]:
        """The vector of one image: a path, encoded bytes, or a PIL image.

        Raises:
            ImageError: it cannot be used.
        """
        (batch,) = encode_images(self._encoder(), [_image_item(query)])
        if isinstance(batch.rows[0], ImageError):
            raise batch.rows[0]
        vectors: list[list[float]] = batch.vectors.tolist()
        return vectors

    def _encoder(self) -> ImageEncoder:
        return _shared_image_encoder(self.name, device=self.device)


@register("asif-sentence-transformers")
class SentenceEmbeddings(_LocalEmbeddings):
    """Embeds a LanceDB column of captions with `text_encoder(name)`."""

    name: str = DEFAULT_TEXT

    def ndims(self) -> int:
        """Length of the vectors."""
        return self._encoder().pin.dimension

    def compute_source_embeddings(self, texts: Any) -> list[list[float] | None]:
        """One vector per text; None for a null."""
        texts = self.sanitize_input(texts)
        vectors = iter(self._encoder().encode([text for text in texts if text is not None]))
        return [None if text is None else next(vectors).tolist() for text in texts]

    def compute_query_embeddings(self, query: str) -> list[list[float] | None]:
        """The vector of one text, in a list."""
        return self.compute_source_embeddings([query])

    def _encoder(self) -> TextEncoder:
        return _shared_text_encoder(self.name, device=self.device)


def _image_item(image: Any) -> ImageItem:
    """What LanceDB hands over, as an item; a null counts as an empty file."""
    return Path(image) if isinstance(image, str) else image or b""
