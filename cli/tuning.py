"""tune: which settings suit labelled pictures best, or the pairs themselves."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from asif_lance.errors import format_count

from .confidence import check_self_test
from .engine import engine_options
from .labelled import (
    Task,
    describe,
    experiment_options,
    in_words,
    read_task,
    report_rejects,
    save_plot,
)
from .options import Context, label_options
from .output import note, percent, print_json, print_table
from .parameter_types import Numbers, Real
from .query import AskedLabels, FoundModel, check_recipes, find_model, read_asked_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asif_lance.evaluation import Confirmation, SelfTuning, TriedSetting, Tuning
    from asif_lance.model import Model
    from asif_lance.records import Reject

    Found = TypeVar("Found", Tuning, SelfTuning)

#: Choices that are shown to people; JSON has all.
SHOWN = 10

_MODEL = ("model", "device", "engine", "workers")


@click.command(short_help="Find the recipe, k, p and templates that suit labelled PICTURES.")
@click.argument("pictures", type=click.Path(exists=True, path_type=Path), required=False)
@label_options
@click.option(
    "--self-test",
    is_flag=True,
    help="Choose without labelled pictures: the pairs whose captions are nearest to each label "
    "stand for it. Needs labels, and tries all recipes unless --try-recipe names some; goes "
    "without --holdout and --try-templates.",
)
@click.option(
    "--ks",
    type=Numbers(int),
    default="25,50,100,200,400,800,1600",
    show_default=True,
    metavar="K,K,…",
    help="Numbers of anchors to try.",
)
@click.option(
    "--ps",
    type=Numbers(float),
    default="1,2,4,6,8,12,16",
    show_default=True,
    metavar="P,P,…",
    help="Powers of similarities to try.",
)
@click.option("--per-side", is_flag=True, help="Every k and p of one side with those of the other.")
@click.option(
    "--try-ensemble",
    "ensembles",
    type=click.Choice(["max", "mean-embedding", "mean-relative"]),
    multiple=True,
    help="Repeat for several.",
)
@click.option(
    "--try-templates",
    "template_sets",
    multiple=True,
    metavar="NAME",
    help="A named set, beside what is asked. Repeat for several.",
)
@click.option("--try-recipe", "recipes", multiple=True, metavar="NAME", help="Repeat for several.")
@click.option(
    "--store",
    is_flag=True,
    help="Keep the choice with the version, as its default: if it is better than the version's own "
    "setting and, with --holdout, the held-out pictures confirm that.",
)
@click.option(
    "--holdout",
    type=Real(0, 1, min_open=False, max_open=True),
    default=0.0,
    metavar="FRACTION",
    help="Hold this share of each class out of the choice, and confirm the choice on it.",
)
@experiment_options
@engine_options
@click.pass_obj
def tune(
    context: Context,
    /,
    pictures: Path | None,
    self_test: bool,
    ks: tuple[int, ...],
    ps: tuple[float, ...],
    per_side: bool,
    ensembles: tuple[Any, ...],
    template_sets: tuple[str, ...],
    recipes: tuple[str, ...],
    store: bool,
    holdout: float,
    seed: int,
    plot: Path | None,
    output: str,
    **arguments: Any,
) -> None:
    """Find the recipe, k, p, templates and ensemble that suit labelled PICTURES.

    The version's own setting is always among the choices. Figures on the pictures that made the
    choice are optimistic: tune on a validation set, never on the test set, and let --holdout
    confirm the choice on pictures that did not make it.

    With --self-test no picture is needed: those of the pairs whose captions are nearest to each
    label are classified with themselves left out. The setting that makes their labels most likely
    is chosen. It cannot see whether your pictures are of another kind than the pairs'.

    \b
      asif-lance tune validation/ --holdout 0.5
      asif-lance tune validation/ --try-templates single --try-templates general
      asif-lance tune validation.parquet --per-side --plot heat.png
      asif-lance tune --self-test --labels-file classes.txt --store
    """
    _check(self_test, pictures, holdout, template_sets, arguments["label_vectors"])
    check_recipes(recipes)
    model_found = find_model(context, **{name: arguments.pop(name) for name in _MODEL})
    choices = (ks, ps, ensembles, recipes, per_side)
    if pictures is None:
        asked = read_asked_labels(**arguments)
        _tune_by_self_test(model_found, asked, choices, store, plot, output)
        return
    rejects: list[Reject] = []
    task, others = _read(model_found, pictures, arguments, template_sets, (holdout, seed), rejects)
    from asif_lance.evaluation import tuning as library

    grid, opened = library.Grid(*choices), model_found.open()
    labelled, prompts = task.encode(opened, rejects)
    tried = [prompts, *(o.embed(opened) for o in others if o.templates != prompts.templates)]
    own = replace(task.asked, templates=None, ensemble=None).embed(opened)
    found = library.tune(opened, labelled, tried, grid, own=own, holdout=holdout, seed=seed)
    save_plot(plot, lambda f: f.tuning_figure(found, describe(opened, labelled, pictures)))
    _tell(opened, found, _summary(found), _print_tuning, store, output)
    report_rejects(rejects)


def _tell(
    opened: Model,
    found: Found,
    summary: dict[str, Any],
    show: Callable[[Found], None],
    store: bool,
    output: str,
) -> None:
    """Store the choice if that was asked, and print the result, as its summary or for people."""
    stored = store and found.objection is None
    if stored:
        from asif_lance.evaluation import tuning as library

        library.store_best(opened, found)
    if output == "json":
        print_json(summary | ({"stored": stored} if store else {}))
    else:
        show(found)
    if store and not stored:
        note(f"not stored: {found.objection}")
    elif store:
        note(f"stored with {found.model}, which answers so where no recipe, k or p is given")


def _check(
    self_test: bool,
    pictures: Path | None,
    holdout: float,
    template_sets: tuple[str, ...],
    label_vectors: Path | None,
) -> None:
    """Labelled pictures or the self-test, one of the two; what goes with pictures alone."""
    if template_sets and label_vectors is not None:
        raise click.UsageError("--try-templates needs label names, not --label-vectors")
    if (pictures is not None) == self_test:
        raise click.UsageError("give labelled PICTURES, or --self-test with labels, one of the two")
    if self_test and (holdout or template_sets):
        raise click.UsageError("--self-test goes without --holdout and --try-templates")


def _tune_by_self_test(
    found_model: FoundModel,
    asked: AskedLabels,
    choices: Any,
    store: bool,
    plot: Path | None,
    output: str,
) -> None:
    found_model.check(asked)
    check_self_test(found_model)
    from asif_lance.evaluation import self_tuning as library
    from asif_lance.evaluation.tuning import Grid

    grid, opened = Grid(*choices), found_model.open()
    own = replace(asked, templates=None, ensemble=None).embed(opened)
    found = library.tune_by_self_test(opened, asked.embed(opened), grid, own=own)
    subject = f"{found.model}, {format_count(found.labels, 'label')}"
    save_plot(plot, lambda figures: figures.tuning_figure(found, subject))
    _tell(opened, found, asdict(found), _print_self_tuning, store, output)


def _print_self_tuning(found: SelfTuning) -> None:
    best, reference = found.best, found.reference
    ordered = sorted(found.choices, key=lambda choice: (choice.log_loss, choice != best))[:SHOWN]
    columns = ["recipe", "k", "p", "templates", "ensemble", "top-1", "log-loss"]
    print_table(columns, [(*_row(choice), choice.log_loss) for choice in ordered])
    click.echo(
        f"\nbest of {format_count(len(found.choices), 'choice')} on {found.model}: "
        f"{_setting_options(best)}\n"
        f"chosen because it makes the labels of {format_count(found.pictures, 'pair')} that stand "
        f"for {format_count(found.labels, 'label')} most likely: log-loss {best.log_loss:.3f} "
        f"({percent(best.top_1)} right, each picture left out of the pairs)"
    )
    if best != reference:
        interval = found.interval
        spread = "" if interval is None else f" ({interval[0]:+.3f} to {interval[1]:+.3f})"
        click.echo(
            f"the model's own setting: log-loss {reference.log_loss:.3f} "
            f"({percent(reference.top_1)} right), difference {found.difference:+.3f}{spread}"
        )
    note(
        "shares of the self-test are no accuracy: it does not see whether your pictures are of "
        "another kind than the pairs'; classify --confidence tells that"
    )


def _read(
    model: FoundModel,
    pictures: Path,
    arguments: dict[str, Any],
    sets: Sequence[str],
    held_out: tuple[float, int],
    rejects: list[Reject],
) -> tuple[Task, list[AskedLabels]]:
    """Labelled pictures, and their classes asked with named sets of templates."""
    from asif_lance.evaluation import hold_out
    from asif_lance.model import template_set

    task = read_task(pictures, arguments, rejects, model)
    if held_out[0]:
        hold_out(task.labelled, *held_out)  # it may leave nothing
    for name in sets:
        template_set(name)  # there may be none
    return task, [replace(task.asked, templates=name) for name in dict.fromkeys(sets)]


def _summary(found: Tuning) -> dict[str, Any]:
    return {
        **asdict(found),
        "verdict": found.verdict,
        "comparisons": len(found.choices),
        "note": "figures on the tuning pictures are optimistic: these pictures made the choice",
    }


def _print_tuning(found: Tuning) -> None:
    best = found.best
    whose = "the model's own setting, " if best == found.reference else ""
    ordered = sorted(found.choices, key=lambda choice: (-choice.top_1, choice != best))[:SHOWN]
    columns = ["recipe", "k", "p", "templates", "ensemble", "top-1"]
    print_table(columns, [_row(choice) for choice in ordered])
    click.echo(
        f"\nbest of {format_count(len(found.choices), 'choice')} on {found.model}: "
        f"{whose}{_setting_options(best)}"
    )
    _print_confirmed("on the pictures that chose it", found.on_tuning, compared=not whose)
    if found.held_out is None:
        note("these figures are optimistic: chosen on this set; --holdout 0.5 gives an honest one")
        return
    _print_confirmed("on held-out pictures", found.held_out, compared=not whose)
    if not whose:
        click.echo(f"against the model's own setting, the choice is {found.verdict}")


def _setting_options(best: TriedSetting) -> str:
    """The options that answer so."""
    return (
        f"--recipe {best.recipe} --k {best.k[0]},{best.k[1]} --p {best.p[0]:g},{best.p[1]:g}"
        f"{_template_options(best.templates)} --ensemble {best.ensemble}"
    )


def _row(choice: TriedSetting) -> tuple[object, ...]:
    from asif_lance.relative import format_sides

    share = percent(choice.top_1)
    both = format_sides(choice.k), format_sides(choice.p)
    return choice.recipe, *both, choice.templates, choice.ensemble, share


def _template_options(templates: str) -> str:
    """The options that ask so again."""
    from asif_lance.model import resolve_templates

    if "{}" not in templates:
        return f" --templates {templates}" if templates else ""
    return "".join(f" --template {shlex.quote(own)}" for own in resolve_templates(templates)[0])


def _print_confirmed(where: str, found: Confirmation, *, compared: bool) -> None:
    low, high = found.interval
    interval = f"95% interval {percent(low)} to {percent(high)}"
    told = f"{where} ({found.pictures}): {percent(found.top_1)} ({interval})"
    if compared:
        told += (
            f"; the model's own setting {percent(found.reference)}, "
            f"difference {found.difference:+.1%} "
            f"({in_words(found.difference_interval)}), McNemar p = {found.p_value:.3g}"
        )
    click.echo(told)
