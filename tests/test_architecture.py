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
