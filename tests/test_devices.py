"""Where torch computes, and in which type."""

from __future__ import annotations

import pytest
import torch

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
