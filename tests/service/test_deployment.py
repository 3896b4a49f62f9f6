"""The container file and the systemd unit of docs/serve.md, as far as this machine can run them."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import Cli
from running_service import serve
from service_questions import make_database
from transcripts import BLOCK, ROOT

PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    """The only one of a kind on the page."""
    (text,) = (text for name, text in BLOCK.findall(PAGE) if name == kind)
    return text


def instructions() -> list[tuple[str, str]]:
    """Those of the container file with what they say."""
    lines = re.sub(r"\\\n", "", block("dockerfile")).splitlines()
    return [(name, said) for name, _, said in (line.partition(" ") for line in lines)]


def unit() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=True, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # names as they are written
    parsed.read_string(block("ini"))
    return parsed


def set_all(assignments: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for assignment in shlex.split(assignments):
        name, _, value = assignment.partition("=")
        monkeypatch.setenv(name, moved(value, folders))


def moved(path: str, folders: dict[str, Path]) -> str:
    """A path of the page in the folders that stand for those of a machine."""
    for root, folder in folders.items():
        path = path.replace(root, str(folder))
    return path


def check_serves(database: Path, command: Sequence[str], cli: Cli, tokens: Path) -> None:
    """The command is one of ours, and serves who has a token."""
    made = cli("serve", "--new-token", "read")
    tokens.write_text(made.out)
    options = list(command[command.index("serve") + 1 :])
    token = made.err.split()[-1]
    with serve(database, *options) as service:
        address = service.address.replace("0.0.0.0", "127.0.0.1")
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=address, headers=headers, trust_env=False) as client:
            assert client.get("/versions.json").status_code == 200
            assert httpx.get(f"{address}/versions.json", trust_env=False).status_code == 401
        assert service.stop() in (0, -15)


def test_the_container_s_command_serves_its_volume(
    cli: Cli, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = dict(instructions())
    assert list(said) == ["FROM", "RUN", "USER", "VOLUME", "ENV", "EXPOSE", "CMD"]
    folders = {said["VOLUME"]: tmp_path}
    set_all(said["ENV"], folders, monkeypatch)
    command = [moved(word, folders) for word in json.loads(said["CMD"])]
    database = make_database(tmp_path, rng)
    made = Path(moved("/data/pairs.lancedb", folders))
    database.rename(made)
    assert command[:2] == ["asif-lance", "serve"]
    assert cli("versions").status == 0  # by the variable
    check_serves(made, command, cli, tmp_path / "tokens")


def test_the_container_installs_an_extra_that_there_is_and_a_user_who_owns_the_volume() -> None:
    said = dict(instructions())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extra,) = re.findall(r"asif-lance\[(\w+)\]", said["RUN"])
    assert extra in extras["optional-dependencies"]
    steps = [shlex.split(step) for step in said["RUN"].split("&&")]
    assert steps[1:] == [
        ["useradd", "--create-home", said["USER"]],
        ["install", "--directory", f"--owner={said['USER']}", said["VOLUME"]],
    ]
    assert list(said).index("VOLUME") > list(said).index("RUN")  # later changes would be lost


def test_the_unit_s_command_serves_its_state_directory(
    cli: Cli, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = unit()["Service"]
    state, cache = (tmp_path / kind for kind in ("lib", "cache"))
    state.mkdir()
    folders = {
        f"/var/lib/{told['StateDirectory']}": state,
        f"/var/cache/{told['CacheDirectory']}": cache,
        "/etc/asif": tmp_path,
    }
    set_all(told["Environment"], folders, monkeypatch)
    command = [moved(word, folders) for word in shlex.split(told["ExecStart"])]
    assert command[1:3] == ["--db", str(state / "pairs.lancedb")]
    make_database(tmp_path, rng).rename(command[2])
    check_serves(Path(command[2]), command, cli, tmp_path / "tokens")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_systemd_finds_nothing_wrong_in_the_unit(tmp_path: Path) -> None:
    program, _, _ = unit()["Service"]["ExecStart"].partition(" ")
    file = tmp_path / "asif.service"
    file.write_text(block("ini").replace(program, sys.executable))  # one that is there
    command = ["systemd-analyze", "verify", "--man=no", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
