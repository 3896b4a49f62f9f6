"""Settings files: options that are always wanted, as if they stood on every command line.

`asif-lance.toml` of the current folder, and below it that of the user's configuration. What stands
at the top belongs to `asif-lance` itself, a table to the command of its name:

    db = "s3://pictures/pairs.lancedb"

    [classify]
    top = 3
    format = "json"
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from asif_lance.errors import InputError, suggest

from .manners import NEVER_SET, long_names

NAME = "asif-lance.toml"

# A folder that comes from somebody else must neither send pictures away nor open a door.
_NEVER_OF_A_FOLDER = NEVER_SET | {
    "server", "host", "allow", "tokens", "keys_folder", "download"
}  # fmt: skip


def read_settings(main: click.Group) -> dict[str, Any]:
    """What the files set, by parameters' names; those of the current folder come first.

    Raises:
        InputError: a file that cannot be read, or that sets what is no option.
    """
    found: dict[str, Any] = {}
    for file, refused in ((_user_file(), NEVER_SET), (Path(NAME), _NEVER_OF_A_FOLDER)):
        if file.is_file():
            _merge(found, _translate(file, _read(file), main, refused))
    return found


def _user_file() -> Path:
    import platformdirs  # not needed for --help where nobody has a file

    return Path(platformdirs.user_config_dir("asif-lance")) / NAME


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file}: {' '.join(str(error).split())}") from error


def _translate(
    file: Path, given: dict[str, Any], command: click.Command, refused: frozenset[str]
) -> dict[str, Any]:
    """Options as people spell them -> parameters' names, and the same of each table."""
    options = {
        name.replace("-", "_"): option
        for option in command.params
        if isinstance(option, click.Option)
        for name in long_names(option)
    }
    below: dict[str, click.Command] = getattr(command, "commands", {})
    found: dict[str, Any] = {}
    for key, value in given.items():
        spelled = key.replace("-", "_")
        if key in below:
            if not isinstance(value, dict):
                raise InputError(f"{file}: {key!r} is a command: its options stand below [{key}]")
            found[key] = _translate(file, value, below[key], refused)
        elif spelled not in options:
            known = [*(name.replace("_", "-") for name in options), *below]
            owner = f"`{command.name}`" if command.name != "main" else "`asif-lance`"
            raise InputError(f"{file}: {owner} has no option {key!r}{suggest(key, known)}")
        elif options[spelled].name in refused:
            own = "" if options[spelled].name in NEVER_SET else " or in your own settings"
            raise InputError(f"{file}: {key!r} can only be given on the command line{own}")
        else:
            _check_value(file, key, value, options[spelled])
            several = options[spelled].multiple and not isinstance(value, list)
            found[str(options[spelled].name)] = [value] if several else value
    return found


def _check_value(file: Path, key: str, value: Any, option: click.Option) -> None:
    """Pass a value of the kind that the option takes, and within its range.

    What paths lead to is looked at when the command runs.
    """
    if option.is_flag:
        wanted, fits = "true or false", lambda one: isinstance(one, bool)
    elif isinstance(option.type, click.types.StringParamType | click.Path | click.Choice):
        wanted, fits = "a text, in quotes", lambda one: isinstance(one, str)
    else:
        wanted = "a number or a text"
        fits = lambda one: not isinstance(one, bool | list | dict)  # noqa: E731
    parts = value if option.multiple and isinstance(value, list) else [value]
    if not all(map(fits, parts)):
        raise InputError(f"{file}: {key!r} takes {wanted}")
    if option.is_flag or option.nargs != 1 or isinstance(option.type, click.Path):
        return
    for part in parts:
        try:
            option.type.convert(part, option, None)
        except click.BadParameter as error:
            raise InputError(f"{file}: {key!r}: {error.message}") from error


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
