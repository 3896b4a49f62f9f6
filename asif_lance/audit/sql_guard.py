"""Allows SQL from anyone only one SELECT over our tables, with functions that only compute.

DuckDB's own switches close files, network, extensions and settings. They leave open what lies
inside the process: table functions that take memory addresses, that log, profile or run SQL hidden
in a string, and views of settings, which name folders of the machine. So the statement is parsed
(by DuckDB, as JSON) and every table, table function and statement in it must be one that is known
to be harmless; of scalar functions, the few that act or reveal settings are refused.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import duckdb

from asif_lance.errors import AuditError

ONE_SELECT = "only a single SELECT can run here: the audit changes nothing"

_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLE_FUNCTIONS = {
    *("pairs_at", "range", "generate_series", "unnest", "repeat_row", "json_each", "json_tree"),
}  # no macro of DuckDB's own: `histogram` reads whatever view it is given the name of
_REFUSED = {
    *("current_setting", "getvariable", "write_log", "sleep_ms", "pg_sleep", "sleep"),
    *("nextval", "currval", "setval", "setseed", "getenv"),
}

Node = dict[str, Any]


class SqlGuard:
    """Checks the SQL of one connection.

    Args:
        connection: parses the SQL.
        tables: the names that SQL may read.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, tables: Collection[str]) -> None:
        self._connection, self._tables = connection, {name.lower() for name in tables}
        views = connection.execute("SELECT view_name FROM duckdb_views() WHERE internal").fetchall()
        self._internal = {str(name).lower() for (name,) in views}
        macros = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE function_type = 'macro' AND internal AND macro_definition ILIKE '%from %'"
        ).fetchall()
        self._refused = _REFUSED | {str(name).lower() for (name,) in macros}

    def check(self, sql: str) -> set[str]:
        """Pass SQL that may run; returns the versions that `pairs_at` names in it.

        Raises:
            AuditError: it is wrong, is no single SELECT, or uses what may not be used.
        """
        statement = self._parse(sql)
        nodes = list(_walk(statement))
        ctes = {
            str(e["key"]).lower() for n in nodes for e in (n.get("cte_map") or {}).get("map", [])
        }
        for node in nodes:
            self._check_node(node, ctes)
        return {_read_version(n["function"]) for n in nodes if _calls(n, "pairs_at")}

    def check_predicate(self, where: str) -> None:
        """Pass what is one expression, so that no other clause can hide in it.

        `source = 'x' LIMIT 1` would delete other pairs than its words say.

        Raises:
            AuditError: it is something else.
        """
        self._parse(f"SELECT pair_id FROM pairs WHERE {where}")  # noqa: S608 - only parsed
        # Whatever ends the brackets early leaves a CASE without its end, or another shape.
        node = self._parse(
            f"SELECT pair_id FROM pairs WHERE CASE WHEN (\n{where}\n) THEN true ELSE false END"  # noqa: S608 - only parsed
        )["node"]
        condition = node.get("where_clause") or {}
        others = ("modifiers", "group_expressions", "having", "sample", "qualify")
        if (
            node["type"] != "SELECT_NODE"
            or condition.get("type") != "CASE_EXPR"
            or len(condition["case_checks"]) != 1
            or any(node.get(name) for name in others)
        ):
            raise AuditError("only one yes-or-no expression over the pairs can stand here")

    def _parse(self, sql: str) -> Node:
        try:  # all rows are fetched: a result left open blocks the connection
            ((text,),) = self._connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
        except duckdb.Error as error:
            raise AuditError(one_line(str(error))) from None
        parsed: Node = json.loads(text)
        if parsed["error"]:
            kind = parsed["error_type"]
            if kind == "not implemented":  # statements other than SELECT
                raise AuditError(ONE_SELECT)
            raise AuditError(one_line(f"{kind.title()} Error: {parsed['error_message']}"))
        if len(parsed["statements"]) != 1:
            raise AuditError(ONE_SELECT)
        statement: Node = parsed["statements"][0]
        return statement

    def _check_node(self, node: Node, ctes: set[str]) -> None:
        kind = str(node.get("type", ""))
        if kind.endswith("_NODE") and kind not in _NODES:
            raise AuditError(ONE_SELECT)
        if kind == "BASE_TABLE":
            self._check_table(node, ctes)
        if kind == "TABLE_FUNCTION":
            name = _function_name(node["function"])
            if name not in _TABLE_FUNCTIONS:
                raise AuditError(f"the table function {name} cannot be used here")
        if kind == "SHOW_REF" and node.get("query") is None:
            self._check_show(node)
        if node.get("class") == "FUNCTION" and _function_name(node) in self._refused:
            raise AuditError(f"the function {_function_name(node)} cannot be used here")

    def _check_table(self, node: Node, ctes: set[str]) -> None:
        name = str(node["table_name"]).lower()
        ours = name in self._tables or name in ctes - self._internal
        if not ours or node["schema_name"].lower() not in ("", "main") or node["catalog_name"]:
            known = ", ".join(sorted(self._tables))
            raise AuditError(f"there is no table {node['table_name']!r}; there are: {known}")

    def _check_show(self, node: Node) -> None:
        if str(node["table_name"]).strip('"').lower() not in {"tables", *self._tables}:
            raise AuditError("only SHOW TABLES and DESCRIBE can be used here")


def one_line(message: str) -> str:
    """DuckDB's message without what follows: the SQL once more, or settings that nobody can set."""
    return " ".join(message.split("\n\n")[0].split())


def _walk(value: Any) -> Iterator[Node]:
    """Every object in the parsed statement."""
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _calls(node: Node, function: str) -> bool:
    return node.get("type") == "TABLE_FUNCTION" and _function_name(node["function"]) == function


def _function_name(function: Node) -> str:
    return str(function.get("function_name", "")).lower()


def _read_version(function: Node) -> str:
    arguments = [a.get("expression", {}) for a in function.get("arguments", [])]
    if len(arguments) != 1 or arguments[0].get("class") != "CONSTANT":
        raise AuditError("pairs_at takes one version by name, as in pairs_at('v3')")
    return str(arguments[0]["literal"].get("text", ""))
