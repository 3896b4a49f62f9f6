"""Uploaded pictures, held in memory under the hash of their bytes, so that views have addresses."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from asif_lance.errors import printable
from asif_lance.records import Float32Array
from asif_lance.service.failures import RequestError

_NAME = 200

# What browsers write in a multipart form for what may not stand in a file's name there.
_ENCODED = {"%22": '"', "%0D": "\r", "%0A": "\n"}


@dataclass(frozen=True, slots=True)
class UploadedPicture:
    """One picture that somebody asks about.

    Attributes:
        sha256: of its bytes, in hex; its address.
        name: as it was uploaded first, for people.
        content: its bytes.
        vector: (d,) float32, its embedding.
    """

    sha256: str
    name: str
    content: bytes
    vector: Float32Array


class HeldPictures:
    """The pictures uploaded last, as many as fit; nothing of them is written. Safe from threads."""

    def __init__(self, most_bytes: int) -> None:
        """Hold up to that many bytes."""
        self._most, self._bytes = most_bytes, 0
        self._pictures: OrderedDict[str, UploadedPicture] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, sha256: str) -> UploadedPicture | None:
        """The picture of this hash, if it is held."""
        with self._lock:
            found = self._pictures.get(sha256)
            if found is not None:
                self._pictures.move_to_end(sha256)
            return found

    def get(self, sha256: str) -> UploadedPicture:
        """The picture of this hash.

        Raises:
            RequestError: it is not held, or not any more.
        """
        found = self.find(sha256)
        if found is None:
            raise RequestError(404, "this picture is not held here any more: upload it again")
        return found

    def add(self, picture: UploadedPicture) -> None:
        """Hold a picture; the ones not asked for longest go if there is no room."""
        with self._lock:
            if picture.sha256 in self._pictures:
                return
            self._pictures[picture.sha256] = picture
            self._bytes += len(picture.content)
            while self._bytes > self._most and len(self._pictures) > 1:
                _, gone = self._pictures.popitem(last=False)
                self._bytes -= len(gone.content)

    def drop(self, hashes: Collection[str]) -> None:
        """Hold these no longer."""
        with self._lock:
            for sha256 in hashes:
                gone = self._pictures.pop(sha256, None)
                self._bytes -= len(gone.content) if gone else 0


def hash_of(content: bytes) -> str:
    """The address of a picture."""
    return hashlib.sha256(content).hexdigest()


def shown_name(name: str | None) -> str:
    """A file's name as it may be shown, without folders that some programs send along."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    for code, character in _ENCODED.items():
        last = last.replace(code, character)
    return printable(last[:_NAME]) or "picture"
