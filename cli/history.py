"""versions, diff, tag, rollback: the life of a model."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import format_count

from .manners import CommandGroup
from .options import (
    LABEL_OPTIONS,
    Context,
    device_option,
    format_option,
    message_option,
    open_store,
)
from .output import confirm, megabytes, moment, note, print_json, print_table
from .parameter_types import Age, Count
from .query import FoundModel, find_model
from .together import split_database
from .whatif import asked_about, check_pictures_and_labels, read_question, report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asif_lance.records import ModelVersion
    from asif_lance.store import PairStore


def as_json(version: ModelVersion) -> dict[str, Any]:
    """What users see of a version; Lance's own number stays inside."""
    value = asdict(version)
    del value["lance_version"], value["number"]
    return value | {"created_at": moment(version.created_at)}


@click.group(
    invoke_without_command=True,
    cls=CommandGroup,
    short_help="List the model versions; `versions prune` drops old ones.",
)
@format_option
@click.pass_context
def versions(ctx: click.Context, output: str) -> None:
    """List the model versions, oldest first; `versions prune` drops old ones."""
    if ctx.invoked_subcommand is not None:
        return
    context: Context = ctx.obj
    found = open_store(context).versions()
    if output == "json":
        for version in found:
            print_json(as_json(version))
        return
    print_table(
        ["version", "pairs", "added", "removed", "made (UTC)", "command", "message", "aliases"],
        [
            (
                v.name,
                v.pairs,
                v.added,
                v.removed,
                f"{v.created_at:%Y-%m-%d %H:%M:%S}",
                v.command,
                v.message,
                ", ".join(v.aliases),
            )
            for v in found
        ],
    )


@versions.command()
@click.option(
    "--keep-last",
    "--last",
    "keep_last",
    type=Count(),
    default=10,
    show_default=True,
    metavar="N",
    help="The newest N versions stay.",
)
@click.option(
    "--keep-tagged/--drop-tagged",
    default=True,
    show_default=True,
    help="Whether versions with an alias stay.",
)
@click.option("--older-than", type=Age(), help="Drop only versions older than this: 90d, 12h.")
@click.option("--dry-run", is_flag=True, help="Name the versions and drop none.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(
    context: Context,
    keep_last: int,
    keep_tagged: bool,
    older_than: timedelta | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Drop old versions and the bytes that only they needed.

    \b
      asif-lance versions prune --keep-last 5 --older-than 90d
    """
    from asif_lance.store import maintenance

    store = open_store(context)
    store.check_own("versions prune")
    rules: Any = {"keep_last": keep_last, "keep_tagged": keep_tagged, "older_than": older_than}
    names = maintenance.prunable_versions(store, **rules)
    if not names:
        note("nothing to drop")
        return
    note(f"{format_count(len(names), 'version')} to drop: {', '.join(names)}")
    if dry_run:
        return
    if not yes:
        confirm("They cannot be brought back. Drop them?")
    done = maintenance.prune_versions(store, **rules)
    dropped = format_count(len(done.dropped), "version")
    note(f"dropped {dropped}, freed {megabytes(max(done.bytes_freed, 0))}")
    if done.foreign_tags:
        note(f"tags that are no model versions keep their states: {', '.join(done.foreign_tags)}")


@click.command(short_help="Compare two versions: pairs added, removed and changed.")
@click.argument("old")
@click.argument("new", required=False, default="latest")
@click.option(
    "--top", "--rows", "rows", type=Count(), metavar="N", help="Show N pairs of each kind."
)
@asked_about
@device_option
@format_option
@click.pass_obj
def diff(
    context: Context,
    /,
    old: str,
    new: str,
    rows: int | None,
    device: str,
    output: str,
    **asked: Any,
) -> None:
    """Compare two versions: pairs added, removed and changed, by source and license.

    With --images (or --vectors) and labels: the predictions that flip from the first version to
    the second, and the pairs that moved them most. Then a version may also be another database's,
    as DATABASE@V, such as one that `reencode` made.

    \b
      asif-lance diff v3 v7
      asif-lance diff prod --top 20
      asif-lance diff v3 v7 --images test/ --labels cat,dog
      asif-lance diff v3 other.lancedb@v3 --images test/ --labels cat,dog
    """
    about = ("images", "vectors", *LABEL_OPTIONS)
    if any(asked[name] for name in about):
        if rows:
            raise click.UsageError("--top shows pairs; pictures and labels ask for predictions")
        check_pictures_and_labels(asked)
        models = [_find_version(context, name, device) for name in (old, new)]
        question = read_question(asked, *models)
        before, after = (each.open() for each in models)
        report(before, after, {**question, "output": output})
        return
    if "@" in old + new:
        raise click.UsageError("versions of two databases are compared by --images and labels")
    store = open_store(context)
    found = store.diff(old, new)
    kinds = {k: getattr(found.changes, k) for k in ("added", "removed", "changed")}
    if output == "json":
        counts = {kind: len(ids) for kind, ids in kinds.items()}
        names = {"old": store.version(old).name, "new": store.version(new).name}
        by = {"by_source": found.by_source, "by_license": found.by_license}
        shown = {f"{kind}_ids": list(ids[:rows]) for kind, ids in kinds.items()} if rows else {}
        print_json(names | counts | by | shown)
        return
    note(", ".join(f"{len(ids):,} {kind}" for kind, ids in kinds.items()))
    for what, counts_by in (("source", found.by_source), ("license", found.by_license)):
        if counts_by:
            table = [(name or "none", *c.values()) for name, c in counts_by.items()]
            print_table([what, *kinds], table)
    for kind, ids in kinds.items():
        if rows and ids:
            _print_pairs(store, old if kind == "removed" else new, kind, ids[:rows])


def _find_version(context: Context, name: str, device: str) -> FoundModel:
    """A version of this database, or `DATABASE@V`; no version's name has an @."""
    database, version = split_database(name) if "@" in name else (context.db, name)
    return find_model(Context(database), model=version, device=device)


def _print_pairs(store: PairStore, version: str, kind: str, ids: Sequence[str]) -> None:
    from asif_lance.database import rows_by_id

    pairs = rows_by_id(store.dataset(version), ids).to_pylist()
    columns = ("pair_id", "caption", "image_uri", "source", "license")
    table = [[p[c] or "" for c in columns] for p in pairs]
    print_table([kind, *columns[1:]], table)


@click.command(short_help="Give a version a further name, or move that name.")
@click.argument("alias")
@click.argument("version", required=False, default="latest")
@click.option("--remove", is_flag=True, help="Take the alias away; the version stays.")
@click.pass_obj
def tag(context: Context, alias: str, version: str, remove: bool) -> None:
    """Give a version (by default the newest) a further name, or move that name.

    \b
      asif-lance tag prod v3
      asif-lance classify cat.jpg --labels cat,dog --model prod
    """
    store = open_store(context)
    if remove:
        store.untag(alias)
        note(f"{alias} is no alias any more")
        return
    store.tag(alias, version)
    note(f"{alias} is {store.version(alias).name} now")


@click.command(short_help="Make a new version with the pairs of an old one.")
@click.argument("version")
@message_option
@click.pass_obj
def rollback(context: Context, version: str, message: str) -> None:
    """Make an old version the newest one: a new version with the old one's pairs."""
    store = open_store(context)
    newest = store.version()
    made = store.rollback(version, message=message)
    if made.name == newest.name:
        note(f"{made.name} is the newest already, with the pairs of {version}; no new version")
        return
    note(f"{made.name} has the {format_count(made.pairs, 'pair')} of {version}")
