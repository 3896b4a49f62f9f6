"""The page in a real browser: a picture, its pairs, versions, forgetting, audit; all from here."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import entry_point
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from running_service import RunningService, serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")
HOSTILE = '<script>alert(1)</script> a red "><img src=x onerror=alert(2)> {{ 7 * 7 }}'

pytestmark = [
    pytest.mark.encoders,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


def ingest(database: Path, folder: Path) -> None:
    done = CliRunner().invoke(entry_point(), ["--db", str(database), "ingest", str(folder)])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Pictures of colours in two versions, one of them with a hostile caption."""
    folder = tmp_path_factory.mktemp("page")
    for number, part in enumerate((COLOURS[:6], COLOURS[6:])):
        for colour in part:
            place = folder / f"photos{number}"
            place.mkdir(exist_ok=True)
            Image.new("RGB", (96, 64), colour).save(place / f"{colour}.png")
            (place / f"{colour}.txt").write_text(f"Something {colour}.")
    Image.new("RGB", (64, 64), "#e01010").save(folder / "photos0" / "hostile.png")
    (folder / "photos0" / "hostile.txt").write_text(HOSTILE)
    database = folder / "t.lancedb"
    ingest(database, folder / "photos0")
    ingest(database, folder / "photos1")
    Image.new("RGB", (80, 80), "#f00505").save(folder / "question.png")
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


def classify(page: Page, folder: Path, labels: str = "red, blue, green") -> None:
    page.goto("/")
    page.locator("#files").set_input_files(folder / "question.png")
    expect(page.locator("#chosen")).to_have_text("question.png")
    page.get_by_label("Labels, separated by commas").fill(labels)
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#answer")).to_contain_text("red")


def folder_of(running: RunningService) -> Path:
    arguments = running.process.args
    return Path(arguments[arguments.index("--db") + 1]).parent  # type: ignore[index, union-attr]


def shoot(page: Page, name: str) -> None:
    """Keep a picture of the page where ASIF_SCREENSHOTS says so."""
    if folder := os.environ.get("ASIF_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_picture_its_pairs_the_versions_forgetting_and_audit(
    watched: Watched, running: RunningService
) -> None:
    page = watched.page
    classify(page, folder_of(running))
    assert "labels=red%2C+blue%2C+green" in page.url
    expect(page.locator("#version-name")).to_have_text("v2")
    expect(page.locator(".side-0 .pair").first.locator("img")).to_be_visible()
    shown = page.locator(".side-0 .pair img").first
    expect(shown).not_to_have_js_property("naturalWidth", 0)
    shoot(page, "serve-answer")

    page.locator("#version").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#version-name")).to_have_text("v1")
    expect(page).to_have_url(re.compile("model=v1"))
    page.locator("#version").focus()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile("model=v2"))

    first = page.locator(".side-0 .pair").first
    caption = first.locator(".caption").inner_text()
    first.get_by_role("checkbox").check()
    page.get_by_role("button", name="Without them").click()
    expect(page.locator("#without")).to_contain_text("Without 1 pair")
    assert caption not in page.locator(".columns .side-0 .caption").all_inner_texts()
    shoot(page, "serve-without")
    page.get_by_role("link", name="Bring them back").click()

    page.get_by_role("button", name="The fewest that flip it").click()
    expect(page.locator("#without")).to_contain_text("the answer flips")
    page.get_by_role("link", name="Bring them back").click()

    page.get_by_label("Take out: Something red.").first.check()
    page.get_by_role("button", name="Forget…").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Forget 1 pair for good?")
    page.get_by_label("I have read what will be gone").check()
    page.get_by_label("Why; kept in the receipt").fill("its author asked")
    page.get_by_role("button", name="Forget for good").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("1 pair forgotten")
    expect(page.locator(".lead")).to_contain_text("Nothing of them was found")
    receipt = page.locator("#receipt").inner_text()
    shoot(page, "serve-receipt")

    classify(page, folder_of(running))
    assert "Something red." not in page.content()
    page.goto("/audit")
    page.locator("#sql").fill("SELECT receipt_id FROM receipts")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("cell", name=receipt)).to_be_visible()


def test_a_hostile_caption_is_text(watched: Watched, running: RunningService) -> None:
    page = watched.page
    classify(page, folder_of(running))
    expect(page.locator(".pair", has_text="<script>alert(1)</script>").first).to_be_visible()
    for path in ("/pairs", "/search?text=red", "/versions", "/audit?sql=FROM+pairs", "/api"):
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        assert "{{ 7 * 7 }}" in page.content() or path in ("/versions", "/api")


def test_it_fits_a_phone_in_light_and_dark(browser: Browser, running: RunningService) -> None:
    for scheme in ("light", "dark"):
        context = browser.new_context(
            base_url=running.address,
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport={"width": 375, "height": 740},
        )
        page = context.new_page()
        classify(page, folder_of(running))
        shoot(page, f"serve-phone-{scheme}")
        for path in ("/", page.url, "/pairs", "/search?text=red", "/versions", "/audit", "/api"):
            page.goto(path)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 375, path
            contrasts = page.evaluate(CONTRASTS)
            assert [one for one in contrasts if one["ratio"] < 4.5] == [], (path, scheme)
        context.close()


# The contrast of every text with the nearest background that is not transparent.
CONTRASTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => (c <= 10.0164 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = rgb(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter((n) => n.nodeType === 3 && n.data.trim());
    if (!text.length || element.closest("svg, noscript") || element.disabled) continue;
    const [a, b] = [luminance(rgb(getComputedStyle(element).color)), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push({ ratio, text: text[0].data.trim().slice(0, 40) });
  }
  return found;
}"""


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
