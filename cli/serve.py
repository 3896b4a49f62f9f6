"""serve: a page and an HTTP API over the database."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from asif_lance.errors import InputError

from .options import Context, device_option, keys_option
from .output import note
from .parameter_types import Bytes, FileArgument

_RIGHTS = click.Choice(["read", "write", "forget"])


@click.command(short_help="Serve a page and an HTTP API over the database.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Where to listen; 0 takes a free one.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST",
    help="A name that browsers or a proxy call it by; repeat it for several.",
)
@click.option(
    "--allow",
    type=_RIGHTS,
    help="Without tokens, what anybody on this machine may do; each includes those before it. "
    "[default: read]",
)
@click.option(
    "--tokens", type=FileArgument, help="Who may do what: a file of lines from --new-token."
)
@click.option(
    "--new-token", type=_RIGHTS, help="Make a token, print its line for the file, and leave."
)
@click.option(
    "--upload-limit",
    type=Bytes(),
    default="32MB",
    show_default=True,
    help="The most that one request may send.",
)
@keys_option
@device_option
@click.pass_obj
def serve(
    context: Context,
    host: str,
    port: int,
    names: tuple[str, ...],
    allow: str | None,
    tokens: Path | None,
    new_token: str | None,
    upload_limit: int,
    keys_folder: Path | None,
    device: str,
) -> None:
    """Serve a page and an HTTP API: classify, explain, search, what-if, delete, forget, audit.

    The encoders and versions stay loaded, so that an answer takes a fraction of a second. Only this
    machine can ask, and only read, unless told otherwise; other machines need tokens. The service
    itself speaks HTTP: put a proxy with TLS before it. Ctrl-C, or SIGTERM, ends it once what was
    asked is answered. Needs an extra: pip install 'asif-lance[serve]'.

    \b
      asif-lance serve                                http://127.0.0.1:8000/
      asif-lance serve --allow forget                 delete and forget from the page
      asif-lance serve --new-token read >> tokens     the token itself is shown once
      asif-lance serve --host 0.0.0.0 --name models.example.org --tokens tokens
    """
    if tokens is not None and allow is not None:
        raise click.UsageError("--allow is for a service without tokens; those say who may do what")
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise InputError("serving needs an extra: pip install 'asif-lance[serve]'")
    from asif_lance.database import resolve_uri
    from asif_lance.service import Right, ServiceSettings, make_token, read_tokens, run_service

    if new_token is not None:
        token, line = make_token(Right[new_token.upper()])
        note(f"the token, shown this once: {token}")
        click.echo(line)
        return
    settings = ServiceSettings(
        uri=resolve_uri(context.db),
        host=host,
        port=port,
        names=names,
        tokens=read_tokens(tokens) if tokens else (),
        rights=Right[(allow or "read").upper()],
        keys_folder=keys_folder,
        device=device,
        body_bytes=upload_limit,
    )
    run_service(settings, lambda address: note(f"serving {address} (Ctrl-C ends it)"))
