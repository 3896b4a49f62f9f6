"""mcp: what only reads, as tools for language models."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from asif_lance.errors import InputError

from .options import Context, device_option
from .parameter_types import PathOption


@click.command(short_help="Answer a language model by the Model Context Protocol.")
@click.option(
    "--pictures",
    type=PathOption(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="The files that may be asked about. [default: none; pictures can be sent along]",
)
@device_option
@click.pass_obj
def mcp(context: Context, pictures: Path | None, device: str) -> None:
    """Answer a language model over stdin and stdout, by the Model Context Protocol.

    Its tools are what `serve` answers and only reads: classify, explain, the fewest pairs that flip
    an answer, search, pairs, versions, evaluations, audit in SQL. Nothing is changed. A program
    that runs models starts this command itself. Needs an extra: pip install 'asif-lance[mcp]'.

    \b
      {"mcpServers": {"pictures": {"command": "asif-lance",
        "args": ["--db", "pairs.lancedb", "mcp", "--pictures", "photos"]}}}
    """
    if find_spec("mcp") is None or find_spec("fastapi") is None:
        raise InputError("mcp needs an extra: pip install 'asif-lance[mcp]'")
    from asif_lance.database import resolve_uri
    from asif_lance.service import Service, ServiceSettings
    from asif_lance.service.tools import create_tools

    service = Service(ServiceSettings(uri=resolve_uri(context.db), device=device))
    create_tools(service, pictures).run("stdio")
