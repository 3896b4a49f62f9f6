"""What a service says where time or methods are made up, asked in this process."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from conftest import Cli, picture
from service_questions import make_database

from asif_lance.errors import StaleModelError
from asif_lance.service import Service, ServiceSettings, create_app
from asif_lance.service.open_models import OpenModel
from asif_lance.service.operations import FLIP_SECONDS
from asif_lance.service.question import ChosenRecipe
from asif_lance.service.running import _listen
from asif_lance.whatif import fewest_flips


@pytest.fixture
def service(tmp_path: Path, rng: np.random.Generator) -> Iterator[Service]:
    service = Service(ServiceSettings(str(make_database(tmp_path, rng))))
    yield service
    service.close()


def ask(service: Service, *requests: tuple[str, str]) -> list[httpx.Response]:
    """Answers to methods and addresses."""

    async def send() -> list[httpx.Response]:
        through = httpx.ASGITransport(app=create_app(service))
        async with httpx.AsyncClient(transport=through, base_url="http://localhost") as client:
            return [await client.request(*request) for request in requests]

    return asyncio.run(send())


def test_methods_that_anybody_makes_up_count_as_one(service: Service) -> None:
    made_up = [f"MADE{number}" for number in range(30)]
    ask(service, *((method, "/versions.json") for method in ["GET", *made_up]))
    (metrics,) = ask(service, ("GET", "/metrics"))
    assert set(re.findall(r'method="([^"]*)"', metrics.text)) == {"GET", "(other)"}


def test_an_answer_that_a_forget_makes_stale_many_times_is_an_answer_all_the_same(
    service: Service,
) -> None:
    stale = iter([True] * 12 + [False])

    def ask(opened: OpenModel) -> str:
        if next(stale):
            raise StaleModelError("here", "pairs were forgotten")
        return opened.model.version.name

    assert service.operations.models.answer("latest", ChosenRecipe(), ask) == "v1"


def test_the_body_of_an_answer_does_not_wait_until_its_head_is_acknowledged() -> None:
    with _listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()[:2]):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.encoders
def test_a_search_for_the_fewest_pairs_that_takes_too_long_says_so(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        picture(tmp_path / "photos" / f"{number}.png", number)
        (tmp_path / "photos" / f"{number}.txt").write_text(f"Picture number {number}.")
    assert cli("--db", tmp_path / "t.lancedb", "ingest", tmp_path / "photos").status == 0
    service = Service(ServiceSettings(str(tmp_path / "t.lancedb")))
    content = (tmp_path / "photos" / "1.png").read_bytes()
    (held,), _ = service.operations.hold([("1.png", content)])
    late = SimpleNamespace(monotonic=count(0, 1.1 * FLIP_SECONDS).__next__)
    monkeypatch.setattr(fewest_flips, "time", late)
    page, told = ask(
        service,
        ("GET", f"/fewest/{held.sha256}?labels=one,two"),
        ("GET", f"/fewest/{held.sha256}.json?labels=one,two"),
    )
    service.close()
    assert page.status_code == 404
    assert "in 10 seconds no 30 pairs or fewer were found without which it is not" in page.text
    assert (told.json()["pairs"], told.json()["exact"]) == ([], False)
