"""Small neighbouring fragments become fewer, so that a version is quick to open and to compare.

Joining fragments that no version has yet frees them. Those of versions stay on the disk for these:
each joining leaves a further copy of their rows. So tiny ones are joined by the tenfold, from ten
rows to a hundred to a thousand, and then no more: of a row there are four copies at most, and after
a thousand versions of ten pairs each the newest has about twenty fragments, not a thousand.
"""

from __future__ import annotations

from itertools import groupby

import lance
from lance import LanceOperation
from lance.fragment import write_fragments

from asif_lance.database.commits import commit
from asif_lance.database.fragments import data_files
from asif_lance.database.pair_rows import ROWS_PER_FRAGMENT

Fragments = list[lance.LanceFragment]

# Neighbours that have less rows each, and together as many, are joined.
_JOINED_ROWS = (1_000, 100, 10)


def join_fragments(head: lance.LanceDataset, latest: lance.LanceDataset | None) -> bool:
    """Rewrites runs of small fragments that only head has, in one commit; says whether it did.

    Rows keep their order. Lance's own compaction may leave fragments of nearly twice the size
    that it is asked for.
    """
    shared = set(map(data_files, latest.get_fragments())) if latest is not None else set()

    def is_small(fragment: lance.LanceFragment) -> bool:
        return fragment.physical_rows < ROWS_PER_FRAGMENT and data_files(fragment) not in shared

    runs = [list(run) for small, run in groupby(head.get_fragments(), is_small) if small]
    return _rewrite(head, [run for run in runs if -(-_count(run) // ROWS_PER_FRAGMENT) < len(run)])


def join_tiny_fragments(head: lance.LanceDataset) -> bool:
    """Rewrites runs of tiny fragments, shared with versions or not; says whether it did.

    Not where there are search indices, which know rows by their places.
    """
    if head.describe_indices():
        return False
    found = (_find_tiny_runs(head, size) for size in _JOINED_ROWS)
    return _rewrite(head, next(filter(None, found), []))


def _find_tiny_runs(head: lance.LanceDataset, size: int) -> list[Fragments]:
    """Runs of fragments with less rows than this each and at least as many together."""
    runs = groupby(head.get_fragments(), lambda fragment: fragment.physical_rows < size)
    tiny = [list(run) for is_tiny, run in runs if is_tiny]
    return [run for run in tiny if _count(run) >= size]


def _count(run: Fragments) -> int:
    return sum(int(fragment.count_rows()) for fragment in run)


def _rewrite(head: lance.LanceDataset, runs: list[Fragments]) -> bool:
    groups = [_join(head, run) for run in runs]
    if groups:
        commit(head, LanceOperation.Rewrite(groups, []))
    return bool(groups)


def _join(head: lance.LanceDataset, run: Fragments) -> LanceOperation.RewriteGroup:
    rows = head.scanner(fragments=run, scan_in_order=True).to_reader()
    joined = write_fragments(rows, head, mode="append", max_rows_per_file=ROWS_PER_FRAGMENT)
    return LanceOperation.RewriteGroup([fragment.metadata for fragment in run], joined)
