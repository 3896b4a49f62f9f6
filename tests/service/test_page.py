"""The page in a real browser: a picture, its pairs, versions, forgetting, audit; all from here."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner
from conftest import entry_point
from drawn_scenes import draw_scene, write_scenes
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from running_service import RunningService, serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LABELS = "sea, forest, desert, city, mountain, night sky"
HOSTILE = '<script>alert(1)</script> a sea "><img src=x onerror=alert(2)> {{ 7 * 7 }}'

pytestmark = [
    pytest.mark.encoders,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


def run(database: Path, *arguments: object) -> None:
    command = ["--db", str(database), *map(str, arguments)]
    done = CliRunner().invoke(entry_point(), command)
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Drawn scenes in three versions: one with a copy, one with a hostile caption; a run."""
    folder = tmp_path_factory.mktemp("page")
    database = folder / "t.lancedb"
    write_scenes(folder / "sketches", range(4))
    draw_scene("sea", 0).save(folder / "sketches" / "copy.jpg", quality=80)
    (folder / "sketches" / "copy.txt").write_text("A sailing boat, once more.")
    shutil.copy(folder / "sketches" / "sea1.png", folder / "sketches" / "again.png")
    (folder / "sketches" / "again.txt").write_text("Blue sea, the same picture.")
    write_scenes(folder / "journey", range(4, 7), ("sea", "forest", "mountain"))
    draw_scene("sea", 20).save(folder / "journey" / "hostile.png")
    (folder / "journey" / "hostile.txt").write_text(HOSTILE)
    named = ("--license", "CC0-1.0", "--source-name", "sketchbook", "--message", "first sketches")
    run(database, "ingest", folder / "sketches", *named)
    named = ("--license", "CC-BY-4.0", "--source-name", "journey", "--message", "seas and woods")
    run(database, "ingest", folder / "journey", *named)
    run(database, "delete", "--where", "caption = 'A hot desert.'", "--message", "too hot")
    for kind in ("sea", "forest", "city"):
        (folder / "labelled" / kind).mkdir(parents=True)
        for number in range(30, 33):
            draw_scene(kind, number).save(folder / "labelled" / kind / f"{number}.png")
    recorded = ("--record", "--truth-is-folder")
    run(database, "classify", folder / "labelled", "--labels", "sea,forest,boat,city", *recorded)
    draw_scene("sea", 40).save(folder / "question.png")
    draw_scene("night", 40).save(folder / "other.png")
    with serve(database, "--allow", "forget") as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page with what its console said and where it asked."""

    def __init__(self, page: Page) -> None:
        self.page, self.faults, self.asked = page, [], []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def _hear(self, message: object) -> None:
        if message.type in ("error", "warning"):  # type: ignore[attr-defined]
            self.faults.append(message.text)  # type: ignore[attr-defined]

    def check(self, address: str) -> None:
        """No fault, no dialog of a caption's script, no request that leaves the machine."""
        assert self.faults == []
        assert [url for url in self.asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.fixture
def watched(browser: Browser, running: RunningService) -> Iterator[Watched]:
    context = browser.new_context(base_url=running.address, color_scheme="light")
    page = context.new_page()
    page.on("dialog", lambda dialog: pytest.fail("a caption ran a script"))
    watched = Watched(page)
    yield watched
    watched.check(running.address)
    context.close()


def classify(page: Page, folder: Path, labels: str = LABELS) -> None:
    page.goto("/")
    page.locator("#files").set_input_files(folder / "question.png")
    expect(page.locator("#chosen")).to_have_text("question.png")
    page.get_by_label("Labels, separated by commas").fill(labels)
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#answer")).to_contain_text("sea")
    page.wait_for_load_state()


def folder_of(running: RunningService) -> Path:
    arguments = running.process.args
    return Path(arguments[arguments.index("--db") + 1]).parent  # type: ignore[index, union-attr]


def shoot(page: Page, name: str, *, whole: bool = True) -> None:
    """Keep a picture of the page where ASIF_SCREENSHOTS says so."""
    if folder := os.environ.get("ASIF_SCREENSHOTS"):
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")  # lazy pictures
        page.wait_for_load_state("networkidle")
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=whole)


def loaded(page: Page, place: str) -> None:
    """The first picture of a place is there."""
    expect(page.locator(place).first).not_to_have_js_property("naturalWidth", 0)


