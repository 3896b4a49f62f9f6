"""Imports timm without torch's compiler, which takes 1 s and 150 MB and is not used here.

timm and torchvision ask for it in two ways when they are imported: torchvision wants a function
that says whether a device can compile, for the pooling of regions; and some of timm's methods are
marked as not to be compiled. The function is imported when it is called, and the marks are the
compiler's own, set without it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

_COMPILER = "torch._dynamo.utils"


class _StandIn(ModuleType):
    """Answers torchvision; asked for anything else, it makes way for the compiler."""

    @staticmethod
    def is_compile_supported(device_type: Any) -> Any:
        """As the compiler says."""
        return import_module(_COMPILER).is_compile_supported(device_type)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_COMPILER) is self:
            del sys.modules[_COMPILER]
        return getattr(import_module(_COMPILER), name)


def _mark_uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    return function


def import_timm() -> None:
    """Import timm, without the compiler if nobody has imported that yet."""
    if _COMPILER in sys.modules:
        return
    import torch  # takes seconds, and this module is imported by what may need none of it

    stand_in = sys.modules[_COMPILER] = _StandIn(_COMPILER)
    try:
        with patch.object(torch.compiler, "disable", _mark_uncompiled):
            import_module("timm")
    finally:
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]
