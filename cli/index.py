"""index: search with fewer comparisons, measured beside exact search before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import format_count

from .manners import CommandGroup
from .options import LABEL_OPTIONS, Context, format_option, label_options, model_options, open_store
from .output import megabytes, note, percent, print_json, print_table
from .parameter_types import Count, FileArgument, Real
from .query import AskedLabels, find_model, read_asked_labels

if TYPE_CHECKING:
    from asif_lance.anchors import MeasuredSetting, SearchChoice
    from asif_lance.indexing import IndexStatus, TrialQueries
    from asif_lance.model import Model
    from asif_lance.records import Float32Array

_COLUMNS = ("nprobes", "candidates", "fraction", "recall", "agreement", "times faster", "ms")


@click.group(cls=CommandGroup, short_help="Search with fewer comparisons, for `classify --search`.")
def index() -> None:
    """Search with fewer comparisons than exact search makes, for `classify --search`.

    Exact search is the default and needs none of this; beyond some 100,000 pairs, or beyond memory,
    an index answers single pictures faster.

    \b
      asif-lance index build --labels-file classes.txt --agreement 0.99
      asif-lance classify cat.jpg --labels-file classes.txt --search index
    """


@index.command()
@click.option(
    "--kind",
    type=click.Choice(["ivf-rq", "ivf-pq", "ivf-sq", "ivf-hnsw-sq", "ivf-flat", "sampled"]),
    help="An index of LanceDB, by default ivf-rq; sampled needs none, see below.",
)
@click.option(
    "--agreement",
    type=Real(0, 1, min_open=True),
    default=0.99,
    show_default=True,
    help="Share of the queries that must get the label of exact search.",
)
@click.option(
    "--queries",
    type=FileArgument,
    help="Parquet with id and vector to measure on; by default pairs of the table, left out of it.",
)
@click.option("--run", metavar="RUN", help="Measure on a recorded run's pictures and labels.")
@click.option(
    "--sample",
    type=Count(),
    default=300,
    show_default=True,
    metavar="N",
    help="How many pairs of the table to measure on.",
)
@click.option("--keep", is_flag=True, help="Keep what is slower than exact search, too.")
@label_options
@model_options
@format_option
@click.pass_obj
def build(
    context: Context,
    /,
    kind: str | None,
    agreement: float,
    keep: bool,
    output: str,
    **arguments: Any,
) -> None:
    """Build an index of the newest version's pictures and find the fastest setting that will do.

    Settings are tried on your own queries and labels (or on captions of the table as labels), one
    picture at a time, beside exact search. `classify --search index` uses the one that is found, on
    this version and those after it. What is slower than exact search is not kept.

    With `--kind sampled` nothing is built: `classify --search sampled` compares a picture with the
    pairs that carry weight for some label and a sample of the others, and what is found is how
    large a sample it takes. It pays if the labels depend on few of the pairs.
    """
    options = {
        name: arguments.pop(name)
        for name in ("model", "as_of", "recipe", "k", "p", "device", "memory_limit")
    }
    open_store(context).check_own("index build")  # before the pairs are looked at
    model_found = find_model(context, **options)
    labels, vectors = _read_trial(arguments)
    model_found.check(labels, vectors=vectors)
    from asif_lance.indexing import index_tuning

    model = model_found.open()
    index_tuning.check_newest(model)
    asked = _trial_queries(model, arguments, labels, vectors)
    note(f"measured on {asked.asked}")
    found: list[MeasuredSetting] = []
    choice = index_tuning.build_index(
        model, asked, kind=kind, target=agreement, keep=keep, tried=found
    )
    if output == "json":
        print_json(_choice_json(choice))
        return
    print_table(_COLUMNS, [_row(measured) for measured in found])
    click.echo(_told(choice))


@index.command()
@click.option("--model", default="latest", metavar="V", help="A version or alias.")
@format_option
@click.pass_obj
def status(context: Context, model: str, output: str) -> None:
    """Show what a version can be searched with beside exact search, and how well that does."""
    from asif_lance.indexing import index_tuning

    found = index_tuning.index_status(open_store(context), model)
    for each in found:
        if output == "json":
            choice = None if each.choice is None else _choice_json(each.choice)
            counts = {"rows": each.rows, "later": each.later, "bytes": each.bytes}
            print_json({"version": each.version, "search": each.search, **counts, "choice": choice})
        else:
            _print_status(each)
    if not found:
        note("no index, nothing sampled: `asif-lance index build` makes one")


@index.command()
@click.pass_obj
def drop(context: Context) -> None:
    """Take index and settings away from the newest version."""
    from asif_lance.indexing import index_tuning

    gone = index_tuning.drop_index(open_store(context))
    note(f"dropped: {', '.join(gone) or 'nothing was there'}")


def _read_trial(arguments: dict[str, Any]) -> tuple[AskedLabels | None, Float32Array | None]:
    """The labels and the vectors to measure with, where they are given."""
    labelled = any(arguments[name] for name in LABEL_OPTIONS[:-1])
    if arguments["run"] and (labelled or arguments["queries"]):
        raise click.UsageError("a --run has queries and labels of its own")
    asked = {name: arguments[name] for name in LABEL_OPTIONS}
    labels = read_asked_labels(**asked) if labelled else None
    return labels, _vectors(arguments["queries"])


def _trial_queries(
    model: Model,
    arguments: dict[str, Any],
    labels: AskedLabels | None,
    vectors: Float32Array | None,
) -> TrialQueries:
    from asif_lance.indexing import make_trial_queries, replayed_queries

    if arguments["run"]:
        return replayed_queries(model, arguments["run"])
    prompts = None if labels is None else labels.embed(model)
    return make_trial_queries(model, vectors, prompts, count=arguments["sample"])


def _vectors(path: Path | None) -> Float32Array | None:
    if path is None:
        return None
    from asif_lance.encoders import read_vectors

    return read_vectors(path)[1]


def _row(measured: MeasuredSetting) -> tuple[object, ...]:
    setting = measured.setting
    figures = measured.recall, measured.agreement, measured.ratio, measured.milliseconds
    return (setting.nprobes, setting.candidates, setting.fraction, *figures)


def _told(choice: SearchChoice) -> str:
    from asif_lance.indexing import agreement_at_least

    measured, setting = choice.measured, choice.setting
    where = (
        f"{format_count(setting.nprobes, 'partition')}, {setting.candidates:g} k candidates"
        if choice.search == "index"
        else f"{percent(setting.fraction)} of the other pairs"
    )
    low = agreement_at_least(measured.agreement, choice.queries)
    return (
        f"{choice.version}: --search {choice.search} ({choice.kind}) with {where}: "
        f"{percent(measured.agreement)} of "
        f"{format_count(choice.queries, 'query', 'queries')} get the label of exact search "
        f"(95%: at least {percent(low)}), {measured.ratio:.1f} times as fast: "
        f"{measured.milliseconds:.2f} ms a picture, exact search {measured.exact_milliseconds:.2f}"
    )


def _print_status(each: IndexStatus) -> None:
    if each.search == "index":
        size = megabytes(each.bytes)
        click.echo(
            f"{each.version}: index over {format_count(each.rows, 'pair')}, {size}; "
            f"{each.later:,} later"
        )
    if each.choice is None:
        click.echo(f"{each.version}: no setting was measured: `asif-lance index build`")
        return
    click.echo(_told(each.choice))
    click.echo(f"measured on {each.choice.version} with {each.choice.asked}")


def _choice_json(choice: SearchChoice) -> dict[str, Any]:
    from dataclasses import asdict

    from asif_lance.indexing import agreement_at_least

    low = agreement_at_least(choice.measured.agreement, choice.queries)
    return {**asdict(choice), "agreement_at_least": low}
