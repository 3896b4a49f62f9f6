"""Options and argument types that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from asif_lance.errors import StorageError, printable

from .output import note

if TYPE_CHECKING:
    from asif_lance.store import PairStore

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Context:
    """What every command knows."""

    db: str


class _Text(click.types.StringParamType):
    """Text that UTF-8 can hold: SQL, ids, labels, messages."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text itself."""
        text = super().convert(value, param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"'{printable(text)}' holds bytes that are not UTF-8", param, ctx)
        return text


TEXT = _Text()

#: A picture or a folder of pictures: any name that the system has.
PICTURE = click.Path()


def is_missing(image: str) -> bool:
    """Whether there is surely no such file or folder."""
    try:
        return not Path(image).exists()
    except OSError:  # a name too long, or no right to look: reading it says so
        return False


class OutputFile(click.ParamType[Path]):
    """A file to write to, checked before any work is done.

    Args:
        suffixes: what its name may end in; anything if none is given.
    """

    name = "FILE"

    def __init__(self, *suffixes: str) -> None:
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Text to a path that can be written.

        Raises:
            StorageError: it cannot.
        """
        path = Path(value)
        if self.suffixes and path.suffix.lower() not in self.suffixes:
            self.fail(f"{value!r}: its name has to end in {' or '.join(self.suffixes)}", param, ctx)
        target = Path(os.path.realpath(path))  # where a link leads
        if target.is_dir():
            raise StorageError(f"cannot write {path}: it is a folder")
        if not target.parent.is_dir():
            raise StorageError(f"cannot write {path}: there is no folder {target.parent}")
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise StorageError(f"cannot write {path}: permission denied")
        return path


class PairOf(click.ParamType[tuple[float, float]]):
    """`800` for both sides or `800,200` for image and text."""

    def __init__(self, number: type[int] | type[float]) -> None:
        self.number = number
        self.name = "N[,N]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a tuple (image, text)."""
        parts = str(value).split(",")
        if len(parts) > 2:
            self.fail(f"{value!r}: give one number, or two for image,text", param, ctx)
        try:
            numbers = [self.number(part) for part in parts]
        except ValueError:
            self.fail(f"{value!r} is not {'a whole number' if self.number is int else 'a number'}")
        return (numbers[0], numbers[-1])


class Moment(click.ParamType[datetime]):
    """A date or time; without a zone it is local time."""

    name = "TIMESTAMP"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Text to an aware datetime in UTC."""
        try:
            return datetime.fromisoformat(str(value)).astimezone(UTC)
        except ValueError:
            self.fail(
                f"{value!r} is not a time like 2026-01-31 or 2026-01-31T18:00:00Z", param, ctx
            )


class Bytes(click.ParamType[int]):
    """`500MB`, `2GB` or a number of bytes."""

    name = "BYTES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Text to a number of bytes."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", str(value))
        if found is None:
            self.fail(f"{value!r} is not a size like 500MB or 2GB", param, ctx)
        return int(float(found[1]) * 1000 ** " kMGT".index(found[2] or " "))


class Age(click.ParamType[timedelta]):
    """`90d`, `12h` or `30m`."""

    name = "AGE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Text to a length of time."""
        units = {"d": "days", "h": "hours", "m": "minutes"}
        text = str(value)
        if not (text[:-1].isdigit() and text[-1:] in units):
            self.fail(f"{value!r} is not an age like 90d, 12h or 30m", param, ctx)
        return timedelta(**{units[text[-1]]: int(text[:-1])})


def several(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """One decorator that applies several, as if they stood below one another."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


FileArgument = click.Path(exists=True, dir_okay=False, path_type=Path)

format_option = click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or JSON lines.",
)

device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    help="Where encoders and search run.",
)

message_option = click.option(
    "--message", "-m", default="", help="What the new version is for; kept with it."
)

recipe_option = click.option(
    "--recipe",
    "recipe_name",
    metavar="NAME",
    help="How vectors are compared: paper, centred. "
    "[default: as tune stored with the version, else centred]",
)

model_options = several(
    click.option("--model", metavar="V", help="A version (v3) or alias; by default the newest."),
    click.option("--as-of", type=Moment(), help="The newest version made at or before this time."),
    recipe_option,
    click.option("--k", type=PairOf(int), help="Anchors kept: both sides, or image,text."),
    click.option("--p", type=PairOf(float), help="Power of similarities: both, or image,text."),
    device_option,
    click.option(
        "--memory-limit",
        type=Bytes(),
        help="Memory for each side's vectors, such as 2GB; larger ones stay in their files.",
    ),
)

#: What `label_options` give a command; those that name what is asked first, the ensemble last.
LABEL_OPTIONS = (
    "labels", "labels_file", "label_vectors", "templates", "template_set", "ensemble"
)  # fmt: skip

label_options = several(
    click.option("--labels", help="Class names, separated by commas."),
    click.option(
        "--labels-file",
        type=FileArgument,
        help="A line per class: its label, or several names as in 'vehicle: car, ship' (one name: "
        "'vehicle: car,'). Another colon is part of the label, and so is one written '\\:'. "
        "Lines '0: bird' throughout name numbered classes; '# …' is a comment. Or JSON: "
        "a list of labels, or an object of label: names.",
    ),
    click.option("--label-vectors", type=FileArgument, help="Parquet with label and vector."),
    click.option(
        "--template",
        "templates",
        multiple=True,
        metavar="T",
        help="A prompt with {} for the label; repeat it for several. "
        "[default: a photo of a {}., or as tune stored]",
    ),
    click.option(
        "--templates",
        "template_set",
        metavar="NAME",
        help="A named set: general, imagenet-80, imagenet-7, lit, cifar10, eurosat, pets, …",
    ),
    click.option(
        "--ensemble",
        type=click.Choice(["max", "mean-embedding", "mean-relative"]),
        help="How a class's prompts become one score. [default: max, or as tune stored]",
    ),
)

pairs_arguments = several(
    click.argument("ids", nargs=-1, metavar="[ID]..."),
    click.option("--where", metavar="SQL", help="A predicate, such as \"license = 'nc'\"."),
)


keys_option = click.option(
    "--keys",
    "keys_folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where the keys of receipts are. [default: ASIF_LANCE_KEYS, or your configuration]",
)


def open_store(context: Context) -> PairStore:
    """The database, with a note when opening it finished what a killed command had begun."""
    from asif_lance.store import PairStore

    store = PairStore.open(context.db)
    if store.notice:
        note(store.notice)
    return store


def chosen_templates(
    templates: tuple[str, ...], template_set: str | None
) -> str | tuple[str, ...] | None:
    """What `--template` or `--templates` ask for; None for the model's own."""
    if templates and template_set is not None:
        raise click.UsageError("give --template or --templates, one of the two")
    return template_set or templates or None


def need_ids_or_where(ids: tuple[str, ...], where: str | None) -> None:
    """Exactly one of the two ways to name pairs."""
    if bool(ids) == (where is not None):
        raise click.UsageError("name the pairs by ID or by --where, one of the two")
