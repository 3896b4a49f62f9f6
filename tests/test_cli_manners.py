"""The command among other programs: names of any bytes, closed and full outputs, no one to ask."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from conftest import Cli

pytestmark = pytest.mark.slow  # a process for each command

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def shell(cli: Cli, pairs_file: Path, tmp_path: Path) -> Run:
    """Run the command as a process in a folder with a database `t.lancedb` of 200 pairs."""
    cli("--db", "t.lancedb", "ingest", pairs_file)
    program = shutil.which("asif-lance", path=str(Path(sys.executable).parent))
    command = [program] if program else [sys.executable, "-c", _MAIN]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}

    def run(
        *arguments: object, closed: str = "", **how: object
    ) -> subprocess.CompletedProcess[bytes]:
        asked = [*command, "--db", "t.lancedb", *map(os.fsencode, map(_text, arguments))]
        if closed:
            asked = ["sh", "-c", f'exec "$@" {closed}', "sh", *asked]
        how = {"stdin": subprocess.DEVNULL, "capture_output": True} | how
        return subprocess.run(asked, cwd=tmp_path, env=environment, check=False, **how)  # type: ignore[call-overload, no-any-return]

    return run


@pytest.fixture
def start(shell: Run, tmp_path: Path) -> Start:
    """Begin the command as a process that others can stop."""
    (tmp_path / "x.png").write_bytes(b"")

    def run(*arguments: str) -> subprocess.Popen[bytes]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        asked = [sys.executable, "-c", _MAIN, "--db", "t.lancedb", *arguments]
        return subprocess.Popen(asked, cwd=tmp_path, **pipes)  # type: ignore[call-overload, no-any-return]

    return run


def is_read(pipe: Path) -> bool:
    """Whether a process has opened a named pipe to read, which then stays open to write."""
    try:
        os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    return True


def children_of(pid: int) -> list[str]:
    """The processes that a process has started, dead ones apart."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(path.parent.name)
    return found


_MAIN = "from asif_lance.cli import main; main(prog_name='asif-lance')"


def _text(argument: object) -> str | bytes:
    return argument if isinstance(argument, bytes) else str(argument)


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", b"SELECT 'caf\xe9'"),
        ("delete", b"caf\xe9"),
        ("delete", "--where", b"source = 'caf\xe9'"),
        ("tag", b"caf\xe9"),
    ],
)
def test_text_that_is_not_utf_8_is_wrong_usage_and_told(
    shell: Run, arguments: tuple[object, ...]
) -> None:
    done = shell(*arguments)
    assert done.returncode == 2
    assert b"caf\\xe9" in done.stderr
    assert done.stderr.endswith(b"holds bytes that are not UTF-8\n")


def test_a_name_that_is_not_utf_8_is_shown_with_escapes(shell: Run) -> None:
    done = shell("ingest", b"caf\xe9")
    assert done.returncode == 1
    assert done.stderr == b"asif-lance: there is no source at caf\\xe9\n"


def test_a_mistyped_option_cannot_drive_the_terminal(shell: Run) -> None:
    done = shell("info", "--\x1b[31mred")
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr


def test_a_reader_that_leaves_early_ends_the_command_quietly(shell: Run, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = shell("audit", "FROM pairs", "--format", "json", stdout=writing, capture_output=False)
    os.close(writing)
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [("versions",), ("info", "--format", "json"), ("--help",)])
def test_a_full_output_is_one_line(shell: Run, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = shell(*arguments, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert done.stderr == b"asif-lance: cannot write the result: No space left on device\n"


@pytest.mark.skipif(not Path("/proc").exists(), reason="no /proc here")
@pytest.mark.parametrize("output", ["/proc/page.html", "x" * 300 + ".html"])
def test_a_file_that_cannot_be_written_is_one_line(shell: Run, output: str) -> None:
    done = shell("bill", "-o", output)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()[-1:]
    assert line.startswith("asif-lance: ")
    assert f"{output}: " in line
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
        MemoryError("Unable to allocate 8.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: Cannot allocate memory"),
    ],
)
def test_too_little_memory_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("asif_lance.store.PairStore.open", mock.Mock(side_effect=error))
    done = cli("versions")
    assert (done.status, done.out) == (1, "")
    assert done.err == f"asif-lance: not enough memory, see `ulimit -v`: {error}\n"


