"""Pairs about four things, for tests of what is learned from pairs alone."""

from __future__ import annotations

import numpy as np
import polars as pl
from conftest import IMAGE_DIM, TEXT_DIM, pairs_frame

KINDS = 4


def things(
    rng: np.random.Generator,
    count: int,
    copies: int = 1,
    noise: float = 1.0,
    width: int = IMAGE_DIM,
) -> tuple[pl.DataFrame, dict]:
    """Pairs about four things, each picture in several pairs, and a prompt for each thing."""
    image, text = (rng.standard_normal((KINDS, d)).astype(np.float32) for d in (width, TEXT_DIM))
    kinds = np.arange(count) % KINDS
    apart = noise * rng.standard_normal((count, width))
    pictures = image[kinds] + apart.astype(np.float32)
    captions = text[np.repeat(kinds, copies)]
    captions = captions + 0.5 * rng.standard_normal(captions.shape).astype(np.float32)
    frame = pairs_frame(count * copies, rng).with_columns(
        image_vector=np.repeat(pictures, copies, axis=0), text_vector=captions
    )
    return frame, {f"c{i}": text[i] for i in range(KINDS)}
