"""Threads that share work, each with its own part of torch's threads.

torch splits every single operation among its threads, which wait for each other after it, and
keep a core busy while they wait. What takes hundreds of short operations, a few of them on one
thread, loses much of a second core that way, and where cores are busy or limited it takes many
times as long as on one thread. So here each thread goes on by itself from one operation to the
next, and work too small to be shared has one thread.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from joblib import cpu_count

from asif_lance.devices import limit_torch

_Item = TypeVar("_Item")
_MOST_THREADS = 16  # between operations Python runs one thread at a time
_WORTH_A_THREAD = 2**22  # numbers read from memory and multiplied: about a millisecond
_this_thread = threading.local()


def torch_threads(work: int | None = None) -> int:
    """How many threads an operation of torch should use here.

    As many as torch would, but no more than the process may run at the same time: the processors
    that it is bound to and those that its container is granted count, as they were at first use.

    Args:
        work: how many numbers are multiplied; fewer threads if it is little. None if it is a lot.
    """
    usable = min(torch.get_num_threads(), _processors())
    return usable if work is None else min(usable, max(work // _WORTH_A_THREAD, 1))


def thread_count(work: int | None = None) -> int:
    """How many threads share work: as many, but at most 16."""
    return min(torch_threads(work), _MOST_THREADS)


@functools.cache
def _processors() -> int:
    return int(cpu_count())


def share_work(
    items: Sequence[_Item], work: Callable[[Iterator[_Item]], None], threads: int | None = None
) -> None:
    """Let several threads take items from one iterator until none are left.

    Args:
        items: what is to be done, independent of one another.
        work: called by each thread, with the iterator that all of them share; it must not wait for
            another thread. With fewer than two threads or items, or where one of these threads asks
            (others may be waiting for it), it is called here and now; torch has one thread then,
            too.
        threads: how many; None for `thread_count`.

    Raises:
        Exception: what one of them raised; no more items are taken then.
    """
    left = iter(items)
    count = min(threads or thread_count(), len(items))
    if count < 2 or getattr(_this_thread, "shares", False):
        with limit_torch(1):
            work(left)
        return
    pool, each = _pool(min(_processors(), _MOST_THREADS)), max(torch_threads() // count, 1)
    shares = [pool.submit(_take_share, work, left, each) for _ in range(count)]
    try:
        wait(shares, return_when=FIRST_EXCEPTION)
    finally:
        for _ in left:  # so that the others stop, too
            pass
    for share in shares:
        share.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "asif-lance")


if hasattr(os, "register_at_fork"):  # only the thread that forks is there in a forked process
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _take_share(
    work: Callable[[Iterator[_Item]], None], items: Iterator[_Item], threads: int
) -> None:
    _this_thread.shares = True
    with limit_torch(threads):
        work(items)
