"""What a question needs: an encoder that is known, vectors of the right length."""

from __future__ import annotations

from asif_lance.errors import DimensionError, InputError
from asif_lance.records import BROUGHT, Float32Array


def name_encoder(uri: str, encoder_name: str, option: str) -> str:
    """The name of an encoder that can be loaded.

    Raises:
        InputError: it is not known: `option` brings what it would have made.
    """
    if encoder_name == BROUGHT:
        raise InputError(
            f"{uri} holds vectors that were brought along, no encoder is known for them: "
            f"use {option}, or name them with `asif-lance encoders`"
        )
    return encoder_name


def check_dimension(what: str, expected: int, vectors: Float32Array) -> None:
    """Pass matrices of vectors that can be compared.

    Raises:
        InputError: no matrix.
        DimensionError: vectors of another length.
    """
    if vectors.ndim != 2:
        raise InputError(f"{what}: expected a matrix, got {vectors.ndim} dimensions of array")
    if vectors.shape[1] != expected:
        raise DimensionError(what, expected, vectors.shape[1])
