"""SQL from anyone over a real database: what it may read, and that it can do nothing else."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Cli
from pairs_at_hand import names, new_store, pairs

from asif_lance.audit import sql_guard
from asif_lance.audit.sql import Audit
from asif_lance.errors import AuditError, VersionNotFoundError
from asif_lance.store.pair_store import PairStore

NO_FUNCTION = r"^the (table )?function \w+ cannot be used here$"
ONE_SELECT = "^only a single SELECT can run here: the audit changes nothing$"
NO_TABLE = "^there is no table "


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PairStore:
    store = new_store(tmp_path_factory.mktemp("audit"))
    store.add(pairs(names(0, 300)))
    store.publish(command="ingest")
    store.delete(names(0, 100))
    store.publish(command="delete")
    return store


@pytest.fixture(scope="module")
def audit(store: PairStore) -> Iterator[Audit]:
    with Audit(store, seconds=60) as audit:
        yield audit


def test_pairs_are_the_newest_model_and_pairs_at_any_version(audit: Audit) -> None:
    sql = "SELECT (SELECT count(*) FROM pairs) n, count(*) m FROM pairs_at('v1')"
    assert audit.query(sql).to_pylist() == [{"n": 200, "m": 300}]


def test_two_versions_can_be_compared_in_one_query(audit: Audit) -> None:
    gone = audit.query(
        "SELECT pair_id FROM Pairs_At(version := 'v1') ANTI JOIN pairs_at('latest') "
        "USING (pair_id) ORDER BY 1"
    )
    assert gone["pair_id"].to_pylist() == names(0, 100)


def test_versions_and_rejects_are_tables(audit: Audit) -> None:
    assert audit.query("SELECT name, removed FROM versions").to_pylist() == [
        {"name": "v1", "removed": 0},
        {"name": "v2", "removed": 100},
    ]
    assert len(audit.query("FROM rejects")) == 0


def test_a_version_that_is_not_there_is_named(audit: Audit) -> None:
    with pytest.raises(VersionNotFoundError, match="no model version 'v9'; there are: v1, v2"):
        audit.query("FROM pairs_at('v9')")


def test_an_audit_of_a_version_that_is_not_there_says_so_at_every_question(
    store: PairStore,
) -> None:
    with Audit(store, "v9") as audit:
        for _ in range(2):
            with pytest.raises(VersionNotFoundError, match="no model version 'v9'"):
                audit.query("FROM pairs")


def test_a_version_must_be_written_out(audit: Audit) -> None:
    with pytest.raises(AuditError, match=r"pairs_at takes one version by name"):
        audit.query("FROM pairs_at('v' || 1)")


def test_common_table_expressions_subqueries_and_describe_work(audit: Audit) -> None:
    sql = "WITH x AS (SELECT source FROM pairs) SELECT count(*) n FROM (FROM x), range(2)"
    assert audit.query(sql).to_pylist() == [{"n": 400}]
    assert "caption" in audit.query("DESCRIBE pairs")["column_name"].to_pylist()
    tables = audit.query("SHOW TABLES")["name"].to_pylist()
    assert {"pairs", "versions", "rejects"} <= set(tables)


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("COPY pairs TO '{file}'", ONE_SELECT),
        ("COPY (SELECT 1) TO '{file}' (FORMAT parquet)", ONE_SELECT),
        ("EXPLAIN ANALYZE COPY pairs TO '{file}'", ONE_SELECT),
        ("EXPORT DATABASE '{file}'", ONE_SELECT),
        ("ATTACH '{file}'", ONE_SELECT),
        ("INSTALL httpfs", ONE_SELECT),
        ("LOAD httpfs", ONE_SELECT),
        ("SET memory_limit = '99GB'", ONE_SELECT),
        ("RESET lock_configuration", ONE_SELECT),
        ("PRAGMA database_list", ONE_SELECT),
        ("CALL pragma_version()", ONE_SELECT),
        ("CREATE TABLE t AS SELECT 1", ONE_SELECT),
        ("DROP VIEW pairs", ONE_SELECT),
        ("INSERT INTO pairs VALUES (1)", ONE_SELECT),
        ("WITH x AS (INSERT INTO pairs VALUES (1)) SELECT 1", ONE_SELECT),
        ("WITH x AS (DELETE FROM pairs RETURNING *) FROM x", ONE_SELECT),
        ("SELECT 1; SELECT 2", ONE_SELECT),
        ("SELECT 1; COPY pairs TO '{file}'", ONE_SELECT),
        ("PREPARE x AS SELECT 1", ONE_SELECT),
        ("", "^there is no SQL: "),
        (";", ONE_SELECT),
        ("-- nothing", ONE_SELECT),
        ("SELECT * FROM read_text('{file}')", NO_FUNCTION),
        ("SELECT * FROM read_blob('{file}')", NO_FUNCTION),
        ("SELECT * FROM \"READ_CSV\"('{file}')", NO_FUNCTION),
        ("SELECT * FROM system.main.read_text('{file}')", NO_FUNCTION),
        ("SELECT * FROM read_parquet('http://127.0.0.1/x')", NO_FUNCTION),
        ("SELECT (SELECT count(*) FROM glob('/*'))", NO_FUNCTION),
        ("SELECT * FROM pairs WHERE caption IN (SELECT content FROM read_text('x'))", NO_FUNCTION),
        ("SELECT * FROM query('SELECT 1')", NO_FUNCTION),
        ("SELECT * FROM query_table('pairs')", NO_FUNCTION),
        ("SELECT * FROM json_execute_serialized_sql('{{}}')", NO_FUNCTION),
        ("SELECT * FROM arrow_scan(1::POINTER, 1::POINTER, 1::POINTER)", NO_FUNCTION),
        ("SELECT * FROM pandas_scan(1::POINTER)", NO_FUNCTION),
        ("SELECT * FROM python_map_function(1::POINTER)", NO_FUNCTION),
        ("SELECT * FROM enable_logging(storage := 'file')", NO_FUNCTION),
        ("SELECT * FROM duckdb_settings()", NO_FUNCTION),
        ("SELECT * FROM duckdb_secrets()", NO_FUNCTION),
        ("SELECT current_setting('secret_directory')", NO_FUNCTION),
        ("SELECT 'secret_directory'.current_setting()", NO_FUNCTION),
        ("SELECT write_log('x')", NO_FUNCTION),
        ("SELECT sleep_ms(100000)", NO_FUNCTION),
        ("SELECT * FROM '{file}'", NO_TABLE),
        ('SELECT * FROM "{file}"', NO_TABLE),
        ("SELECT * FROM pg_catalog.pg_settings", NO_TABLE),
        ("SELECT * FROM duckdb_logs", NO_TABLE),
        ("WITH pg_settings AS (SELECT 1) SELECT * FROM pg_settings", NO_TABLE),
        ("SELECT * FROM secret", NO_TABLE),
        ("SELECT * FROM other.main.pairs", NO_TABLE),
        ("SHOW DATABASES", "^only SHOW TABLES and DESCRIBE can be used here$"),
        ("SELECT * FROM (SHOW ALL TABLES)", "^only SHOW TABLES and DESCRIBE can be used here$"),
        ("SELEC 1", "^Parser Error: "),
        ("SELECT nothing FROM pairs", "^Binder Error: "),
        ("SELECT $1", "^Invalid Input Error: "),
        ("SELECT repeat('x', 100000000000)", "^Out of Range Error: "),
    ],
)
def test_hostile_sql_is_refused_in_one_line(
    audit: Audit, tmp_path: Path, sql: str, answer: str
) -> None:
    secret = tmp_path / "file"  # named like a variable in the SQL's reach, were there any
    with pytest.raises(AuditError, match=answer) as told:
        audit.query(sql.format(file=secret))
    assert "\n" not in str(told.value)
    assert not secret.exists()
    assert audit.query("SELECT count(*) n FROM pairs").to_pylist() == [{"n": 200}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM pairs a, pairs b, pairs c, pairs d, pairs e",
        "SELECT * FROM range(1000000000000) WHERE range < 0",
        "WITH RECURSIVE r AS (SELECT 1 x UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r",
    ],
)
def test_a_query_without_end_is_stopped_and_the_next_one_answers(
    store: PairStore, sql: str
) -> None:
    with Audit(store, seconds=3) as audit:
        with pytest.raises(AuditError, match=r"^the query was stopped after 3 seconds$"):
            audit.query(sql)
        assert len(audit.query("SELECT 1")) == 1


def test_an_enormous_answer_is_refused(store: PairStore) -> None:
    too_large = r"^the answer is larger than 1 MiB: aggregate it or add"
    with Audit(store, result_bytes=2**20) as audit, pytest.raises(AuditError, match=too_large):
        audit.query("SELECT * FROM range(10000000)")


def test_memory_is_limited_and_nothing_spills_to_disk(store: PairStore) -> None:
    with Audit(store, memory="50MB") as audit, pytest.raises(AuditError, match="Out of Memory"):
        audit.query("SELECT list(range) FROM range(100000000)")


def test_a_question_too_large_to_parse_is_told_as_such(store: PairStore) -> None:
    many = " OR ".join(f"pair_id = 'p{i}'" for i in range(50_000))
    with Audit(store, memory="10MB") as audit, pytest.raises(AuditError) as told:
        audit.query(f"SELECT count(*) FROM pairs WHERE {many}")
    assert str(told.value).lower().startswith("out of memory")


def test_text_that_is_not_utf_8_is_wrong_and_ends_nothing(audit: Audit) -> None:
    with pytest.raises(AuditError, match="cannot encode str as UTF-8"):
        audit.query("SELECT '\ud800'")
    assert audit.query("SELECT 1 AS n").to_pylist() == [{"n": 1}]


@pytest.mark.parametrize(
    "sql", ["FROM '{}'", "SELECT strptime('{}', '%Y')", "FROM pairs_at('{}')", "SELECT {}"]
)
def test_a_message_quotes_no_question_of_any_length(audit: Audit, sql: str) -> None:
    with pytest.raises((AuditError, VersionNotFoundError)) as told:
        audit.query(sql.format("x" * 1_000_000))
    assert len(str(told.value)) < 1200


_TWO_QUESTIONS = """if True:
    import resource, time
    from asif_lance.audit.sql_process import _limit_time
    _limit_time(1)
    first, _ = resource.getrlimit(resource.RLIMIT_CPU)
    begun = time.process_time()
    while time.process_time() < begun + 1:
        pass
    _limit_time(1)
    print(resource.getrlimit(resource.RLIMIT_CPU)[0] - first)
