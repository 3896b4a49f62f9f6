"""`--with`: several databases that answer as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import Context
from .query import AskedLabels, FoundModel, find_model, note_cut, read_asked_labels

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


@dataclass(frozen=True, slots=True)
class FoundTogether:
    """Versions that are there, by `DB@V`; nothing of them is loaded."""

    models: Mapping[str, FoundModel]

    def open(self) -> Together:
        """Load them."""
        from asif_lance.model import Together

        return Together({name: found.open() for name, found in self.models.items()})


def find_together(
    context: Context, others: Sequence[str], *, model: str | None, **arguments: Any
) -> FoundTogether:
    """The databases of `--db` and `--with`, each at its own version, named `DB@V`."""
    models: dict[str, FoundModel] = {}
    for db, version in [(context.db, model), *map(split_database, others)]:
        found = find_model(Context(db), model=version, **arguments)
        name = f"{db}@{found.version.name}"
        if name in models:
            raise click.UsageError(f"--with: {name} is there already")
        models[name] = found
    return FoundTogether(models)


def split_database(text: str) -> tuple[str, str | None]:
    """`photos.lancedb@v3` taken apart, unless a database has this very name."""
    db, at, version = text.rpartition("@")
    named = at and "/" not in version and not Path(text).is_dir()
    return (db, version) if named else (text, None)


def read_joint_labels(**asked: Any) -> AskedLabels:
    """What `label_options` ask of every database."""
    names = asked["labels"], asked["labels_file"]
    if asked["label_vectors"] is not None or sum(x is not None for x in names) != 1:
        raise click.UsageError("with --with, give --labels or --labels-file, one of the two")
    return read_asked_labels(**asked)


def compile_joint_labels(together: Together, asked: AskedLabels) -> tuple[LabelSet, ...]:
    """The labels, compiled against every database."""
    label_sets = together.labels(asked.names, asked.templates, asked.ensemble)
    for label_set in label_sets:
        note_cut("prompt", label_set.prompts)
    return label_sets
