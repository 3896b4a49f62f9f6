"""What all commands have alike: the list of them, help for misspelt names, options in any place.

`--db` and `--quiet` may stand before a command's name or after it, and whatever an option may be
told on the command line may also come from a variable (`ASIF_LANCE_CLASSIFY_TOP`) or a settings
file (see `settings`).
"""

from __future__ import annotations

from collections.abc import Iterable

import click

from asif_lance.errors import suggest

from .options import Context
from .parameter_types import NAME, TEXT
from .progress import quiet_option

#: Options that have to be given each time: they answer for the person.
NEVER_SET = frozenset({"yes", "allow_forgotten", "without_key"})

_PREFIX = "ASIF_LANCE"


class CommandGroup(click.Group):
    """Commands in the order they were added, told whole; a misspelt one is told from its like."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a first day's work, not of the alphabet."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named first.

        Raises:
            UsageError: there is none.
        """
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            ctx.fail(f"No such command {name!r}{suggest(name, self.commands)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every command with its whole summary."""
        self.write_commands(formatter, "Commands", self.commands)

    def write_commands(
        self,
        formatter: click.HelpFormatter,
        title: str,
        names: Iterable[str],
    ) -> None:
        """A part of the list."""
        rows = [(name, self.commands[name].get_short_help_str(limit=1000)) for name in names]
        with formatter.section(title):
            formatter.write_dl(rows)


def _set_database(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.obj = Context(value)


_database_option = click.option(
    "--db",
    metavar="URI",
    expose_value=False,
    callback=_set_database,
    help="The database, as before the command.",
)


def complete(command: click.Command, path: tuple[str, ...]) -> None:
    """Give a command, and those below it, what every command has.

    Only file names may hold bytes that are not UTF-8, so texts are made such that are texts; and an
    option whose text is empty is a mistake, but for those that are empty by default.
    """
    for option in (_database_option, quiet_option):
        option(command)
    for parameter in command.params:
        if parameter.type is click.STRING:
            named = isinstance(parameter, click.Option) and parameter.default != ""
            parameter.type = NAME if named else TEXT
        if isinstance(parameter, click.Option) and parameter.name not in {"db", *NEVER_SET}:
            parameter.envvar = parameter.envvar or _variable(path, long_names(parameter)[0])
    for name, below in getattr(command, "commands", {}).items():
        complete(below, (*path, name))


def long_names(option: click.Option) -> list[str]:
    """What people call it, without the dashes."""
    return [name[2:] for name in option.opts if name.startswith("--")]


def _variable(path: tuple[str, ...], name: str) -> str:
    return "_".join((_PREFIX, *path, name)).upper().replace("-", "_")
