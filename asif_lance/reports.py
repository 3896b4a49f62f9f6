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
    Report(
        "drivers",
        "Which pairs drive most of the recorded predictions?",
        """\
SELECT caption, pair_id, count(*) AS predictions, sum(contribution) AS weight
FROM attributions a JOIN predictions p USING (prediction_id, label)
LEFT JOIN pairs USING (pair_id)
WHERE p.rank = 1 GROUP BY ALL ORDER BY weight DESC, pair_id LIMIT 50""",
    ),
    Report(
        "wrong-drivers",
        "Which pairs drive predictions that are wrong, where the truth is known?",
        """\
SELECT caption, pair_id,
  coalesce(sum(contribution) FILTER (p.label <> truth), 0) AS wrong_weight,
  coalesce(sum(contribution) FILTER (p.label = truth), 0) AS right_weight,
  wrong_weight / (wrong_weight + right_weight) AS share_wrong
FROM attributions a JOIN predictions p USING (prediction_id, label)
LEFT JOIN pairs USING (pair_id)
WHERE p.rank = 1 AND truth IS NOT NULL
GROUP BY ALL HAVING wrong_weight > 0
ORDER BY wrong_weight - right_weight DESC, pair_id LIMIT 50""",
    ),
    Report(
        "weight-by-source",
        "Which sources and licenses do the recorded predictions rest on?",
        """\
SELECT source, license, count(DISTINCT pair_id) AS pairs,
  sum(contribution) / sum(sum(contribution)) OVER () AS share
FROM attributions a JOIN predictions p USING (prediction_id, label)
LEFT JOIN pairs USING (pair_id)
WHERE p.rank = 1 GROUP BY ALL ORDER BY share DESC, source, license""",
    ),
    Report(
        "never-used",
        "Which pairs are in no recorded attribution and could be pruned?",
        """\
SELECT pair_id, caption, source, license
FROM pairs ANTI JOIN attributions USING (pair_id) ORDER BY pair_id""",
    ),
    Report(
        "labels-without-support",
        "Which labels does no pair speak for, in any recorded prediction?",
        """\
SELECT label, count(*) AS predictions, max(score) AS best_score
FROM predictions GROUP BY label HAVING max(score) = 0 ORDER BY label""",
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
