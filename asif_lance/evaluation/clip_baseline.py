"""A trained pair of encoders (CLIP) on the same labelled pictures, to compare with.

Any model of the sentence-transformers library that embeds pictures and texts into one space will
do: `clip-ViT-B-32`, or a folder. Pictures are classified as CLIP does it: by the nearest mean of a
class's prompt embeddings (Radford et al. 2021, section 3.1.4). Pairs are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from asif_lance.devices import pick_device
from asif_lance.encoders import decode_image, only_allowed_requests
from asif_lance.errors import EncoderUnavailableError, InputError
from asif_lance.evaluation.labelled_pictures import Labelled
from asif_lance.model import ClassNames, fill_templates, resolve_templates
from asif_lance.progress import track_batches
from asif_lance.records import BoolArray

if TYPE_CHECKING:
    from asif_lance.encoders.sentence_encoder import SentenceEncoder

_BATCH = 32


def load_clip(name: str, *, device: str = "auto") -> SentenceEncoder:
    """A CLIP.

    Args:
        name: a model of sentence-transformers, or a folder with one.
        device: where it runs.

    Raises:
        EncoderUnavailableError: it cannot be loaded here, or it embeds no pictures.
    """
    from asif_lance.encoders.sentence_encoder import (
        SentenceEncoder,  # slow to import, rarely needed
    )

    with only_allowed_requests():
        encoder = SentenceEncoder(name, pick_device(device))
    if not encoder.embeds_pictures:
        raise EncoderUnavailableError(f"{name} embeds texts only: it is no CLIP")
    return encoder


def check_clip(
    encoder: SentenceEncoder,
    labelled: Labelled,
    names: ClassNames,
    templates: str | Sequence[str],
) -> BoolArray:
    """(m,) which labelled pictures a CLIP gets right.

    Args:
        encoder: from `load_clip`.
        labelled: pictures, not vectors alone.
        names: the classes.
        templates: a named set, or templates.

    Raises:
        InputError: there are only vectors.
    """
    if not labelled.images:
        raise InputError("a CLIP needs pictures to compare with, not vectors")
    texts, owner = fill_templates(names, resolve_templates(templates)[0])
    prompts = encoder.encode(texts)
    classes = np.stack([prompts[owner == i].mean(axis=0) for i in range(len(names))])
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    best = np.concatenate(
        [
            (encoder.encode_pictures(list(map(decode_image, batch))) @ classes.T).argmax(axis=1)
            for at in track_batches("ask the CLIP", len(labelled.images), _BATCH)
            for batch in [labelled.images[at]]
        ]
    )
    answers = np.array(list(names), dtype=object)[best]
    correct: BoolArray = answers == np.array(labelled.truths, dtype=object)
    return correct.astype(np.bool_)
