"""What pages answer, asked without a browser: mistakes told in place, and nothing passed over."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from io import BytesIO
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import entry_point
from drawn_scenes import draw_scene, write_scenes
from PIL import Image
from running_service import RunningService, serve

LABELS = "sea, forest, desert, city, mountain, night sky"

pytestmark = pytest.mark.encoders


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("pages")
    write_scenes(folder / "sketches", range(4))
    command = ["--db", str(folder / "t.lancedb"), "ingest", str(folder / "sketches")]
    done = CliRunner().invoke(entry_point(), command)
    assert done.exit_code == 0, done.output
    with serve(folder / "t.lancedb", "--allow", "forget") as service:
        yield service
    assert "Traceback" not in "".join(service.log)


@pytest.fixture
def client(running: RunningService) -> Iterator[httpx.Client]:
    with running.client(headers={"accept": "text/html"}) as client:
        yield client


def png(kind: str = "sea", number: int = 40) -> bytes:
    out = BytesIO()
    draw_scene(kind, number).save(out, "PNG")
    return out.getvalue()


def drop(client: httpx.Client, **files: bytes) -> httpx.Response:
    return client.post(
        "/drop",
        files=[("files", (name, content)) for name, content in files.items()],
        data={"labels": LABELS},
    )


@pytest.fixture
def answer(client: httpx.Client) -> httpx.URL:
    """The address of an answer."""
    return httpx.URL(drop(client, a=png()).headers["location"])


def told(page: httpx.Response) -> str:
    """What a page says of a mistake."""
    (alert,) = re.findall(r'role="alert">(.*?)</(?:p|ul)>', page.text, re.DOTALL)
    return html.unescape(re.sub("<[^>]*>", "", alert))


def test_an_address_names_the_version_that_answered(answer: httpx.URL) -> None:
    assert answer.params["model"] == "v1"


def test_pictures_that_cannot_be_used_are_named_beside_those_that_can(
    client: httpx.Client,
) -> None:
    hostile = {"<b>bold.png": b"nothing", 'in "quotes".png': b""}
    page = drop(client, sea=png(), **hostile)
    assert (page.status_code, "<b>bold" in page.text) == (200, False)
    assert "2 pictures cannot be used" in page.text
    assert "<b>bold.png: not an image" in told(page)
    assert 'in "quotes".png: ' in told(page)
    (where,) = re.findall('href="(/answer/[^"]*)">Go on with the other one', page.text)
    assert client.get(html.unescape(where)).status_code == 200
    page = drop(client, sea=png(), wood=png("forest"), **hostile)
    (where,) = re.findall('href="(/answers[^"]*)">Go on with the other 2', page.text)
    assert "2 pictures" in client.get(html.unescape(where)).text
    page = drop(client, **hostile)
    assert (page.status_code, "Go on" in page.text) == (422, False)


def test_values_that_no_question_may_have_are_told_in_one_line(
    client: httpx.Client, answer: httpx.URL
) -> None:
    one, several = answer.path, f"/answers?picture={answer.path[-64:]}"
    fewest = one.replace("answer", "fewest")
    for changed, expected in (
        ({"labels": "a" * 1001}, "labels 1 may have at most 1,000 characters"),
        ({"labels": " , , "}, "name at least one label"),
        ({}, "name at least one label"),
        ({"labels": 'sea, "forest'}, "a quote is not closed"),
        ({"labels": "a", "template": ["a {}"] * 300}, "template takes at most 20, not 300"),
        ({"labels": "a", "template": "x" * 1001}, "template 1 may have at most 1,000"),
        ({"labels": "a", "model": "v" * 201}, "model may have at most 200 characters"),
        ({"labels": "a", "since": "v" * 201}, "since may have at most 200 characters"),
    ):
        for path in (one, f"{one}.json", several, fewest, f"{fewest}.json"):
            refused = client.get(client.base_url.join(path).copy_merge_params(changed))
            assert refused.status_code == 422, (path, changed, refused.text)
            if path.endswith(".json"):
                assert expected in refused.json()["error"]
                continue
            assert expected in told(refused)
            (back,) = re.findall('href="([^"]*)">Ask something else', refused.text)
            assert client.get(html.unescape(back)).status_code == 200
    for path, expected in (
        (f"{one}?labels=a&pin=zz", "pin has to be the SHA-256 of a picture"),
        ("/delete", "no pair is chosen"),
        ("/forget", "no pair is chosen"),
        ("/pairs?limit=x", "limit has to be a whole number"),
        ("/pairs?kind=x", "kind has to be 'duplicates', 'hubs' or 'wrong-drivers'"),
    ):
        refused = client.get(path)
        assert (refused.status_code, expected in told(refused)) == (422, True), refused.text


def test_an_upload_that_is_too_large_is_told_on_a_page(client: httpx.Client) -> None:
    home = {"referer": f"{client.base_url}/"}
    files = {"files": ("a.png", b"x" * 34_000_000)}
    refused = client.post("/drop", files=files, data={"labels": "a"}, headers=home)
    assert (refused.status_code, "may send at most" in told(refused)) == (413, True)
    assert '<a class="button" href="/">Back</a>' in refused.text
    refused = drop(client, **{str(number): b"x" for number in range(65)})
    assert (refused.status_code, "give 1 to 64 pictures" in told(refused)) == (422, True)


def test_browsers_find_the_icon(client: httpx.Client) -> None:
    assert client.get("/favicon.ico", follow_redirects=True).status_code == 200


def test_a_mistake_in_sql_leaves_the_question_in_its_form(client: httpx.Client) -> None:
    sql = "SELECT nothing < 1 FROM pairs"
    page = client.get("/audit", params={"sql": sql})
    assert (page.status_code, "nothing" in told(page)) == (422, True)
    assert f">{html.escape(sql)}</textarea>" in page.text


def test_a_forget_that_is_refused_can_be_planned_again(client: httpx.Client) -> None:
    pair = client.get("/pairs.json").json()["pairs"][0]["pair_id"]
    refused = client.post("/forget", data={"pair": pair, "confirm": "another"})
    assert refused.status_code == 409
    (again,) = re.findall('href="([^"]*)">Plan again', refused.text)
    assert "Forget 1 pair for good?" in client.get(html.unescape(again)).text


def test_pairs_that_are_not_there_are_told(client: httpx.Client, answer: httpx.URL) -> None:
    page = client.get(answer.copy_add_param("without", "no-such"))
    assert "1 pair named here is not in v1: no-such" in page.text
    assert "Without 0" not in page.text
    pair = client.get("/pairs.json").json()["pairs"][0]["pair_id"]
    page = client.get("/delete", params={"without": ["gone", pair]})
    assert "Delete 1 pair?" in page.text
    assert "1 pair more that was chosen is not in it any more" in page.text
    page = client.get("/delete", params={"without": "gone"})
    assert "Nothing to delete" in page.text
    assert "gone already" in page.text


def test_the_fewest_pairs_are_shown_and_whether_fewer_would_do(
    client: httpx.Client, answer: httpx.URL
) -> None:
    where = answer.copy_with(path=answer.path.replace("answer", "fewest"))
    found = client.get(where.copy_with(path=f"{where.path}.json")).json()
    assert found["pairs"]
    page = client.get(where)
    certain = found["exact"]
    assert ("exactly the fewest that flip it" in page.text) == certain
    assert (f"At least {found['at_least']} " in page.text) != certain
    shown = page.text.partition('<ul class="list out">')[2].partition('id="live-pairs"')[0]
    for pair in found["pairs"]:
        assert f"{urlencode({'id': pair})}&amp;" in shown
    backs = [html.unescape(x) for x in re.findall('href="([^"]*)"[^>]*>bring back', shown)]
    assert len(backs) == (len(found["pairs"]) if len(found["pairs"]) > 1 else 0)
    for back in backs:
        assert len(httpx.URL(back).params.get_list("without")) == len(found["pairs"]) - 1


def test_many_possible_labels_are_a_few_and_a_number(
    client: httpx.Client, answer: httpx.URL
) -> None:
    many = answer.copy_set_param("labels", ",".join(f"number {n}" for n in range(60)))
    possible = client.get(many.copy_with(path=f"{many.path}.json")).json()["answer"]["confidence"]
    count = len(possible["possible"])
    assert count > 8
    assert f"and {count - 8} more." in client.get(many).text


def test_several_pictures_say_where_no_label_fits(client: httpx.Client) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (99, 99, 3), np.uint8))
    out = BytesIO()
    noise.save(out, "PNG")
    where = httpx.URL(drop(client, sea=png(), noise=out.getvalue()).headers["location"])
    seen = set()
    for labels in (LABELS, "a tax form, a violin"):
        asked = where.copy_set_param("labels", labels)
        answers = client.get(asked.copy_with(path="/answers.json")).json()["answers"]
        none = [one["confidence"]["none"] for one in answers]
        assert client.get(asked).text.count("looks like none of these") == sum(none)
        seen |= set(none)
    assert seen == {True, False}


def test_a_saved_answer_ends_no_line_in_a_dot(client: httpx.Client, answer: httpx.URL) -> None:
    saved = client.get(answer.copy_with(path=f"{answer.path}.html")).text
    assert not re.search(r"·\s*(</|$)", saved, re.MULTILINE)
