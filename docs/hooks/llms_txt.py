"""Writes `llms.txt` into the built site: every page of the navigation with its first sentence.

A hook of MkDocs, so the file is as current as the pages. Its form is that of https://llmstxt.org.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_first_sentences: dict[str, str] = {}


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> None:
    """Keep what the page says first: the beginning of its first paragraph of prose."""
    paragraphs = re.split(
        r"\n\s*\n", re.sub(r"^```.*?^```$|<[^>]+>", "", markdown, flags=re.M | re.S)
    )
    prose = (re.sub(r"^#.*\n?", "", text, flags=re.M).strip() for text in paragraphs)
    first = next((text for text in prose if re.match(r"[\w*`“\"]", text)), "")
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(first.split()))
    _first_sentences[page.file.src_uri] = re.split(r"(?<=[.?!:])\s", plain)[0]


def on_post_build(*, config: Any, **_: Any) -> None:
    """Write the list, a heading per section of the navigation."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    for entry in config.nav:
        ((title, pages),) = entry.items()
        lines += ["", f"## {title}", ""] if isinstance(pages, list) else [""]
        for page in pages if isinstance(pages, list) else [entry]:
            ((name, source),) = page.items()
            address = Path(source).with_suffix(".html").as_posix()
            lines.append(f"- [{name}]({address}): {_first_sentences[source]}")
    Path(config.site_dir, "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
