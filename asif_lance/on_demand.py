"""Packages whose modules are imported when one of their public names is first asked for.

What stands on torch takes seconds to import. Whoever asks a package for a name that does not, such
as what reads a file of labels, is not to wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def import_on_demand(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package.

    Args:
        package: its name.
        homes: the public names of each of its modules, with blanks between.
    """
    found = {name: module for module, names in homes.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{found[name]}"), name)

    return load
