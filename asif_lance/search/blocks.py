"""Anchors in several immutable blocks, seen as one matrix."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from asif_lance.devices import is_accelerator, limit_torch
from asif_lance.errors import DimensionError, InputError
from asif_lance.records import Float16Array, Float32Array, Int64Array
from asif_lance.search.parallel import torch_threads

Matrix = Float16Array | Float32Array | torch.Tensor


class Blocks:
    """Anchors that lie in several immutable blocks, seen as one (n, d) matrix.

    Attributes:
        blocks: (n_i, d) tensors of one dtype (float16 or float32) and device; given ones that
            follow one another in one memory are one, since each costs operations of its own.
        starts: (len(blocks) + 1,) int64, where each block begins; the last is n.
        dimension: d; None if there are no blocks.
        streamed: whether blocks are released after use, and coming back to them is slow.
    """

    def __init__(
        self,
        anchors: Matrix | Sequence[Matrix],
        release: Callable[[int], None] | None = None,
    ) -> None:
        """Wrap one array or tensor, or a sequence of them, without copying.

        Args:
            anchors: the blocks.
            release: is called with the number of a block that was used and is not needed for a
                while.
        """
        self.streamed = release is not None
        self._release = release or (lambda block: None)
        several = [anchors] if isinstance(anchors, np.ndarray | torch.Tensor) else list(anchors)
        self.blocks = [as_tensor(block) for block in several]
        for block in self.blocks:
            _check_block(block, self.blocks[0])
        if release is None:
            self.blocks = [_join(run) for run in _find_runs(self.blocks)]
        sizes = [len(block) for block in self.blocks]
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self.dimension = self.blocks[0].shape[1] if self.blocks else None

    @property
    def dtype(self) -> torch.dtype:
        """The blocks' dtype."""
        return self.blocks[0].dtype

    @property
    def on_accelerator(self) -> bool:
        """Whether an accelerator holds the blocks."""
        return bool(self.blocks) and is_accelerator(self.blocks[0].device)

    def __len__(self) -> int:
        """Count the anchors."""
        return int(self.starts[-1])

    def slices(self, start: int, stop: int, rows: int) -> Iterator[torch.Tensor]:
        """Yield the anchors of [start, stop) in order, at most `rows` at a time."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        for i, block in enumerate(self.blocks[first:], first):
            begin = int(self.starts[i])
            if begin >= stop:
                return
            part = block[max(start - begin, 0) : stop - begin]
            yield from _cut(part, rows)
            self._release(i)

    def strided(self, stride: int, first: int, rows: int) -> Iterator[torch.Tensor]:
        """Yield anchors `first`, `first + stride`, … in order, at most `rows` at a time."""
        for i, block in enumerate(self.blocks):
            part = block[(first - int(self.starts[i])) % stride :: stride]
            yield from _cut(part, rows)
            self._release(i)

    def gather(self, indices: torch.Tensor) -> torch.Tensor:
        """The same as `take`, by indices that are where the blocks are and valid."""
        if len(self.blocks) == 1:
            return self.blocks[0].index_select(0, indices)
        taken = self.blocks[0].new_empty((len(indices), self.blocks[0].shape[1]))
        for block, start in zip(self.blocks, self.starts.tolist(), strict=False):
            inside = (indices >= start) & (indices < start + len(block))
            at = inside.nonzero().view(-1)
            taken.index_copy_(0, at, block.index_select(0, indices[at] - start))
        return taken

    def take(self, indices: Int64Array) -> torch.Tensor:
        """Gather single anchors, in any order: (m, d)."""
        owner, done = self.owners(indices), 0
        taken = self.blocks[0].new_empty((len(indices), self.blocks[0].shape[1]))
        with limit_torch(torch_threads(taken.numel())):
            for i in np.unique(owner).tolist():
                rows = self._on_device(indices[owner == i] - self.starts[i])
                taken[done : done + len(rows)] = self.blocks[i].index_select(0, rows)
                done += len(rows)
                self._release(i)
            place = np.argsort(np.argsort(owner, kind="stable"))
            return taken.index_select(0, self._on_device(place))

    def addresses(self, indices: Int64Array) -> Int64Array:
        """Where single anchors lie in memory: (m,)."""
        owner = self.owners(indices)
        first = np.array([block.data_ptr() for block in self.blocks])
        apart = np.array([block.stride(0) * block.element_size() for block in self.blocks])
        found: Int64Array = first[owner] + (indices - self.starts[owner]) * apart[owner]
        return found

    def release_read(self, indices: Int64Array) -> None:
        """Release the blocks whose anchors were read at `addresses`, where they are streamed."""
        if self.streamed:
            for i in np.unique(self.owners(indices)).tolist():
                self._release(i)

    def owners(self, indices: Int64Array) -> Int64Array:
        """The number of the block of each of (m,) anchors.

        Raises:
            IndexError: there is no such anchor.
        """
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"anchors are numbered from 0 to {len(self) - 1}")
        return np.searchsorted(self.starts, indices, side="right") - 1

    def _on_device(self, indices: Int64Array) -> torch.Tensor:
        return torch.from_numpy(indices).to(self.blocks[0].device)


def _find_runs(blocks: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Group blocks that follow one another in the same memory; empty ones add nothing."""
    runs: list[list[torch.Tensor]] = []
    for block in [block for block in blocks if len(block)] or blocks[:1]:
        if runs and _follows(block, runs[-1][-1]):
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


def _follows(block: torch.Tensor, last: torch.Tensor) -> bool:
    return (
        block.data_ptr() == last.data_ptr() + last.nbytes
        and block.is_contiguous()
        and last.is_contiguous()
        # Blocks of two allocations may happen to touch.
        and block.untyped_storage().data_ptr() == last.untyped_storage().data_ptr()
    )


def _join(run: Sequence[torch.Tensor]) -> torch.Tensor:
    if len(run) == 1:
        return run[0]
    rows = sum(map(len, run))
    return run[0].as_strided((rows, run[0].shape[1]), run[0].stride(), run[0].storage_offset())


def _cut(part: torch.Tensor, rows: int) -> Sequence[torch.Tensor]:
    """Split a part where it is too long; torch takes a while to find that it is not."""
    return (part,) if len(part) <= rows else torch.split(part, rows)


def as_tensor(block: Matrix) -> torch.Tensor:
    """View an array as a tensor in main memory; torch would warn of read-only (mapped) ones."""
    if isinstance(block, torch.Tensor):
        return block
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(block)


def _check_block(block: torch.Tensor, first: torch.Tensor) -> None:
    if block.ndim != 2 or block.dtype not in (torch.float16, torch.float32):
        given = f"{block.ndim}-d {str(block.dtype).removeprefix('torch.')}"
        raise InputError(f"anchors: expected 2-d float16 or float32 arrays, got {given}")
    if block.dtype != first.dtype or block.device != first.device:
        raise InputError("anchors: all blocks must share one dtype and one device")
    if block.shape[1] != first.shape[1]:
        raise DimensionError("anchors", first.shape[1], block.shape[1])
