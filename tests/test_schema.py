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

from asif_lance import receipts, schema
from asif_lance.errors import (
    DatabaseError,
    DatabaseNotFoundError,
    MigrationNeededError,
    NewerDatabaseError,
)
from asif_lance.forget import forget
from asif_lance.labels import DEFAULT_TEMPLATES
from asif_lance.model import open_model
from asif_lance.runs import runs
from asif_lance.store import PairStore
from asif_lance.tuned import store_choice, stored_choice

ASSETS = Path(__file__).parent / "assets"


def test_migrations_lead_to_the_schemas_that_the_code_uses(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    made = {
        name: lance.dataset(f"{store.uri}/{name}.lance")
        for name in ("pairs", "versions", "rejects", "tuned", *schema.RUN_SCHEMAS)
    }
    assert made["pairs"].schema.remove_metadata().equals(schema.pairs_schema(8, 4))
    assert made["versions"].schema.equals(schema.VERSIONS_SCHEMA)
    assert made["rejects"].schema.equals(schema.REJECTS_SCHEMA)
    assert made["tuned"].schema.equals(schema.TUNED_SCHEMA)
    for name, expected in schema.RUN_SCHEMAS.items():
        assert made[name].schema.equals(expected)
    assert made["pairs"].schema.field("pair_id").metadata == {
        b"lance-schema:unenforced-primary-key": b"true"
    }


def test_the_pins_live_in_the_metadata_of_pairs(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    assert schema.read_pins(lance.dataset(f"{store.uri}/pairs.lance")) == {
        "image": IMAGE,
        "text": TEXT,
    }


def test_each_step_is_recorded_with_its_hash_and_time(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    rows = lance.dataset(f"{store.uri}/migrations.lance").to_table().to_pylist()
    assert [(row["id"], row["hash"]) for row in rows] == [
        (step.id, step.hash) for step in schema.known_migrations()
    ]
    assert all(row["applied_at"] <= datetime.now(UTC) for row in rows)


def test_migrating_a_database_of_today_does_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    assert schema.migrate(store.uri) == []


def test_migrating_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatabaseNotFoundError, match="no asif_lance database at"):
        schema.migrate(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    future = {"id": "m9999_future", "hash": "0", "applied_at": datetime.now(UTC)}
    table = pa.Table.from_pylist([future], schema=schema.MIGRATIONS_SCHEMA)
    lance.write_dataset(table, f"{store.uri}/migrations.lance", mode="append")
    with pytest.raises(
        NewerDatabaseError, match=r"unknown migration m9999_future.*upgrade asif-lance"
    ):
        PairStore.open(store.uri)
    with pytest.raises(NewerDatabaseError):
        schema.migrate(store.uri)


def test_a_changed_migration_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(tmp_path)
    changed = [schema.Migration(s.id, "0" * 64, s.up) for s in schema.known_migrations()]
    monkeypatch.setattr(schema, "known_migrations", lambda: changed)
    with pytest.raises(DatabaseError, match="m0001_create_pairs is not the one"):
        PairStore.open(store.uri)


def test_an_older_database_names_the_command_and_migrate_brings_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 3)))
    seen = []
    step = schema.Migration("m9001_test", "1" * 64, lambda uri, pins: seen.append((uri, pins)))
    known = [*schema.known_migrations(), step]
    monkeypatch.setattr(schema, "known_migrations", lambda: known)
    with pytest.raises(MigrationNeededError, match=f"run `asif-lance --db {store.uri} migrate`"):
        PairStore.open(store.uri)
    assert schema.migrate(store.uri) == ["m9001_test"]
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

    known = [*schema.known_migrations(), schema.Migration("m9001_test", "1" * 64, up)]
    monkeypatch.setattr(schema, "known_migrations", lambda: known)
    with pytest.raises(KeyboardInterrupt):
        schema.migrate(store.uri)
    assert schema.migrate(store.uri) == ["m9001_test"]
    assert len(tries) == 2


def test_a_creation_cut_short_is_no_database_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "db")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(schema, "_record", killed)
        with pytest.raises(KeyboardInterrupt):
            PairStore.create(uri, image=TEXT, text=IMAGE)
    with pytest.raises(DatabaseNotFoundError):
        PairStore.open(uri)
    PairStore.create(uri, image=IMAGE, text=TEXT)
    assert PairStore.open(uri).image == IMAGE


@pytest.mark.parametrize("asset", sorted(ASSETS.glob("database-*.tar.gz")), ids=lambda p: p.name)
def test_databases_of_earlier_releases_are_upgraded_and_used(asset: Path, tmp_path: Path) -> None:
    with tarfile.open(asset) as archive:
        archive.extractall(tmp_path, filter="data")
    uri = str(tmp_path / "db")
    with pytest.raises(MigrationNeededError):
        PairStore.open(uri)
    assert schema.migrate(uri)[-1] == schema.known_migrations()[-1].id
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
    schema.migrate(str(tmp_path / "db"))
    store = PairStore.open(str(tmp_path / "db"))
    told = [(run.model, run.labels, run.predictions, run.templates) for run in runs(store)]
    assert told == [("v2", 2, 2, None)]
    named = lance.dataset(f"{store.uri}/attributions.lance").to_table()["pair_id"].to_pylist()
    assert forget(store, named[:1], reason="asked to").clean
    left = lance.dataset(f"{store.uri}/attributions.lance").to_table()["pair_id"].to_pylist()
    assert sorted(left) == sorted(name for name in named if name != named[0])


def test_settings_tuned_by_an_earlier_release_are_still_the_versions_own(tmp_path: Path) -> None:
    with tarfile.open(ASSETS / "database-m0005.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    schema.migrate(str(tmp_path / "db"))
    store = PairStore.open(str(tmp_path / "db"))
    model = open_model(store.uri, "v2")
    own = (model.recipe.k, model.recipe.p, model.ensemble, model.templates)
    assert own == ((7, 5), (3.0, 2.0), "mean-relative", DEFAULT_TEMPLATES)
    found = stored_choice(store, "v2")
    assert found is not None
    store_choice(store, replace(found, templates="general"))
    assert open_model(store.uri, "v2").templates == "general"
    assert schema.migrate(store.uri) == []


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
            schema.migrate(uri)
    schema.migrate(uri)
    store = PairStore.open(uri)
    assert receipts.load_all(uri) == []
    assert [v.pairs for v in store.versions()] == [20, 30, 25]
    recorded = lance.dataset(f"{uri}/migrations.lance").to_table()["id"].to_pylist()
    assert recorded == [step.id for step in schema.known_migrations()]


def _plain(pin: object) -> dict[str, object]:
    return {name: getattr(pin, name) for name in ("name", "revision", "dimension")}
