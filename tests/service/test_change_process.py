"""The process that deletes and forgets for a service: killed, signalled, and ended with it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from running_service import RunningService, serve
from service_questions import make_database, question

from asif_lance.verifier import JOURNAL_FILE


def find_process(service: RunningService) -> int | None:
    """The process that changes, if it runs."""
    for children in Path(f"/proc/{service.process.pid}/task").glob("*/children"):
        for pid in children.read_text().split():
            if b"change_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
    return None


def wait_for(true: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.001)


def plan(client: httpx.Client, pair_id: str) -> dict[str, Any]:
    """What to send to forget a pair."""
    told = client.post("/api/forget/plan", json={"pairs": [pair_id]}).json()
    return {"pairs": [pair_id], "confirm": told["confirm"]}


def test_a_forget_whose_process_is_killed_is_finished_before_the_next_answer(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    database = make_database(tmp_path, rng)
    with serve(database, "--allow", "forget") as service, service.client() as client:
        asked, answers = plan(client, "p3"), list[httpx.Response]()
        forget = threading.Thread(
            target=lambda: answers.append(client.post("/api/forget", json=asked))
        )
        forget.start()
        wait_for((database / JOURNAL_FILE).exists)
        killed = find_process(service)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        forget.join()
        (answer,) = answers
        assert answer.status_code == 503
        assert answer.json() == {"error": "what changes pairs was ended meanwhile: ask again"}
        assert not (database / JOURNAL_FILE).exists()
        again = client.post("/api/forget", json=asked)
        assert again.status_code == 404
        assert "none of these pairs is in any version (p3: forgotten on" in again.json()["error"]
        receipt = again.json()["error"].rstrip(")").split()[-1]
        assert client.get(f"/receipts/{receipt}.json").json()["clean"]
        assert client.get("/pairs.json", params={"id": "p3"}).json()["pairs"] == []
        assert client.post("/api/classify", json=question(rng)).status_code == 200
        assert client.post("/api/forget", json=plan(client, "p4")).status_code == 200


def test_signals_are_for_the_service_whose_process_of_changes_ends_with_it(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    with serve(make_database(tmp_path, rng), "--allow", "forget") as service:
        client = service.client()
        asked = plan(client, "p1")
        child = find_process(service)
        assert child is not None
        for kind in (signal.SIGINT, signal.SIGTERM):
            os.kill(child, kind)
        assert client.post("/api/forget", json=asked).status_code == 200
        assert find_process(service) == child
        service.stop()
        assert not Path(f"/proc/{child}").exists()


def test_what_only_reads_needs_no_process_of_changes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    with serve(make_database(tmp_path, rng), "--allow", "forget") as service:
        assert service.client().post("/api/classify", json=question(rng)).status_code == 200
        assert find_process(service) is None


def test_failures_of_changes_are_told_as_those_of_answers(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    with serve(make_database(tmp_path, rng), "--allow", "forget") as service:
        client = service.client()
        asked = plan(client, "p1")
        quoting = client.post("/api/forget", json={**asked, "reason": "it is p1"})
        assert (quoting.status_code, "the reason is kept" in quoting.text) == (422, True)
        assert client.post("/api/forget", json=asked).status_code == 200