"""


def test_each_question_has_processor_time_of_its_own() -> None:
    command = [sys.executable, "-c", _TWO_QUESTIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 1


BOMBS = [
    "SELECT range(500000000)",
    "SELECT repeat('x', 2000000000)",
    "SELECT list_sort(range(200000000))",
    "SELECT damerau_levenshtein(repeat('a', 22000), repeat('b', 22000))",
    "SELECT regexp_replace(repeat('a', 500000000), 'a', 'bb', 'g')",
]

_BOMB = """if True:
    import resource, sys, time
    from asif_lance.audit import Audit
    from asif_lance.errors import AuditError
    from asif_lance.store import PairStore
    begun = time.monotonic()
    with Audit(PairStore.open(sys.argv[1]), seconds=5, memory="500MB") as audit:
        try:
            audit.query(sys.argv[2])
        except AuditError as error:
            print(error)
        assert audit.query("SELECT 1 AS n").to_pylist() == [{"n": 1}]
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, time.monotonic() - begun)
"""


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_memory_and_time_are_bounded_by_the_system_and_the_next_question_is_answered(
    store: PairStore, bomb: str
) -> None:
    command = [sys.executable, "-c", _BOMB, store.uri, bomb]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said, measured = done.stdout.splitlines()
    assert re.search("stopped after 5 seconds|more memory than 500MB|Out of Memory|memory", said)
    kilobytes = int(measured.split()[0])
    assert kilobytes < 1_500_000  # 500 MB beyond what code and buffers take


def test_no_function_that_is_allowed_is_a_macro_over_a_name() -> None:
    names = {"pairs_at"}  # our own, over versions alone
    macros = duckdb.sql(
        "SELECT function_name FROM duckdb_functions() WHERE function_type = 'table_macro'"
    ).fetchall()
    assert (sql_guard._TABLE_FUNCTIONS - names) & {name for (name,) in macros} == set()


@pytest.mark.parametrize(
    "reach",
    [
        "SELECT bin FROM histogram_values('pg_settings', concat(name, '=', setting))",
        "FROM histogram('duckdb_settings', name)",
        "SELECT get_block_size('memory')",
        "SELECT pg_get_viewdef(1)",
    ],
)
def test_settings_cannot_be_read_through_a_macro(audit: Audit, reach: str) -> None:
    with pytest.raises(AuditError, match="cannot be used here"):
        audit.query(reach)


# The command


@pytest.fixture
def asked(cli: Cli, tmp_path: Path) -> Cli:
    store = new_store(tmp_path)
    hostile = ["=1+1", " @SUM(A1)", "a\x1b[31mred", "<script>alert(1)</script>"]
    store.add(pairs(names(0, 4), caption=hostile))
    store.publish(command="ingest")

    def run(*arguments: object) -> object:
        return cli("--db", store.uri, "audit", *arguments)

    return run  # type: ignore[return-value]


def test_csv_holds_the_exact_texts(asked: Cli) -> None:
    done = asked("SELECT caption, -1 AS n FROM pairs ORDER BY pair_id", "--format", "csv")
    rows = list(csv.reader(io.StringIO(done.out)))
    assert rows[:3] == [["caption", "n"], ["=1+1", "-1"], [" @SUM(A1)", "-1"]]


def test_csv_for_spreadsheets_has_no_formulas_and_numbers_stay_numbers(asked: Cli) -> None:
    sql = "SELECT caption, -1 AS n FROM pairs ORDER BY pair_id"
    done = asked(sql, "--format", "csv", "--spreadsheet")
    rows = list(csv.reader(io.StringIO(done.out)))
    assert rows[:3] == [["caption", "n"], ["'=1+1", "-1"], ["' @SUM(A1)", "-1"]]


TWO_OF_ONE_NAME = "SELECT a.pair_id, b.pair_id FROM pairs a JOIN pairs b USING (caption) LIMIT 1"


def test_two_columns_of_one_name_are_both_there_in_every_format(asked: Cli, tmp_path: Path) -> None:
    names = ["pair_id", "pair_id_1"]
    assert asked(TWO_OF_ONE_NAME).out.split()[:2] == names
    assert list(asked(TWO_OF_ONE_NAME, "--format", "json").objects[0]) == names
    head, row = csv.reader(io.StringIO(asked(TWO_OF_ONE_NAME, "--format", "csv").out))
    assert (head, len(row)) == (names, 2)
    asked(TWO_OF_ONE_NAME, "--output", tmp_path / "both.parquet")
    assert pq.read_table(tmp_path / "both.parquet").column_names == names


MOMENTS = {
    "timestamp_ns '2020-01-01 00:00:00.123456789'": "2020-01-01T00:00:00.123456789",
    "'infinity'::TIMESTAMP": "infinity",
    "'-infinity'::DATE": "-infinity",
    "DATE '10000-01-01'": "10000-01-01",
    "DATE '0044-03-15 (BC)'": "-0043-03-15",
    "TIMESTAMPTZ '2026-01-31 18:00:00+02'": "2026-01-31T16:00:00.000000Z",
    "TIME '24:00:00'": "24:00:00",
    "[DATE '10000-01-01', NULL]": ["10000-01-01", None],
    "{'at': 'infinity'::DATE}": {"at": "infinity"},
    "MAP {'at': TIMESTAMP '12000-01-01'}": {"at": "12000-01-01T00:00:00.000000"},
}


@pytest.mark.parametrize(("moment", "shown"), MOMENTS.items())
def test_moments_that_python_cannot_hold_are_shown_in_every_format(
    asked: Cli, moment: str, shown: object
) -> None:
    assert asked(f"SELECT {moment} AS m", "--format", "json").objects == [{"m": shown}]
    for output in ("table", "csv"):
        assert asked(f"SELECT {moment} AS m", "--format", output).status == 0


def test_sums_and_decimals_are_numbers_in_json(asked: Cli) -> None:
    sql = "SELECT sum(range) AS s, 1.50::DECIMAL(9, 2) AS d, 2::DECIMAL(9, 2) AS w FROM range(4)"
    assert asked(sql, "--format", "json").objects == [{"s": 6, "d": 1.5, "w": 2}]


@pytest.mark.parametrize(
    "text",
    ["کتاب\u200cها", "l\u2019été\u00a0: «\u202foui\u202f»", "日本語\u3000全角", "👩\u200d👧"],
)
def test_ordinary_text_of_any_script_is_shown_as_it_is(asked: Cli, text: str) -> None:
    assert text in asked(f"SELECT '{text}' AS t").out


@pytest.mark.parametrize("text", ["\x1b[31m", "\u202e", "\u2028", "\x07"])
def test_what_could_drive_a_terminal_is_shown_escaped(asked: Cli, text: str) -> None:
    shown = asked("SELECT caption || ? AS t FROM pairs".replace("?", f"'{text}'")).out
    assert text not in shown
    assert text.encode("unicode_escape").decode() in shown


def test_the_format_is_told_by_the_name_of_the_output(asked: Cli, tmp_path: Path) -> None:
    asked("SELECT 1 AS n", "--output", tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == '{"n": 1}\n'
    asked("SELECT 1 AS n", "--output", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "n\n1\n"
    for name, arguments, says in (
        ("a.txt", [], "its name has to end in .csv or .json or .jsonl or .parquet"),
        ("a.csv", ["--format", "json"], "--format json does not go into a .csv file"),
    ):
        refused = asked("SELECT 1", "--output", tmp_path / name, *arguments)
        assert (refused.status, says in refused.err) == (2, True)


def test_a_table_shows_control_characters_instead_of_obeying_them(asked: Cli) -> None:
    done = asked("SELECT caption FROM pairs")
    assert "\x1b[31m" not in done.out
    assert "a\\x1b[31mred" in done.out


def test_json_is_one_object_per_line_and_names_what_is_no_number(asked: Cli) -> None:
    done = asked(
        "SELECT 'nan'::DOUBLE AS x, ['inf'::FLOAT, 1, NULL] AS l, {'a': '-inf'::DOUBLE} AS s, "
        "NULL::DOUBLE AS n, DATE '2026-01-31' AS d, '\\x00a'::BLOB AS b",
        *("--format", "json"),
    )
    assert done.objects == [
        {
            "x": "NaN",
            "l": ["Infinity", 1, None],
            "s": {"a": "-Infinity"},
            "n": None,
            "d": "2026-01-31",
            "b": "AGE=",
        }
    ]


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("NULL AS a, '' AS b, ' ' AS c, 'NULL' AS d", ',"", ,NULL'),
        ("NULL AS a", ""),
        ("'' AS a", '""'),
        ("'a,b' AS a, 'say \"x\"' AS b, 'a' || chr(10) || 'b' AS c", '"a,b","say ""x""","a\nb"'),
        ("true AS a, 'nan'::DOUBLE AS b, '-inf'::FLOAT AS c, 1.5 AS d", "true,nan,-inf,1.5"),
        (
            "[1, NULL, 2] AS a, {'k': 'x,y', 'm': NULL} AS b, MAP {'z': 'nan'::DOUBLE} AS c",
            '"[1, null, 2]","{""k"": ""x,y"", ""m"": null}","{""z"": ""NaN""}"',
        ),
        ("'\\x00\\xFFa'::BLOB AS a", "AP9h"),
        (
            "0.1::DECIMAL(9, 1) AS a, 12345678901234567890.123::DECIMAL(38, 3) AS b",
            "0.1,12345678901234567890.123",
        ),
    ],
)
def test_csv_tells_every_value_from_every_other(asked: Cli, sql: str, line: str) -> None:
    assert asked(f"SELECT {sql}", "--format", "csv").out.partition("\n")[2] == line + "\n"


