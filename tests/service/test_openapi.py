"""Whatever the OpenAPI document allows, and much that it does not, is answered as it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import entry_point, pairs_frame
from running_service import serve

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)


@pytest.mark.slow
def test_no_request_finds_a_fault_or_an_answer_that_is_not_documented(tmp_path: Path) -> None:
    pairs_frame(40, np.random.default_rng(9)).write_parquet(tmp_path / "pairs.parquet")
    database = tmp_path / "t.lancedb"
    command = ["--db", str(database), "ingest", str(tmp_path / "pairs.parquet")]
    assert CliRunner().invoke(entry_point(), command).exit_code == 0
    with serve(database, "--allow", "forget") as service:
        asked = [f"{service.address}/api/openapi.json", "--checks", CHECKS]
        chosen = ["--max-examples", "8", "--seed", "1", "--no-color"]
        ran = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", *asked, *chosen],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr
        assert not any("Traceback" in line for line in service.log)
