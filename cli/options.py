"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from asif_lance.errors import DatabaseNotFoundError, InputError, format_count

from .output import note
from .parameter_types import Bytes, Device, FileArgument, Moment, PairOf, PathOption

if TYPE_CHECKING:
    from asif_lance.store import PairStore

#: Pairs in rewritten files that are compared before every command; more would delay it.
_COMPARED = 10_000
_TOLD = "asif_lance.unpublished"
_DOWNLOAD = "ASIF_LANCE_DOWNLOAD"
_HOW = ("added", "removed", "changed")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Context:
    """What every command knows."""

    db: str


def is_missing(image: str) -> bool:
    """Whether there is surely no such file or folder."""
    try:
        return not Path(image).exists()
    except OSError:  # a name too long, or no right to look: reading it says so
        return False


def several(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """One decorator that applies several, as if they stood below one another."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


format_option = click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or JSON lines.",
)

#: The same with a line of CSV per answer.
csv_format_option = click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="A table for people, JSON lines, or a line of CSV per picture.",
)


def _allow_downloads(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:  # set here, since what reads it takes seconds to import
        os.environ[_DOWNLOAD] = "1"


download_option = click.option(
    "--download",
    is_flag=True,
    expose_value=False,
    envvar=_DOWNLOAD,
    callback=_allow_downloads,
    help="Fetch named encoders from their model hub if they are not on this machine.",
)

#: What commands that encode have.
device_option = several(
    click.option(
        "--device",
        default="auto",
        show_default=True,
        type=Device(),
        help="Where encoders and search run: auto, cpu, cuda, cuda:1, mps.",
    ),
    download_option,
)

message_option = click.option(
    "--message", "-m", default="", help="What the new version is for; kept with it."
)

recipe_option = click.option(
    "--recipe",
    "recipe",
    metavar="NAME",
    help="How vectors are compared: paper, centred, white. "
    "[default: as tune stored with the version, else white]",
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
    click.option(
        "--labels",
        help="Class names, separated by commas; quotes keep a comma in one: '\"oak, old\",elm'.",
    ),
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
    type=PathOption(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where the keys of receipts are. [default: ASIF_LANCE_KEYS, or your configuration]",
)


def open_store(context: Context) -> PairStore:
    """The database, with a note when opening it finished what a killed command had begun."""
    from asif_lance.store import PairStore

    store = PairStore.open(context.db)
    if store.notice:
        note(store.notice)
    tell_unpublished(store)
    return store


def tell_of_database(context: Context) -> None:
    """The notes of `open_store`, if there is a database, for commands that open it later."""
    with suppress(DatabaseNotFoundError):
        open_store(context)


def tell_unpublished(store: PairStore) -> None:
    """Note, once in a command, what at head no version has: it becomes part of the next one."""
    context = click.get_current_context(silent=True)
    told = context.find_root().meta.setdefault(_TOLD, set()) if context else set()
    if store.attachment is not None or store.uri in told:
        return
    told.add(store.uri)
    changes = store.unpublished(most=_COMPARED)
    if changes.uncompared:
        note(
            f"another program rewrote the files of {format_count(changes.uncompared, 'pair')}; "
            "`asif-lance publish` compares them, and makes a version if something changed"
        )
    if len(changes):
        counts = (len(changes.added), len(changes.removed), len(changes.changed))
        parts = [f"{n:,} {how}" for n, how in zip(counts, _HOW, strict=True) if n]
        note(
            f"not published: pairs that another program or an interrupted command left "
            f"({', '.join(parts)}); `asif-lance publish` makes a version of them, and so does "
            "the next command that makes one"
        )


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Around a check of options' values: what it refuses is wrong usage, not a failure.

    Raises:
        click.UsageError: an `InputError` came up.
    """
    try:
        yield
    except InputError as error:
        raise click.UsageError(str(error)) from error


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
