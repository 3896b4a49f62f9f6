"""What a measurement's first line tells of the processor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asif_lance.search import describe_processor, processor
from asif_lance.search.parallel import torch_threads

CPUINFO = "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: A B\nmodel name\t: C\n"


@pytest.mark.parametrize("faster", [True, False])
def test_it_names_the_type_that_was_measured_to_be_the_fastest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, faster: bool
) -> None:
    monkeypatch.setattr(processor, "bfloat16_is_faster", lambda: faster)
    monkeypatch.setattr(
        torch.cpu,
        "get_capabilities",
        lambda: {"avx2": True, "amx_bf16": False, "f16c": True, "architecture": "x86", "aes": True},
        raising=False,
    )
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    told = describe_processor()
    assert told.name == "A B, family 26, model 2"
    assert (told.instructions, told.threads) == (("f16c", "avx2"), torch_threads())
    assert told.fastest == ("bfloat16" if faster else "float32")
    assert str(told).startswith("A B, family 26, model 2 (f16c avx2), ")
    assert str(told).endswith(f", multiplies {told.fastest}")


def test_a_system_that_tells_little_is_described_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    told = describe_processor()
    assert told.name
    assert "(not told)" in str(told)
