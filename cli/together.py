"""`--with`: several databases that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import Context, chosen_templates
from .query import note_cut, open_model, read_names

if TYPE_CHECKING:
    from asif_lance.model import LabelSet, Together

with_option = click.option(
    "--with",
    "others",
    multiple=True,
    metavar="DB[@V]",
    help="Answer together with another database, such as one of other encoders; repeatable.",
)


def refuse_beside(others: tuple[str, ...], **given: object) -> None:
    """Refuse options that speak of one database beside `--with`; they come by name."""
    unfit = [name for name, value in given.items() if value]
    if others and unfit:
        raise click.UsageError(f"--{unfit[0]} is about one database: it cannot go with --with")


def open_together(
    context: Context, others: Sequence[str], *, model: str | None, **arguments: Any
) -> Together:
    """The databases of `--db` and `--with`, each at its own version, named `DB@V`."""
    from asif_lance.model import Together

    opened = {}
    for db, version in [(context.db, model), *map(_database_and_version, others)]:
        found = open_model(Context(db), model=version, **arguments)
        name = f"{db}@{found.version.name}"
        if name in opened:
            raise click.UsageError(f"--with: {name} is there already")
        opened[name] = found
    return Together(opened)


def _database_and_version(text: str) -> tuple[str, str | None]:
    """`photos.lancedb@v3` taken apart, unless a database has this very name."""
    db, at, version = text.rpartition("@")
    named = at and "/" not in version and not Path(text).is_dir()
    return (db, version) if named else (text, None)


def read_joint_labels(
    together: Together,
    *,
    labels: str | None,
    labels_file: Path | None,
    label_vectors: Path | None,
    templates: tuple[str, ...],
    template_set: str | None,
    ensemble: Any,
    otherwise: Sequence[str] = (),
) -> tuple[LabelSet, ...]:
    """What `label_options` ask, of every database; `otherwise` are the classes if none is named."""
    given = [x for x in (labels, labels_file) if x is not None]
    if label_vectors is not None or len(given) > 1 or not (given or otherwise):
        raise click.UsageError("with --with, give --labels or --labels-file, one of the two")
    names = read_names(labels, labels_file) if given else otherwise
    label_sets = together.labels(names, chosen_templates(templates, template_set), ensemble)
    for label_set in label_sets:
        note_cut("prompts", label_set.prompts)
    return label_sets
