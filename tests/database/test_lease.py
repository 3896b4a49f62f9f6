"""In an object store a lease keeps writers apart, also those that were killed or stood still."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from asif_lance.database import WriteLock, check_conditions, lease
from asif_lance.errors import DatabaseBusyError, StorageError
from asif_lance.object_stores import read_marked

pytestmark = pytest.mark.slow

_LASTING = 2.0
_WRITER = """
import sys
from asif_lance.database import WriteLock, lease
from asif_lance.errors import StorageError
lease.LASTING = {lasting}
with WriteLock({uri!r}).hold("stand still"):
    print("held", flush=True)
    sys.stdin.readline()
    try:
        print("number", lease.allot_number({uri!r}, 1), flush=True)
    except StorageError as error:
        print("refused:", error, flush=True)
"""


@pytest.fixture
def uri(bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lease, "LASTING", _LASTING)
    return f"{bucket}/t.lancedb"


@contextmanager
def writer(uri: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease until it is told to go on."""
    code = _WRITER.format(uri=uri, lasting=_LASTING)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def read_state(uri: str) -> lease.LeaseState:
    found = read_marked(uri, lease.LEASE_FILE)
    assert found is not None
    return lease.LeaseState.decode(found[0])


def test_of_many_writers_one_at_a_time_holds_it(uri: str) -> None:
    inside, most, taken = [0], [0], []

    def write() -> None:
        with WriteLock(uri).hold("add"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.05)
            inside[0] -= 1
            taken.append(1)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], len(taken)) == (1, 6)
    assert read_state(uri).epoch == 6


def test_who_waits_in_vain_is_told_what_is_in_the_way(uri: str) -> None:
    lock = WriteLock(uri, timeout=0.5)
    told = "in use by `stand still`"
    with writer(uri), pytest.raises(DatabaseBusyError, match=told), lock.hold("add"):
        pass


def test_a_holder_that_lives_keeps_it_for_longer_than_it_lasts(uri: str) -> None:
    with writer(uri) as process:
        with pytest.raises(DatabaseBusyError), WriteLock(uri, timeout=2 * _LASTING).hold("add"):
            pass
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "number 1\n"


def test_that_of_a_killed_writer_runs_out(uri: str) -> None:
    with writer(uri) as process:
        process.kill()
    with WriteLock(uri).hold("add"):
        assert read_state(uri).epoch == 2


def test_a_writer_that_stood_still_is_refused_and_gets_no_number(uri: str) -> None:
    with writer(uri) as process:
        process.send_signal(signal.SIGSTOP)
        with WriteLock(uri).hold("add"):
            assert lease.allot_number(uri, 1) == 1
            process.send_signal(signal.SIGCONT)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert "ran out" in process.stdout.readline()
    assert read_state(uri).allotted == 1


def test_no_number_is_allotted_twice(uri: str) -> None:
    numbers = []
    for _ in range(2):
        with WriteLock(uri).hold("publish"):
            numbers += [lease.allot_number(uri, 1), lease.allot_number(uri, 1)]
    assert numbers == [1, 2, 3, 4]


class _Careless(BaseHTTPRequestHandler):
    """Stores whatever comes, on no condition."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_DELETE(self) -> None:
        self.send_response(204)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_DELETE()

    def log_message(self, *_: object) -> None: ...


def test_a_store_that_does_not_honour_conditions_is_refused_at_once(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Careless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(StorageError, match="does not honour conditional writes"):
            check_conditions("s3://careless/t.lancedb")
        server.shutdown()
