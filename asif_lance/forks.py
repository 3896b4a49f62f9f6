"""A forked process has no threads of Lance and torch: to read or compute would wait for ever."""

from __future__ import annotations

import os

from asif_lance.errors import ForkedProcessError

# The process that Lance and torch run in.
_used_in: dict[str, int] = {}


def check_not_forked() -> None:
    """Pass where this process may read a database or compute.

    Raises:
        ForkedProcessError: its parent has done so before it was forked.
    """
    if _used_in.setdefault("process", os.getpid()) != os.getpid():
        raise ForkedProcessError