def test_duckdb_reads_the_csv_as_it_was(asked: Cli, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    asked("SELECT * FROM (VALUES (1, NULL), (2, ''), (3, 'x')) t(n, s)", "--output", file)
    again = duckdb.sql(f"FROM read_csv('{file}', allow_quoted_nulls = false) ORDER BY n")
    assert again.fetchall() == [(1, None), (2, ""), (3, "x")]


def test_decimals_keep_all_their_digits_in_json(asked: Cli) -> None:
    sql = "SELECT 12345678901234567890.123::DECIMAL(38, 3) AS d"
    assert asked(sql, "--format", "json").objects == [{"d": "12345678901234567890.123"}]


def test_parquet_goes_to_a_file(asked: Cli, tmp_path: Path) -> None:
    file = tmp_path / "answer.parquet"
    assert asked("FROM pairs", "--format", "parquet", "--output", file).err.startswith(
        "wrote 4 rows"
    )
    assert len(pq.read_table(file)) == 4
    refused = asked("FROM pairs", "--format", "parquet")
    assert (refused.status, "--format parquet needs --output FILE" in refused.err) == (2, True)


def test_a_file_that_cannot_be_written_is_told_in_one_line(asked: Cli, tmp_path: Path) -> None:
    done = asked("FROM pairs", "--output", tmp_path / "none" / "x.csv")
    assert done.status == 1
    assert done.err.startswith(f"asif-lance: cannot write {tmp_path}")


def test_wrong_sql_is_one_line_and_exit_status_1(asked: Cli) -> None:
    done = asked("SELECT * FROM '/etc/passwd'")
    assert done.status == 1
    assert done.err.startswith("asif-lance: there is no table '/etc/passwd'; there are: ")
    assert done.err.count("\n") == 1


def test_a_report_shows_its_sql_and_what_it_finds(asked: Cli) -> None:
    done = asked("--report", "provenance", "--format", "json")
    assert "GROUP BY ALL" in done.err
    assert done.objects == [{"source": "test", "license": None, "pairs": 4, "pictures": 0}]


def test_an_unknown_report_names_those_there_are(asked: Cli) -> None:
    done = asked("--report", "nope")
    assert done.status == 1
    assert done.err.startswith("asif-lance: no report 'nope'; there are: provenance, ")


def test_near_duplicate_captions_differ_in_nothing_that_matters(tmp_path: Path, cli: Cli) -> None:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 4), caption=["A red cat.", "the cat, RED!", "a cat", "?"]))
    store.publish(command="ingest")
    done = cli(
        "--db", store.uri, "audit", "--report", "near-duplicate-captions", "--format", "json"
    )
    assert [row["pair_ids"] for row in done.objects] == [names(0, 2)]


