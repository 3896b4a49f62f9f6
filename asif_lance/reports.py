"""Canned audits: questions that people ask of every database, as SQL to read and to change."""

from __future__ import annotations

from dataclasses import dataclass

from asif_lance.errors import AuditError


@dataclass(frozen=True, slots=True)
class Report:
    """One question and the SQL that answers it."""

    name: str
    question: str
    sql: str


REPORTS = (
    Report(
        "provenance",
        "Where do the pairs come from, and under which licenses?",
        """\
SELECT source, license, count(*) AS pairs, count(DISTINCT image_sha256) AS pictures
FROM pairs GROUP BY ALL ORDER BY pairs DESC, source, license""",
    ),
    Report(
        "near-duplicate-captions",
        "Which captions differ only in case, punctuation, articles or word order?",
        """\
WITH words AS (
  SELECT pair_id, caption, list_sort(list_filter(
    regexp_split_to_array(lower(strip_accents(caption)), '[^a-z0-9]+'),
    lambda word: word NOT IN ('', 'a', 'an', 'the'))) AS key
  FROM pairs)
SELECT min(caption) AS caption, count(*) AS pairs, list(pair_id ORDER BY pair_id) AS pair_ids
FROM words WHERE len(key) > 0 GROUP BY key HAVING count(*) > 1
ORDER BY pairs DESC, caption""",
    ),
)


def report(name: str) -> Report:
    """The report of this name.

    Raises:
        AuditError: there is none.
    """
    for one in REPORTS:
        if one.name == name:
            return one
    raise AuditError(f"no report {name!r}; there are: {', '.join(r.name for r in REPORTS)}")
