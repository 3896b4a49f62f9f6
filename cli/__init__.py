"""The `asif-lance` command; installs as `asif_lance.cli`.

Commands parse, make one library call and print. They import the library inside their bodies, so
that `--help` answers without loading torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from asif_lance.errors import AsifError

from .adapt import adapt
from .admin import info, migrate, optimize
from .audit import audit
from .classify import classify
from .data import delete, ingest
from .demo import demo
from .diagnose import diagnose
from .evaluate import evaluate
from .explain import explain
from .forget import forget
from .history import diff, rollback, tag, versions
from .index import index
from .options import Context
from .prune import prune
from .query import search
from .runs import runs
from .tuning import scaling, tune
from .whatif import what_if


class _OneLineErrors(click.Group):
    """Library errors become one line on stderr and exit status 1."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except AsifError as error:
            click.echo(f"asif-lance: {' '.join(str(error).split())}", err=True)
            sys.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a first day's work, not of the alphabet."""
        return list(self.commands)


@click.group(cls=_OneLineErrors)
@click.version_option(package_name="asif-lance")
@click.option(
    "--db",
    envvar="ASIF_LANCE_DB",
    default="pairs.lancedb",
    show_default=True,
    show_envvar=True,
    help="The database: a directory or an object store URI.",
)
@click.pass_context
def main(ctx: click.Context, db: str) -> None:
    """CLIP-like models without training: image-text pairs in LanceDB are the model.

    Every command that changes pairs makes a new model version (v1, v2, …); every old one stays
    loadable. Start with `asif-lance demo`, or with your own pictures:

    \b
      asif-lance ingest photos/              pictures with captions in .txt files beside them
      asif-lance classify cat.jpg --labels cat,dog
      asif-lance versions
    """
    ctx.obj = Context(db)


def _register(commands: Sequence[click.Command]) -> None:
    for command in commands:
        main.add_command(command)


_register([demo, ingest, classify, search])
_register([delete, forget, versions, diff, tag, rollback])
_register([evaluate, tune, scaling, diagnose, adapt])
_register([explain, what_if, prune, audit, runs])
_register([index, info, optimize, migrate])
