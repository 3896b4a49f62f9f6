"""Writes the reference of the command line: what `--help` says, of every command.

A hook of MkDocs, so the page is as current as the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import click

PAGE = "reference/command-line.md"
WIDTH = 90


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Append all commands to the page that is theirs."""
    if page.file.src_uri != PAGE:
        return markdown
    main = import_module("asif_lance.cli").main
    context = click.Context(main, info_name="asif-lance", max_content_width=WIDTH)
    return "\n".join([markdown, *_sections(context, 2)])


def _sections(context: click.Context, level: int) -> Iterator[str]:
    """A heading and the help of a command, then those of the commands below it."""
    command = context.command
    context.terminal_width = WIDTH
    yield f"{'#' * level} {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        below = command.get_command(context, name)
        if below is not None and not below.hidden:
            nested = click.Context(below, info_name=name, parent=context, max_content_width=WIDTH)
            yield from _sections(nested, 2 if context.parent is None else level + 1)
