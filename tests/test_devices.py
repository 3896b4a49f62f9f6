"""Where torch computes, and in which type."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from unittest import mock

import pytest
import torch
from torch_settings import SWITCHES, switched

from asif_lance import devices
from asif_lance.errors import InputError


@pytest.mark.parametrize("seconds", [1.0, 3.0])
@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_is_chosen_only_where_it_was_faster(
    seconds: float, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = {torch.bfloat16: seconds, torch.float32: 2.0}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has}, raising=False)
    monkeypatch.setattr(devices, "_seconds_of", took.__getitem__)
    assert devices.bfloat16_is_faster.__wrapped__() == (has and seconds < 2.0)


def test_a_product_is_timed_in_both_types() -> None:
    for kind in (torch.bfloat16, torch.float32):
        assert 0 < devices._seconds_of(kind) < 60


def test_a_device_that_is_not_here_is_refused_in_one_line() -> None:
    assert devices.pick_device("cpu").type == "cpu"
    for name in ("cuda:99", "quantum"):
        with pytest.raises(InputError, match="use auto"):
            devices.pick_device(name)


CUT_OFF, ROUNDED = 2.0**-10, 2.0**-8  # to tf32, to bfloat16


@pytest.mark.parametrize(
    ("switch", "on_cpu", "on_cuda"),
    [
        ("set_float32_matmul_precision=highest", 0, 0),
        ("set_float32_matmul_precision=high", CUT_OFF, CUT_OFF),
        ("set_float32_matmul_precision=medium", ROUNDED, CUT_OFF),
        ("fp32_precision=ieee", 0, 0),
        ("fp32_precision=tf32", CUT_OFF, CUT_OFF),
        ("fp32_precision=bf16", ROUNDED, 0),
        ("cuda.matmul.allow_tf32=True", 0, CUT_OFF),
        ("cuda.matmul.fp32_precision=tf32", 0, CUT_OFF),
        ("cudnn.fp32_precision=tf32", 0, CUT_OFF),
        ("mkldnn.fp32_precision=bf16", ROUNDED, 0),
        ("mkldnn.matmul.fp32_precision=tf32", CUT_OFF, 0),
        ("mkldnn.matmul.fp32_precision=bf16", ROUNDED, 0),
    ],
)
def test_what_float32_is_rounded_by_is_read_from_every_setting(
    switch: str, on_cpu: float, on_cuda: float
) -> None:
    with switched(switch):
        assert devices.float32_rounding(torch.device("cpu")) == on_cpu
        assert devices.float32_rounding(torch.device("cuda")) == on_cuda
        assert devices.float32_rounding(torch.device("mps")) == max(on_cpu, on_cuda)
    for name in ("cpu", "cuda"):
        assert devices.float32_rounding(torch.device(name)) == 0


@pytest.mark.parametrize(
    ("mode", "rounding"), [("STRICT", 0), ("TF32", CUT_OFF), ("BF16", ROUNDED), ("ANY", ROUNDED)]
)
@pytest.mark.parametrize("name", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
def test_the_environment_may_let_onednn_round(
    name: str, mode: str, rounding: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, mode)
    assert devices.float32_rounding(torch.device("cpu")) == rounding
    assert devices.float32_rounding(torch.device("cuda")) == 0


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_torch_before_2_9_has_one_setting_for_all(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends, "mkldnn", object())
    monkeypatch.setattr(torch.backends.cuda, "matmul", object())
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    expected = {"highest": 0, "high": CUT_OFF, "medium": ROUNDED}[precision]
    for name in ("cpu", "cuda", "mps"):
        assert devices.float32_rounding(torch.device(name)) == expected


def test_float64_is_left_to_the_cpu_where_a_device_makes_it_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {name: devices.float64_device(torch.device(name)).type for name in ("cuda", "mps")}
    assert there == {"cuda": "cuda", "mps": "cpu"}
    monkeypatch.setenv("CUBLAS_EMULATE_DOUBLE_PRECISION", "1")
    assert devices.float64_device(torch.device("cuda")).type == "cpu"


MATMUL = torch.backends.cuda.matmul


def short_sums() -> list[object]:
    """Every switch by which torch may sum up float16 products in less than float32."""
    names = ["allow_fp16_accumulation", "allow_fp16_reduced_precision_reduction"]
    names += [name for name in [names[1] + "_split_k"] if hasattr(MATMUL, name)]
    return [getattr(MATMUL, name) for name in names]


@pytest.mark.parametrize("switch", SWITCHES)
def test_sums_are_float32_around_a_product_and_switches_are_set_back(switch: str) -> None:
    with switched(switch):
        before = short_sums()
        with suppress(ZeroDivisionError), devices.float32_sums():
            assert short_sums()[:2] == [False, False]
            raise ZeroDivisionError
        assert short_sums() == before


def test_a_switch_that_newer_torch_has_behind_another_is_set_back_too() -> None:
    if not hasattr(MATMUL, "allow_fp16_reduced_precision_reduction_split_k"):
        pytest.skip("this torch has no such switch")
    with switched("cuda.matmul.allow_fp16_accumulation=False"):
        MATMUL.allow_fp16_reduced_precision_reduction = (False, False)
        with devices.float32_sums():
            pass
        assert short_sums() == [False, False, False]


def test_products_of_several_threads_leave_no_switch_flipped() -> None:
    with switched("cuda.matmul.allow_fp16_reduced_precision_reduction=True"):
        before, found, meet = short_sums(), list[bool](), threading.Barrier(4)

        def multiply(_: int) -> None:
            meet.wait(timeout=10)
            for _ in range(50):
                with devices.float32_sums():
                    found.append(any(short_sums()[:2]))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(multiply, range(4)))
        assert found == [False] * 200
        assert short_sums() == before


def test_products_of_float16_are_kept_in_float32() -> None:
    left, right = torch.full((2, 64), 2.0**-5).half(), torch.full((64, 3), 1 + 2.0**-10).half()
    found = torch.empty(2, 3)
    devices.multiply_float16(left, right, found)
    assert torch.equal(found, torch.full((2, 3), 2 + 2.0**-9))
    there = torch.device("meta")  # takes and checks what a GPU is asked for, and computes nothing
    devices.multiply_float16(left.to(there), right.to(there), found.to(there))


def test_what_is_not_in_main_memory_is_sent_as_it_is() -> None:
    batch = torch.ones(2, 3)
    assert devices.send_beside(batch, torch.device("cpu")) is batch
    there = batch.to("meta")
    assert devices.send_beside(there, torch.device("meta")) is there


def test_a_batch_goes_to_a_gpu_from_pinned_memory_and_what_computes_with_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, device = mock.MagicMock(), torch.device("cuda:1")
    monkeypatch.setattr(torch, "cuda", asked.cuda)
    monkeypatch.setattr(devices, "_sending_stream", asked.sending_stream)
    asked.batch.device.type = "cpu"
    sent = devices.send_beside(asked.batch, device)
    computing, sending = asked.cuda.current_stream.return_value, asked.sending_stream.return_value
    pinned = asked.batch.pin_memory.return_value
    assert sent is pinned.to.return_value
    wanted = [
        mock.call.cuda.stream(sending),
        mock.call.batch.pin_memory(),
        mock.call.batch.pin_memory().to(device, non_blocking=True),
        mock.call.cuda.current_stream().wait_stream(sending),
        mock.call.batch.pin_memory().to().record_stream(computing),
    ]
    assert [call for call in asked.mock_calls if call in wanted] == wanted


def test_choosing_a_device_changes_no_switch_and_names_which_of_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    with switched("cuda.matmul.allow_fp16_reduced_precision_reduction=True"):
        before = short_sums()
        assert devices.pick_device("cuda") == torch.device("cuda:1")
        assert devices.pick_device("cuda:0") == torch.device("cuda:0")
        assert short_sums() == before
