"""search; and how every command opens the model and reads the labels that its options describe.

What can be wrong of arguments is told between finding a model and opening it: opening it imports
torch, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import InputError, format_count

from .attach import tell_left_out
from .engine import check_engine, check_shared, engine_options, share
from .options import (
    LABEL_OPTIONS,
    Context,
    chosen_templates,
    format_option,
    model_options,
    open_store,
    wrong_usage,
)
from .output import note, print_json, print_table
from .parameter_types import Count, FileArgument, OutputFile

if TYPE_CHECKING:
    from asif_lance.model import (
        ClassNames,
        EncodedTexts,
        Ensemble,
        Match,
        Model,
        Prompts,
    )
    from asif_lance.records import Float32Array, ModelVersion
    from asif_lance.store import PairStore


@click.command(short_help="Find pictures for a TEXT, or captions for an --image.")
@click.argument("text", required=False)
@click.option("--image", type=FileArgument, help="Find captions for this picture.")
@click.option(
    "--top", type=Count(), default=10, show_default=True, metavar="N", help="Show the N best pairs."
)
@click.option(
    "--candidates",
    type=Count(),
    metavar="N",
    help="Pairs that are scored exactly; at the number of pairs the ranking is exact. "
    "[default: 1000, or --top if that is more]",
)
@click.option(
    "--output",
    "-o",
    "page",
    type=OutputFile(".html", ".htm"),
    help="Also write a page with the pictures found.",
)
@model_options
@engine_options
@format_option
@click.pass_obj
def search(
    context: Context,
    /,
    text: str | None,
    image: Path | None,
    top: int,
    candidates: int | None,
    page: Path | None,
    output: str,
    **model_arguments: Any,
) -> None:
    """Find pictures for a TEXT, or captions for an --image, among the model's pairs.

    \b
      asif-lance search "a dog on the beach"
      asif-lance search --image dog.jpg
      asif-lance search "a dog on the beach" --top 50 -o dogs.html
    """
    from asif_lance.records import BROUGHT

    if (text is None) == (image is None):
        raise click.UsageError("give a TEXT or --image, one of the two")
    if candidates is not None and candidates < top:
        raise click.UsageError(f"--top {top} needs at least as many --candidates")
    found = find_model(context, **model_arguments)
    pin = found.store.image if text is None else found.store.text
    if pin.name == BROUGHT:
        raise InputError(
            f"{context.db} holds vectors that were brought along: no encoder is known for them, "
            "and what is searched for cannot be encoded; `asif-lance encoders` names them"
        )
    model = found.open()
    if text is not None:
        note_cut("text", model.encode_texts([text]))
        matches = model.search_text(text, top=top, candidates=candidates)
    else:
        matches = model.search_image(str(image), top=top, candidates=candidates)
    if page is not None:
        from asif_lance.explain import matches_page

        page.write_text(matches_page(text or image or "", model.version.name, matches))
        note(f"{page}: {format_count(len(matches), 'match', 'matches')}")
    _print_matches(matches, output)
    _note_few(len(matches), top, model.anchors.count)


def _note_few(found: int, asked: int, pairs: int) -> None:
    if found < min(asked, pairs):
        note(
            f"found {found:,} of the {asked:,} asked for: other pairs have the same picture "
            "or caption, or nothing in common with what is asked; more --candidates may help"
        )


def _print_matches(matches: Sequence[Match], output: str) -> None:
    if output == "json":
        for m in matches:
            found = {"pair_id": m.pair_id, "score": m.score, "caption": m.caption}
            print_json(found | {"image_uri": m.image_uri})
    else:
        rows = [(m.score, m.caption, m.image_uri, m.pair_id) for m in matches]
        print_table(["score", "caption", "image", "pair_id"], rows)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A version that is there, and settings that have a meaning; nothing of it is loaded.

    Attributes:
        store: its database.
        version: the version.
        load: loads the model.
        engine: as `--engine` has it.
        workers: as `--workers` has it.
    """

    store: PairStore
    version: ModelVersion
    load: Callable[[], Model]
    engine: str | None
    workers: int | None

    def open(self) -> Model:
        """Load the model; with an engine its pairs are compared there."""
        return share(self.load(), self.engine, self.workers)

    def check(
        self,
        labels: AskedLabels | None = None,
        *,
        pictures: bool = False,
        vectors: Float32Array | None = None,
    ) -> None:
        """Refuse what it cannot be asked with.

        Args:
            labels: what is asked.
            pictures: whether pictures are to be encoded.
            vectors: (m, d) of pictures.

        Raises:
            InputError: an encoder is needed that is not known.
            DimensionError: vectors of another length.
        """
        import numpy as np

        from asif_lance.model import name_encoder, to_matrix

        image, text, uri = self.store.image, self.store.text, self.store.uri
        if pictures:
            name_encoder(uri, "image", image.name, "--vectors")
        if vectors is not None:
            to_matrix("image vectors", image.dimension, vectors)
        if labels is not None and labels.vectors is None:
            name_encoder(uri, "text", text.name, "--label-vectors")
        elif labels is not None and labels.vectors:
            first = next(iter(labels.vectors.values()))
            to_matrix("label vectors", text.dimension, np.atleast_2d(first))


def open_model(context: Context, **asked: Any) -> Model:
    """The model that `model_options` describe; see `find_model`."""
    return find_model(context, **asked).open()


