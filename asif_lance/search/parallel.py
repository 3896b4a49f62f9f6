"""Threads that share work, each with its own part of torch's threads.

torch splits every single operation among its threads, which wait for each other after it. What
takes hundreds of short operations, a few of them on one thread, loses much of a second core that
way. Here each thread goes on by itself from one operation to the next.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

_Item = TypeVar("_Item")
_MOST = 16  # between operations Python runs one thread at a time
_HERE = threading.local()


def thread_count() -> int:
    """How many threads share work: as many as torch uses here, at most 16."""
    return min(torch.get_num_threads(), _MOST)


def share_work(
    items: Sequence[_Item], work: Callable[[Iterator[_Item]], None], threads: int | None = None
) -> None:
    """Let several threads take items from one iterator until none are left.

    Args:
        items: what is to be done, independent of one another.
        work: called by each thread, with the iterator that all of them share; it must not wait for
            another thread. With fewer than two threads or items, or where one of these threads asks
            (others may be waiting for it), it is called here and now.
        threads: how many; None for `thread_count`.

    Raises:
        Exception: what one of them raised; no more items are taken then.
    """
    left = iter(items)
    count = min(threads or thread_count(), len(items))
    if count < 2 or getattr(_HERE, "shares", False):
        return work(left)
    pool = _pool(torch.get_num_threads())
    shares = [pool.submit(work, left) for _ in range(count)]
    try:
        for each in shares:
            each.result()
    finally:
        for _ in left:  # so that the others stop, too
            pass


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    count = min(threads, _MOST)
    prepare = functools.partial(_prepare, threads // count)
    return ThreadPoolExecutor(count, "asif-lance", initializer=prepare)


if hasattr(os, "register_at_fork"):  # only the thread that forks is there in a forked process
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _prepare(threads: int) -> None:
    _HERE.shares = True
    _limit_torch(threads)


def _limit_torch(threads: int) -> None:
    """Let torch use so many threads for operations of the thread that calls this.

    `torch.set_num_threads` would change what others use.
    """
    torch.get_num_threads()  # by which torch sets this thread's number, once
    threadpool_limits(threads, user_api="openmp")
    mkl = _mkl()
    if mkl is not None:
        mkl(threads)


@functools.cache
def _mkl() -> Callable[[int], int] | None:
    """MKL's own number for the calling thread, where torch is built with MKL.

    It follows OpenMP's only until somebody calls `torch.set_num_threads`.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not library.exists():
        return None
    return getattr(ctypes.CDLL(str(library)), "MKL_Set_Num_Threads_Local", None)
