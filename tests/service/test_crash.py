"""A service that is killed while it answers and writes: nothing acknowledged is lost or wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from running_service import RunningService, serve
from service_questions import PAIRS, as_vectors, make_database, question

import asif_lance

KILLS = 3


@dataclass
class Seen:
    """What clients were told."""

    asked: dict[str, Any]
    answers: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[tuple[str, str]] = field(default_factory=list)
    forgetting: list[str] = field(default_factory=list)
    forgotten: list[tuple[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def keep_doing(step: Callable[[httpx.Client], None], service: RunningService) -> threading.Thread:
    """Do it again and again until the service is gone."""

    def work() -> None:
        with service.client() as client:
            while True:
                try:
                    step(client)
                except (httpx.HTTPError, ValueError):  # cut off in the middle
                    return

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def read(seen: Seen) -> Callable[[httpx.Client], None]:
    def step(client: httpx.Client) -> None:
        answer = client.post("/api/classify", json=seen.asked)
        if answer.status_code == 200:
            seen.answers.append(answer.json())
        else:
            seen.refused.append(answer.text)

    return step


def write(seen: Seen, ids: list[str]) -> Callable[[httpx.Client], None]:
    """Delete a pair, forget another, and note what was acknowledged."""

    def step(client: httpx.Client) -> None:
        gone, forgotten = ids.pop(), ids.pop()
        done = client.post("/api/delete", json={"pairs": [gone]}).json()
        seen.deleted.append((gone, done["model"]))
        plan = client.post("/api/forget/plan", json={"pairs": [forgotten]}).json()
        body = {"pairs": [forgotten], "confirm": plan["confirm"]}
        seen.forgetting.append(forgotten)  # if it is cut off, opening the database finishes it
        receipt = client.post("/api/forget", json=body).json()
        seen.forgotten.append((forgotten, receipt["receipt_id"]))

    return step


@pytest.mark.slow
def test_kill_9_under_load_loses_no_acknowledged_write_and_makes_no_answer_wrong(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    database = make_database(tmp_path, rng)
    seen = Seen({**question(rng, 3), "explain": PAIRS})
    ids = [f"p{i}" for i in range(100)]
    for _ in range(KILLS):
        with serve(database, "--allow", "forget") as service:
            threads = [keep_doing(read(seen), service) for _ in range(2)]
            threads.append(keep_doing(write(seen, ids), service))
            writes, until = len(seen.forgotten), time.monotonic() + 60
            while len(seen.forgotten) == writes and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(float(rng.uniform(0, 0.5)))
            service.process.kill()
            for thread in threads:
                thread.join()
    assert len(seen.deleted) >= len(seen.forgotten) >= KILLS
    assert seen.refused == []
    with serve(database) as service, service.client() as client:  # it starts, whatever was cut off
        check_writes(seen, client)
    check_answers(seen, database)


def check_writes(seen: Seen, client: httpx.Client) -> None:
    names = [one["name"] for one in client.get("/versions.json").json()["versions"]]
    for pair_id, version in seen.deleted:
        for name in (version, "latest"):
            found = client.get("/pairs.json", params={"id": pair_id, "model": name}).json()
            assert found["pairs"] == [], (pair_id, name)
    for pair_id, receipt in seen.forgotten:
        assert client.get(f"/receipts/{receipt}.json").json()["clean"]
        for name in names:
            found = client.get("/pairs.json", params={"id": pair_id, "model": name}).json()
            assert found["pairs"] == [], (pair_id, name)


def check_answers(seen: Seen, database: Path) -> None:
    """Every answer is that of its version, with the pairs that a forget may have taken since."""
    assert seen.answers
    vectors, labels = as_vectors(seen.asked)
    for answer in seen.answers:
        model = asif_lance.open(database, model=answer["model"])
        now = list(model.classify_vectors([""] * 3, vectors, model.label_vectors(labels)))
        same = [
            [(p["label"], p["score"]) for p in got["predictions"]] == list(expected.ranking)
            for got, expected in zip(answer["answers"], now, strict=True)
        ]
        shown = {pair["pair_id"] for got in answer["answers"] for pair in got["pairs"]}
        assert all(same) or shown & set(seen.forgetting), answer["model"]
