from __future__ import annotations

import contextlib
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from pairs_at_hand import IMAGE, TEXT, names, new_store, pairs

from asif_lance.audit.runs import list_runs
from asif_lance.database import TABLES, migrate, read_pins, schemas
from asif_lance.errors import (
    DatabaseError,
    DatabaseNotFoundError,
    EncoderMismatchError,
    MigrationNeededError,
    NewerDatabaseError,
)
from asif_lance.forgetting import receipts
from asif_lance.model.labels import DEFAULT_TEMPLATES
from asif_lance.model.opening import open_model
from asif_lance.model.stored_settings import load_setting, store_setting
from asif_lance.store.forget import forget
from asif_lance.store.pair_store import PairStore

ASSETS = Path(__file__).parents[1] / "assets"


def test_migrations_lead_to_the_schemas_that_the_code_uses(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    for table in TABLES:
        made = lance.dataset(f"{store.uri}/{table.name}.lance").schema
        assert made.remove_metadata().equals(table.schema(8, 4)), table.name
    pairs_made = lance.dataset(f"{store.uri}/pairs.lance").schema
    assert pairs_made.field("pair_id").metadata == {b"lance-schema:unenforced-primary-key": b"true"}


def test_the_pins_live_in_the_metadata_of_pairs(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    assert read_pins(lance.dataset(f"{store.uri}/pairs.lance")) == {
        "image": IMAGE,
        "text": TEXT,
    }


def test_each_step_is_recorded_with_its_hash_and_time(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    rows = lance.dataset(f"{store.uri}/migrations.lance").to_table().to_pylist()
    assert [(row["id"], row["hash"]) for row in rows] == [
        (step.id, step.hash) for step in migrate.find_migrations()
    ]
    assert all(row["applied_at"] <= datetime.now(UTC) for row in rows)


def test_migrating_a_database_of_today_does_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    assert migrate.run_migrations(store.uri) == []


def test_migrating_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatabaseNotFoundError, match="no asif_lance database at"):
        migrate.run_migrations(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    future = {"id": "m9999_future", "hash": "0", "applied_at": datetime.now(UTC)}
    table = pa.Table.from_pylist([future], schema=schemas.MIGRATIONS)
    lance.write_dataset(table, f"{store.uri}/migrations.lance", mode="append")
    with pytest.raises(
        NewerDatabaseError, match=r"unknown migration m9999_future.*upgrade asif-lance"
    ):
        PairStore.open(store.uri)
    with pytest.raises(NewerDatabaseError):
        migrate.run_migrations(store.uri)


def test_a_changed_migration_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(tmp_path)
    changed = [migrate.Migration(s.id, "0" * 64, s.up) for s in migrate.find_migrations()]
    monkeypatch.setattr(migrate, "find_migrations", lambda: changed)
    with pytest.raises(DatabaseError, match="m0001_create_pairs is not the one"):
        PairStore.open(store.uri)


def test_an_older_database_names_the_command_and_migrate_brings_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 3)))
    seen = []
    step = migrate.Migration("m9001_test", "1" * 64, lambda uri, pins: seen.append((uri, pins)))
    known = [*migrate.find_migrations(), step]
    monkeypatch.setattr(migrate, "find_migrations", lambda: known)
    with pytest.raises(MigrationNeededError, match=f"run `asif-lance --db {store.uri} migrate`"):
        PairStore.open(store.uri)
    assert migrate.run_migrations(store.uri) == ["m9001_test"]
    assert seen == [(store.uri, {"image": _plain(IMAGE), "text": _plain(TEXT)})]
    assert len(PairStore.open(store.uri).existing(names(0, 3))) == 3


def test_a_step_that_fails_is_not_recorded_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    tries = []

    def up(uri: str, pins: object) -> None:
        tries.append(uri)
        if len(tries) == 1:
            raise KeyboardInterrupt

    known = [*migrate.find_migrations(), migrate.Migration("m9001_test", "1" * 64, up)]
    monkeypatch.setattr(migrate, "find_migrations", lambda: known)
    with pytest.raises(KeyboardInterrupt):
        migrate.run_migrations(store.uri)
    assert migrate.run_migrations(store.uri) == ["m9001_test"]
    assert len(tries) == 2


def test_a_creation_cut_short_is_no_database_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "db")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_record", killed)
        with pytest.raises(KeyboardInterrupt):
            PairStore.create(uri, image=TEXT, text=IMAGE)
    with pytest.raises(DatabaseNotFoundError):
        PairStore.open(uri)
    PairStore.create(uri, image=IMAGE, text=TEXT)
    assert PairStore.open(uri).image == IMAGE


def kill_after(steps: int, uri: str) -> None:
    """Makes a database, and dies when so many steps are recorded."""
    record, taken = migrate._record, []

    def record_and_die(*step: object) -> None:
        record(*step)
        taken.append(step)
        if len(taken) == steps:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "_record", record_and_die)
        with pytest.raises(KeyboardInterrupt):
            PairStore.create(uri, image=IMAGE, text=TEXT)


