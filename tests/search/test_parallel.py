"""Threads that share work: all of it is done, once, by threads that leave each other alone."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import threading

import pytest
import torch

from asif_lance.devices import limit_torch
from asif_lance.search import parallel
from asif_lance.search.parallel import share_work, thread_count, torch_threads


@pytest.fixture(params=[2, 4, 40])
def count(request, monkeypatch):
    monkeypatch.setattr(parallel, "_processors", lambda: 64)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def limits_here():
    """How many threads torch, OpenMP and MKL would use for an operation of this thread."""
    told = torch.__config__.parallel_info()
    return {int(n) for n in re.findall(r"(?:at::get_num|max)_threads\(\) : (\d+)", told)}


def test_every_item_is_taken_once_and_by_several_threads(count):
    taken, meet = [], threading.Barrier(2)

    def work(items):
        meet.wait(timeout=10)
        taken.extend((item, threading.current_thread()) for item in items)

    share_work(range(1000), work, 2)
    assert sorted(item for item, _ in taken) == list(range(1000))
    assert threading.current_thread() not in {thread for _, thread in taken}


def test_each_thread_has_its_part_of_torchs_threads_and_others_keep_theirs(count):
    found, meet = [], threading.Barrier(thread_count())

    def work(items):
        meet.wait(timeout=10)
        found.append(limits_here())

    share_work(range(100), work)
    assert found == [{max(count // 16, 1)}] * min(count, 16)
    assert limits_here() == {count}


@pytest.mark.parametrize(("items", "threads"), [(1, None), (9, 1)])
def test_what_nobody_could_share_is_done_here(count, items, threads):
    found = []
    share_work(
        range(items),
        lambda left: found.extend([threading.current_thread()] * len([*left])),
        threads,
    )
    assert found == [threading.current_thread()] * items


def test_one_of_them_that_asks_for_more_does_it_itself(count):
    found, lock = [], threading.Lock()

    def work(items):
        for _ in items:
            with lock:  # for which the others wait meanwhile
                share_work(range(10), lambda more: found.extend(more))

    share_work(range(50), work)
    assert sorted(found) == sorted([*range(10)] * 50)


def test_a_failure_comes_back_and_stops_the_others(count):
    failed, taken = threading.Event(), []

    def work(items):
        for item in items:
            if item == 0:
                failed.set()
                raise ValueError("no 0")
            failed.wait(timeout=10)
            taken.append(item)

    with pytest.raises(ValueError, match="no 0"):
        share_work(range(10**7), work, 2)
    assert len(taken) < 10**7 - 1
    share_work(range(10), lambda items: taken.extend(items))  # they are there for the next one


def shared_in_a_fork(answer):
    taken = []
    share_work(range(100), taken.extend, 2)
    answer.put(sorted(taken))


@pytest.mark.filterwarnings("ignore:lance is not fork-safe")
def test_a_forked_process_makes_threads_of_its_own(count):
    share_work(range(100), list)
    fork = multiprocessing.get_context("fork")
    answer = fork.Queue()
    child = fork.Process(target=shared_in_a_fork, args=(answer,))
    child.start()
    assert answer.get(timeout=30) == list(range(100))
    child.join()


def test_no_more_threads_run_than_the_process_may_use_processors(count, monkeypatch):
    monkeypatch.setattr(parallel, "_processors", lambda: 3)
    meet, found = threading.Barrier(min(count, 3)), []

    def work(items):
        meet.wait(timeout=10)
        found.append(limits_here())
        list(items)

    share_work(range(100), work)
    assert thread_count() == torch_threads() == min(count, 3)
    assert found == [{1}] * min(count, 3)


def test_work_that_is_little_has_one_thread(count):
    assert torch_threads(1000) == thread_count(1000) == 1
    assert torch_threads(2**22 * count) == count


def test_torch_is_limited_on_the_thread_that_asks_and_only_for_a_while(count):
    found = []
    with limit_torch(1):
        assert limits_here() == {1}
        other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        other.start()
        other.join()
        with limit_torch(2):
            assert limits_here() == {1}
    assert limits_here() == {count}
    assert found == [count]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds processes")
def test_a_process_that_is_bound_to_one_processor_uses_one_thread():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "import torch; torch.set_num_threads(4);"
        "from asif_lance.search.parallel import thread_count; print(thread_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
