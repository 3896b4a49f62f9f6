"""demo: the whole story on real pictures."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asif_lance.errors import format_count
from asif_lance.progress import step, track

from .options import Context, device_option
from .output import note, percent, print_table
from .parameter_types import PathOption

if TYPE_CHECKING:
    from asif_lance.ingest.tuxpaint import Split, StampPicture
    from asif_lance.model import Prediction

DRIVERS = """\
SELECT caption, count(*) AS predictions, sum(contribution) AS weight
FROM attributions a JOIN predictions p USING (prediction_id, label) JOIN pairs USING (pair_id)
WHERE p.rank = 1 GROUP BY caption ORDER BY weight DESC LIMIT 5"""


@click.command(short_help="Show everything on real pictures: ingest, classify, go back, ask.")
@click.option(
    "--folder",
    type=PathOption(file_okay=False, path_type=Path),
    default=Path("asif-demo"),
    show_default=True,
    help="Where the pictures and the database go.",
)
@click.option(
    "--pictures",
    type=PathOption(exists=True, file_okay=False, path_type=Path),
    help="Use this folder instead: CLASS/picture.jpg with its caption in CLASS/picture.txt.",
)
@click.option("--salt", default="", help="Hold out other pictures.")
@device_option
@click.pass_obj
def demo(context: Context, folder: Path, pictures: Path | None, salt: str, device: str) -> None:
    """Show everything on real pictures: ingest, classify, explain, delete, go back, ask.

    Fetches about 540 captioned pictures (160 MB, once) with apt, no root rights needed, holds 100
    of them out and builds a model from the rest. The database is made anew each time.
    """
    _Story(folder, device).tell(pictures, salt)


@dataclass
class _Story:
    """The demo's steps, in order; each prints what it did and how long it took."""

    folder: Path
    device: str

    @property
    def database(self) -> Path:
        return self.folder / "demo.lancedb"

    def tell(self, pictures: Path | None, salt: str) -> None:
        begun = time.perf_counter()
        split = self.gather(pictures, salt)
        self.ingest(split)
        first = self.classify(split, "v1")
        _print_accuracy(split, first)
        self.explain(split, first)
        self.delete_a_class(split, first)
        self.go_back(split, first)
        self.ask()
        click.echo()
        picture = self.folder / "held-out" / split.held_out[0].label / split.held_out[0].path.name
        labels = ",".join(sorted({p.label for p in split.held_out})[:3])
        program, database = _program(), shlex.quote(str(self.database))
        note(f"The database is yours to go on with (done in {time.perf_counter() - begun:.0f} s):")
        note(f"  export ASIF_LANCE_DB={database}")
        note(f"  {program} versions")
        asked = f"{shlex.quote(str(picture))} --labels {shlex.quote(labels)}"
        note(f"  {program} classify {asked} --explain 3")
        note(f"  {program} evaluate {shlex.quote(str(self.folder / 'held-out'))}")

    def gather(self, pictures: Path | None, salt: str) -> Split:
        from asif_lance.ingest import tuxpaint

        with _timed("pictures"), step("fetch pictures"):
            root = pictures or tuxpaint.fetch(self.folder / "stamps")
            found = (
                tuxpaint.find_folder_pictures(root)
                if pictures
                else tuxpaint.find_stamp_pictures(root)
            )
            split = tuxpaint.split(found, root, salt=salt)
            tuxpaint.copy_held_out(split.held_out, self.folder / "held-out")
        note(
            f"  {format_count(len(split.anchors), 'pair')} for the model, "
            f"{format_count(len(split.held_out), 'picture')} held out"
        )
        return split

    def ingest(self, split: Split) -> None:
        from asif_lance.ingest import IngestOptions, ingest_sources
        from asif_lance.ingest.tuxpaint import LICENSE, write_manifest

        shutil.rmtree(self.database, ignore_errors=True)
        manifest = self.folder / "anchors.csv"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_manifest(split.anchors, manifest, LICENSE)
        options = IngestOptions(message="the demo's pictures", device=self.device)
        with _timed("ingest"), step("ingest pairs", len(split.anchors)) as advance:
            report = ingest_sources(str(self.database), [str(manifest)], options, progress=advance)
        note(f"  {report.added} pairs are model v1; {len(report.rejects)} rejected")

    def classify(self, split: Split, version: str) -> list[Prediction]:
        from asif_lance.audit.recorder import Recorder
        from asif_lance.model import open_model

        with _timed(f"classify with {version}"):
            model = open_model(self.database, version, device=self.device)
            labels = model.labels(split.labels)
            answers = model.classify([p.path for p in split.held_out], labels)
            found = list(track("classify pictures", answers, len(split.held_out)))
        if version == "v1":
            with _timed("record"), Recorder(model.store, labels, model.recipe) as run:
                for picture, prediction in zip(split.held_out, found, strict=True):
                    run.add(prediction, truth=picture.label)
        return found

    def explain(self, split: Split, predictions: Sequence[Prediction]) -> None:
        truth = zip(split.held_out, predictions, strict=True)
        picture, prediction = max(
            ((a, b) for a, b in truth if a.label == b.label), key=lambda both: both[1].score
        )
        click.echo(f"\nWhy is {picture.path.name} a {prediction.label!r}? These pairs said so:")
        print_table(
            ["contribution", "image", "text", "caption"],
            [
                (a.contribution, a.image_similarity, a.text_similarity, a.caption)
                for a in prediction.attributions(5)
            ],
        )

    def delete_a_class(self, split: Split, first: Sequence[Prediction]) -> None:
        from asif_lance.audit import matching_ids
        from asif_lance.store import PairStore

        label = _class_to_withdraw(split.held_out)
        folders = sorted({p.folder for p in split.anchors if p.label == label})
        quoted = (folder.replace("'", "''") for folder in folders)
        where = " OR ".join(f"source = '{folder}'" for folder in quoted)
        click.echo(f"\nThe licence of every {label!r} picture is withdrawn:")
        with _timed("delete"):
            store = PairStore.open(str(self.database))
            deleted = store.delete(matching_ids(store, where))
            store.publish(command="delete", message=f"without {label} pictures")
        after = self.classify(split, "v2")
        click.echo(f"  {format_count(deleted, 'pair')} gone from the newest model, v2")
        print_table(
            ["right", "v1", "v2"],
            [
                (label, *(_share(split, p, label) for p in (first, after))),
                ("all others", *(_share(split, p, label, others=True) for p in (first, after))),
            ],
        )

    def go_back(self, split: Split, first: Sequence[Prediction]) -> None:
        from asif_lance.store import PairStore

        with _timed("rollback to v1"):
            made = PairStore.open(str(self.database)).rollback("v1", message="licence restored")
        again = self.classify(split, made.name)
        same = sum(a.ranking == b.ranking for a, b in zip(first, again, strict=True))
        click.echo(f"  {made.name} gives {same} of {len(first)} of v1's answers, score for score")

    def ask(self) -> None:
        from asif_lance.audit import Audit
        from asif_lance.store import PairStore

        click.echo(f"\nWhich pairs drove most? Ask in SQL:\n{DRIVERS}\n")
        store = PairStore.open(str(self.database))
        with _timed("audit"), Audit(store) as audit:
            rows = audit.query(DRIVERS).to_pylist()
        print_table(["caption", "predictions", "weight"], [list(row.values()) for row in rows])


