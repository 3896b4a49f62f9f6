"""what-if: predictions that would change, before anything does; and between two versions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import InputError, format_count

from .manners import CommandGroup
from .options import (
    LABEL_OPTIONS,
    Context,
    format_option,
    label_options,
    model_options,
    need_ids_or_where,
    open_store,
    pairs_arguments,
    several,
)
from .output import note, print_json, print_table
from .parameter_types import Count, FileArgument, PathOption
from .query import AskedLabels, FoundModel, check_asked_labels, find_model, read_asked_labels

if TYPE_CHECKING:
    from asif_lance.audit import Run
    from asif_lance.model import Model
    from asif_lance.records import Float32Array, Reject
    from asif_lance.whatif import PredictionChange


asked_about = several(
    click.option(
        "--images",
        multiple=True,
        metavar="PATH",
        type=PathOption(exists=True, path_type=Path),
        help="A picture, or a folder of them; repeat it for several.",
    ),
    click.option("--vectors", type=FileArgument, help="Parquet with id and vector instead."),
    label_options,
    click.option(
        "--because",
        type=Count(),
        default=3,
        show_default=True,
        metavar="N",
        help="Pairs shown per change, those that moved it most first.",
    ),
)


@click.group(
    "what-if",
    cls=CommandGroup,
    short_help="Say which predictions would change if pairs went or came.",
)
def what_if() -> None:
    """Which predictions would change if pairs were deleted or added; nothing is written.

    The predictions are those of a recorded run (--run, by default the newest; see `runs`), which
    takes a small part of the time of asking again, or those for --images (or --vectors) and labels.

    \b
      asif-lance what-if delete --where "license = 'nc'"
      asif-lance what-if add more-photos/ --run r20261124-101500-5ab1f4c0d2e3
      asif-lance what-if delete 8c4b… --images test/ --labels cat,dog
    """


run_option = click.option(
    "--run", metavar="RUN", help="A recorded run; by default the newest, if no images are named."
)


@what_if.command()
@pairs_arguments
@run_option
@asked_about
@model_options
@format_option
@click.pass_obj
def delete(context: Context, /, ids: tuple[str, ...], where: str | None, **arguments: Any) -> None:
    """What deleting pairs, named by ID or by a predicate, would change."""
    need_ids_or_where(ids, where)
    found, asked = _find(context, arguments)
    from asif_lance.audit import matching_ids

    version = found.version.name
    chosen = list(ids) if where is None else matching_ids(found.store, where, version)
    from asif_lance.whatif import without_pairs

    model = found.open()
    after, count = without_pairs(model, chosen)
    missing = len(set(chosen)) - count
    if missing and not count:
        raise InputError(f"none of the ids is in {version}")
    if missing:
        note(f"not in {version}: {missing:,} of the ids")
    pairs = format_count(int(model.anchors.there.sum()), "pair")
    note(f"{model.version.name} without {count:,} of its {pairs}")
    _report(model, after, asked)


@what_if.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--role", type=click.Choice(["example"]), help="As of `ingest`.")
@run_option
@asked_about
@model_options
@format_option
@click.pass_obj
def add(context: Context, /, sources: tuple[str, ...], role: str | None, **arguments: Any) -> None:
    """What ingesting sources would change."""
    found, asked = _find(context, arguments)
    from asif_lance.ingest import IngestOptions, read_pairs

    pairs, rejects = read_pairs(found.store, sources, IngestOptions(role=role))
    from asif_lance.whatif import with_pairs

    model = found.open()
    after, count = with_pairs(model, pairs)
    note(
        f"{model.version.name} with {format_count(count, 'more pair')}; "
        f"{format_count(len(rejects), 'item')} would be rejected"
    )
    _report(model, after, asked)


def _find(context: Context, arguments: dict[str, Any]) -> tuple[FoundModel, dict[str, Any]]:
    """The model to ask, and what is asked of it; nothing is loaded yet."""
    names = ("model", "as_of", "recipe", "k", "p", "device", "memory_limit")
    options = {name: arguments.pop(name) for name in names}
    about = ("images", "vectors", *LABEL_OPTIONS)
    if not any(arguments[name] for name in about):
        if any(options[name] is not None for name in names[:5]):
            raise click.UsageError(
                "a recorded run has its own model and recipe; name images to ask"
            )
        run = _run(context, arguments)
        limits = {name: options[name] for name in names[5:]}
        return find_model(context, **_made_with(context, run), **limits), arguments
    if arguments["run"]:
        raise click.UsageError("give a --run, or images and labels, one of the two")
    check_pictures_and_labels(arguments)
    found = find_model(context, **options)
    return found, read_question(arguments, found)


def check_pictures_and_labels(asked: Mapping[str, Any]) -> None:
    """Refuse `asked_about` without pictures or without labels, before anything is loaded.

    Raises:
        click.UsageError: with what to give.
    """
    if bool(asked["images"]) == (asked["vectors"] is not None):
        raise click.UsageError("give --images, or --vectors, one of the two")
    check_asked_labels(asked)


def read_question(asked: dict[str, Any], *models: FoundModel) -> dict[str, Any]:
    """`asked_about` with the labels and vectors read, in place of what names them.

    Raises:
        InputError: they cannot be read, or the models cannot be asked so.
    """
    labels = read_asked_labels(**{name: asked[name] for name in LABEL_OPTIONS})
    vectors = None
    if asked["vectors"] is not None:
        from asif_lance.encoders import read_vectors

        vectors = read_vectors(asked["vectors"])
    for found in models:
        matrix = None if vectors is None else vectors[1]
        found.check(labels, pictures=vectors is None, vectors=matrix)
    return {**asked, "labels": labels, "vectors": vectors}


def _run(context: Context, arguments: dict[str, Any]) -> Run:
    from asif_lance.audit import runs

    run = runs.find_run(open_store(context), arguments["run"])
    arguments["run"] = run
    return run


def _made_with(context: Context, run: Run) -> dict[str, Any]:
    from asif_lance.audit.replay import recipe_of

    recipe = recipe_of(open_store(context), run)
    made = {"model": run.model, "recipe": recipe.name, "k": recipe.k, "p": recipe.p}
    return {**made, "as_of": None}


def _report(before: Model, after: Model, asked: dict[str, Any]) -> None:
    from asif_lance.audit import replay
    from asif_lance.whatif import find_recorded_flips

    run = asked["run"]
    if run is None:
        report(before, after, asked)
        return
    recorded = replay.load_replay(before.store, run.run_id, run.labels)
    found = find_recorded_flips(before, after, recorded)
    for change in sorted(found.flips, key=_gap, reverse=True):
        _print(change, asked["because"], asked["output"])
    note(
        f"{len(found.flips):,} of {format_count(found.predictions, 'prediction')} of "
        f"{run.run_id} change; "
        f"{found.searched:,} had to be searched again"
    )


def report(before: Model, after: Model, asked: dict[str, Any]) -> None:
    """Print the predictions that flip, those that moved most first, and how many there are.

    `asked` is from `read_question`.
    """
    from asif_lance.whatif import compare_models, compare_states

    rejects: list[Reject] = []
    labels: AskedLabels = asked["labels"]
    ids, vectors = _queries(before, asked, rejects)
    prompts = labels.embed(before)
    if after.store.uri == before.store.uri:
        found = list(compare_states(before, after, ids, vectors, prompts))
    else:
        if asked["vectors"] is not None:
            raise click.UsageError("two databases are compared by --images: each encodes its own")
        _, others = _queries(after, asked, [])
        both = (before, vectors, prompts), (after, others, labels.embed(after))
        found = list(compare_models(*both, ids))
    flips = sorted((c for c in found if c.flips), key=_gap, reverse=True)
    moved = sum(c.before.ranking != c.after.ranking for c in found)
    for change in flips:
        _print(change, asked["because"], asked["output"])
    note(
        f"{len(flips):,} of {format_count(len(found), 'prediction')} change; {moved:,} "
        "have other scores"
    )
    for reject in rejects:
        note(f"asif-lance: {reject.item}: {reject.reason}")
    if rejects:
        sys.exit(1)


def _gap(change: PredictionChange) -> float:
    """How far the first label falls behind the other one's rise."""
    before, after = dict(change.before.ranking), dict(change.after.ranking)
    old, new = change.before.label, change.after.label
    return (before[old] - before[new]) + (after[new] - after[old])


def _queries(
    model: Model, asked: dict[str, Any], rejects: list[Reject]
) -> tuple[list[str], Float32Array]:
    given: tuple[list[str], Float32Array] | None = asked["vectors"]
    if given is not None:
        return given
    from asif_lance.encoders import expand_folders

    return model.encode(list(expand_folders(asked["images"], rejects)), rejects=rejects)


def _print(change: PredictionChange, because: int, output: str) -> None:
    pairs = change.because(because)
    if output == "json":
        sides = {
            name: {"label": p.label, "score": p.score}
            for name, p in (("before", change.before), ("after", change.after))
        }
        why = [
            {"pair_id": i.pair_id, "caption": i.caption, "role": i.role, "label": i.label}
            | {"before": i.before, "after": i.after}
            for i in pairs
        ]
        print_json({"image": change.before.image, **sides, "because": why})
        return
    click.echo(f"{change.before.image}: {change.before.label} -> {change.after.label}")
    print_table(
        ["label", "before", "after", "caption", "pair_id"],
        [(i.label, i.before, i.after, i.caption, i.pair_id) for i in pairs],
    )
