"""Ray itself: found, joined or started, and how many actors it has room for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from typing import Any

from asif_lance.errors import InputError

#: How often a task is given away before it counts as failed.
ATTEMPTS = 3


def check_ray() -> None:
    """Pass if Ray is installed, which is not imported yet.

    Raises:
        InputError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise _missing()


def import_ray() -> Any:
    """Ray, which is an extra.

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise _missing() from error


def _missing() -> InputError:
    return InputError("--engine ray needs Ray: pip install 'asif-lance[ray]'")


def start_ray(ray: Any) -> None:
    """Join the cluster that `RAY_ADDRESS` names, or start Ray here, unless that was done."""
    if not ray.is_initialized():
        with warnings.catch_warnings():  # what Ray forks runs other programs at once
            warnings.filterwarnings("ignore", message="lance is not fork-safe")
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)


def count_room(ray: Any, cpus: float, gpus: float = 0) -> int:
    """How many actors of this size there is room for now; one at least."""
    room = ray.cluster_resources()
    most = room.get("CPU", 1) // cpus
    return max(int(min(most, room.get("GPU", 0) // gpus) if gpus else most), 1)