def find_model(
    context: Context,
    *,
    model: str | None,
    device: str,
    as_of: datetime | None = None,
    recipe: str | None = None,
    k: tuple[int, int] | None = None,
    p: tuple[float, float] | None = None,
    memory_limit: int | None = None,
    search: Any = "exact",
    engine: str | None = None,
    workers: int | None = None,
) -> FoundModel:
    """The version that `model_options` and `engine_options` describe, not yet loaded.

    Raises:
        VersionNotFoundError: there is none.
        InputError: a recipe, k or p without a meaning, or an engine that cannot help here.
    """
    if as_of is not None and model is not None:
        raise click.UsageError("give --model or --as-of, one of the two")
    alone = {"search": None if search == "exact" else search, "memory_limit": memory_limit}
    alone["device"] = None if device == "auto" else device
    check_engine(engine, workers, **alone)
    store = open_store(context)
    check_shared(store, engine)
    version = store.version_as_of(as_of) if as_of else store.version(model or "latest")
    from asif_lance.relative import DEFAULT, make_recipe

    with wrong_usage():
        make_recipe(recipe or DEFAULT, k=k, p=p)
    how = {"as_of": as_of, "recipe": recipe, "k": k, "p": p, "device": device}
    return FoundModel(
        store,
        version,
        lambda: _open(store, context.db, model, **how, memory_limit=memory_limit, search=search),
        engine,
        workers,
    )


def check_recipes(names: Sequence[str]) -> None:
    """Pass recipes that there are.

    Raises:
        InputError: there is none of that name.
    """
    from asif_lance.relative import make_recipe

    with wrong_usage():
        for name in names:
            make_recipe(name)


def _open(store: PairStore, database: str, model: str | None, **how: Any) -> Model:
    from asif_lance.model import open_model

    opened = open_model(database, model, **how)
    if store.attachment is not None:
        tell_left_out(opened.left_out())
    return opened


@dataclass(frozen=True, slots=True)
class AskedLabels:
    """What `label_options` ask, read and checked; no encoder is loaded yet.

    Attributes:
        names: the classes; with the names that stand for them, where there are such.
        vectors: label -> (prompts, d) vectors, where these were given.
        templates: a named set, or templates; None for the model's own.
        ensemble: how a class's prompts become one score; None for the model's own.
    """

    names: ClassNames
    vectors: dict[str, Float32Array] | None
    templates: str | tuple[str, ...] | None
    ensemble: Ensemble | None

    def embed(self, model: Model) -> Prompts:
        """The prompts' vectors, of the model's text encoder where none were given."""
        if self.vectors is not None:
            from asif_lance.model import prompts_from_vectors

            return prompts_from_vectors(self.vectors, self.ensemble or model.ensemble)
        prompts = model.prompts(self.names, self.templates, self.ensemble)
        note_cut("prompt", prompts)
        return prompts


def check_asked_labels(asked: Mapping[str, Any]) -> None:
    """Refuse `label_options`, by name, before anything is loaded; see `check_label_options`."""
    check_label_options(*(asked[name] for name in LABEL_OPTIONS[:-1]))


def check_label_options(
    labels: str | None,
    labels_file: Path | None,
    label_vectors: Path | None,
    templates: tuple[str, ...],
    template_set: str | None,
    *,
    needed: bool = True,
) -> None:
    """Refuse `label_options` that do not go together, or that name no labels where some are needed.

    Raises:
        click.UsageError: with what to give.
    """
    given = sum(x is not None for x in (labels, labels_file, label_vectors))
    if given > 1 or (needed and not given):
        raise click.UsageError("give --labels, --labels-file or --label-vectors, one of them")
    if label_vectors is not None and (templates or template_set):
        raise click.UsageError("--template needs label names, not --label-vectors")
    chosen_templates(templates, template_set)


def read_asked_labels(
    *,
    labels: str | None,
    labels_file: Path | None,
    label_vectors: Path | None,
    templates: tuple[str, ...],
    template_set: str | None,
    ensemble: Any,
    otherwise: Sequence[str] = (),
) -> AskedLabels:
    """What `label_options` ask; `otherwise` are the classes when none of them names any.

    Raises:
        click.UsageError: options that do not go together.
        InputError: a file, names or templates that cannot be used.
    """
    check_label_options(
        labels, labels_file, label_vectors, templates, template_set, needed=not otherwise
    )
    if label_vectors is not None:
        from asif_lance.encoders import read_label_vectors

        vectors = read_label_vectors(label_vectors)
        return AskedLabels(tuple(vectors), vectors, None, ensemble)
    from asif_lance.model import DEFAULT_TEMPLATES, fill_templates, resolve_templates

    named = labels is not None or labels_file is not None
    names = read_names(labels, labels_file) if named else otherwise
    chosen = chosen_templates(templates, template_set)
    with wrong_usage():
        fill_templates(names, resolve_templates(DEFAULT_TEMPLATES if chosen is None else chosen)[0])
    return AskedLabels(names, None, chosen, ensemble)


def note_cut(what: str, found: Prompts | EncodedTexts) -> None:
    """Say how many texts are longer than the encoder reads, if any are."""
    if found.cut:
        note(
            f"longer than the encoder reads ({found.max_tokens} tokens): "
            f"{format_count(found.cut, what)}, of which the rest is not used"
        )


def read_names(labels: str | None, labels_file: Path | None) -> ClassNames:
    """The classes of `--labels` or `--labels-file`."""
    from asif_lance.model import describe_class_names, read_class_names, split_labels

    if labels is not None:
        return split_labels(labels)
    names = read_class_names(Path(labels_file or ""))
    understood = describe_class_names(names)
    if understood is not None:
        note(f"{labels_file}: {understood}")
    return names
