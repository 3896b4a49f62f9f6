"""Ray itself: found, joined or started, and how many actors it has room for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import warnings
from math import ceil, floor
from textwrap import shorten
from typing import Any

from asif_lance.errors import InputError

#: How often a task is given away before it counts as failed.
ATTEMPTS = 3

_ANSWERS_SECONDS = 10.0
_GPU_PARTS = 10_000  # what Ray counts them in
_CAUSE = 240  # characters


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
    """Join the cluster that `RAY_ADDRESS` names, or start Ray here, unless that was done.

    Ray by itself would join whatever cluster another program has begun on this machine last, and
    lose its workers with it.

    Raises:
        InputError: there is no Ray at that address, or it cannot be started.
    """
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS") or "local"
        _check_address(address)
        with warnings.catch_warnings():  # what Ray forks runs other programs at once
            warnings.filterwarnings("ignore", message="lance is not fork-safe")
            how = {"log_to_driver": False, "configure_logging": False}
            try:
                ray.init(address, include_dashboard=False, **how)
            except (ConnectionError, RuntimeError, ValueError) as error:
                why = shorten(str(error), _CAUSE)
                raise InputError(f"no Ray at RAY_ADDRESS={address}: {why}") from error


def _check_address(address: str) -> None:
    """Pass if something answers there, for which Ray itself would wait for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return  # of a cluster on this machine, or none
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_SECONDS).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"no Ray cluster answers at RAY_ADDRESS={address}: {why}") from error


def describe_loss(error: Exception) -> str:
    """Why a worker was lost, in one line: the kind of error and what Ray says of its cause."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    # First that an actor died, then its names and numbers, then why; of what it raised, the last.
    cause = next((line for line in said[1:] if line.startswith("The actor")), said[-1])
    return f"its worker was lost ({type(error).__name__}: {shorten(cause, _CAUSE)})"


def size_workers(
    ray: Any, workers: int | None, cpus: float, gpus: float | None
) -> tuple[int, float]:
    """How many actors there are to be, and how many GPUs each one has.

    Args:
        ray: the module.
        workers: how many are asked for; as many as there is room for now when None, one at least.
        cpus: of each.
        gpus: of each. When None one, or a part of one where more workers are asked for than the
            cluster has; none where it has none.

    Raises:
        InputError: more than one GPU, or less than none.
    """
    there = ray.cluster_resources()
    cards = int(there.get("GPU", 0))
    if gpus is None:
        gpus = _divide_gpus(cards, workers or 1)
    if not 0 <= gpus <= 1:
        raise InputError(f"gpus: a worker computes on one GPU or a part of it, not on {gpus}")
    room = there.get("CPU", 1) // cpus
    if gpus:
        room = min(room, cards * int(1 / gpus))
    return workers or max(int(room), 1), gpus


def _divide_gpus(cards: int, workers: int) -> float:
    """What each worker has: a card, or a part of it where several must have the same."""
    if not cards:
        return 0
    return floor(_GPU_PARTS / ceil(workers / cards)) / _GPU_PARTS
