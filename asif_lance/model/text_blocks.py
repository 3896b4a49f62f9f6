"""Keeps a label set's relative vectors in memory up to a limit, the rest in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import IO, Any

import numpy as np

from asif_lance.errors import StorageError
from asif_lance.relative import TextBlock

#: Bytes that one label set may occupy in memory; at k = 800 those of 100,000 prompts.
BYTES_IN_MEMORY = 2**29

_ARRAYS = ("anchors", "starts", "values", "texts")  # the widest numbers first: all are aligned
_ALIGNED = 8


@dataclass(frozen=True, slots=True)
class _StoredBlock:
    """Where a block lies in the file: its begin, and the kind and length of each array."""

    begin: int
    arrays: tuple[tuple[np.dtype[Any], int], ...]
    count: int


class TextBlocks:
    """Blocks of texts in order; those beyond `BYTES_IN_MEMORY` lie in a file.

    The file has no name, so it goes with the process. A block of it is mapped while somebody holds
    the block, and occupies no memory afterwards.
    """

    def __init__(self) -> None:
        self._blocks: list[TextBlock | _StoredBlock] = []
        self._file: IO[bytes] | None = None
        self._size = 0

    def append(self, block: TextBlock) -> None:
        """Add a block.

        Raises:
            StorageError: there is no room for the temporary file.
        """
        self._size += sum(getattr(block, name).nbytes for name in _ARRAYS)
        self._blocks.append(block if self._size <= BYTES_IN_MEMORY else self._store(block))

    def __iter__(self) -> Iterator[TextBlock]:
        """The blocks, one after the other."""
        for block in self._blocks:
            yield self._map(block) if isinstance(block, _StoredBlock) else block

    def _store(self, block: TextBlock) -> _StoredBlock:
        arrays = [getattr(block, name) for name in _ARRAYS]
        try:
            # It stays open as long as the blocks are there, and closing it removes it.
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115
            begin = self._file.seek(0, 2)
            begin += self._file.write(bytes(-begin % _ALIGNED))
            for array in arrays:
                self._file.write(array)
            self._file.flush()
        except OSError as error:
            raise StorageError(
                f"cannot write {self._size:,} bytes of label vectors into {tempfile.gettempdir()}: "
                f"{error.strerror}; TMPDIR names another folder"
            ) from error
        return _StoredBlock(begin, tuple((a.dtype, len(a)) for a in arrays), block.count)

    def _map(self, stored: _StoredBlock) -> TextBlock:
        sizes = [kind.itemsize * length for kind, length in stored.arrays]
        raw = np.memmap(self._file, np.uint8, "r", stored.begin, (sum(sizes),))  # type: ignore[call-overload]
        ends = accumulate(sizes)
        kinds = (kind for kind, _ in stored.arrays)
        parts = [
            raw[end - size : end].view(np.ndarray).view(kind)
            for end, size, kind in zip(ends, sizes, kinds, strict=True)
        ]
        return TextBlock(**dict(zip(_ARRAYS, parts, strict=True)), count=stored.count)