@pytest.mark.parametrize("steps", [1, 4, len(migrate.find_migrations()) - 1])
def test_a_creation_killed_between_two_steps_is_finished_by_the_next(
    steps: int, tmp_path: Path
) -> None:
    uri = str(tmp_path / "db")
    kill_after(steps, uri)
    with pytest.raises(DatabaseNotFoundError, match="`asif-lance ingest` makes one"):
        PairStore.open(uri)
    assert PairStore.create(uri, image=IMAGE, text=TEXT).add(pairs(names(0, 3))) == 3
    recorded = lance.dataset(f"{uri}/migrations.lance").to_table()["id"].to_pylist()
    assert recorded == [step.id for step in migrate.find_migrations()]


def test_a_creation_that_was_killed_is_finished_for_its_own_encoders_alone(tmp_path: Path) -> None:
    uri = str(tmp_path / "db")
    kill_after(3, uri)
    with pytest.raises(EncoderMismatchError):
        PairStore.create(uri, image=replace(IMAGE, name="another"), text=TEXT)
    assert PairStore.open(uri).image == IMAGE


@pytest.mark.parametrize("asset", sorted(ASSETS.glob("database-*.tar.gz")), ids=lambda p: p.name)
def test_databases_of_earlier_releases_are_upgraded_and_used(asset: Path, tmp_path: Path) -> None:
    with tarfile.open(asset) as archive:
        archive.extractall(tmp_path, filter="data")
    uri = str(tmp_path / "db")
    with pytest.raises(MigrationNeededError):
        PairStore.open(uri)
    assert migrate.run_migrations(uri)[-1] == migrate.find_migrations()[-1].id
    store = PairStore.open(uri)
    assert (store.image, store.text) == (IMAGE, TEXT)
    assert [(v.name, v.pairs, v.aliases) for v in store.versions()] == [
        ("v1", 20, ()),
        ("v2", 30, ("prod",)),
        ("v3", 25, ()),
    ]
    assert store.rejects().num_rows == 1
    assert store.add(pairs(names(0, 40))) == 15
    version = store.publish(command="ingest")
    assert version is not None
    assert (version.name, version.pairs) == ("v4", 40)
    assert forget(store, names(7, 8), reason="asked to").clean
    assert [v.pairs for v in store.versions()] == [19, 29, 24, 39]


@pytest.mark.parametrize("asset", [f"database-m000{step}.tar.gz" for step in (3, 4, 5)])
def test_runs_recorded_by_earlier_releases_are_still_there_and_can_be_forgotten(
    asset: str, tmp_path: Path
) -> None:
    with tarfile.open(ASSETS / asset) as archive:
        archive.extractall(tmp_path, filter="data")
    migrate.run_migrations(str(tmp_path / "db"))
    store = PairStore.open(str(tmp_path / "db"))
    told = [(run.model, run.labels, run.predictions, run.templates) for run in list_runs(store)]
    assert told == [("v2", 2, 2, None)]
    named = lance.dataset(f"{store.uri}/attributions.lance").to_table()["pair_id"].to_pylist()
    assert forget(store, named[:1], reason="asked to").clean
    left = lance.dataset(f"{store.uri}/attributions.lance").to_table()["pair_id"].to_pylist()
    assert sorted(left) == sorted(name for name in named if name != named[0])


def test_settings_tuned_by_an_earlier_release_are_still_the_versions_own(tmp_path: Path) -> None:
    with tarfile.open(ASSETS / "database-m0005.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    migrate.run_migrations(str(tmp_path / "db"))
    store = PairStore.open(str(tmp_path / "db"))
    model = open_model(store.uri, "v2")
    own = (model.recipe.k, model.recipe.p, model.ensemble, model.templates)
    assert own == ((7, 5), (3.0, 2.0), "mean-relative", DEFAULT_TEMPLATES)
    found = load_setting(store, "v2")
    assert found is not None
    store_setting(store, replace(found, templates="general"))
    assert open_model(store.uri, "v2").templates == "general"
    assert migrate.run_migrations(store.uri) == []


@pytest.mark.parametrize("step", range(1, 8))
def test_an_upgrade_killed_anywhere_is_completed_by_the_next(step: int, tmp_path: Path) -> None:
    with tarfile.open(ASSETS / "database-m0001.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    uri = str(tmp_path / "db")
    calls = []

    def armed(*args: object, **kwargs: object) -> object:
        result = write(*args, **kwargs)
        calls.append(args)
        if len(calls) == step:
            raise KeyboardInterrupt
        return result

    write = lance.write_dataset
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lance, "write_dataset", armed)
        with contextlib.suppress(KeyboardInterrupt):
            migrate.run_migrations(uri)
    migrate.run_migrations(uri)
    store = PairStore.open(uri)
    assert receipts.load_receipts(uri) == []
    assert [v.pairs for v in store.versions()] == [20, 30, 25]
    recorded = lance.dataset(f"{uri}/migrations.lance").to_table()["id"].to_pylist()
    assert recorded == [step.id for step in migrate.find_migrations()]


def _plain(pin: object) -> dict[str, object]:
    return {name: getattr(pin, name) for name in ("name", "revision", "dimension")}