def _program() -> str:
    """What to type for this command: its name if the shell finds it, else where it lies."""
    if shutil.which("asif-lance"):
        return "asif-lance"
    here = Path(sys.argv[0]).absolute()
    near = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    return shlex.quote(str(near))


@contextmanager
def _timed(name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    note(f"{name}: {time.perf_counter() - start:.1f} s")


def _print_accuracy(split: Split, predictions: Sequence[Prediction]) -> None:
    right = sum(
        p.label == answer.label for p, answer in zip(split.held_out, predictions, strict=True)
    )
    click.echo(
        f"\nAccuracy on {format_count(len(predictions), 'picture')} the model has never seen: "
        f"{percent(right / len(predictions), 0)} (chance {percent(1 / len(split.labels), 0)}, "
        f"{len(split.labels)} classes, nothing trained)"
    )
    unseen = sorted(set(split.labels) - {p.label for p in split.held_out})
    if unseen:
        click.echo(
            f"  ({len(unseen)} of the classes have no picture among them: {', '.join(unseen)}; "
            "`evaluate` asks about the others alone, and so fewer answers can be wrong)"
        )


def _class_to_withdraw(pictures: Sequence[StampPicture]) -> str:
    from asif_lance.ingest.tuxpaint import WITHDRAWN

    names = [p.label for p in pictures]
    return WITHDRAWN if WITHDRAWN in names else max(sorted(set(names)), key=names.count)


def _share(
    split: Split, predictions: Sequence[Prediction], label: str, *, others: bool = False
) -> str:
    mine = [
        picture.label == answer.label
        for picture, answer in zip(split.held_out, predictions, strict=True)
        if (picture.label == label) != others
    ]
    return f"{sum(mine)} of {len(mine)}"
