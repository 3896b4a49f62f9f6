"""Which Ray a command joins, and what it says when there is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from asif_lance.cluster.ray_cluster import describe_loss, import_ray, start_ray
from asif_lance.errors import InputError

ray = pytest.importorskip("ray", reason="Ray is not installed: `make cluster` has it")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:lance is not fork-safe")]


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_an_address_at_which_nothing_answers_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    told = f"^no Ray cluster answers at RAY_ADDRESS={address}: Connection refused$"
    with pytest.raises(InputError, match=told):
        start_ray(import_ray())


def test_an_address_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere")
    with pytest.raises(InputError, match=r"^no Ray at RAY_ADDRESS=somewhere: .+$"):
        start_ray(import_ray())


_START = """
import os, ray
from asif_lance.cluster.ray_cluster import describe_loss, start_ray

class Dying:
    def run(self):
        os._exit(3)

start_ray(ray)
print("joined", ray.get_runtime_context().gcs_address, flush=True)
try:
    ray.get(ray.remote(max_restarts=0)(Dying).remote().run.remote())
except ray.exceptions.RayError as error:
    print("told", describe_loss(error), flush=True)
"""


def test_a_cluster_that_another_program_has_begun_here_is_not_joined_unasked() -> None:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        command = [sys.executable, "-c", _START]
        run = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    finally:
        cluster.shutdown()
    assert run.returncode == 0, run.stderr
    said = dict(line.split(" ", 1) for line in run.stdout.splitlines() if " " in line)
    assert said["joined"] != cluster.address
    cause = "The actor is dead because its worker process has died."
    assert said["told"].startswith(f"its worker was lost (ActorDiedError: {cause}")


def test_of_an_error_that_a_worker_raised_its_last_line_is_told() -> None:
    error = RuntimeError("it failed\n  File a.py, line 1\nValueError: no room\n")
    assert describe_loss(error) == "its worker was lost (RuntimeError: ValueError: no room)"
