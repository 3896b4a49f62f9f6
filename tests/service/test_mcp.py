"""`asif-lance mcp` answers the protocol's own client as the HTTP API does, and changes nothing."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli, pairs_frame
from drawn_scenes import draw_scene, write_scenes
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

_RUN = "from asif_lance.cli import main; main(prog_name='asif-lance')"

Ask = Callable[..., Awaitable[Any]]


def talk(database: Path, *options: object, to: Callable[[ClientSession], Awaitable[None]]) -> None:
    """Start the command and talk to it as a program that runs models does."""

    async def work() -> None:
        command = ["-c", _RUN, "--db", str(database), "mcp", *map(str, options)]
        server = StdioServerParameters(
            command=sys.executable, args=command, env=dict(os.environ), cwd=database.parent
        )
        async with stdio_client(server) as streams, ClientSession(*streams) as session:
            await session.initialize()
            await to(session)

    asyncio.run(asyncio.wait_for(work(), 240))


async def ask(session: ClientSession, tool: str, **arguments: Any) -> Any:
    answer = await session.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    return answer.structured_content


async def refusal(session: ClientSession, tool: str, **arguments: Any) -> str:
    answer = await session.call_tool(tool, arguments)
    assert answer.is_error, answer.structured_content
    return str(answer.content[0].text)


def test_a_model_asks_about_pairs_versions_and_in_sql(cli: Cli, tmp_path: Path) -> None:
    pairs_frame(30, np.random.default_rng(2)).write_parquet(tmp_path / "pairs.parquet")
    database = tmp_path / "t.lancedb"
    assert cli("--db", database, "ingest", "pairs.parquet").status == 0
    assert cli("--db", database, "delete", "p3").status == 0

    async def conversation(session: ClientSession) -> None:
        tools = (await session.list_tools()).tools
        assert {"classify", "explain", "fewest_pairs_that_flip", "audit"} <= {t.name for t in tools}
        assert all(tool.annotations.read_only_hint and tool.description for tool in tools)
        assert all(tool.input_schema["additionalProperties"] is False for tool in tools)
        versions = (await ask(session, "versions"))["versions"]
        assert [one["name"] for one in versions] == ["v1", "v2"]
        changed = await ask(session, "compare_versions", old="v1")
        assert [pair["pair_id"] for pair in changed["removed"]] == ["p3"]
        page = await ask(session, "pairs", limit=3)
        assert (page["total"], page["next"]) == (29, 3)
        found = await ask(session, "audit", sql="SELECT count(*) AS n FROM pairs")
        assert found["rows"] == [[29]]
        for tool, arguments, told in (
            ("audit", {"sql": "DROP TABLE pairs"}, "SELECT"),
            ("audit", {"sql": "FROM read_csv('/etc/passwd')"}, ""),
            ("pairs", {"model": "v9"}, "no model version 'v9'"),
            ("pairs", {"limit": 10**9}, "100"),
            ("evaluation", {"run": "' OR 1 --"}, "an id from a list"),
            ("classify", {"picture": "../x.png", "labels": ["a"]}, "no folder of pictures"),
            ("classify", {"picture": "x.png", "labels": []}, "labels takes at least 1"),
            ("pairs", {"limits": 3}, "there is no argument 'limits'; did you mean 'limit'?"),
            ("versions", {"x": 3}, "there is no argument 'x'; there are: none"),
        ):
            message = await refusal(session, tool, **arguments)
            assert told in message, message
            assert str(tmp_path) not in message
            assert "Traceback" not in message
            assert len(message.splitlines()) == 1

    talk(database, to=conversation)
    assert [one["name"] for one in cli("--db", database, "versions", "--format", "json").objects]


@pytest.mark.encoders
@pytest.mark.slow
def test_a_model_asks_about_pictures(cli: Cli, tmp_path: Path) -> None:
    write_scenes(tmp_path / "photos", range(4))
    database = tmp_path / "t.lancedb"
    assert cli("--db", database, "ingest", "photos").status == 0
    (tmp_path / "asked").mkdir()
    draw_scene("sea", 40).save(tmp_path / "asked" / "boat.png")
    (tmp_path / "asked" / "no.png").write_bytes(b"no picture")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "asked" / "link.png").symlink_to(tmp_path / "secret.png")
    labels = ["sea", "forest", "a city, at dusk"]

    async def conversation(session: ClientSession) -> None:
        asked = {"picture": "boat.png", "labels": labels}
        answer = await ask(session, "classify", **asked)
        assert answer["predictions"][0]["label"] == "sea"
        assert answer["confidence"]["source"] == "self-test"
        content = base64.b64encode((tmp_path / "asked" / "boat.png").read_bytes()).decode()
        sent = {**asked, "picture": f"data:image/png;base64,{content}"}
        assert (await ask(session, "classify", **sent))["predictions"] == answer["predictions"]
        view = await ask(session, "explain", **asked)
        assert [one["label"] for one in view["answer"]["predictions"]][:1] == ["sea"]
        assert {one["label"] for one in view["answer"]["predictions"]} == set(labels)
        flip = await ask(session, "fewest_pairs_that_flip", **asked)
        assert flip["pairs"]
        without = await ask(session, "explain", **asked, without=flip["pairs"])
        assert without["answer"]["predictions"][0]["label"] == flip["after"] != "sea"
        assert (await ask(session, "search", text="trees", top=1))["found"]
        for picture in ("../secret.png", "link.png", str(tmp_path / "secret.png"), "none.png"):
            message = await refusal(session, "classify", picture=picture, labels=labels)
            assert "below the folder" in message
            assert str(tmp_path) not in message
        assert "no such file" in await refusal(session, "classify", picture="a\0b", labels=labels)
        assert "not an image" in await refusal(session, "classify", picture="no.png", labels=labels)

    talk(database, "--pictures", tmp_path / "asked", to=conversation)