def test_an_answer_has_confidence_pairs_their_copies_and_what_is_typical(
    watched: Watched, running: RunningService
) -> None:
    page = watched.page
    classify(page, folder_of(running))
    assert "labels=sea%2C+forest" in page.url
    expect(page.locator("#version-name")).to_have_text("v3")
    expect(page.locator("#live-answer")).to_contain_text("Confidence is calibrated on")
    expect(page.locator("#live-answer .scores td.number").first).to_contain_text("%")
    loaded(page, ".side-0 .pair img")
    loaded(page, ".side-0 .typical img")
    page.goto(page.url + "&pairs=30")
    alike = page.locator(".side-0 details.alike").first
    expect(alike).to_contain_text("nearly the same picture")
    alike.locator("summary").click()
    expect(alike.locator(".pair").first).to_be_visible()
    mark = page.locator(".mark").last
    mark.hover(force=True)
    expect(page.locator("#peek p")).to_contain_text("adds")
    loaded(page, "#peek img")
    page.keyboard.press("Escape")
    expect(page.locator("#peek")).to_be_hidden()
    mark.dispatch_event("click")  # as a tap does
    expect(page.locator("#peek")).to_be_visible()


def test_the_slider_answers_at_once_and_tells_what_changed(
    watched: Watched, running: RunningService
) -> None:
    page = watched.page
    classify(page, folder_of(running))
    shoot(page, "serve-answer")
    page.locator("#version").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#version-name")).to_have_text("v2")
    expect(page).to_have_url(re.compile("model=v2"))
    expect(page.locator("#since")).to_have_text(re.compile("Since v3: 1 pair in, 0 out"))
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile("model=v1"))
    expect(page.locator("#since")).to_have_text(re.compile("Since v2: 0 pairs in, 10 out"))
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile("model=v2"))
    expect(page.locator("#since")).to_contain_text("Since v1: 10 pairs in")
    expect(page.locator(".because .tag").first).to_have_text("in")
    shoot(page, "serve-since")
    page.get_by_role("link", name="All that changed").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("v1 → v2")
    expect(page.get_by_role("row", name=re.compile("journey"))).to_contain_text("10")


def test_pairs_are_left_out_deleted_and_forgotten_with_a_receipt(
    watched: Watched, running: RunningService
) -> None:
    page = watched.page
    classify(page, folder_of(running))
    first = page.locator(".side-0 .pair").first
    caption = first.locator(".caption").first.inner_text()
    key = first.get_by_role("checkbox").first.get_attribute("value")
    first.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Without them").click()
    expect(page.locator("#without")).to_contain_text("Without 1 pair")
    assert page.locator(f'.columns .side-0 input[type=checkbox][value="{key}"]').count() == 0
    page.locator("#without p a").click()
    page.get_by_role("button", name="The fewest that flip it").click()
    expect(page.locator("#without")).to_contain_text("the answer flips")
    shoot(page, "serve-without")
    page.locator("#without p a").click()

    page.locator(f'input[type=checkbox][value="{key}"]').first.check()
    page.get_by_role("button", name="Forget…").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Forget 1 pair for good?")
    expect(page.get_by_role("listitem").filter(has_text=caption)).to_be_visible()
    page.get_by_label("I have read what will be gone").check()
    page.get_by_label("Why; kept in the receipt").fill("its author asked")
    page.get_by_role("button", name="Forget for good").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("1 pair forgotten")
    expect(page.locator(".lead")).to_contain_text("Nothing of it was found")
    receipt = page.locator("#receipt").inner_text()
    shoot(page, "serve-receipt")

    classify(page, folder_of(running))
    assert str(key) not in page.content()
    page.goto("/audit")
    page.locator("#sql").fill("SELECT receipt_id FROM receipts")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("cell", name=receipt)).to_be_visible()


def test_a_picture_stays_beside_the_next_one(watched: Watched, running: RunningService) -> None:
    page = watched.page
    classify(page, folder_of(running))
    page.get_by_role("link", name="pin it beside another").click()
    page.locator("#files").set_input_files(folder_of(running) / "other.png")
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#answer")).to_contain_text("night sky")
    expect(page.locator(".pinned")).to_contain_text("sea")
    loaded(page, ".pinned img")
    page.locator("#version").focus()
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile("model=.*pin="))
    shoot(page, "serve-pinned")
    page.get_by_role("link", name="take it off").click()
    expect(page.locator(".pinned")).to_have_count(0)


