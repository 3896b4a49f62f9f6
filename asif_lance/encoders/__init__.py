"""Pictures and texts become vectors, by frozen networks that are never trained here.

Importing this package registers `asif-timm` and `asif-sentence-transformers` with LanceDB, at once
or when LanceDB's embeddings are imported: a program that does not use them never loads LanceDB.
Promises: a vector depends on its own item, up to float noise; what cannot be used is an
`ImageError` with a short reason, and costs only itself. Weights are loaded as tensors, never as
pickles, and are fetched only where somebody allowed it. Never touches a database. Encoders may be
used by many threads at once.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from wrapt import when_imported

from asif_lance.encoders.by_name import (
    DEFAULT_IMAGE,
    DEFAULT_TEXT,
    encoder_name,
    image_encoder,
    text_encoder,
)
from asif_lance.encoders.cards import EncoderCard, read_card
from asif_lance.encoders.decoding import decode_image, read_bytes, sha256_of, upright_rgb
from asif_lance.encoders.downloads import allow_downloads, only_allowed_requests
from asif_lance.encoders.inside_files import read_picture
from asif_lance.encoders.own_encoders import (
    adopt_encoder,
    check_pinned,
    check_vectors,
    is_loaded_anywhere,
    register_encoder,
)
from asif_lance.encoders.parquet_files import (
    PARQUET_DAMAGE,
    PIECE_BYTES,
    ParquetRows,
    UnreadableRows,
    first_line,
)
from asif_lance.encoders.picture_files import (
    HeldPicture,
    ImageFile,
    LeftOut,
    PictureSource,
    encode_pictures,
    expand_folders,
    is_picture_name,
    picture_name,
    reject_picture,
    tell_left_out,
    to_image_item,
    walk_files,
    walk_pictures,
)
from asif_lance.encoders.picture_inputs import (
    PictureInput,
    PicturesInput,
    iterate_pictures,
    take_picture,
)
from asif_lance.encoders.precomputed import read_label_vectors, read_vectors
from asif_lance.encoders.protocols import ImageEncoder, ImageItem, TextEncoder
from asif_lance.encoders.streaming import (
    BatchEncoder,
    EncodedBatch,
    EncoderThreads,
    encode_each,
    encode_images,
    map_ahead,
    prepare_item,
)
from asif_lance.encoders.tar_files import Member, looks_like_tar, read_tar
from asif_lance.encoders.thumbnails import PICTURE, THUMBNAIL, make_thumbnail, shown_picture
from asif_lance.encoders.zip_files import ZIP_DAMAGE, open_zip, zip_members

if TYPE_CHECKING:
    from asif_lance.encoders.lancedb_functions import SentenceEmbeddings, TimmEmbeddings

# fmt: off
__all__ = [
    "DEFAULT_IMAGE", "DEFAULT_TEXT", "PARQUET_DAMAGE", "PICTURE", "PIECE_BYTES", "THUMBNAIL",
    "ZIP_DAMAGE", "BatchEncoder", "EncodedBatch", "EncoderCard", "EncoderThreads", "HeldPicture",
    "ImageEncoder", "ImageFile", "ImageItem", "LeftOut", "Member", "ParquetRows", "PictureInput",
    "PictureSource", "PicturesInput", "SentenceEmbeddings", "TextEncoder", "TimmEmbeddings",
    "UnreadableRows", "adopt_encoder", "allow_downloads", "check_pinned", "check_vectors",
    "decode_image", "encode_each", "encode_images", "encode_pictures", "encoder_name",
    "expand_folders", "first_line", "image_encoder", "is_loaded_anywhere", "is_picture_name",
    "iterate_pictures", "looks_like_tar", "make_thumbnail", "map_ahead", "only_allowed_requests",
    "open_zip", "picture_name", "prepare_item", "read_bytes", "read_card", "read_label_vectors",
    "read_picture", "read_tar", "read_vectors", "register_encoder", "reject_picture", "sha256_of",
    "shown_picture", "take_picture", "tell_left_out", "text_encoder", "to_image_item",
    "upright_rgb", "walk_files", "walk_pictures", "zip_members",
]
# fmt: on


@when_imported("lancedb.embeddings")
def _register_with_lancedb(_: ModuleType) -> None:
    from asif_lance.encoders import lancedb_functions  # noqa: F401  # importing it registers


def __getattr__(name: str) -> Any:
    """The classes that stand on LanceDB, which takes over a second to import."""
    if name not in {"SentenceEmbeddings", "TimmEmbeddings"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from asif_lance.encoders import lancedb_functions

    return getattr(lancedb_functions, name)
