from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from asif_lance.database.lock import LOCK_FILE, WriteLock
from asif_lance.errors import DatabaseBusyError, StorageError


def hasty(uri: Path) -> WriteLock:
    return WriteLock(str(uri), timeout=0.0)


@pytest.mark.filterwarnings("ignore:lance is not fork-safe")  # the child only waits
def test_a_forked_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    with hasty(tmp_path).hold("parent"):
        child = os.fork()
        if not child:
            signal.pause()
            os._exit(0)
    try:
        with hasty(tmp_path).hold("next"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_threads_of_one_process_keep_each_other_out(tmp_path: Path) -> None:
    errors: list[str] = []

    def other() -> None:
        try:
            with hasty(tmp_path).hold("other"):
                pass
        except DatabaseBusyError as error:
            errors.append(str(error))

    with hasty(tmp_path).hold("ingest"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert errors == [
        f"{tmp_path} is in use by `ingest` (process {os.getpid()}): try again when it is done"
    ]


def test_the_name_of_the_holder_outlives_those_who_wait(tmp_path: Path) -> None:
    with hasty(tmp_path).hold("ingest"):
        for _ in range(2):
            with pytest.raises(DatabaseBusyError, match="`ingest`"), hasty(tmp_path).hold("add"):
                pass


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hasty(tmp_path).hold("fails"):
        raise KeyError
    with hasty(tmp_path).hold("next"):
        pass


def test_a_lock_file_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    with (
        pytest.raises(StorageError, match=f"^cannot write to {tmp_path}: Is a directory$"),
        hasty(tmp_path).hold("ingest"),
    ):
        pass


def test_a_database_that_is_gone_is_not_made_again_by_its_lock(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"), hasty(tmp_path / "gone").hold("add"):
        pass
    assert not (tmp_path / "gone").exists()
