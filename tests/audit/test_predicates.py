"""Which pairs a predicate names: the same as in an audit, in every command."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli
from pairs_at_hand import names, new_store, pairs

from asif_lance.audit import HEAD, Audit, matching_ids, matching_ids_anywhere
from asif_lance.errors import PredicateError, VersionNotFoundError
from asif_lance.store import PairStore


@pytest.fixture
def filled(tmp_path: Path) -> PairStore:
    """v1 has the pairs 0 to 10; v2 lacks 0 to 5 and has 10 to 15; head has 15 to 20, too."""
    store = new_store(tmp_path)
    store.add(pairs(names(0, 10)))
    store.publish(command="ingest")
    store.delete(names(0, 5))
    store.add(pairs(names(10, 15)))
    store.publish(command="ingest")
    store.add(pairs(names(15, 20)))
    return store


PREDICATES = [
    "true",
    "pair_id = 'pair-000007'",
    "\"pair_id\" = 'pair-000007'",
    "\"pair_id\" != 'pair-000007'",
    "pair_id IN ('pair-000007', 'pair-000012') OR caption LIKE '%3'",
    "caption ILIKE '%PAIR%' AND NOT (pair_id > 'pair-000008')",
    "pair_id = $$pair-000007$$ -- a comment",
    "caption = 'it''s; (not) there' OR pair_id = 'x'",
    "pair_id IN (SELECT pair_id FROM pairs_at('v1'))",
    "length(caption) > 3 AND source IS NULL",
    "license = 'none such'",
    "null",
]


@pytest.mark.parametrize("where", PREDICATES)
def test_a_predicate_means_what_it_means_in_an_audit(filled: PairStore, where: str) -> None:
    for version in ("v1", "v2"):
        with Audit(filled, version) as audit:
            rows = audit.query(f"SELECT pair_id FROM pairs WHERE {where}")
        assert matching_ids(filled, where, version) == sorted(rows["pair_id"].to_pylist())


@pytest.mark.parametrize("chain", [" OR pair_id = ", " AND NOT pair_id = "])
def test_a_predicate_of_hundreds_of_comparisons_is_answered(filled: PairStore, chain: str) -> None:
    where = f"pair_id = 'pair-000007-id'{chain}" + chain.join(f"'x{i}'" for i in range(300))
    assert matching_ids(filled, where) == ["pair-000007-id"]
    assert matching_ids(filled, f"({where}) AND caption IS NOT NULL", "v1") == ["pair-000007-id"]


def test_head_and_all_versions_are_asked_on_request(filled: PairStore) -> None:
    assert matching_ids(filled, "true") == names(5, 15)
    assert matching_ids(filled, "true", HEAD) == names(5, 20)
    assert matching_ids_anywhere(filled, "true") == names(0, 20)


@pytest.mark.parametrize(
    "where",
    [
        "",
        "nosuch = 1",
        '"nosuch" = 1',
        "caption LIKE",
        "source = 'test' LIMIT 1",
        "true) LIMIT (1",
        "true) OR (true",
        "true) UNION SELECT caption FROM pairs WHERE (true",
        "true) GROUP BY ALL HAVING (true",
        "true) THEN true ELSE false END LIMIT CASE WHEN (1",
        "true) THEN true WHEN (true",
        "source = 'x'; DROP TABLE pairs",
        "true /*",
        "caption = 'x",
        "'seven'",
        "CAST(caption AS INT) = 3",
        "getenv('HOME') = ''",
        "pair_id IN (SELECT value FROM duckdb_settings())",
        "pair_id IN (SELECT content FROM read_text('/etc/passwd'))",
    ],
)
def test_what_is_no_predicate_is_refused_in_one_line(filled: PairStore, where: str) -> None:
    with pytest.raises(PredicateError) as caught:
        matching_ids(filled, where)
    assert caught.value.where == where
    assert "\n" not in caught.value.reason


def test_an_unknown_version_is_told_as_such(filled: PairStore) -> None:
    with pytest.raises(VersionNotFoundError):
        matching_ids(filled, "true", "v9")


def test_commands_read_quoted_names_as_columns(cli: Cli, pairs_file: Path) -> None:
    def run(*arguments: str) -> str:
        return cli("--db", "t.lancedb", *arguments).err

    run("ingest", str(pairs_file))
    assert run("forget", "--where", "\"pair_id\" = 'p1'", "--dry-run").startswith("1 pair in 1 ")
    assert "nosuch" in run("forget", "--where", "\"nosuch\" = 'p1'", "--dry-run")
    assert run("delete", "--where", "\"pair_id\" = 'p1'").startswith("deleted 1 pair;")
