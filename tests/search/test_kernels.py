"""Compiled loops: right to the error that search reckons with, or to the bit."""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import asif_lance
from asif_lance.search import exact_top_k, kernel_loading, kernels
from asif_lance.search.fast_products import float32_error
from asif_lance.search.kernel_loading import going_without, loaded_kernels
from asif_lance.search.query_grid import on_grid


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 40), d=st.integers(0, 200))
def test_row_products_are_those_of_float64_to_within_the_bound(seed, n, d):
    rng = np.random.default_rng(seed)
    rows, vector = rng.normal(size=(n, d)).astype(np.float16), rng.normal(size=d).astype(np.float32)
    out = np.full(n + 1, 7.0, dtype=np.float32)
    kernels.row_products(rows.view(np.uint16), vector, out[:n])
    exact = rows.astype(float) @ vector.astype(float)
    norms = np.linalg.norm(rows.astype(float), axis=1) * np.linalg.norm(vector.astype(float))
    assert (np.abs(out[:n] - exact) <= norms * float32_error(d, torch.device("cpu"))).all()
    assert out[n] == 7  # and nothing behind them is written


def test_the_smallest_and_largest_numbers_are_widened_as_they_are():
    rows = np.array([[2.0**-24], [-(2.0**-14)], [65504.0], [0.0]], dtype=np.float16)
    out = np.empty(4, dtype=np.float32)
    kernels.row_products(rows.view(np.uint16), np.ones(1, dtype=np.float32), out)
    assert out.tolist() == rows[:, 0].tolist()


def test_rows_that_do_not_lie_side_by_side_are_refused():
    rows, out = np.zeros((8, 4), dtype=np.uint16), np.empty(4, dtype=np.float32)
    with pytest.raises(TypeError):
        kernels.row_products(rows[::2], np.ones(4, dtype=np.float32), out)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), p=st.integers(0, 40), d=st.integers(0, 200))
def test_products_of_pairs_are_not_rounded_at_all(seed, p, d):
    rng = np.random.default_rng(seed)
    rows = np.linspace(-1, 1, 7 * d).reshape(7, d) / max(d, 1) + rng.normal(size=(7, d)) * 1e-5
    rows = rows.astype(np.float16)
    vectors = on_grid(rng.normal(size=(4, d)))[0].astype(float)
    at, owners = rng.integers(7, size=p), rng.integers(4, size=p)
    out = np.full(p + 1, 7.0)
    kernels.pair_products(rows.ctypes.data + at * rows.strides[0], owners, vectors, out[:p])
    for i in range(p):
        assert out[i] == math.fsum(rows[at[i]].astype(float) * vectors[owners[i]])
    assert out[p] == 7


def test_a_row_that_holds_nan_has_no_product():
    rows = np.array([[0.5] * 40, [0.5] * 39 + [np.nan]], dtype=np.float16)
    at, out = rows.ctypes.data + np.arange(2) * rows.strides[0], np.empty(2)
    kernels.pair_products(at, np.zeros(2, int), np.ones((1, 40)), out)
    assert out[0] == 20
    assert np.isnan(out[1])


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 9), d=st.integers(0, 70))
def test_rows_are_narrowed_as_torch_does_and_their_loss_is_measured(seed, n, d):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 2**16, size=(n, d), dtype=np.uint16).view(np.float16)
    rows[~np.isfinite(rows)] = (1 + 2**-8) / 8  # as near to one bfloat16 as to the next
    narrow, squares = np.empty((n, d), np.uint16), np.full(n + 1, 7.0, dtype=np.float32)
    kernels.narrow_rows(rows.view(np.uint16), narrow, squares[:n])
    expected = torch.from_numpy(rows.copy()).bfloat16()
    assert torch.equal(torch.from_numpy(narrow.view(np.int16)), expected.view(torch.int16))
    lost = rows.astype(float) - expected.double().numpy()
    np.testing.assert_allclose(squares[:n], np.square(lost).sum(axis=1), rtol=1e-5)
    assert squares[n] == 7


@pytest.fixture
def fresh(monkeypatch):
    """As if nothing had been searched or loaded in this process."""
    monkeypatch.setattr(kernel_loading, "_seconds_without", [0.0])
    kernel_loading._import_kernels.cache_clear()
    yield
    kernel_loading._import_kernels.cache_clear()


