"""The documentation site builds without a warning, is whole, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
from conftest import entry_point
from test_readme import PAGES
from transcripts import BLOCK

import asif_lance
from asif_lance.audit import REPORTS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a page that nothing leads to, or a link to nowhere, would fail the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class _Page(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors = {"", "__skip"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a":
            self.links.add(given.get("href", ""))
        elif tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.add(given.get("href", ""))
        elif "src" in given:
            self.loaded.add(given["src"])


def _pages(site: Path) -> Iterator[tuple[Path, _Page]]:
    for path in sorted(site.rglob("*.html")):
        if path.name != "404.html":  # it stands for any address and so links from the root
            yield path, _Page(path)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loaded = {(path.name, url) for path, page in _pages(site) for url in page.loaded}
    assert {(name, url) for name, url in loaded if urlsplit(url).netloc} == set()
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )['\"]?(https?:)?//", style.read_text()), style


def test_every_link_within_the_site_leads_to_a_page_and_a_place_on_it(site: Path) -> None:
    pages = dict(_pages(site))
    lost = []
    for path, page in pages.items():
        for link in filter(lambda x: not urlsplit(x).scheme, page.links | page.loaded):
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[target].anchors if target in pages else {""}
            anchor = unquote(parts.fragment) if target in pages else ""
            if not target.exists() or anchor not in known:
                lost.append(f"{path.name}: {link}")
    assert lost == []


def _sources() -> Iterator[tuple[str, str]]:
    """Pages as they are written, README among them, by their path."""
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]:
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_every_page_with_commands_or_python_is_run_by_a_test() -> None:
    tests = "".join(p.read_text() for p in (ROOT / "tests").rglob("test_*.py"))
    for name, text in _sources():
        if any(language in ("console", "python") for language, _ in BLOCK.findall(text)):
            assert name in PAGES or f'"{Path(name).name}"' in tests, name


def test_every_option_that_a_page_names_is_there() -> None:
    commands = {k.removeprefix("asif-lance-"): c for k, c in _commands(entry_point(), "asif-lance")}
    given = re.compile(
        r"(?:^(?:\$ )?asif-lance |`(?:asif-lance )?)([a-z]+(?:-[a-z]+)*)((?: [^`\n]*)?)",
        re.MULTILINE,
    )
    for name, text in _sources():
        for word, rest in given.findall(text):
            below = f"{word}-{rest.split()[0]}" if rest.split() else ""
            command = commands.get(below) or commands.get(word)
            if command is None:
                continue
            known = {x for p in command.params for x in (*p.opts, *p.secondary_opts)}
            named = set(re.findall(r"(?<= )--[a-z][a-z-]*", rest))
            assert named <= known | {"--help", "--db", "--quiet"}, (name, word, named - known)


def test_every_extra_is_told() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    told = (DOCS / "install.md").read_text()
    assert [name for name in extras if f"| `{name}` |" not in told] == []


def _commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    for one in group.commands.values():
        yield f"{name}-{one.name}", one
        if isinstance(one, click.Group):
            yield from _commands(one, f"{name}-{one.name}")


def test_the_reference_has_every_command_with_every_option(site: Path) -> None:
    text = (site / "reference" / "command-line.html").read_text()
    commands = list(_commands(entry_point(), "asif-lance"))
    assert [name for name, _ in commands if f'id="{name}"' not in text] == []
    for name, command in commands:
        begin = text.index(f'id="{name}"')
        section = text[begin : text.find("<h2 ", begin + 1)]
        options = {x for p in command.params if not getattr(p, "hidden", False) for x in p.opts}
        assert [x for x in options if x.startswith("--") and x not in section] == [], name


def test_the_reference_has_every_public_name_and_package(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text()
    packages = [path.parent.name for path in (ROOT / "asif_lance").glob("*/__init__.py")]
    names = [*asif_lance.__all__, *packages]
    assert [x for x in names if f'id="asif_lance.{x}"' not in text] == []


def test_the_table_of_reports_has_each_with_its_question() -> None:
    rows = (DOCS / "reference" / "reports.md").read_text().splitlines()
    told = {tuple(cell.strip() for cell in row.split("|")[1:3]) for row in rows if "|" in row}
    assert [r.name for r in REPORTS if (f"`{r.name}`", r.question) not in told] == []


def test_llms_txt_lists_every_page_with_a_sentence(site: Path) -> None:
    listed = re.findall(r"^- \[.+?\]\((.+?)\): \S", (site / "llms.txt").read_text(), re.MULTILINE)
    pages = {p.relative_to(site).as_posix() for p in site.rglob("*.html")} - {"404.html"}
    assert sorted(listed) == sorted(pages)
