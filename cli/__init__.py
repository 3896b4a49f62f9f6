"""The `asif-lance` command; installs as `asif_lance.cli`.

Commands parse, make one library call and print. They import the library inside their bodies, so
that `--help` answers without loading torch.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import sys
from typing import Any

import click

from asif_lance.errors import AsifError, printable

from .adapt import adapt
from .admin import check, info, migrate, optimize
from .attach import attach
from .audit import audit
from .bill import bill
from .classify import classify
from .delete import delete
from .demo import demo
from .diagnose import diagnose
from .encoders import encoders
from .evaluate import evaluate
from .explain import explain
from .forget import forget
from .history import diff, rollback, tag, versions
from .index import index
from .ingest import ingest
from .interrupts import StoppedError, raised_signals
from .manners import CommandGroup, complete
from .mcp import mcp
from .options import Context
from .output import note, note_error
from .progress import quiet_option, shown_progress
from .prune import prune
from .publish import publish
from .query import search
from .receipt import receipt
from .reencode import reencode
from .runs import runs
from .scaling import scaling
from .serve import serve
from .settings import read_settings
from .tuning import tune
from .whatif import what_if

_OBJECTS_PER_COLLECTION = 50_000
_NO_MEMORY = ("failed to map segment", "cannot allocate memory", "failed to spawn", "out of memory")


class _OneLineErrors(CommandGroup):
    """Failures become one line on stderr: status 1, or 2 for wrong usage."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and leave with its status; raise and return if not `standalone_mode`."""
        if not kwargs.pop("standalone_mode", True):
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        # Importing torch makes a million objects that stay: looking through them for garbage again
        # and again, and once more at exit, takes longer than what most commands compute.
        gc.set_threshold(_OBJECTS_PER_COLLECTION)
        with raised_signals():
            status = self._run(*args, **kwargs)
        gc.freeze()
        sys.exit(status)

    def _run(self, *args: Any, **kwargs: Any) -> int:
        if sys.stdout is None:
            note("asif-lance: standard output is closed, the result would be lost")
            return 1
        try:
            status = super().main(*args, **{**kwargs, "standalone_mode": False})
            sys.stdout.flush()
        except AsifError as error:
            note_error(error)
            return 1
        except StoppedError as error:
            note(f"asif-lance: {error.message}")
            return error.status
        except click.ClickException as error:
            usage = io.StringIO()
            error.show(usage)
            for line in usage.getvalue().splitlines():
                note(line)
            return error.exit_code
        except click.Abort:
            note("Aborted!")
            return 1
        except OSError as error:
            return _output_lost(error)
        except BaseException as error:
            if not _lacks_memory(error):
                raise
            told = printable(" ".join(str(error).split()))
            note(f"asif-lance: not enough memory, see `ulimit -v`: {told}")
            return 1
        return status if isinstance(status, int) else 0

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a signal becomes one line here, before click makes two of it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise StoppedError(stop) from stop

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """As always, with what settings files say."""
        return super().make_context(*args, **extra, default_map=read_settings(self))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In groups."""
        for title, commands in _GROUPS.items():
            self.write_commands(formatter, title, [str(command.name) for command in commands])


def _lacks_memory(error: BaseException) -> bool:
    """Whether this is how Python, the system's loader or a library in Rust say so."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY)


def _output_lost(error: OSError) -> int:
    """Status 1 for output that nobody takes, and for a file that cannot be written.

    A reader that has gone, as `head` does, is no failure to tell.
    """
    if error.filename is not None:
        note(f"asif-lance: {printable(str(error.filename))}: {error.strerror}")
        return 1
    if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO):
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
    if error.errno != errno.EPIPE:
        note(f"asif-lance: cannot write the result: {error.strerror}")
    return 1


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="asif-lance")
@click.option(
    "--db",
    envvar="ASIF_LANCE_DB",
    default="pairs.lancedb",
    show_default=True,
    show_envvar=True,
    help="The database: a directory or an object store URI.",
)
@quiet_option
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
    ctx.with_resource(shown_progress(ctx))


_GROUPS = {
    "Begin": [demo, ingest, attach, classify, search, explain],
    "Versions": [versions, tag, diff, rollback, delete, publish],
    "Forget": [forget, receipt],
    "Measure and improve": [evaluate, tune, scaling, diagnose, adapt, prune],
    "Ask": [audit, runs, what_if, bill],
    "Run and look after": [serve, mcp, index, encoders, reencode, info, check, optimize, migrate],
}

for _group in _GROUPS.values():
    for _command in _group:
        complete(_command, (str(_command.name),))
        main.add_command(_command)
