"""What users install: sdist and wheel have every package and work outside the checkout."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVICE = ROOT / "asif_lance" / "service"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, which is built from the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("asif_lance", "cli", "migrations"):  # a copy: old builds leave files behind
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    assert len(list(out.glob("*.tar.gz"))) == 1
    return built


def test_the_wheel_holds_the_package_with_its_commands_and_migrations(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    expected = {
        *(p.relative_to(ROOT).as_posix() for p in (ROOT / "asif_lance").rglob("*.py")),
        *(f"asif_lance/cli/{p.name}" for p in (ROOT / "cli").glob("*.py")),
        *(f"asif_lance/migrations/{p.name}" for p in (ROOT / "migrations").glob("*.py")),
        "asif_lance/py.typed",
        *(p.relative_to(ROOT).as_posix() for p in (ROOT / "asif_lance").rglob("*.html")),
        "asif_lance/model/template_sets.toml",
        *(p.relative_to(ROOT).as_posix() for p in (SERVICE / "static").iterdir()),
        *(p.relative_to(ROOT).as_posix() for p in (SERVICE / "templates").iterdir()),
    }
    assert {n for n in names if ".dist-info/" not in n} == expected


def test_the_installed_wheel_helps_and_migrates_outside_the_checkout(
    wheel: Path, tmp_path: Path
) -> None:
    home = tmp_path / "bare"
    venv.create(home, with_pip=False)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(own), str(wheel)], check=True)
    # The dependencies of the environment that runs the tests, but not its editable install.
    (own / "dependencies.pth").write_text("\n".join(_dependency_folders()))
    python = home / "bin" / "python"
    run = [str(python), str(own / "bin" / "asif-lance")]
    helped = subprocess.run([*run, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert "Usage: asif-lance" in helped.stdout, helped.stderr
    verifier = [str(python), str(own / "bin" / "asif-lance-verify"), "--help"]
    assert "asif-lance-verify" in subprocess.run(verifier, capture_output=True, text=True).stdout
    migrated = subprocess.run(
        [*run, "--db", "nowhere.lancedb", "migrate"], cwd=tmp_path, capture_output=True, text=True
    )
    assert migrated.returncode == 1
    assert migrated.stderr == (
        f"asif-lance: no asif_lance database at {tmp_path}/nowhere.lancedb: "
        "`asif-lance ingest` makes one\n"
    )


def _dependency_folders() -> list[str]:
    return [p for p in sys.path if p.endswith("site-packages")] or site.getsitepackages()
