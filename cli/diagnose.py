"""diagnose: are captions of similar images similar, are there hubs, and what do captions lack?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import format_count

from .confidence import check_self_test
from .labelled import experiment_options, save_plot
from .options import LABEL_OPTIONS, Context, label_options
from .output import note, percent, print_json, print_table
from .parameter_types import Count, Real
from .query import find_model, open_model, read_asked_labels

if TYPE_CHECKING:
    from asif_lance.evaluation import Diagnosis
    from asif_lance.evaluation.diagnosis import Captions, Gap
    from asif_lance.model import Model

#: Groups of duplicates that a table has.
SHOWN_GROUPS = 20


@click.command(short_help="Examine a model's pairs: do captions fit, and are there hubs?")
@label_options
@click.option(
    "--probes",
    type=Count(),
    default=1000,
    show_default=True,
    metavar="N",
    help="Pairs whose neighbours are looked at, drawn at random.",
)
@click.option(
    "--duplicates", is_flag=True, help="Look for pictures that several pairs show instead."
)
@click.option(
    "--similarity",
    type=Real(min=0, max=1, min_open=True),
    help="From which cosine on two pictures are nearly the same. [default: 0.9]",
)
@experiment_options
@click.pass_obj
def diagnose(
    context: Context,
    /,
    probes: int,
    duplicates: bool,
    similarity: float | None,
    seed: int,
    plot: Path | None,
    model: str | None,
    device: str,
    output: str,
    **arguments: Any,
) -> None:
    """Examine a model's pairs: are captions of similar images similar, and are there hubs?

    The gap is how much more alike captions are when their images are; without one there is nothing
    to learn from the pairs. Anchors in very many lists (skewness above 1) crowd out others. With
    labels it says how many captions mention each, and whether the images of the captions nearest
    to it agree: labels without either will be confused. The forecast comes from a self-test: how
    probable each label is for the pictures whose captions are nearest to it, themselves left out,
    times the cosine of the nearest caption. The labels that fail soonest come first, with the
    pairs that would help.

    With --duplicates every picture is compared with every other, by the stored vectors; pictures
    with the same bytes are counted apart. `--format json` lists all groups.

    \b
      asif-lance diagnose --plot pairs.png
      asif-lance diagnose --duplicates --similarity 0.95
      asif-lance diagnose --labels-file classes.txt --model v3
    """
    if similarity is not None and not duplicates:
        raise click.UsageError("--similarity is for --duplicates")
    if duplicates:
        if plot or any(arguments[name] for name in LABEL_OPTIONS):
            raise click.UsageError("--duplicates takes neither labels nor --plot")
        _tell_duplicates(open_model(context, model=model, device=device), similarity, output)
        return
    model_found = find_model(context, model=model, device=device)
    asked = any(arguments[name] for name in LABEL_OPTIONS[:-1])
    labels = read_asked_labels(**arguments) if asked else None
    model_found.check(labels)
    if labels is not None:
        check_self_test(model_found)
    from asif_lance.evaluation import diagnosis as library

    opened = model_found.open()
    prompts = None if labels is None else labels.embed(opened)
    found = library.diagnose(opened, prompts, probes=probes, seed=seed)
    save_plot(plot, lambda figures: figures.diagnosis_figure(found))
    print_json(asdict(found)) if output == "json" else _print(found)


def _print(found: Diagnosis) -> None:
    def spread(gap: Gap) -> str:
        return "" if gap.deviation is None else f"{gap.deviation:.4f}"

    click.echo(
        f"{found.model}: {format_count(found.gap.probes, 'probe')} against "
        f"{format_count(found.reference, 'pair')}, "
        f"the {found.near} most similar images of each"
    )
    print_table(
        ["captions' similarity", "probes", "near", "all", "gap", "±", "positive"],
        [
            (g.source or "all", g.probes, g.near, g.all, g.gap, spread(g), percent(g.positive, 0))
            for g in (found.gap, *found.sources[:10])
        ],
    )
    if found.gap.deviation is None:
        note("one probe shows no spread: --probes 1000 does")
    for hubs in found.hubs:
        click.echo(
            f"\n{hubs.side} hubs: skewness {hubs.skewness:.2f}, {percent(hubs.never, 0)} of the "
            f"anchors in no list of {hubs.k}"
        )
        print_table(
            ["share of lists", "caption", "pair_id"],
            [(percent(share), caption, pair_id) for pair_id, caption, share in hubs.top],
        )
    _print_captions(found.captions)
    if found.coverage:
        click.echo()
        print_table(
            ["label", "mentions", "nearest", "agreement", "nearest caption"],
            [(c.label, c.mentions, c.nearest, c.agreement, c.caption) for c in found.coverage],
        )
        click.echo()
        print_table(
            ["label", "forecast", "self-test", "nearness", "what would help"],
            [(f.label, f.forecast, f.self_test, f.nearness, f.helps) for f in found.forecasts],
        )


def _tell_duplicates(opened: Model, similarity: float | None, output: str) -> None:
    from asif_lance.evaluation import find_duplicates

    asked = {} if similarity is None else {"similarity": similarity}
    found = find_duplicates(opened, **asked)
    if output == "json":
        print_json(asdict(found))
        return
    click.echo(
        f"{found.model}: {found.identical:,} of {format_count(found.hashed, 'pair')} whose "
        "picture's bytes were seen have the same as another\n"
        f"{found.similar:,} of {format_count(found.pairs, 'pair')} in "
        f"{format_count(len(found.groups), 'group')} with a cosine from {found.similarity:g} on"
    )
    print_table(
        ["pairs", "same bytes", "captions", "sources", "pair_ids"],
        [
            (
                len(group.pair_ids),
                {True: "yes", False: "no", None: "unknown"}[group.identical],
                *(_first(texts) for texts in (group.captions, group.sources, group.pair_ids)),
            )
            for group in found.groups[:SHOWN_GROUPS]
        ],
    )
    if len(found.groups) > SHOWN_GROUPS:
        note(f"… and {len(found.groups) - SHOWN_GROUPS:,} more: --format json has all")
    _print_captions(found.captions)


def _first(texts: tuple[str, ...]) -> str:
    """The first few different ones."""
    different = list(dict.fromkeys(filter(None, texts)))
    return ", ".join(different[:3]) + (", …" if len(different) > 3 else "")


def _print_captions(captions: Captions) -> None:
    click.echo(
        f"\n{captions.duplicates:,} of {format_count(captions.pairs, 'pair')} share their caption "
        "with another; "
        + format_count(captions.uninformative, "caption says nothing", "captions say nothing")
    )
    print_table(["repeated caption", "pairs"], captions.repeated)
    if captions.examples:
        print_table(["says nothing"], [(caption,) for caption in captions.examples])