def test_they_are_loaded_once_their_lack_has_cost_as_much_as_loading(fresh, monkeypatch):
    assert loaded_kernels() is None
    monkeypatch.setattr(kernel_loading.time, "thread_time", iter([0.0, 0.3, 1.0, 1.3]).__next__)
    for _ in range(2):
        assert loaded_kernels() is None
        with going_without():
            pass
    assert loaded_kernels() is kernels


def test_threads_that_need_them_at_the_same_time_get_the_same(fresh, monkeypatch):
    monkeypatch.setattr(kernel_loading, "_seconds_without", [1.0])
    with ThreadPoolExecutor(8) as pool:
        assert {pool.submit(loaded_kernels).result() for _ in range(8)} == {kernels}


def test_a_processor_that_cannot_widen_goes_without(fresh, monkeypatch):
    monkeypatch.setattr(kernel_loading, "_seconds_without", [1.0])
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", dict)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delitem(sys.modules, kernels.__name__)
    monkeypatch.delattr("asif_lance.search.kernels")
    assert loaded_kernels() is None


def found_in_a_fork(anchors, queries, answer):
    answer.put(exact_top_k(queries, anchors, 5))


@pytest.mark.filterwarnings("ignore:lance is not fork-safe")
def test_a_forked_process_has_them_too(monkeypatch, rng):
    monkeypatch.setattr(kernel_loading, "_seconds_without", [1.0])
    anchors = rng.normal(size=(4000, 16)).astype(np.float32) / 8
    anchors, queries = anchors.astype(np.float16), anchors[:3]
    expected = exact_top_k(queries, anchors, 5)
    fork = multiprocessing.get_context("fork")
    answer = fork.Queue()
    child = fork.Process(target=found_in_a_fork, args=(anchors, queries, answer))
    child.start()
    found = answer.get(timeout=30)
    child.join()
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.similarities, expected.similarities)


SEARCH = """
import sys
import numpy as np
from asif_lance.search import exact_top_k, kernel_loading
rng = np.random.default_rng(0)
anchors = (rng.normal(size=(4000, 16)) / 8).astype(np.float16)
for _ in range(3):
    exact_top_k(anchors[:1], anchors, 5)
print("numba" in sys.modules)
kernel_loading._seconds_without[0] = 1
found = exact_top_k(anchors[:1], anchors, 5)
print("numba" in sys.modules, found.indices[0, 0], kernel_loading.loaded_kernels() is not None)
"""


def searched(setup: str = "", **environment: str) -> list[str]:
    """What a process prints that searches before and after it loads the loops."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", setup + SEARCH],
        env=env | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


FOUND = ["False", "True 0 True"]  # numba is not imported for a few small searches


@pytest.fixture
def installed(tmp_path):
    """A copy of the package in which no folder for machine code can be made, whoever asks."""
    copy = tmp_path / "installed" / "asif_lance"
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(asif_lance.__file__).parent, copy, ignore=unwanted)
    (copy / "search" / "__pycache__").touch()
    return {"PYTHONPATH": str(copy.parent), "PYTHONDONTWRITEBYTECODE": "1"}


def test_machine_code_is_kept_in_the_users_cache_where_the_package_cannot_be_written(
    installed, tmp_path
):
    assert searched(**installed, XDG_CACHE_HOME=str(tmp_path), HOME=str(tmp_path)) == FOUND
    assert list(tmp_path.rglob("kernels.row_products*.nbc"))


def test_a_search_works_where_machine_code_can_be_kept_nowhere(installed):
    nowhere = os.devnull + "/nowhere"
    assert searched(**installed, XDG_CACHE_HOME=nowhere, HOME=nowhere) == FOUND


@pytest.mark.skipif(sys.platform != "linux", reason="limits of files as on Linux")
def test_a_search_works_where_the_disk_is_full(installed, tmp_path):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    assert searched(full, **installed, XDG_CACHE_HOME=str(tmp_path), HOME=str(tmp_path)) == FOUND


def test_a_search_works_where_kept_machine_code_is_damaged(installed, tmp_path):
    where = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    searched(**installed, **where)
    for kept in tmp_path.rglob("kernels.*.nb[ci]"):
        kept.write_bytes(b"")
    assert searched(**installed, **where) == FOUND
