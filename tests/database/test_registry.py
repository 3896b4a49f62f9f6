from __future__ import annotations

from pathlib import Path

from pairs_at_hand import new_store

from asif_lance.database import CACHES, TABLES, list_erasers
from asif_lance.forgetting.derived_data import ERASERS
from asif_lance.verifier import VERIFIERS


def test_the_registry_names_every_table_of_a_new_database(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    made = {path.stem for path in Path(store.uri).glob("*.lance")}
    assert made == {table.name for table in TABLES}


def test_what_can_hold_content_of_pairs_has_an_eraser_and_a_verifier() -> None:
    for stored in (*TABLES, *CACHES):
        assert (stored.eraser is not None) == stored.holds_content, stored.name
        assert (stored.verifier is not None) == stored.holds_content, stored.name
        assert stored.verifier in {None, *VERIFIERS}, stored.name
    assert set(list_erasers()) == set(ERASERS)


def test_a_table_that_names_pairs_or_holds_vectors_can_hold_content_of_pairs() -> None:
    for table in TABLES:
        names = table.schema(8, 4).names
        assert table.pair_column == ("pair_id" if "pair_id" in names else None), table.name
        if table.pair_column or any(name.endswith("vector") for name in names):
            assert table.holds_content, table.name


def test_a_table_with_rows_of_runs_says_by_which_column() -> None:
    for table in TABLES:
        columns = [c for c in ("run_id", "prediction_id") if c in table.schema(8, 4).names]
        assert table.run_column in (columns or [None]), table.name