def test_a_closed_output_is_one_line(shell: Run) -> None:
    done = shell("versions", closed=">&-")
    assert done.returncode == 1
    assert done.stderr == b"asif-lance: standard output is closed, the result would be lost\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("arguments", [("classify", "x.png"), ("tune", "--self-test")])
def test_a_signal_ends_a_command_with_one_line_and_the_status_that_shells_give(
    start: Start, arguments: tuple[str, ...], number: signal.Signals, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "labels.txt")
    with start(*arguments, "--labels-file", "labels.txt") as running:
        while not is_read(tmp_path / "labels.txt") and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (128 + number, b"")
    assert err == b"asif-lance: stopped by " + number.name.encode() + b"\n"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_a_signal_ends_a_question_in_sql_and_the_process_that_answers_it(start: Start) -> None:
    endless = "SELECT count(*) FROM range(1000000000000) a, range(1000000) b"
    with start("audit", endless) as running:
        while not (children := children_of(running.pid)) and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, b"asif-lance: stopped by SIGINT\n")
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.parametrize("closed", ["<&-", ""])
def test_with_nobody_to_ask_nothing_is_done_and_yes_is_named(shell: Run, closed: str) -> None:
    done = shell("forget", "p1", closed=closed)
    assert done.returncode == 1
    assert done.stderr.endswith(b"not confirmed, nothing was done: give --yes\n")


def test_sql_that_nobody_can_type_is_asked_for(shell: Run) -> None:
    done = shell("audit", closed="<&-")
    assert done.returncode == 2
    assert done.stderr.endswith(b"standard input is closed: give the SQL as an argument\n")


def test_statements_from_a_pipe_are_told_apart_by_their_semicolons(shell: Run) -> None:
    sql = b"SELECT 1 AS a; SELECT ';' AS b; -- both; done\n;;\nSELECT\n2 AS c"
    done = shell("audit", "--format", "csv", stdin=None, input=sql)
    assert (done.returncode, done.stdout) == (0, b"a\n1\nb\n;\nc\n2\n")
    done = shell("audit", stdin=None, input=b"SELECT '\xff';")
    assert done.returncode == 2
    assert done.stderr.endswith(b"holds bytes that are not UTF-8\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("ingest", "pairs.parquet", "--rejects", "none/r.csv"),
        ("audit", "FROM pairs", "--output", "none/a.csv"),
        ("explain", "pairs.parquet", "--labels", "a,b", "--output", "none/a.html"),
        ("evaluate", ".", "--plot", "none/a.png"),
    ],
)
def test_an_output_into_no_folder_is_told_before_the_work(
    shell: Run, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = shell(*arguments)
    assert done.returncode == 1
    assert done.stderr.decode() == (
        f"asif-lance: cannot write {arguments[-1]}: there is no folder {tmp_path / 'none'}\n"
    )


def test_a_link_into_no_folder_is_told_before_the_work(shell: Run, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "none" / "r.csv")
    done = shell("audit", "FROM pairs", "--output", "link.csv")
    assert (done.returncode, b"there is no folder" in done.stderr) == (1, True)


def test_info_for_programs_has_numbers_with_their_units_in_the_key(shell: Run) -> None:
    told = json.loads(shell("info", "--format", "json").stdout)
    assert (told["pairs"], told["versions"], told["newest"]) == (200, 1, "v1")
    assert told["image_encoder"] == {"name": "vectors", "revision": "", "dimension": 16}
    assert isinstance(told["bytes"], int)
    assert isinstance(told["reclaimable_bytes"], int)
    assert isinstance(told["waiting_bytes"], int)
    assert told["processor"]["fastest"] in ("bfloat16", "float32")
    assert told["processor"]["threads"] >= 1


def test_all_moments_for_programs_are_written_alike(shell: Run) -> None:
    made = json.loads(shell("versions", "--format", "json").stdout)["created_at"]
    sql = "SELECT created_at FROM versions"
    assert json.loads(shell("audit", sql, "--format", "json").stdout)["created_at"] == made
    assert made.endswith("Z")
