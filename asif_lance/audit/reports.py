"""Canned audits: questions that people ask of every database, as SQL to read and to change."""

from __future__ import annotations

from dataclasses import dataclass

from asif_lance.errors import AuditError


@dataclass(frozen=True, slots=True)
class CannedReport:
    """One question and the SQL that answers it."""

    name: str
    question: str
    sql: str


REPORTS = (
    CannedReport(
        "provenance",
        "Where do the pairs come from, and under which licenses?",
        """\
SELECT source, license, count(*) AS pairs, count(DISTINCT image_sha256) AS pictures
FROM pairs GROUP BY ALL ORDER BY pairs DESC, source, license""",
    ),
    CannedReport(
        "same-pictures",
        "Which pictures, byte for byte, are in several pairs?",
        """\
SELECT image_sha256, count(*) AS pairs, count(DISTINCT caption) AS captions,
  list(DISTINCT source ORDER BY source) AS sources, list(pair_id ORDER BY pair_id) AS pair_ids
FROM pairs WHERE image_sha256 IS NOT NULL
GROUP BY image_sha256 HAVING count(*) > 1 ORDER BY pairs DESC, image_sha256""",
    ),
    CannedReport(
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
    CannedReport(
        "drivers",
        "Which pairs drive most of the recorded predictions?",
        """\
SELECT caption, pair_id, count(*) AS predictions, sum(contribution) AS weight
FROM attributions a JOIN predictions p USING (prediction_id, label)
LEFT JOIN pairs USING (pair_id)
WHERE p.rank = 1 GROUP BY ALL ORDER BY weight DESC, pair_id LIMIT 50""",
    ),
    CannedReport(
        "wrong-drivers",
        "Which pairs speak for the true label less often than chance, where the truth is known?",
        # Chance: a pair's weight for a label times the share of pictures whose truth it is, so
        # that pairs of rare labels are not blamed for being wrong mostly. Few pictures tell little.
        """\
WITH known AS (SELECT prediction_id, truth FROM predictions WHERE rank = 1 AND truth IS NOT NULL),
shares AS (SELECT truth AS label, count(*) / sum(count(*)) OVER () AS share FROM known GROUP BY ALL)
SELECT caption, pair_id, count(DISTINCT prediction_id) AS pictures,
  coalesce(sum(contribution) FILTER (a.label <> truth), 0) AS wrong_weight,
  coalesce(sum(contribution) FILTER (a.label = truth), 0) AS right_weight,
  coalesce(sum(contribution * share), 0) AS by_chance
FROM attributions a JOIN known USING (prediction_id) LEFT JOIN shares ON shares.label = a.label
LEFT JOIN pairs USING (pair_id)
GROUP BY ALL HAVING right_weight < by_chance AND pictures >= 5
ORDER BY by_chance - right_weight DESC, pair_id""",
    ),
    CannedReport(
        "weight-by-source",
        "Which sources and licenses do the recorded predictions rest on?",
        """\
SELECT source, license, count(DISTINCT pair_id) AS pairs,
  sum(contribution) / sum(sum(contribution)) OVER () AS share
FROM attributions a JOIN predictions p USING (prediction_id, label)
LEFT JOIN pairs USING (pair_id)
WHERE p.rank = 1 GROUP BY ALL ORDER BY share DESC, source, license""",
    ),
    CannedReport(
        "never-used",
        "Which pairs are in no recorded attribution and could be pruned?",
        """\
SELECT pair_id, caption, source, license
FROM pairs ANTI JOIN attributions USING (pair_id) ORDER BY pair_id""",
    ),
    CannedReport(
        "labels-without-support",
        "Which labels does no pair speak for, in any recorded prediction?",
        """\
SELECT label, count(*) AS predictions, max(score) AS best_score
FROM predictions GROUP BY label HAVING max(score) = 0 ORDER BY label""",
    ),
)


def report(name: str) -> CannedReport:
    """The report of this name.

    Raises:
        AuditError: there is none.
    """
    for one in REPORTS:
        if one.name == name:
            return one
    raise AuditError(f"no report {name!r}; there are: {', '.join(r.name for r in REPORTS)}")
