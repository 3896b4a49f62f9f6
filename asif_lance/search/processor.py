"""The processor that searches: what it is called, what it knows, and what it multiplies fastest."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from asif_lance.devices import bfloat16_is_faster, limit_torch
from asif_lance.errors import format_count
from asif_lance.search.parallel import torch_threads

_TOLD = (  # sets that products of floating-point numbers depend on, by torch's names
    *("f16c", "avx2", "avx512_f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16"),
    *("neon", "fp16_arith", "bf16", "sve", "sve_bf16", "sme"),
)
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Processor:
    """What measured times depend on.

    Attributes:
        name: of the kind of processor.
        instructions: sets of instructions for vectors and matrices that torch sees.
        threads: that an operation may use here.
        fastest: the type that batches of queries are multiplied in, measured once per process.
    """

    name: str
    instructions: tuple[str, ...]
    threads: int
    fastest: str

    def __str__(self) -> str:
        """One line."""
        known = " ".join(self.instructions) or "not told"
        threads = format_count(self.threads, "thread")
        return f"{self.name} ({known}), {threads}, multiplies {self.fastest}"


def describe_processor() -> Processor:
    """The processor at hand."""
    with limit_torch(1):
        fastest = "bfloat16" if bfloat16_is_faster() else "float32"
    # Older releases of torch do not tell.
    has: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    known = tuple(name for name in _TOLD if has.get(name))
    return Processor(_find_name(), known, torch_threads(), fastest)


def _find_name() -> str:
    """As Linux tells it, with the family, since makers leave the model out; else as Python does."""
    facts: dict[str, str] = {}
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    kind = [f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts]
    return ", ".join([facts["model name"], *kind]).replace("cpu family", "family")
