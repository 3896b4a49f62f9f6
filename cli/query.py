"""classify and search: what the model says."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    LABEL_OPTIONS,
    Context,
    FileArgument,
    chosen_templates,
    format_option,
    label_options,
    model_options,
)
from .output import note, print_json, print_table

if TYPE_CHECKING:
    from asif_lance.labels import ClassNames, LabelSet, Prompts
    from asif_lance.model import Model
    from asif_lance.predictions import Prediction
    from asif_lance.records import Reject


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--vectors", type=FileArgument, help="Parquet with id and vector, instead of images.")
@label_options
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, metavar="N")
@click.option("--explain", type=click.IntRange(min=1), metavar="N", help="Show N deciding pairs.")
@click.option("--record", is_flag=True, help="Keep predictions and attributions for audit.")
@click.option(
    "--attributions",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="With --record: the pairs kept per label.",
)
@click.option(
    "--truth-is-folder",
    is_flag=True,
    help="With --record: the name of a picture's folder is its true label.",
)
@click.option(
    "--search",
    "search_by",
    type=click.Choice(["exact", "index", "sampled"]),
    default="exact",
    show_default=True,
    help="Compare with all pairs, or as `index build` has measured.",
)
@model_options
@format_option
@click.pass_obj
def classify(
    context: Context,
    /,
    images: tuple[str, ...],
    vectors: Path | None,
    top: int,
    explain: int | None,
    record: bool,
    attributions: int,
    truth_is_folder: bool,
    search_by: str,
    output: str,
    **arguments: Any,
) -> None:
    """Say which label fits each picture best, and on request which pairs decided.

    \b
      asif-lance classify cat.jpg dog.jpg --labels cat,dog --explain 3
      asif-lance classify *.jpg --labels-file classes.txt --model v3 --format json
      asif-lance classify test/*/*.jpg --labels cat,dog --record --truth-is-folder
      asif-lance audit --report wrong-drivers
    """
    if bool(images) == (vectors is not None):
        raise click.UsageError("give images, or --vectors, one of the two")
    if record and search_by != "exact":
        raise click.UsageError("--record needs --search exact: what-if relies on the records")
    asked = {name: arguments.pop(name) for name in LABEL_OPTIONS}
    model = open_model(context, search=search_by, **arguments)
    label_set = read_labels(model, **asked)
    rejects: list[Reject] = []
    predictions = _predict(model, images, vectors, label_set, rejects)
    if record:
        limits = {"top": top, "pairs": attributions}
        predictions = _recorded(predictions, model, label_set, limits, truth_is_folder)
    for prediction in predictions:
        if output == "json":
            print_json(prediction_json(prediction, top, explain))
        else:
            _print_prediction(prediction, top, explain)
    for reject in rejects:
        note(f"asif-lance: {reject.item}: {reject.reason}")
    if rejects:
        sys.exit(1)


@click.command()
@click.argument("text", required=False)
@click.option("--image", type=click.Path(dir_okay=False), help="Find captions for this picture.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, metavar="N")
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Pairs that are scored exactly; at the number of pairs the ranking is exact.",
)
@model_options
@format_option
@click.pass_obj
def search(
    context: Context,
    /,
    text: str | None,
    image: str | None,
    top: int,
    candidates: int,
    output: str,
    **model_arguments: Any,
) -> None:
    """Find pictures for a TEXT, or captions for an --image, among the model's pairs.

    \b
      asif-lance search "a dog on the beach"
      asif-lance search --image dog.jpg
    """
    if (text is None) == (image is None):
        raise click.UsageError("give a TEXT or --image, one of the two")
    model = open_model(context, **model_arguments)
    if text is not None:
        matches = model.search_text(text, top=top, candidates=candidates)
    else:
        matches = model.search_image(str(image), top=top, candidates=candidates)
    if output == "json":
        for m in matches:
            print_json(
                {
                    "pair_id": m.pair_id,
                    "score": m.score,
                    "caption": m.caption,
                    "image_uri": m.image_uri,
                }
            )
    else:
        rows = [(m.score, m.caption, m.image_uri, m.pair_id) for m in matches]
        print_table(["score", "caption", "image", "pair_id"], rows)


def open_model(
    context: Context,
    *,
    model: str | None,
    device: str,
    as_of: datetime | None = None,
    recipe_name: str | None = None,
    k: tuple[int, int] | None = None,
    p: tuple[float, float] | None = None,
    memory_limit: int | None = None,
    search: Any = "exact",
) -> Model:
    """The model that `model_options` describe."""
    from asif_lance import model as library

    opened = library.open_model(
        context.db,
        model,
        as_of=as_of,
        recipe_name=recipe_name,
        k=k,
        p=p,
        device=device,
        memory_limit=memory_limit,
        search=search,
    )
    if opened.store.notice:
        note(opened.store.notice)
    return opened


def prediction_json(prediction: Prediction, top: int, explain: int | None) -> dict[str, Any]:
    """One prediction as the contract has it; `k` and `p` are one number when both sides agree.

    `templates` is there when a named set was asked for.
    """
    from asif_lance.prompts import TEMPLATE_SETS

    value: dict[str, Any] = {
        "image": prediction.image,
        "model": prediction.model,
        "recipe": prediction.recipe.name,
        "k": _one_or_both(prediction.recipe.k),
        "p": _one_or_both(prediction.recipe.p),
        "predictions": [{"label": n, "score": s} for n, s in prediction.ranking[:top]],
    }
    templates = prediction.evidence.labels.prompts.templates
    if templates in TEMPLATE_SETS:
        value["templates"] = templates
    if explain is not None:
        value["pairs"] = [
            {
                "pair_id": a.pair_id,
                "caption": a.caption,
                "label": a.label,
                "image_similarity": a.image_similarity,
                "text_similarity": a.text_similarity,
                "contribution": a.contribution,
            }
            for a in prediction.attributions(explain)
        ]
    return value


def _one_or_both(sides: tuple[float, float]) -> float | list[float]:
    return sides[0] if sides[0] == sides[1] else list(sides)


def read_labels(model: Model, **asked: Any) -> LabelSet:
    """The label set that `label_options` describe, compiled."""
    return model.compile(read_prompts(model, **asked))


def read_prompts(
    model: Model,
    *,
    labels: str | None,
    labels_file: Path | None,
    label_vectors: Path | None,
    templates: tuple[str, ...],
    template_set: str | None,
    ensemble: Any,
    otherwise: Sequence[str] = (),
) -> Prompts:
    """What `label_options` ask; `otherwise` are the classes when none of them names any."""
    given = [x for x in (labels, labels_file, label_vectors) if x is not None]
    if len(given) != 1 and not (otherwise and not given):
        raise click.UsageError("give --labels, --labels-file or --label-vectors, one of them")
    if label_vectors is not None:
        if templates or template_set:
            raise click.UsageError("--template needs label names, not --label-vectors")
        from asif_lance.brought import read_label_vectors
        from asif_lance.labels import from_vectors

        return from_vectors(read_label_vectors(label_vectors), ensemble or model.ensemble)
    names = read_names(labels, labels_file) if given else otherwise
    return model.prompts(names, chosen_templates(templates, template_set), ensemble)


def read_names(labels: str | None, labels_file: Path | None) -> ClassNames:
    """The classes of `--labels` or `--labels-file`."""
    from asif_lance.prompts import read_class_names

    if labels is not None:
        return [name.strip() for name in labels.split(",")]
    return read_class_names(Path(labels_file or ""))


def _predict(
    model: Model,
    images: tuple[str, ...],
    vectors: Path | None,
    label_set: LabelSet,
    rejects: list[Reject],
) -> Iterable[Prediction]:
    if vectors is None:
        return model.classify(images, label_set, rejects=rejects)
    from asif_lance.brought import read_vectors

    ids, matrix = read_vectors(vectors)
    return model.classify_vectors(ids, matrix, label_set)


def _recorded(
    predictions: Iterable[Prediction],
    model: Model,
    label_set: LabelSet,
    limits: dict[str, int],
    truth_is_folder: bool,
) -> Iterator[Prediction]:
    """The same predictions, written down on their way."""
    from asif_lance.runs import Recorder

    with Recorder(model.store, label_set, model.recipe, **limits) as run:
        for prediction in predictions:
            folder = Path(prediction.image).absolute().parent.name
            run.add(prediction, truth=folder if truth_is_folder else None)
            yield prediction
    note(f"recorded as run {run.run_id}")


def _print_prediction(prediction: Prediction, top: int, explain: int | None) -> None:
    print_table(
        [prediction.image, prediction.model],
        [(label, score) for label, score in prediction.ranking[:top]],
    )
    if explain is not None:
        print_table(
            ["contribution", "image", "text", "caption", "pair_id"],
            [
                (a.contribution, a.image_similarity, a.text_similarity, a.caption, a.pair_id)
                for a in prediction.attributions(explain)
            ],
        )
    click.echo()
