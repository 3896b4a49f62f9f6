"""Small neighbouring fragments that no version has yet, joined before a version gets them."""

from __future__ import annotations

from itertools import groupby

import lance
from lance import LanceOperation
from lance.fragment import write_fragments

from asif_lance.database.pair_rows import ROWS_PER_FRAGMENT

Fragments = list[lance.LanceFragment]


def join_fragments(head: lance.LanceDataset, latest: lance.LanceDataset | None) -> bool:
    """Rewrites runs of small fragments that only head has, in one commit; says whether it did.

    Fragments that `latest` shares stay as they are: a second copy of their rows would have to be
    forgotten too. Rows keep their order. Lance's own compaction may leave fragments of nearly
    twice the size that it is asked for.
    """
    groups = [_join(head, run) for run in _find_runs(head, latest)]
    if groups:
        operation = LanceOperation.Rewrite(groups, [])
        lance.LanceDataset.commit(head, operation, read_version=head.version)
    return bool(groups)


def _find_runs(head: lance.LanceDataset, latest: lance.LanceDataset | None) -> list[Fragments]:
    """Neighbours, in the table's order, that can be fewer."""
    shared = {_path(f) for f in latest.get_fragments()} if latest is not None else set()

    def is_small(fragment: lance.LanceFragment) -> bool:
        return fragment.physical_rows < ROWS_PER_FRAGMENT and _path(fragment) not in shared

    runs = [list(run) for small, run in groupby(head.get_fragments(), is_small) if small]
    return [run for run in runs if _needed(run) < len(run)]


def _needed(run: Fragments) -> int:
    rows = sum(int(fragment.count_rows()) for fragment in run)
    return -(-rows // ROWS_PER_FRAGMENT)


def _join(head: lance.LanceDataset, run: Fragments) -> LanceOperation.RewriteGroup:
    rows = head.scanner(fragments=run, scan_in_order=True).to_reader()
    joined = write_fragments(rows, head, mode="append", max_rows_per_file=ROWS_PER_FRAGMENT)
    return LanceOperation.RewriteGroup([fragment.metadata for fragment in run], joined)


def _path(fragment: lance.LanceFragment) -> str:
    return str(fragment.metadata.files[0].path)