def test_several_pictures_are_compared_over_versions(
    watched: Watched, running: RunningService
) -> None:
    page, folder = watched.page, folder_of(running)
    page.goto("/")
    page.locator("#files").set_input_files([folder / "question.png", folder / "other.png"])
    page.get_by_label("Labels, separated by commas").fill(LABELS)
    page.get_by_role("button", name="Classify").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("2 pictures")
    page.wait_for_load_state()
    page.locator("#version").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#live-answers")).to_contain_text("flipped")
    page.get_by_role("link").filter(has=page.get_by_alt_text("question.png")).click()
    expect(page.locator("#since")).to_contain_text("Since v")


def test_pairs_are_filtered(watched: Watched) -> None:
    page = watched.page
    page.goto("/pairs")
    chosen = page.get_by_role("link", name=re.compile("^journey"))
    count = chosen.locator(".number").inner_text()
    chosen.click()
    expect(page.locator("#told")).to_contain_text(f"{count} pairs")
    page.get_by_label("A caption has in it").fill("FIR")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#told")).to_contain_text("1 pair")
    expect(page.locator(".gallery .caption")).to_have_text("A forest of fir trees.")
    page.goto("/pairs?model=v1")
    page.get_by_role("link", name="same picture in several pairs").click()
    expect(page.locator(".gallery li")).to_have_count(2)
    for kind in ("hubs", "wrong-drivers"):
        page.goto(f"/pairs?kind={kind}")
        expect(page.locator("#told")).to_contain_text("pair")
    page.goto("/pairs")
    shoot(page, "serve-pairs", whole=False)


