"""Options of commands that other processes share the work of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import InputError

from .options import several
from .parameter_types import Count

if TYPE_CHECKING:
    from asif_lance.model import Model
    from asif_lance.store import PairStore

_ACTORS = "asif_lance.actors"

#: `--engine` and `--workers`; what `check_engine` and `share` take.
engine_options = several(
    click.option(
        "--engine",
        type=click.Choice(["ray"]),
        help="Share the work among the processes of a Ray cluster, each with a GPU where there are "
        "any, or of one that is started here.",
    ),
    click.option(
        "--workers",
        type=Count(most=100_000),
        metavar="N",
        help="Processes of --engine; as many as there is room for by default.",
    ),
)


def check_engine(engine: str | None, workers: int | None, **others: object) -> None:
    """Refuse options that need an engine or do not go with one, before anything is loaded.

    Args:
        engine: as `--engine` has it.
        workers: as `--workers` has it.
        others: by name, options that one process alone can follow; None where they are as usual.

    Raises:
        click.UsageError: they do not go together.
        InputError: the engine is not installed.
    """
    if workers is not None and engine is None:
        raise click.UsageError("--workers is for --engine ray")
    if engine is None:
        return
    for name, value in others.items():
        if value is not None:
            option = name.replace("_", "-")
            raise click.UsageError(f"--{option} is for one process: it cannot go with --engine")
    from asif_lance.cluster import check_ray

    check_ray()


def check_shared(store: PairStore, engine: str | None) -> None:
    """Refuse a database whose pairs only one process searches, before anything is loaded.

    Raises:
        InputError: it is attached to somebody else's table.
    """
    if engine is not None and store.attachment is not None:
        raise InputError(
            f"{store.uri} is attached to {store.attachment.table}, whose pairs one process "
            "searches: no --engine here"
        )


def share(model: Model, engine: str | None, workers: int | None) -> Model:
    """The model, whose work the actors of the engine do, which end with the command."""
    if engine is None:
        return model
    from asif_lance.cluster import SearchActors

    command = click.get_current_context()
    actors: Any = command.meta.get(_ACTORS)
    if actors is None:
        actors = command.with_resource(SearchActors.start_for(model, workers))
        command.meta[_ACTORS] = actors
    shared: Model = actors.share(model)
    return shared
