"""Fast products of queries with anchors, and how far off they are at most."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from types import ModuleType

import numpy as np
import torch

from asif_lance.devices import (
    bfloat16_is_faster,
    float32_rounding,
    is_accelerator,
    limit_torch,
    multiplies_float16,
    multiply_float16,
)
from asif_lance.records import Float32Array, Float64Array
from asif_lance.search.anchor_scale import Scale
from asif_lance.search.blocks import Blocks
from asif_lance.search.exact_products import ANCHOR_NORM
from asif_lance.search.kernel_loading import load_fused, loaded_kernels
from asif_lance.search.parallel import thread_count

_GROUP_SIZE = 16  # runs and batches are multiples of it: narrower matrix products are slow
_WIDENED_NUMBERS = 3 * 2**18  # made float32 at a time: 3 MB stay in the cache
_RUN_SIMILARITIES = 2**20  # held at a time
_ACCELERATOR_FACTOR = 128  # times as much of both on an accelerator
_LONGEST_RUN = 2**15  # anchors, however few the queries; there four times as many
_STAGED_NUMBERS = 2**25  # brought to an accelerator at a time: 64 MB of float16
_UNIT = 2.0**-24  # the largest share of a number that rounding to float32 takes off or adds
_ROUNDINGS = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}  # likewise
_MOST_NARROWING = 1.01 * 2.0**-8  # of anchors made bfloat16, and of the queries' norm with them
_USUAL_NARROWING = 0.56 * 2.0**-8  # few anchors of some hundred dimensions lose more by it


def product_types(count: int, anchors: Blocks, device: torch.device) -> tuple[torch.dtype, ...]:
    """Types that similarities of `count` queries may be multiplied in, the fastest first.

    A single query on the CPU is multiplied with the anchors as they are, at the speed of memory
    (with float16 ones in float32, where `kernels` is loaded). Some processors multiply bfloat16
    twice as fast as float32. CUDA devices multiply float16 as it is, many times as fast.
    """
    if multiplies_float16(device) and anchors.dtype == torch.float16:
        return torch.float16, torch.float32
    if is_accelerator(device):
        return (torch.float32,)
    if count == 1:
        return (torch.float32 if loaded_kernels() is not None else anchors.dtype,)
    with limit_torch(1):  # where others keep processors busy, threads would wait for each other
        both = bfloat16_is_faster()
    return (torch.bfloat16, torch.float32) if both else (torch.float32,)


class FastProduct:
    """float32 similarities of one batch of queries with runs of anchors, in one reused buffer.

    Anchors are converted a few at a time into a buffer that stays in the cache. A single query on
    the CPU is instead multiplied with the anchors as they are.

    Queries, anchors and products of bfloat16 are rounded to it; sums are float32 there too. Where
    `kernels` is loaded, what float16 anchors lose by becoming bfloat16 is measured, and those that
    lose more than is usual are multiplied in float32: the bound is half as large then.

    As float16 they are multiplied as they are, with queries in two halves (the second is what
    rounding took off the first), and products are kept in float32.

    Attributes:
        count: m.
        work: how many numbers are multiplied in all.
        run: most anchors of one call, a multiple of 16.
        threads: how many may share the anchors, each with a copy from `copy_for_thread`;
            accelerators have threads of their own.
    """

    def __init__(
        self,
        queries: torch.Tensor,
        anchors: Blocks,
        offset: Float64Array | None = None,
        scale: Scale | None = None,
        kind: torch.dtype | None = None,
    ) -> None:
        """Allocate the buffers.

        Args:
            queries: (m, d) float32 on the grid, on the device that is to compute.
            anchors: n anchors on that device or in main memory.
            offset: (m,) added to each query's products.
            scale: multiplies each anchor's sums.
            kind: one of `product_types`; by default the most precise.
        """
        count, d = queries.shape
        kind = kind or product_types(count, anchors, queries.device)[-1]
        on_cpu = not is_accelerator(queries.device)
        self._anchors, self.count = anchors, count
        self._single = count == 1 and on_cpu
        self.work = count * len(anchors) * d
        self.threads = thread_count(self.work) if on_cpu else 1
        self.run = self._run_length(1 if on_cpu else _ACCELERATOR_FACTOR, 1 if on_cpu else 4)
        widened = _WIDENED_NUMBERS * (1 if on_cpu else _ACCELERATOR_FACTOR)
        self._step = self.run if self._single else max(widened // max(d, 1), 1)
        self._staged = None if on_cpu or _is_there(anchors, queries) else _Staging(queries.device)
        if self._staged is not None:
            self._step = min(self._step, max(_STAGED_NUMBERS // max(d, 1), 1))
        width = 1 if self._single else _rounded_up(count)
        padded = torch.nn.functional.pad(queries, (0, 0, 0, width - count))
        self._columns = padded.T.contiguous()
        self._weights = self._columns.to(kind)
        self._halved = kind == torch.float16 and not self._single
        if self._halved:
            rest = (self._columns - self._weights.float()).to(kind)
            self._weights = torch.cat([self._weights, rest], dim=1)
        narrows = kind == torch.bfloat16 and anchors.dtype == torch.float16
        self._narrowing_kernels = loaded_kernels() if narrows else None
        self._allocate()
        self._offset = None if offset is None else torch.from_numpy(offset).to(queries)
        self._scale = None if scale is None else scale.near_on(queries.device)
        self._kept = 0.0 if self._halved else _ROUNDINGS[kind]  # what keeping products rounds off
        self._rounding = self._kept
        if scale is not None:  # what a factor is off by is a share of the similarity, too
            self._rounding += scale.ratio * (1 + 2 * self._rounding)
        self._slack = self._bound_errors(queries.cpu().double(), offset, scale)

    def _run_length(self, memory: int, length: int) -> int:
        """Cut the anchors into runs of one length, as many for each thread.

        `memory` and `length` multiply what the similarities and the anchors of a run are limited to
        on the CPU.
        """
        longest = max(memory * _RUN_SIMILARITIES // _rounded_up(self.count), _GROUP_SIZE)
        longest = min(longest, length * _LONGEST_RUN) // _GROUP_SIZE * _GROUP_SIZE
        runs = -(-len(self._anchors) // longest)
        if runs > 1:
            runs = -(-runs // self.threads) * self.threads
        return _rounded_up(-(-len(self._anchors) // max(runs, 1)))

    def copy_for_thread(self) -> FastProduct:
        """The same with buffers of its own, for another thread."""
        other = copy.copy(self)
        other._allocate()
        return other

    def lower_floors(self, values: Float64Array) -> Float32Array:
        """Go down from (m,) similarities by twice what they may be wrong.

        An anchor that is truly as similar as one of computed similarity v has a computed
        similarity of at least `lower_floors(v)`.
        """
        lowered = values - 2.01 * (self._rounding * np.abs(values) + self._slack)
        return lowered.astype(np.float32)

    def compute_run(self, start: int, stop: int) -> torch.Tensor:
        """Give the similarities with anchors [start, stop); the next call overwrites them.

        Returns:
            (stop - start, w) float32, contiguous: the m similarities of each anchor and, if m is
            not 1, columns that mean nothing up to a multiple of 16.
        """
        scale = None if self._scale is None else self._scale[start:stop]
        return self._fill(self._anchors.slices(start, stop, self._step), stop - start, scale)

    def find_reaching(
        self, floors: torch.Tensor, live: torch.Tensor | None, most: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """Find all similarities that reach their query's floor, by one kernel.

        Returns:
            The query, the anchor and the similarity of each, on the device that holds the anchors;
            None where there is no such kernel, or more than `most` of them.
        """
        kernel = load_fused(self._weights.device) if self._halved else None
        if kernel is None:
            return None
        terms = {"offset": self._offset, "scale": self._scale, "live": live}
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = kernel.find_reaching(
            self._anchors.blocks, self._weights, floors, most, **terms
        )
        return found

    def compute_sample(self, stride: int) -> torch.Tensor:
        """Give the (s, m) similarities with one anchor in `stride`, from half a stride on.

        Those are at most `run`; the next call overwrites them.
        """
        first = stride // 2
        size = len(range(first, len(self._anchors), stride))
        scale = None if self._scale is None else self._scale[first::stride]
        parts = self._anchors.strided(stride, first, self._step)
        return self._fill(parts, size, scale)[:, : self.count]

    def _allocate(self) -> None:
        (d, width), rows = self._columns.shape, min(self._step, self.run)
        home, kind = self._weights.device, self._weights.dtype
        through = [] if self._single else _find_conversions(self._anchors.dtype, kind)
        if self._narrowing_kernels is not None:
            through = [kind]
        self._buffers = [torch.empty((rows, d), dtype=step, device=home) for step in through]
        self._products = None
        if kind != torch.float32:
            kept = torch.float32 if self._halved else kind
            shape = rows, self._weights.shape[1]
            self._products = torch.empty(shape, dtype=kept, device=home)
        self._scores = torch.zeros((self.run, width), dtype=torch.float32, device=home)

    def _fill(
        self, parts: Iterable[torch.Tensor], size: int, scale: torch.Tensor | None
    ) -> torch.Tensor:
        done = 0
        if self._staged is not None:
            parts = self._staged.bring(parts, min(self._step, self.run))
        for part in parts:
            end = done + part.shape[0]
            self._multiply(part, done, end)
            done = end
        scores = self._scores[:size]
        if self._offset is not None:
            scores[:, : self.count] += self._offset
        if scale is not None:
            scores *= scale[:, None]
        return scores

    def _multiply(self, part: torch.Tensor, done: int, end: int) -> None:
        out = self._scores[done:end]
        if self._single:
            self._multiply_single(part, out[:, 0])
            return
        if self._narrowing_kernels is not None:
            self._multiply_narrowed(self._narrowing_kernels, part, out)
            return
        for buffer in self._buffers:
            part = buffer[: end - done].copy_(part)
        if self._products is None:
            torch.mm(part, self._weights, out=out)
            return
        products = self._products[: end - done]
        if self._halved:
            multiply_float16(part, self._weights, products)
            torch.add(*products.chunk(2, dim=1), out=out)
        else:
            out.copy_(torch.mm(part, self._weights, out=products))

    def _multiply_narrowed(
        self, kernels: ModuleType, part: torch.Tensor, out: torch.Tensor
    ) -> None:
        """Multiply float16 anchors in bfloat16, and those that lose too much by it in float32."""
        assert self._products is not None
        narrow, products = self._buffers[0][: len(part)], self._products[: len(part)]
        rows, squares = part.contiguous(), np.empty(len(part), dtype=np.float32)
        bits = narrow.view(torch.int16).numpy().view(np.uint16)
        kernels.narrow_rows(rows.numpy().view(np.uint16), bits, squares)
        out.copy_(torch.mm(narrow, self._weights, out=products))
        coarse = np.flatnonzero(~(squares <= _USUAL_NARROWING**2))  # or NaN
        if len(coarse):
            at = torch.from_numpy(coarse)
            exacter = out.new_empty((len(coarse), out.shape[1]))
            out[at] = torch.mm(rows[at].float(), self._columns, out=exacter)

    def _multiply_single(self, part: torch.Tensor, out: torch.Tensor) -> None:
        query = self._weights[:, 0]
        kernels = loaded_kernels()
        if part.dtype != query.dtype and kernels is not None:
            rows = part.contiguous().numpy().view(np.uint16)  # strided ones would take ten times
            kernels.row_products(rows, query.numpy(), out.numpy())
        elif self._products is None:
            torch.mv(part, query, out=out)
        else:
            out.copy_(torch.mv(part, query, out=self._products[: part.shape[0], 0]))

    def _bound_errors(
        self, queries: torch.Tensor, offset: Float64Array | None, scale: Scale | None
    ) -> Float64Array:
        """Bound the errors of the inputs, the sum, the offset and the scale: (m,)."""
        norm = queries.norm(dim=1).numpy() * ANCHOR_NORM
        d, width = self._columns.shape
        used = self._weights.cpu().double().view(d, -1, width).sum(dim=1)[:, : self.count].T
        error: Float64Array = (queries - used).norm(dim=1).numpy() * ANCHOR_NORM
        error += norm * float32_error(d, self._weights.device)
        if self._weights.dtype == torch.bfloat16:
            narrowing = self._narrowing_kernels
            error += norm * (_MOST_NARROWING if narrowing is None else 1.01 * _USUAL_NARROWING)
        size = norm if offset is None else norm + np.abs(offset)
        if offset is not None:  # what is rounded is the product before the offset
            error += np.abs(offset) * self._kept
        error += 5 * _UNIT * (size + 1)
        if scale is None:
            return error
        bound: Float64Array = error * scale.largest + size * scale.error
        return bound * (1 + 2 * scale.ratio)


def float32_error(d: int, device: torch.device) -> float:
    """How far a sum of d products of float32 numbers may be off on a device, as a share of |q| |a|.

    gamma_d = d u / (1 - d u), in any order of summation (Higham, *Accuracy and Stability of
    Numerical Algorithms*, 3.1), and what both factors are rounded by before. Matrix units of
    accelerators add a few products and the sum so far at once, each cut off, not rounded, at the
    last digit of the largest (Fasi, Higham, Mikaitis and Pranesh, *Numerical behavior of NVIDIA
    tensor cores*, PeerJ Computer Science 7:e330, 2021): for b products b + 1 errors of 2^-23, so at
    most 2 d in all, each twice u.
    """
    # On the CPU twice u, for processors that add products in pairs.
    unit = (4 if is_accelerator(device) else 2) * d * _UNIT
    return unit / (1 - unit) + 2.01 * float32_rounding(device)


def _find_conversions(stored: torch.dtype, kind: torch.dtype) -> list[torch.dtype]:
    """What anchors become on the way to a product; float16 to bfloat16 at one go is slow."""
    if kind == stored:
        return []
    return [kind] if torch.float32 in (kind, stored) else [torch.float32, kind]


def _rounded_up(size: int) -> int:
    return -(-size // _GROUP_SIZE) * _GROUP_SIZE


def _is_there(anchors: Blocks, queries: torch.Tensor) -> bool:
    """Whether the anchors are where the queries are."""
    return all(block.device == queries.device for block in anchors.blocks[:1])


class _Staging:
    """Brings anchors from main memory to an accelerator, however many blocks they lie in.

    They are put side by side in one of two buffers, pinned for CUDA devices, and sent from it while
    the other is filled.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: list[torch.Tensor] = []
        self._sent: list[torch.cuda.Event | None] = [None, None]

    def bring(self, parts: Iterable[torch.Tensor], rows: int) -> Iterator[torch.Tensor]:
        """Yield the anchors of parts of at most so many rows, as many at a time, there."""
        used = 0
        for part in parts:
            if used + len(part) > rows:
                yield self._send(used)
                used = 0
            if used == 0:
                self._take_turn(part, rows)
            self._buffers[0].numpy()[used : used + len(part)] = part.numpy()
            used += len(part)
        if used:
            yield self._send(used)

    def _take_turn(self, like: torch.Tensor, rows: int) -> None:
        """Take the other buffer, once what was sent from it last is there."""
        if not self._buffers:
            shape, pin = (rows, like.shape[1]), self._device.type == "cuda"
            self._buffers = [
                torch.empty(shape, dtype=like.dtype, device="cpu", pin_memory=pin) for _ in range(2)
            ]
        self._buffers.reverse()
        self._sent.reverse()
        event = self._sent[0]
        if event is not None:
            event.synchronize()

    def _send(self, used: int) -> torch.Tensor:
        is_pinned = self._device.type == "cuda"
        moved = self._buffers[0][:used].to(self._device, non_blocking=is_pinned, copy=True)
        if is_pinned:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            event.record(torch.cuda.current_stream(self._device))
            self._sent[0] = event
        return moved
