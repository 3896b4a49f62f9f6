"""The HTTP API of a real process: what the library says, by version, and nothing forgotten."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import IMAGE_DIM, Cli
from running_service import RunningService, serve
from service_questions import PAIRS, as_vectors, make_database, question

import asif_lance
from asif_lance.evaluation import calibrate_by_self_test
from asif_lance.evaluation.confidence import COVERAGE, nearest_similarities
from asif_lance.service.protection import BODY_SECONDS


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service")
    database = make_database(folder, np.random.default_rng(5))
    with serve(database, "--allow", "forget") as service:
        yield service


@pytest.fixture
def client(running: RunningService) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


def database_of(running: RunningService) -> Path:
    return Path(running.process.args[running.process.args.index("--db") + 1])  # type: ignore[index]


def test_an_answer_is_that_of_the_library_and_names_its_version(
    running: RunningService, client: httpx.Client, rng: np.random.Generator
) -> None:
    asked = question(rng, 4)
    answer = client.post("/api/classify", json={**asked, "explain": 3}).json()
    model = asif_lance.open(database_of(running))
    vectors, labels = as_vectors(asked)
    expected = list(model.classify_vectors([""] * 4, vectors, model.label_vectors(labels)))
    assert answer["model"] == model.version.name
    for got, wanted in zip(answer["answers"], expected, strict=True):
        assert [(p["label"], p["score"]) for p in got["predictions"]] == list(wanted.ranking)
        shares = wanted.attributions(3)
        assert [(p["pair_id"], p["contribution"]) for p in got["pairs"]] == [
            (share.pair_id, share.contribution) for share in shares
        ]


def test_packed_vectors_are_those_of_the_digits(
    client: httpx.Client, rng: np.random.Generator
) -> None:
    asked = question(rng, 4)
    vectors, labels = as_vectors(asked)

    def pack(rows: np.ndarray) -> dict[str, Any]:
        content = base64.b64encode(rows.astype("<f4").tobytes()).decode()
        return {"dimension": rows.shape[-1], "float32": content}

    packed = {
        "vectors": pack(vectors),
        "label_vectors": {name: pack(rows) for name, rows in labels.items()},
    }
    answers = [client.post("/api/classify", json=body).json() for body in (asked, packed)]
    assert answers[0] == answers[1]
    good = pack(vectors)
    for wrong in (
        {**good, "float32": good["float32"][:-8]},
        {**good, "float32": "no base64!"},
        {**good, "float32": "AAAAAAAAA"},
        {**good, "dimension": IMAGE_DIM // 2},
        {**good, "dimension": 0},
        pack(np.full((1, IMAGE_DIM), np.nan)),
    ):
        answer = client.post("/api/classify", json={**asked, "vectors": wrong})
        assert (answer.status_code, list(answer.json())) == (422, ["error"]), wrong


def test_confidence_is_that_of_the_library(
    running: RunningService, client: httpx.Client, rng: np.random.Generator
) -> None:
    asked = question(rng, 2)
    answer = client.post("/api/classify", json={**asked, "confidence": True}).json()
    vectors, labels = as_vectors(asked)
    model = asif_lance.open(database_of(running))
    compiled = model.label_vectors(labels)
    calibration = calibrate_by_self_test(model, compiled)
    expected = model.classify_vectors(["", ""], vectors, compiled)
    for got, prediction in zip(answer["answers"], expected, strict=True):
        sure = calibration.assess(prediction)
        assert [p["probability"] for p in got["predictions"]] == list(sure.probabilities)
        assert got["confidence"] == {
            "source": "self-test",
            "pictures": calibration.pictures,
            "possible": list(sure.possible),
            "together": COVERAGE,
            "none": sure.none,
            "low": sure.low,
            "low_score": prediction.score <= np.quantile(calibration.best, 0.1),
            "low_usual": calibration.share_as_low(np.quantile(calibration.best, [0.1]))[0],
            "unlike": nearest_similarities([prediction])[0]
            <= np.quantile(calibration.nearest, 0.1),
        }


def test_many_at_once_get_the_answers_that_each_gets_alone(
    client: httpx.Client, rng: np.random.Generator
) -> None:
    texts = question(rng)["label_vectors"]
    each = [{**question(rng), "label_vectors": texts} for _ in range(24)]
    alone = [client.post("/api/classify", json=asked).json() for asked in each]
    together: dict[int, Any] = {}

    def ask(number: int) -> None:
        together[number] = client.post("/api/classify", json=each[number]).json()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(each))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(len(each))] == alone
    figures = client.get("/metrics").text
    searches = float(re.search(r"search_requests_count (\S+)", figures)[1])  # type: ignore[index]
    requests = float(re.search(r"search_requests_sum (\S+)", figures)[1])  # type: ignore[index]
    assert searches < requests


def test_one_request_that_cannot_be_answered_costs_no_other(
    client: httpx.Client, rng: np.random.Generator
) -> None:
    asked = question(rng)
    bad = {**asked, "vectors": [[0.0] * IMAGE_DIM]}
    answers: list[int] = []
    threads = [
        threading.Thread(
            target=lambda body: answers.append(client.post("/api/classify", json=body).status_code),
            args=(body,),
        )
        for body in [asked, bad] * 6
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 6 + [422] * 6


def test_leaving_pairs_out_answers_as_deleting_them_does(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    with serve(make_database(tmp_path, rng), "--allow", "write") as service:
        client = service.client()
        asked = {**question(rng, 3), "explain": 2}
        first = client.post("/api/classify", json=asked).json()
        gone = [pair["pair_id"] for a in first["answers"] for pair in a["pairs"]]
        told = client.post("/api/what-if/delete", json={**asked, "without": gone}).json()
        assert (told["model"], told["removed"]) == ("v1", len(set(gone)))
        done = client.post("/api/delete", json={"pairs": gone}).json()
        assert done == {"deleted": len(set(gone)), "not_found": 0, "model": "v2"}
        after = client.post("/api/classify", json=asked).json()
        assert after["model"] == "v2"
        assert [change["before"] for change in told["changes"]] == first["answers"]
        for change, got in zip(told["changes"], after["answers"], strict=True):
            assert change["after"]["predictions"] == got["predictions"]
        old = client.post("/api/classify", json={**asked, "model": "v1"}).json()
        assert old == first
        assert client.post("/api/forget/plan", json={"pairs": gone}).status_code == 403


def test_versions_that_others_make_answer_without_a_restart(
    tmp_path: Path, rng: np.random.Generator, cli: Cli
) -> None:
    database = make_database(tmp_path, rng)
    with serve(database) as service:
        client, asked = service.client(), question(rng)
        assert client.post("/api/classify", json=asked).json()["model"] == "v1"
        assert cli("--db", database, "delete", "p1").status == 0
        assert client.post("/api/classify", json=asked).json()["model"] == "v2"
        assert [v["name"] for v in client.get("/versions.json").json()["versions"]] == ["v1", "v2"]
        compared = client.get("/versions/compare.json", params={"old": "v1"}).json()
        assert (compared["old"], compared["new"]) == ("v1", "v2")
        assert compared["pairs"] == {"added": 0, "removed": 1, "changed": 0}
        assert [pair["pair_id"] for pair in compared["removed"]] == ["p1"]
        assert compared["by_license"]["CC-BY"]["removed"] == 1
        assert cli("--db", database, "forget", "p2", "--yes").status == 0
        compared = client.get("/versions/compare.json", params={"old": "v2", "new": "v1"}).json()
        assert compared["pairs"] == {"added": 1, "removed": 0, "changed": 0}
        answer = client.post("/api/classify", json={**asked, "explain": PAIRS}).json()
        assert "p2" not in [pair["pair_id"] for pair in answer["answers"][0]["pairs"]]


def test_nothing_answers_from_a_forgotten_pair_once_its_receipt_is_there(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    with serve(make_database(tmp_path, rng), "--allow", "forget") as service:
        client = service.client()
        asked = {**question(rng), "explain": PAIRS}
        pair = client.post("/api/classify", json=asked).json()["answers"][0]["pairs"][0]
        late: list[str] = []
        done = threading.Event()

        def keep_asking() -> None:
            with service.client() as other:
                while not done.is_set():
                    receipt_was_there = had_receipt.is_set()
                    answer = other.post("/api/classify", json=asked)
                    assert answer.status_code == 200, answer.text
                    if receipt_was_there and pair["pair_id"] in answer.text:
                        late.append(answer.text)

        had_receipt = threading.Event()
        readers = [threading.Thread(target=keep_asking) for _ in range(3)]
        for reader in readers:
            reader.start()
        plan = client.post("/api/forget/plan", json={"pairs": [pair["pair_id"], "x"]}).json()
        assert [p["pair_id"] for p in plan["pairs"]] == [pair["pair_id"]]
        assert plan["unknown"] == ["x"]
        body = {"pairs": [pair["pair_id"]], "reason": "asked", "confirm": plan["confirm"]}
        other = client.post("/api/forget", json={**body, "confirm": "else"})
        assert (other.status_code, "plan again" in other.text) == (409, True)
        receipt = client.post("/api/forget", json=body).json()
        had_receipt.set()
        for _ in range(5):
            assert pair["pair_id"] not in client.post("/api/classify", json=asked).text
        done.set()
        for reader in readers:
            reader.join()
        assert late == []
        assert (receipt["pairs"], receipt["clean"], receipt["versions"]) == (1, True, ["v1"])
        assert client.get(f"/receipts/{receipt['receipt_id']}.json").json() == receipt
        again = client.get("/pairs.json", params={"id": pair["pair_id"]}).json()
        assert again["pairs"] == []


def test_a_target_that_names_a_host_is_asked_of_that_host(running: RunningService) -> None:
    host, port = running.address.removeprefix("http://").split(":")

    def ask(target: str, header: str = "localhost") -> tuple[int, str]:
        connection = HTTPConnection(host, int(port), timeout=60)
        connection.request("GET", target, headers={"Host": header})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    for target in ("http://localhost/health", f"HTTP://LOCALHOST:{port}/health"):
        for header in ("localhost", "elsewhere.example"):
            status, told = ask(target, header)
            assert (status, '"status":"ok"' in told) == (200, True)
    assert ask("http://localhost")[0] == 200
    assert ask("https://localhost/versions/compare.json?old=v1&new=v1")[0] == 200
    for target in ("http://elsewhere.example/health", "http://me@localhost/health", "http:///"):
        assert ask(target)[0] == 400, target


def test_sql_reads_this_database_and_nothing_else(client: httpx.Client) -> None:
    def ask(**asked: str) -> httpx.Response:
        return client.get("/audit.json", params=asked)

    answer = ask(sql="SELECT count(*) AS n, 'NaN'::FLOAT AS x, [-'inf'::FLOAT] AS y FROM pairs")
    assert answer.json()["rows"] == [[PAIRS, "NaN", ["-Infinity"]]]
    assert ask(report="provenance").json()["columns"][:2] == ["source", "license"]
    for sql in ("DROP TABLE pairs", "SELECT * FROM read_csv('/etc/passwd')", "SELECT ';", ""):
        assert ask(sql=sql).status_code == 422, sql
    assert ask(report="no-such").status_code == 404
    table = client.get("/audit.csv", params={"sql": "SELECT '=1+1' AS a, NULL AS b, 2 AS c"})
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert table.text.splitlines() == ["a,b,c", "'=1+1,,2"]
    assert ask(sql="FROM pairs", model="v9").status_code == 404


def test_pairs_come_a_page_at_a_time(client: httpx.Client) -> None:
    first = client.get("/pairs.json", params={"limit": 100}).json()
    assert (len(first["pairs"]), first["total"], first["next"]) == (100, PAIRS, 100)
    rest = client.get("/pairs.json", params={"limit": 100, "offset": 100}).json()
    assert (len(rest["pairs"]), rest["next"]) == (PAIRS - 100, None)

    def total(**asked: str) -> int:
        return int(client.get("/pairs.json", params=asked).json()["total"])

    assert first["licenses"] == [
        {"value": "CC-BY", "pairs": PAIRS // 2},
        {"value": "CC-BY-NC", "pairs": PAIRS // 2},
    ]
    assert first["sources"] == [{"value": "pairs.parquet", "pairs": PAIRS}]
    assert total(license="CC-BY") == PAIRS // 2
    assert total(text="CAPTION 11") == 11  # 11 and 110 to 119
    assert total(text="CAPTION 11", license="CC-BY") == 6
    assert total(text=".*") == total(source="none such") == total(kind="duplicates") == 0
    assert total(source="") == 0
    assert 0 <= total(kind="hubs") < PAIRS // 4
    assert total(kind="wrong-drivers") == 0
    without_picture = client.get("/thumbnail", params={"id": "p1"})
    assert without_picture.headers["content-type"] == "image/svg+xml"
    assert client.get("/thumbnail", params={"id": "none"}).status_code == 404


def test_what_cannot_be_answered_is_told_in_one_line_without_a_path(
    running: RunningService, client: httpx.Client, rng: np.random.Generator
) -> None:
    asked, folder = question(rng), str(database_of(running).parent)
    as_json = {"content-type": "application/json"}
    for body, status in (
        ({**asked, "model": "v9"}, 404),
        ({**asked, "model": "../../etc"}, 404),
        ({**asked, "recipe": "none"}, 422),
        ({**asked, "vectors": [[1.0]]}, 422),
        ({**asked, "vectors": [[1.0] * IMAGE_DIM] * 1000}, 422),
        ({**asked, "label_vectors": None, "labels": ["cat"]}, 422),
        ({**asked, "label_vectors": {"a": [[1.0]]}}, 422),
        ({**asked, "pictures": ["0" * 64]}, 422),
        ({**asked, "vectors": [], "pictures": ["0" * 64]}, 404),
        ({**asked, "unknown": 1}, 422),
        ({**asked, "k": 0}, 422),
    ):
        answer = client.post("/api/classify", json=body)
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
        assert folder not in answer.text
        assert "Traceback" not in answer.text
    for sent, status, told in (
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "no JSON"),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 422, "a JSON object"),
        ({"json": [], "headers": {"content-encoding": "gzip"}}, 415, "without Content-Encoding"),
    ):
        answer = client.post("/api/classify", **sent)
        assert (answer.status_code, told in answer.json()["error"]) == (status, True), answer.text
    for content in (b"", b"{", b"[" * 100_000, b"\xff\xfe"):
        answer = client.post("/api/classify", content=content)
        assert (answer.status_code, list(answer.json())) == (422, ["error"])
    for body, told in (
        ({"k": "1e400"}, "k has to be a finite number"),
        ({"k": "0"}, "k has to be at least 1"),
        ({"k": "[1, 0]"}, "k 2 has to be at least 1"),
        ({"vectors": '{"dimension": 0, "float32": "AAAAAAAA"}'}, "vectors.dimension has to be at"),
        ({"vectors": '{"dimension": 3, "float32": "no base64!"}'}, "has to be base64 of float32"),
        ({"vectors": '["x"]'}, "vectors 1 has to be a list"),
        ({"pictures": '["zz"]'}, "pictures 1 has to be the SHA-256 of a picture"),
        ({"templates": "[]"}, "templates takes one template to a thousand"),
        ({"labels": '["' + "a" * 1001 + '"]'}, "labels 1 may have at most 1,000 characters"),
        ({"modle": "1"}, "there is no field 'modle' here"),
        ({"top": "1", r"\u0074op": "2"}, "'top' is given more than once"),
        ({"top": '"x"'}, "top has to be a whole number"),
        ({"label_vectors": '{"a": {"x": 1, "x": 2}}'}, "'x' is given more than once"),
    ):
        sent = "{" + ", ".join(f'"{name}": {value}' for name, value in body.items()) + "}"
        answer = client.post("/api/classify", content=sent, headers=as_json)
        assert (answer.status_code, told in answer.json()["error"]) == (422, True), answer.text
        answer = client.post("/api/classify/files", files={"files": b"x"}, data={"question": sent})
        assert (answer.status_code, told in answer.json()["error"]) == (422, True), answer.text
    assert client.get("/no/such/page").status_code == 404
    assert client.post("/api/pictures", files={"files": b"x"}).status_code == 422
    refused = client.post("/api/pictures", data={"files": "x"})
    assert refused.json() == {"error": "files 1 has to be a file"}


def test_a_parameter_given_twice_is_refused_or_read_twice(client: httpx.Client) -> None:
    for address in ("/search.json?text=a&text=b", "/pairs.json?model=v1&model=v2"):
        refused = client.get(address)
        assert (refused.status_code, "given more than once" in refused.text) == (422, True)
    both = {"labels": ["a", "b"]}
    answer = client.post("/api/classify/files", files={"files": b"x"}, data=both)
    assert "given more than once" not in answer.text


def test_a_name_that_an_operation_does_not_have_is_refused(client: httpx.Client) -> None:
    for address in ("/versions.json?modle=v1", "/thumbnail?id=p1&modle=v1", "/pairs?tex=a"):
        refused = client.get(address)
        assert (refused.status_code, "there is no parameter" in refused.text) == (422, True)
    for field in ("lables", "explain"):
        form = {"labels": "a,b", field: "x"}
        refused = client.post("/api/classify/files", files={"files": b"x"}, data=form)
        assert refused.status_code == 422
        assert f"there is no parameter '{field}'" in refused.json()["error"]
    assert "did you mean 'labels'?" in client.post("/drop", data={"lables": "a"}).json()["error"]
    twice = {"question": ["{}", "{}"]}
    refused = client.post("/api/classify/files", files={"files": b"x"}, data=twice)
    assert "given more than once" in refused.json()["error"]


def test_a_body_is_counted_as_it_arrives(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 2**20

    for body in (chunks(), b" " * 34_000_000):
        refused = client.post("/api/classify", content=body)
        assert (refused.status_code, "at most" in refused.json()["error"]) == (413, True)
    assert BODY_SECONDS < 60
    assert client.get("/health").json()["status"] == "ok"


def test_browsers_are_not_led_here_by_other_sites(client: httpx.Client) -> None:
    for accept in ("text/html", "*/*"):
        for host in ("evil.example", "[", "a b"):
            refused = client.get("/health", headers={"host": host, "accept": accept})
            assert refused.status_code == 400, host
            assert "not known by that host name" in refused.text
    for headers, status in (
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 422),
        ({"origin": str(client.base_url).rstrip("/")}, 422),
    ):
        assert client.post("/api/delete", headers=headers, json={}).status_code == status, headers
        read = 200 if status == 422 else status
        assert client.get("/versions.json", headers=headers).status_code == read, headers
    for mode, destination, status in (
        ("no-cors", "image", 403),
        ("cors", "empty", 403),
        ("navigate", "iframe", 403),
        ("navigate", "document", 200),
    ):
        said = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode}
        said["sec-fetch-dest"] = destination
        assert client.get("/versions.json", headers=said).status_code == status, said
    policy = client.get("/health").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_head_answers_as_get_does_without_the_body(client: httpx.Client) -> None:
    for address in ("/health", "/", "/versions.json", "/static/style.css", "/no/such"):
        head, whole = client.head(address), client.get(address)
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["content-type"] == whole.headers["content-type"]


def test_every_page_that_needs_no_picture_is_answered(client: httpx.Client) -> None:
    client.headers["accept"] = "text/html"
    for path in (
        *("/", "/pairs?offset=100", "/pairs?kind=hubs&source=x", "/versions", "/versions.html"),
        *("/versions/compare?old=v1", "/evaluations", "/audit", "/audit?sql=FROM+pairs", "/api"),
    ):
        answer = client.get(path)
        assert (answer.status_code, "</html>" in answer.text) == (200, True), path
    for path in ("/delete?without=p1&without=none", "/forget?without=p1", "/login", "/search"):
        assert client.get(path).status_code == 200, path
    for path, status in (
        ("/answer/" + "0" * 64 + "?labels=a", 404),
        ("/answer/nonsense", 422),
        ("/search?text=red", 422),
        ("/receipts/none", 404),
        ("/forget?without=none", 404),
        ("/audit?sql=DROP+TABLE+pairs", 422),
        ("/versions/compare?old=v9", 404),
        ("/evaluations/none", 404),
        ("/evaluations/' OR 1", 422),
        ("/answer/" + "0" * 64 + ".html?labels=a", 404),
    ):
        answer = client.get(path)
        assert (answer.status_code, 'role="alert"' in answer.text) == (status, True), path


def test_the_log_has_routes_and_no_captions(running: RunningService, client: httpx.Client) -> None:
    client.get("/audit.json", params={"sql": "SELECT 'secret caption'"})
    client.get("/receipts/secret.json", headers={"authorization": "Bearer secret"})
    until = time.monotonic() + 10
    while "GET /receipts/{receipt}.json 404" not in (log := "".join(running.log)):
        assert time.monotonic() < until, log  # it is written once the answer is on its way
    assert "GET /audit.json 200" in log
    assert "secret" not in log


def test_beyond_loopback_there_have_to_be_tokens(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "tokens").touch()
    done = cli("serve", "--tokens", "tokens", "--allow", "write")
    assert (done.status, "--allow is for a service without tokens" in done.err) == (2, True)
    done = cli("serve", "--host", "0.0.0.0")
    assert (done.status, "give --tokens FILE" in done.err) == (1, True)
    (tmp_path / "tokens").write_text("read x\n")
    done = cli("serve", "--host", "0.0.0.0", "--tokens", "tokens")
    assert (done.status, "line 1: expected read, write or forget" in done.err) == (1, True)


def test_a_token_gives_its_right_and_no_more(
    tmp_path: Path, cli: Cli, rng: np.random.Generator
) -> None:
    made = {right: cli("serve", "--new-token", right) for right in ("read", "write")}
    (tmp_path / "tokens").write_text("".join(one.out for one in made.values()))
    tokens = {right: one.err.split()[-1] for right, one in made.items()}
    assert all(token not in made[right].out for right, token in tokens.items())
    database = make_database(tmp_path, rng)
    with serve(database, "--host", "0.0.0.0", "--tokens", tmp_path / "tokens") as service:
        address = service.address.replace("0.0.0.0", "127.0.0.1")
        for right, (versions, delete, plan) in {
            "": (401, 401, 401),
            "wrong": (401, 401, 401),
            tokens["read"]: (200, 403, 403),
            tokens["write"]: (200, 200, 403),
        }.items():
            headers = {"authorization": f"Bearer {right}"} if right else {}
            client = httpx.Client(base_url=address, headers=headers, trust_env=False)
            pairs = {"pairs": ["p0"]}
            assert client.get("/health").status_code == 200
            assert client.get("/versions.json").status_code == versions
            assert client.get("/metrics").status_code == versions
            assert client.post("/api/delete", json=pairs).status_code == delete
            assert client.post("/api/forget/plan", json=pairs).status_code == plan
        browser = httpx.Client(base_url=address, headers={"accept": "text/html"}, trust_env=False)
        where = browser.get("/search?text=a+sea").headers["location"]
        assert where == "/login?next=%2Fsearch%3Ftext%3Da%2Bsea"
        asked = re.findall('name="next" value="([^"]*)"', browser.get(where).text)
        assert asked == ["/search?text=a+sea"]
        assert browser.post("/login", data={"token": "wrong"}).status_code == 403
        for elsewhere in ("//evil.example", "/\\evil.example", "https://evil.example//x", "x"):
            entered = browser.post("/login", data={"token": tokens["read"], "next": elsewhere})
            assert (entered.status_code, entered.headers["location"]) == (303, "/"), elsewhere
            browser.cookies.clear()
        entered = browser.post("/login", data={"token": tokens["read"], "next": asked[0]})
        assert (entered.status_code, entered.headers["location"]) == (303, asked[0])
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert tokens["read"].lower() not in cookie
        assert browser.get("/versions").status_code == 200
        assert browser.get("/delete?without=p1").status_code == 403
        assert browser.post("/logout").headers["location"] == "/login"
        assert browser.get("/versions").headers["location"] == "/login?next=%2Fversions"
        expired = browser.post("/delete", data={"pair": "p1"})
        assert (expired.status_code, 'href="/login"' in expired.text) == (401, True)
        assert all(token not in "".join(service.log) for token in tokens.values())


def test_it_ends_when_it_is_told_to(tmp_path: Path, rng: np.random.Generator) -> None:
    with serve(make_database(tmp_path, rng)) as service:
        assert service.client().get("/health").status_code == 200
        assert service.stop() in (0, -15)
        assert not any("Traceback" in line for line in service.log)
    assert asif_lance.open(tmp_path / "t.lancedb").version.name == "v1"
