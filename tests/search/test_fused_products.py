"""What the kernel of a GPU finds, beside float64; run by Triton's interpreter, compiled elsewhere.

With a GPU, `TRITON_INTERPRET=0 pytest tests/search/test_fused_products.py` runs it compiled.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_lance.search import Blocks, kernel_loading
from asif_lance.search.fast_products import FastProduct

pytest.importorskip("triton")  # torch for processors alone comes without it

from asif_lance.search import fused_products
from asif_lance.search.fused_products import find_reaching, try_kernel

DEVICE = torch.device("cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda")


def drawn(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    numbers = rng.normal(size=shape) / np.sqrt(shape[-1])
    return torch.from_numpy(numbers).to(torch.float16).to(DEVICE)


def pairs_of(found: Any) -> dict[tuple[int, int], float]:
    """What was found: (query, anchor) to similarity; each only once."""
    queries, anchors, values = (column.tolist() for column in found)
    pairs = dict(zip(zip(queries, anchors, strict=True), values, strict=True))
    assert len(pairs) == len(values)
    return pairs


@given(
    n=st.integers(1, 300),
    m=st.integers(1, 70),
    d=st.integers(1, 70),
    cuts=st.lists(st.integers(0, 300), max_size=2),
    terms=st.sets(st.sampled_from(["offset", "scale", "live"])),
    share=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=25)
def test_it_finds_what_reaches_the_floors_once_and_nothing_else(
    n: int, m: int, d: int, cuts: list[int], terms: set[str], share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    anchors, weights = drawn(rng, n, d), drawn(rng, d, 2 * (m + 3))
    weights[:, m + 3 :] /= 2**11
    offset = torch.from_numpy(rng.normal(size=m).astype("f4")).to(DEVICE)
    scale = torch.from_numpy(rng.uniform(0.5, 2, size=n).astype("f4")).to(DEVICE)
    live = torch.from_numpy(rng.random(n) < 0.8).to(DEVICE)
    all_terms = {"offset": offset, "scale": scale, "live": live}
    given_terms = {name: all_terms[name] for name in terms}
    true = anchors.double() @ (weights[:, :m].double() + weights[:, m + 3 : 2 * m + 3].double())
    true = true + offset.double() if "offset" in terms else true
    true = true * scale.double()[:, None] if "scale" in terms else true
    floors = torch.quantile(true, 1 - share, dim=0).float()
    blocks = [b for b in anchors.tensor_split(sorted(min(cut, n) for cut in cuts)) if len(b)]
    found = find_reaching(blocks, weights, floors, n * m, **given_terms)
    assert found is not None
    pairs = pairs_of(found)
    may = live if "live" in terms else torch.ones_like(live)
    sure, possible = (
        {(q, a) for a, q in ((true >= floors + shift) & may[:, None]).nonzero().tolist()}
        for shift in (1e-4, -1e-4)
    )
    assert sure <= set(pairs) <= possible
    for (query, anchor), value in pairs.items():
        assert value == pytest.approx(true[anchor, query].item(), abs=1e-4)


@pytest.mark.parametrize("room", [0, 1, 299, 300])
def test_more_than_there_is_room_for_is_told_and_nothing_is_written_beyond(room: int) -> None:
    rng = np.random.default_rng(1)
    anchors, weights = drawn(rng, 100, 16), drawn(rng, 16, 32)
    found = find_reaching([anchors], weights, torch.full((3,), -9.0, device=DEVICE), room)
    assert (found is None) == (room < 300)


def test_anchors_may_lie_apart_in_memory() -> None:
    rng = np.random.default_rng(2)
    wide, weights = drawn(rng, 200, 40), drawn(rng, 20, 32)
    floors = torch.full((5,), 0.1, device=DEVICE)
    apart = wide[::2, ::2]
    near = find_reaching([apart.contiguous()], weights, floors, 1000)
    assert pairs_of(find_reaching([apart], weights, floors, 1000)) == pairs_of(near)


def test_anchors_that_are_no_numbers_reach_no_floor() -> None:
    rng = np.random.default_rng(3)
    anchors, weights = drawn(rng, 50, 16), drawn(rng, 16, 32)
    anchors[7] = float("nan")
    found = find_reaching([anchors], weights, torch.full((2,), -9.0, device=DEVICE), 1000)
    assert found is not None
    assert {anchor for _, anchor in pairs_of(found)} == set(range(50)) - {7}


@given(st.integers(1, 40), st.integers(1, 200), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_two_halves_leave_next_to_nothing_of_what_rounding_takes_off_queries(
    m: int, d: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(m, d)).astype("f4")
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    anchors = Blocks(drawn(rng, 2, d).cpu())
    if m == 1:
        queries = np.repeat(queries, 2, axis=0)
    product = FastProduct(torch.from_numpy(queries), anchors, kind=torch.float16)
    halves = product._weights.double().chunk(2, dim=1)
    used = (halves[0] + halves[1])[:, : len(queries)].T
    assert np.linalg.norm(queries - used.numpy(), axis=1).max() < 2.0**-20


def test_without_a_compiler_a_device_does_without_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*given: Any, **options: Any) -> None:
        raise subprocess.CalledProcessError(1, ["cc"])

    assert kernel_loading.load_fused(torch.device("cpu")) is None
    try_kernel(DEVICE)
    monkeypatch.setattr(fused_products, "find_reaching", fail)
    with pytest.raises(ImportError, match="Triton cannot compile"):
        try_kernel(DEVICE)
    monkeypatch.setattr(fused_products, "try_kernel", lambda device: try_kernel(DEVICE))
    assert kernel_loading.load_fused.__wrapped__(torch.device("cuda")) is None


@pytest.mark.parametrize("capability", [80, 90])
def test_it_compiles_for_gpus_and_sums_up_in_float32(capability: int) -> None:
    script = Path(__file__).parents[1] / "compiled_kernel.py"
    made = subprocess.run(
        [sys.executable, script, str(capability)],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    for line in made.stdout.splitlines():
        shared, *used = line.split()
        assert int(shared) <= 64 * 1024  # what the smallest of these GPUs has
        assert used
        assert all(".f32.f16.f16" in name for name in used)
