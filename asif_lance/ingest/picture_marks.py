"""Marks inside of pictures by which their rights are reserved: XMP and C2PA manifests.

Nothing is fetched: a manifest that lies elsewhere is not read.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from asif_lance.encoders import PictureSource, read_bytes
from asif_lance.errors import ImageError
from asif_lance.progress import note

# Properties in XMP packets, as elements or attributes: of the TDM Reservation Protocol, and of IPTC
# by the vocabulary of PLUS.
_TDM = re.compile(rb"""tdm:reservation(?:>|\s*=\s*["'])\s*1\b""")
_PLUS = re.compile(rb"plus:DataMining\b[^<]{0,200}?DMI-PROHIBITED")
# Where packets and manifests begin.
_XMP, _C2PA = b"<x:xmpmeta", b"c2pa"

# The assertions of C2PA, and of the group that has taken them over.
_TRAINING = re.compile(r"(c2pa|cawg)\.training-mining\b")


def find_picture_marks(pictures: Sequence[PictureSource]) -> list[str | None]:
    """The marks of each picture, such as `c2pa_ai_training, tdm_reservation`; None without any."""
    return [", ".join(sorted(set(_marks(picture)))) or None for picture in pictures]


def _marks(picture: PictureSource) -> Iterator[str]:
    try:
        content = read_bytes(picture)
    except ImageError:  # whoever encodes it will tell
        return
    if _XMP in content:
        if _TDM.search(content):
            yield "tdm_reservation"
        if _PLUS.search(content):
            yield "plus_data_mining"
    if _C2PA in content:
        with suppress(AttributeError, TypeError):  # a manifest of another form
            yield from _c2pa_marks(content)


def _c2pa_marks(content: bytes) -> Iterator[str]:
    """Uses that a manifest does not allow without more ado."""
    for manifest in (_read_manifests(content) or {}).values():
        for assertion in manifest.get("assertions") or ():
            if _TRAINING.match(str(assertion.get("label"))):
                entries = (assertion.get("data") or {}).get("entries") or {}
                for name, entry in entries.items():
                    if entry.get("use") != "allowed":
                        yield "c2pa_" + re.sub(r"\W+", "_", str(name).partition(".")[2])


def _read_manifests(content: bytes) -> dict[str, Any] | None:
    """All manifests inside of a picture; None where there is none, or none can be read."""
    reader = _reader()
    if reader is None:
        return None
    library, context = reader
    try:
        with library.Reader(None, io.BytesIO(content), context=context) as read:
            found: dict[str, Any] = json.loads(read.json())["manifests"]
            return found
    except (library.C2paError, ValueError, KeyError):
        return None


@cache
def _reader() -> Any:
    """The library and its settings, or None where it is not installed, which is told once."""
    try:
        import c2pa
    except ImportError:
        note("C2PA manifests of pictures are not read: pip install 'asif-lance[c2pa]'")
        return None
    offline = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    return c2pa, c2pa.Context(c2pa.Settings.from_dict(offline))