def test_the_prompt_runs_statements_that_span_lines_and_goes_on_after_a_mistake(
    asked: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = "SELECT count(*) AS n\nFROM pairs;\nSELECT nope;\nSELECT 7 AS last"
    monkeypatch.setattr("click.testing.CliRunner.invoke", _with_input(statements))
    done = asked("--format", "json")
    assert done.objects == [{"n": 4}, {"last": 7}]
    assert done.status == 1
    assert "asif-lance: Binder Error" in done.err


def _with_input(text: str) -> object:
    from click.testing import CliRunner

    invoke = CliRunner.invoke

    def run(self: CliRunner, main: object, arguments: object) -> object:
        return invoke(self, main, arguments, input=text)  # type: ignore[arg-type]

    return run


def test_a_damaged_table_is_told_in_one_line(
    store: PairStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lance panics on this one, which is no exception of Python's."""
    damaged = replace(store, uri=str(shutil.copytree(store.uri, tmp_path / "db")))
    for path in Path(damaged.uri).glob("rejects.lance/_versions/*.manifest"):
        path.write_bytes(path.read_bytes().replace(b"string", b"3tring"))
    with Audit(damaged) as audit, pytest.raises(AuditError, match=r"rejects\S* is damaged"):
        audit.query("SELECT count(*) FROM pairs")
    assert "Traceback" not in capfd.readouterr().err


def test_the_same_pictures_are_listed_with_all_their_pairs(cli: Cli, tmp_path: Path) -> None:
    store = new_store(tmp_path)
    digests = pa.array(["bb", "aa", None, "aa", "cc", None, "aa", "bb"], pa.string())
    sources = ["web", "web", "web", "shop", "web", "web", "web", "web"]
    captions = ["x", "red", "x", "red", "x", "x", "a picture", "x"]
    columns = {"image_sha256": digests, "source": sources, "caption": captions}
    store.add(pairs(names(0, 8), **columns))
    store.publish(command="ingest")
    found = cli("--db", store.uri, "audit", "--report", "same-pictures", "--format", "json")
    ids = names(0, 8)
    assert found.objects == [
        {
            "image_sha256": "aa",
            "pairs": 3,
            "captions": 2,
            "sources": ["shop", "web"],
            "pair_ids": [ids[1], ids[3], ids[6]],
        },
        {
            "image_sha256": "bb",
            "pairs": 2,
            "captions": 1,
            "sources": ["web"],
            "pair_ids": [ids[0], ids[7]],
        },
    ]
