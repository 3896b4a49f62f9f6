"""The layout keeps its promises: one direction of imports, a cheap start, a complete wheel."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Each room imports only from rooms further down.
ROOMS = [
    "__init__",
    "plots",
    "adapt",
    "diagnose",
    "scaling",
    "indices",
    "agreement",
    "prune",
    "outlook",
    "rescored",
    "settled",
    "estimates",
    "whatif",
    "imagined",
    "clip",
    "tune",
    "sweep",
    "evaluate",
    "labelled",
    "poster",
    "explain",
    "forget",
    "retention",
    "questions",
    "runs",
    "standings",
    "keepers",
    "together",
    "model",
    "approximate",
    "indexed",
    "sampled",
    "choices",
    "predictions",
    "retrieve",
    "labels",
    "prompts",
    "tuned",
    "recipes",
    "reports",
    "audit",
    "sandbox",
    "stamps",
    "brought",
    "ingest",
    "target",
    "prompt_neighbors",
    "resemblance",
    "anchors",
    "summaries",
    "fragments",
    "store",
    "versions",
    "predicates",
    "rows",
    "diff",
    "purge",
    "survey",
    "receipts",
    "schema",
    "kept_files",
    "locks",
    "journal",
    "tables",
    "verify",
    "needles",
    "reindex",
    "sources",
    "parquet_reader",
    "readers",
    "columns",
    "vectors",
    "pictures",
    "encoders",
    "sentence_encoder",
    "timm_encoder",
    "weights",
    "images",
    "calibration",
    "means",
    "search",
    "proposals",
    "reaching",
    "fast_products",
    "products",
    "row_products",
    "compiled",
    "scales",
    "blocks",
    "threads",
    "devices",
    "relative",
    "records",
    "errors",
]


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asif_lance."):
            found.add((node.module or "").split(".")[1])
        if isinstance(node, ast.ImportFrom) and node.level and node.module:
            found.add(node.module)
        if isinstance(node, ast.ImportFrom) and node.module == "asif_lance":
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("asif_lance.")}
    return found


def test_every_room_has_its_place_in_the_list() -> None:
    assert sorted(p.stem for p in (ROOT / "asif_lance").glob("*.py")) == sorted(ROOMS)


def test_rooms_import_only_from_rooms_further_down() -> None:
    upward = [
        f"{room} imports {other}"
        for i, room in enumerate(ROOMS)
        for other in imports_of(ROOT / "asif_lance" / f"{room}.py")
        if other in ROOMS and ROOMS.index(other) <= i
    ]
    assert upward == []


def test_nothing_imports_the_commands_or_the_migrations_statically() -> None:
    files = [*(ROOT / "asif_lance").glob("*.py"), *(ROOT / "migrations").glob("*.py")]
    assert [f.name for f in files if imports_of(f) & {"cli", "migrations"}] == []


def test_importing_the_package_and_its_commands_loads_nothing_heavy() -> None:
    heavy = ["torch", "lance", "lancedb", "duckdb", "polars", "pyarrow", "timm", "numpy", "rich"]
    code = (
        f"import sys, asif_lance, asif_lance.cli; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
