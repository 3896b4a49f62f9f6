"""`migrate` leaves nothing to be finished."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from conftest import Cli
from pairs_at_hand import names, new_store, pairs

from asif_lance.errors import DatabaseError
from asif_lance.forgetting import interrupted
from asif_lance.forgetting.purge import Purge
from asif_lance.forgetting.receipts import load_receipts
from asif_lance.store import migrate
from asif_lance.store.forget import forget

ASSETS = Path(__file__).parents[1] / "assets"


class Killed(BaseException):
    """Nothing after it happens."""


def die(_: Purge) -> None:
    raise Killed


def unpack(where: Path) -> str:
    """A database of an earlier release, in which a forget of two pairs was killed."""
    with tarfile.open(ASSETS / "interrupted-m0006.tar.gz") as archive:
        archive.extractall(where, filter="data")
    [directory] = (path for path in where.iterdir() if path.is_dir())
    return str(directory)


def test_a_forget_that_an_earlier_release_began_is_finished(tmp_path: Path) -> None:
    uri = unpack(tmp_path)
    first, *others, last = migrate(uri)
    assert all(told.startswith("applied m00") for told in (first, *others))
    assert last.startswith("finished an interrupted forget of 2 pairs: receipt f20")
    assert not interrupted(uri)
    assert load_receipts(uri)[-1].clean
    assert list(migrate(uri)) == ["nothing to do: the database is up to date"]


def test_one_of_this_release_is_finished_too(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path, 64, 32)
    store.add(pairs(names(0, 10), image=64, text=32))
    store.publish(command="ingest")
    with monkeypatch.context() as patch:
        patch.setattr(Purge, "run", die)
        with pytest.raises(Killed):
            forget(store, names(3, 4), reason="asked to")
    done = cli("--db", store.uri, "migrate")
    assert done.status == 0
    assert done.err.startswith("finished an interrupted forget of 1 pair: receipt f20")
    assert not interrupted(store.uri)
    assert len(store.read("v1")) == 9


def test_where_it_cannot_be_finished_the_migrations_are_told_and_the_error_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ASIF_LANCE_KEYS", str(tmp_path / "file" / "keys"))
    uri = unpack(tmp_path)
    told = migrate(uri)
    assert next(told).startswith("applied m0007")
    with pytest.raises(DatabaseError, match="cannot make keys in"):
        list(told)
    assert interrupted(uri)
