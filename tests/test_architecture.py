"""The layout keeps its promises: importing is cheap, every package is listed and says what it does.

The direction of imports is checked by import-linter; its contracts are in `pyproject.toml`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in (ROOT / "asif_lance").glob("*/__init__.py"))


def test_importing_the_package_and_its_commands_loads_nothing_heavy() -> None:
    heavy = ["torch", "lance", "lancedb", "duckdb", "polars", "pyarrow", "timm", "numpy", "rich"]
    code = (
        f"import sys, asif_lance, asif_lance.cli; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_package_is_listed_for_the_wheel_and_in_the_contract_of_imports() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    listed = settings["setuptools"]["packages"]
    assert [f"asif_lance.{name}" for name in PACKAGES if f"asif_lance.{name}" not in listed] == []
    (layers, _) = settings["importlinter"]["contracts"]
    placed = " | ".join(layers["layers"]).split(" | ")
    assert [name for name in PACKAGES if name not in placed] == []


def test_every_package_states_its_contract_and_its_public_names() -> None:
    for name in PACKAGES:
        tree = ast.parse((ROOT / "asif_lance" / name / "__init__.py").read_text())
        contract = ast.get_docstring(tree) or ""
        assert "Promises:" in contract or "Never" in contract, name
        assert any(isinstance(n, ast.Assign) for n in tree.body), f"{name} has no __all__"


def test_every_package_has_its_tests_in_a_folder_of_the_same_name() -> None:
    assert [name for name in PACKAGES if not list((ROOT / "tests" / name).glob("test_*.py"))] == []


@pytest.mark.parametrize("name", ["cluster", "evaluation", "model", "relative"])
def test_names_that_come_on_demand_are_those_that_type_checkers_see(name: str) -> None:
    package = import_module(f"asif_lance.{name}")
    tree = ast.parse((ROOT / "asif_lance" / name / "__init__.py").read_text())
    (choice,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in choice.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == sorted(package.__all__)
    for public, module in seen.items():
        assert getattr(package, public) is getattr(import_module(str(module)), public)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


# Methods with which Lance commits by itself, or removes files.
_COMMITTING = {
    *("add_columns", "alter_columns", "cleanup_old_versions", "commit_batch", "compact_files"),
    *("create_index", "create_scalar_index", "drop_index", "merge_insert"),
    *("optimize_indices", "replace_field_metadata", "replace_schema_metadata", "restore"),
    *("truncate_table", "update_config", "update_field_metadata", "update_metadata"),
    *("update_schema_metadata", "write_dataset"),
}


def _find_commits(node: ast.AST, inside: bool) -> list[ast.Call]:
    """Calls with which Lance commits, outside `with committing(...)`."""
    if isinstance(node, ast.With):
        contexts = [item.context_expr for item in node.items]
        named = [c.func for c in contexts if isinstance(c, ast.Call)]
        inside |= any(isinstance(f, ast.Name) and f.id == "committing" for f in named)
    found = [one for child in ast.iter_child_nodes(node) for one in _find_commits(child, inside)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not inside:
        whole = ast.unparse(node.func)
        of_tags = ".tags." in whole and node.func.attr in ("create", "update", "delete")
        if of_tags or node.func.attr in _COMMITTING or whole.endswith("LanceDataset.commit"):
            found.append(node)
    return found


def test_every_commit_to_a_table_checks_the_lease_first() -> None:
    modules = sorted((ROOT / "asif_lance").rglob("*.py"))
    found = {
        f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call.func)}"
        for path in modules
        for call in _find_commits(ast.parse(path.read_text()), inside=False)
    }
    assert found == set()