def test_confusions_open_into_pictures(watched: Watched) -> None:
    page = watched.page
    page.goto("/evaluations")
    page.locator("tbody a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("of 9 pictures")
    page.locator(".confusions td a").first.click()
    loaded(page, ".gallery img")
    shoot(page, "serve-evaluation")
    page.get_by_role("button", name="Why?").first.click()
    expect(page).to_have_url(re.compile("/answer/[0-9a-f]{64}"))
    expect(page.locator("#answer")).to_be_visible()


def test_confusions_can_be_read_and_tapped_on_a_phone(
    browser: Browser, running: RunningService
) -> None:
    context = _context(browser, running, "light", 375)
    page = context.new_page()
    page.goto("/evaluations")
    page.locator("tbody a").first.click()
    expect(page.locator(".confusions")).to_be_visible()
    shoot(page, "serve-evaluation-phone")
    for head in page.locator(".confusions thead span").all():
        box, lines = head.bounding_box(), head.evaluate("e => e.getClientRects().length")
        assert box is not None
        assert lines == 1
        assert box["height"] > box["width"]  # turned
    for link in page.locator(".confusions a").all():
        box = link.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24
        assert box["height"] < 40  # one line
    context.close()


def test_the_page_stays_when_the_service_is_gone(browser: Browser, running: RunningService) -> None:
    folder = folder_of(running)
    with serve(folder / "t.lancedb") as service:
        context = browser.new_context(base_url=service.address)
        page = context.new_page()
        classify(page, folder)
        where = page.url
        page.get_by_role("button", name="Without them").click()
        expect(page.get_by_role("alert")).to_have_text("No pair is chosen: tick some first.")
        service.stop()
        page.locator("#version").focus()
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        expect(page.locator("#version-name")).to_have_text("v3")
        page.locator(".side-0 .pair input").first.check()
        page.get_by_role("button", name="Without them").click()
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        assert page.url == where
        expect(page.locator("#answer")).to_contain_text("sea")
        context.close()


def test_too_many_pictures_are_told_when_they_are_chosen(
    watched: Watched, running: RunningService
) -> None:
    page, picture = watched.page, folder_of(running) / "question.png"
    page.goto("/")
    page.locator("#files").set_input_files(
        [{"name": f"{n}.png", "mimeType": "image/png", "buffer": b"x"} for n in range(65)]
    )
    expect(page.locator("#chosen")).to_contain_text("65 pictures are too many")
    assert not page.locator("#files").evaluate("input => input.checkValidity()")
    page.locator("#files").set_input_files(
        [{"name": "a.png", "mimeType": "image/png", "buffer": bytes(34_000_000)}]
    )
    expect(page.locator("#chosen")).to_contain_text("34 MB are too much")
    page.locator("#files").set_input_files(picture)
    expect(page.locator("#chosen")).to_have_text("question.png")
    assert page.locator("#files").evaluate("input => input.checkValidity()")


def test_a_report_is_downloaded_as_a_table(watched: Watched) -> None:
    page = watched.page
    page.goto("/audit")
    page.get_by_role("link", name="Where do the pairs come from").click()
    expect(page.get_by_role("cell", name="sketchbook")).to_be_visible()
    shoot(page, "serve-audit")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "provenance.csv"
    rows = list(csv.reader(StringIO(Path(download.value.path()).read_text())))
    assert rows[0][:2] == ["source", "license"]
    assert ["journey", "CC-BY-4.0"] in [row[:2] for row in rows]


def test_a_page_is_saved_as_one_file_that_needs_nothing(
    watched: Watched, running: RunningService, browser: Browser, tmp_path: Path
) -> None:
    page = watched.page
    classify(page, folder_of(running))
    with page.expect_download() as download:
        page.get_by_role("link", name="save as one file").click()
    download.value.save_as(tmp_path / "answer.html")
    context = browser.new_context(offline=True)
    saved = Watched(context.new_page())
    saved.page.goto(f"file://{tmp_path / 'answer.html'}")
    expect(saved.page.locator("#answer")).to_contain_text("sea")
    loaded(saved.page, ".picture")
    loaded(saved.page, ".side-0 .pair img")
    expect(saved.page.locator(".picture")).to_have_css("object-fit", "contain")  # it has its style
    assert saved.page.locator("button, script").count() == 0
    saved.check("file://")
    context.close()


def test_a_hostile_caption_is_text(watched: Watched, running: RunningService) -> None:
    page = watched.page
    classify(page, folder_of(running))
    for path in ("/pairs?source=journey", "/search?text=sea", "/versions/compare?old=v1&new=v2"):
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.content(), path
        assert "{{ 7 * 7 }}" in page.content(), path


def addresses_of(page: Page, folder: Path) -> list[str]:
    """Every kind of page."""
    classify(page, folder)
    answer = page.url
    page.goto("/evaluations")
    run = page.locator("tbody a").first.get_attribute("href")
    since = re.sub("model=[^&]*", "model=v2", answer) + "&since=v1&pairs=30"
    return [
        *("/", answer, since, "/search?text=sea", "/pairs", "/versions", "/evaluations", str(run)),
        *("/versions/compare?old=v1&new=v2", "/audit", "/audit?report=provenance", "/api"),
        *("/login", "/pairs?kind=hubs", "/delete?without=none", answer.split("?")[0]),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_pages_keep_nobody_out(
    browser: Browser, running: RunningService, scheme: str, width: int
) -> None:
    context = _context(browser, running, scheme, width)
    page = context.new_page()
    for path in addresses_of(page, folder_of(running)):
        page.goto(path)
        found = Axe().run(page).response["violations"]
        told = [(one["id"], [n["html"][:150] for n in one["nodes"]][:3]) for one in found]
        assert told == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    classify(page, folder_of(running))
    if width == 375 or scheme == "dark":
        shoot(page, f"serve-{'phone' if width == 375 else 'desktop'}-{scheme}")
    page.goto("/")
    if scheme == "light":
        shoot(page, f"serve-home-{width}")
    context.close()


def _context(browser: Browser, running: RunningService, scheme: str, width: int) -> BrowserContext:
    return browser.new_context(
        base_url=running.address,
        color_scheme=scheme,  # type: ignore[arg-type]
        viewport={"width": width, "height": 800},
    )


def test_everything_is_reached_by_keyboard(watched: Watched, running: RunningService) -> None:
    page = watched.page
    classify(page, folder_of(running))
    page.locator("body").press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    reached = set()
    for _ in range(80):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        page.keyboard.press("Tab")
    assert {"version", "tick-0-0", "Without them", "Forget…", "save as one file"} <= reached


def test_without_a_picture_that_can_be_read_the_page_says_so(
    watched: Watched, tmp_path: Path
) -> None:
    page = watched.page
    (tmp_path / "no-picture.png").write_bytes(b"<svg onload=alert(1)>")
    page.goto("/")
    page.locator("#files").set_input_files(tmp_path / "no-picture.png")
    page.get_by_label("Labels, separated by commas").fill("a")
    page.get_by_role("button", name="Classify").click()
    expect(page.get_by_role("alert")).to_contain_text("no-picture.png: not an image")
    assert watched.faults.pop().startswith("Failed to load resource")
