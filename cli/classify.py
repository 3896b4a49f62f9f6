"""classify: what the model says of pictures, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import InputError, format_count, printable
from asif_lance.progress import track

from .answers import describe_prediction, print_answer, print_joint_answer
from .confidence import (
    CONFIDENCE,
    Assessor,
    add_confidence,
    calibrate_option,
    check_confidence,
    check_self_test,
    confidence_options,
    make_assessor,
    read_calibration,
    warn_of_kind,
)
from .engine import engine_options
from .labelled import report_rejects
from .options import (
    LABEL_OPTIONS,
    Context,
    csv_format_option,
    is_missing,
    label_options,
    model_options,
    open_store,
)
from .output import note
from .parameter_types import PICTURE, Count, FileArgument
from .progress import hide_bars
from .query import AskedLabels, FoundModel, check_asked_labels, find_model, read_asked_labels
from .server import (
    ask_server,
    choose_server,
    join_kind,
    make_question,
    plain_answer,
    refuse_with_server,
    server_option,
)
from .together import (
    FoundTogether,
    compile_joint_labels,
    find_together,
    read_joint_labels,
    refuse_beside,
    with_option,
)

if TYPE_CHECKING:
    from asif_lance.encoders import ImageFile
    from asif_lance.model import JointPrediction, LabelSet, Model, Prediction
    from asif_lance.records import Float32Array, Reject


@click.command(short_help="Say which label fits each picture best, and which pairs decided.")
@click.argument("images", nargs=-1, type=PICTURE, metavar="[IMAGE]...")
@click.option("--vectors", type=FileArgument, help="Parquet with id and vector, instead of images.")
@label_options
@click.option(
    "--top", type=Count(), default=5, show_default=True, metavar="N", help="Show the N best labels."
)
@click.option("--explain", type=Count(), metavar="N", help="Show N deciding pairs.")
@click.option("--record", is_flag=True, help="Keep predictions and attributions for audit.")
@click.option(
    "--attributions",
    type=Count(),
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
@confidence_options
@calibrate_option
@with_option
@server_option
@model_options
@engine_options
@csv_format_option
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
    others: tuple[str, ...],
    server: str | None,
    output: str,
    **arguments: Any,
) -> None:
    """Say which label fits each picture best, and on request which pairs decided.

    A folder stands for the pictures in it and further down. Hidden files and folders are left out;
    linked folders are followed, each once; a note counts what is left out.

    --confidence adds how probable each label is, the labels that are possible, and whether the
    picture shows none of them. The pairs' own pictures tell that, or better, labelled ones.

    \b
      asif-lance classify cat.jpg dog.jpg --labels cat,dog --explain 3
      asif-lance classify new/ --labels cat,dog --confidence --calibrate labelled/
      asif-lance classify *.jpg --labels-file classes.txt --model v3 --format json
      asif-lance classify new/ --labels cat,dog --top 1 --format csv > labels.csv
      asif-lance classify test/ --labels cat,dog --record --truth-is-folder
      asif-lance audit --report wrong-drivers
      asif-lance classify cat.jpg --labels cat,dog --with larger-encoders.lancedb@v2
      asif-lance classify cat.jpg --labels cat,dog --server http://127.0.0.1:8000
    """
    trust = {name: arguments.pop(name) for name in CONFIDENCE}
    _check(images, vectors, record, search_by, trust, output, explain)
    refuse_beside(others, vectors=vectors, record=record, confidence=trust["confidence"])
    asked = {name: arguments.pop(name) for name in LABEL_OPTIONS}
    if not others:
        check_asked_labels(asked)
    rejects: list[Reject] = []
    if (server := choose_server(server)) is not None:
        here = {"record": record, "others": others, "search_by": search_by, **trust}
        refuse_with_server(arguments | here)
        question = make_question(asked, arguments, top, explain, trust["confidence"])
        _ask_server(server, images, vectors, question, output, rejects)
    elif others:
        _refuse_missing(context, images)
        joint = find_together(context, others, search=search_by, **arguments)
        for answer in _ask_together(joint, asked, images, rejects):
            print_joint_answer(answer, top, explain, output)
    else:
        _refuse_missing(context, images)
        found = find_model(context, search=search_by, **arguments)
        limits = {"top": top, "pairs": attributions, "truth_is_folder": truth_is_folder}
        kept = limits if record else None
        _answer(_Job(found, asked, images, vectors, trust, kept, top, explain, output), rejects)
    report_rejects(rejects)


@dataclass(frozen=True, slots=True)
class _Job:
    """What a model of this database is asked, and what is told and kept of its answers.

    Attributes:
        found: the model.
        asked: the label options, by name.
        images: files and folders; none where there are vectors.
        vectors: a file of these.
        trust: the confidence options, by name.
        kept: how much is recorded; None for nothing.
        top: labels told.
        explain: deciding pairs told; None for none.
        output: the format.
    """

    found: FoundModel
    asked: dict[str, Any]
    images: tuple[str, ...]
    vectors: Path | None
    trust: dict[str, Any]
    kept: dict[str, Any] | None
    top: int
    explain: int | None
    output: str

    @property
    def is_recorded_there(self) -> bool:
        """Whether workers record: they tell no more than what is recorded."""
        more = self.explain is not None or self.trust["confidence"]
        return self.kept is not None and self.found.engine is not None and not more


def _answer(job: _Job, rejects: list[Reject]) -> None:
    """Tell, and record where that is asked, here or by the workers of an engine."""
    labels, given = read_asked_labels(**job.asked), _read_vectors(job.vectors)
    known = read_calibration(job.trust["calibrate"], labels.names, rejects)
    pictures = given is None or (known is not None and known.vectors is None)
    job.found.check(labels, pictures=pictures, vectors=None if given is None else given[1])
    if job.trust["confidence"] and known is None:
        check_self_test(job.found)
    if job.is_recorded_there:
        _record_there(job, labels, rejects)
        return
    model = job.found.open()
    label_set = model.compile(labels.embed(model))
    predictions = _predict(model, job.images, given, label_set, rejects)
    if job.kept is not None:
        predictions = _recorded(predictions, model, label_set, **job.kept)
    trust = {name: job.trust[name] for name in ("confidence", "coverage")}
    sure = make_assessor(model, label_set, rejects, known=known, **trust)
    _tell_all(predictions, sure, job)


def _record_there(job: _Job, labels: AskedLabels, rejects: list[Reject]) -> None:
    """Have workers encode and record, and tell what is recorded."""
    pictures = _find_pictures(job.images, rejects)
    if job.vectors is None and not pictures:
        return
    from asif_lance.audit.run_rows import read_predictions
    from asif_lance.cluster import plan_recording, record_with_ray

    model = job.found.load()
    prompts = labels.embed(model)
    plan = plan_recording(model, prompts, pictures=pictures, vectors=job.vectors, **job.kept or {})
    done = record_with_ray(plan, workers=job.found.workers)
    rejects += done.rejects
    silent = 0
    for prediction in read_predictions(model.store, done.run):
        silent += prediction.score <= 0
        answer = {"image": prediction.image, **describe_prediction(prediction, job.top, prompts)}
        hide_bars()
        print_answer(answer, job.output, 0.0)
    _note_recorded(done.run.run_id, done.dropped)
    _note_silent(silent)


def _tell_all(predictions: Iterable[Prediction], sure: Assessor | None, job: _Job) -> None:
    silent = 0
    for prediction in predictions:
        _tell(prediction, sure, job)
        silent += prediction.score <= 0
    _note_silent(silent)
    if sure is not None:
        sure.note_kind()


def _note_silent(pictures: int) -> None:
    if pictures:
        note(
            f"of {format_count(pictures, 'picture')} no score is above 0: no pair has weight for "
            "the picture and for a label; a larger --k or a smaller --p gives more pairs weight"
        )


def _check(
    images: tuple[str, ...],
    vectors: Path | None,
    record: bool,
    search_by: str,
    trust: dict[str, Any],
    output: str,
    explain: int | None,
) -> None:
    check_confidence(**trust, search=search_by)
    if output == "csv" and (explain is not None or trust["confidence"]):
        raise click.UsageError("--explain and --confidence need --format table or json")
    if bool(images) == (vectors is not None):
        raise click.UsageError("give images, or --vectors, one of the two")
    if record and search_by != "exact":
        raise click.UsageError("--record needs --search exact: what-if relies on the records")


def _ask_server(
    server: str,
    images: tuple[str, ...],
    vectors: Path | None,
    question: dict[str, Any],
    output: str,
    rejects: list[Reject],
) -> None:
    silent, seen = 0, list[tuple[bool, bool, float]]()
    for answer in ask_server(server, images, vectors, question, rejects):
        sure = answer["confidence"]
        if question.get("confidence") and sure is None:
            raise InputError(f"{server} has too few pairs, or labels, to tell confidence by")
        print_answer(plain_answer(answer), output, 0.0 if sure is None else sure["together"])
        silent += answer["predictions"][0]["score"] <= 0
        if sure is not None:
            seen.append((sure["low_score"], sure["unlike"], sure["low_usual"]))
    _note_silent(silent)
    if seen:
        warn_of_kind(join_kind(seen))


def _refuse_missing(context: Context, images: tuple[str, ...]) -> None:
    """Name pictures that are not there before anything is loaded, if they could be read at all."""
    from asif_lance.records import BROUGHT, Reject

    gone = bool(images) and all(map(is_missing, images))
    if gone and open_store(context).image.name != BROUGHT:
        report_rejects([Reject("classify", printable(image), "missing file") for image in images])


def _predict(
    model: Model,
    images: tuple[str, ...],
    given: tuple[list[str], Float32Array] | None,
    label_set: LabelSet,
    rejects: list[Reject],
) -> Iterable[Prediction]:
    if given is None:
        pictures = _find_pictures(images, rejects)
        predictions = model.classify(pictures, label_set, rejects=rejects)
        return track("classify pictures", predictions, len(pictures))
    return model.classify_vectors(*given, label_set)


def _read_vectors(path: Path | None) -> tuple[list[str], Float32Array] | None:
    if path is None:
        return None
    from asif_lance.encoders import read_vectors

    return read_vectors(path)


def _ask_together(
    found: FoundTogether,
    asked: dict[str, Any],
    images: tuple[str, ...],
    rejects: list[Reject],
) -> Iterable[JointPrediction]:
    labels = read_joint_labels(**asked)
    together = found.open()
    label_sets = compile_joint_labels(together, labels)
    pictures = _find_pictures(images, rejects)
    answers = together.classify(pictures, label_sets, rejects=rejects)
    return track("classify pictures", answers, len(pictures))


def _find_pictures(images: tuple[str, ...], rejects: list[Reject]) -> list[ImageFile]:
    from asif_lance.encoders import expand_folders

    return list(expand_folders(images, rejects))


def _recorded(
    predictions: Iterable[Prediction],
    model: Model,
    label_set: LabelSet,
    truth_is_folder: bool,
    **limits: int,
) -> Iterator[Prediction]:
    """The same predictions, written down on their way."""
    from asif_lance.audit.recorder import Recorder

    with Recorder(model.store, label_set, model.recipe, **limits) as run:
        for prediction in predictions:
            folder = Path(prediction.image).absolute().parent.name
            run.add(prediction, truth=folder if truth_is_folder else None)
            yield prediction
    _note_recorded(run.run_id, run.dropped)


def _note_recorded(run_id: str, dropped: Sequence[str]) -> None:
    note(f"recorded as run {run_id}")
    if dropped:
        note(f"dropped {format_count(len(dropped), 'older run')}, see `runs keep`")


def _tell(prediction: Prediction, sure: Assessor | None, job: _Job) -> None:
    value = {"image": prediction.image, **describe_prediction(prediction, job.top)}
    if sure is not None:
        add_confidence(value, sure.assess(prediction), sure)
    if job.explain is not None:
        value["pairs"] = list(map(asdict, prediction.attributions(job.explain)))
    hide_bars()
    print_answer(value, job.output, 0.0 if sure is None else sure.coverage)
