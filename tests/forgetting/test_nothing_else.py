"""Forgetting a pair changes nothing but that pair, and whatever brings it back is found."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_at_hand import AGAIN, names, neutral, new_store, pairs

from asif_lance.database import TABLES
from asif_lance.records import Reject
from asif_lance.store.forget import forget, verify_receipt
from asif_lance.store.pair_store import PairStore
from asif_lance.verifier import verify

IMAGE, TEXT = 64, 32
OTHERS = names(0, 12)
FIELDS = ("pair_id", "caption", "image_uri", "source", "license", "mail")


def batch(ids: list[str], **columns: Any) -> pa.Table:
    return pairs(ids, image=IMAGE, text=TEXT, **columns)


def quotes(text: str, value: str) -> bool:
    """As the docs say it: whole words, of which `-`, `.`, `@` and `+` may be part."""
    return (
        re.search(rf"(?<!\w)(?<!\w[-.@+]){re.escape(value)}(?![-.@+]*\w)", text, re.ASCII)
        is not None
    )


words = st.text("abAB12", min_size=1, max_size=4)
texts = st.lists(words, min_size=1, max_size=3).flatmap(
    lambda w: st.sampled_from([" ", "-", "."]).map(lambda mark: mark.join(w))
)
values = texts.filter(lambda text: len(text) > 1)
paths = st.lists(values, min_size=1, max_size=3).map("/".join)
changes = st.sampled_from(
    [lambda t: t + "x", lambda t: "x" + t, lambda t: t[:-1], lambda t: f"{t}-x", lambda t: f"x.{t}"]
)
pair = st.fixed_dictionaries({name: paths if name == "image_uri" else values for name in FIELDS})


def dump(store: PairStore) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, but for counts and times of versions."""
    rows = {t.name: lance.dataset(f"{store.uri}/{t.name}.lance").to_table() for t in TABLES}
    rows["versions"] = rows["versions"].select(["name", "message", "command", "created_at"])
    for name in ("receipts", "sealed_hashes", "digests"):  # of the forgotten pair; of other files
        del rows[name]
    return {name: sorted(table.to_pylist(), key=repr) for name, table in rows.items()}


def append(store: PairStore, table: str, **row: Any) -> None:
    [schema] = [t.schema(IMAGE, TEXT) for t in TABLES if t.name == table]
    full = {field.name: neutral(field) for field in schema} | row
    rows = pa.Table.from_pylist([full], schema=schema)
    lance.write_dataset(rows, f"{store.uri}/{table}.lance", mode="append")


@settings(max_examples=12, deadline=None)
@given(gone=pair, near=st.lists(st.tuples(st.sampled_from(FIELDS), changes), max_size=6))
def test_forgetting_one_pair_changes_nothing_else(
    gone: dict[str, str], near: list[tuple[str, Callable[[str], str]]]
) -> None:
    alike = {change(gone[name]) for name, change in near}
    alike = {text for text in alike if not any(quotes(text, value) for value in gone.values())}
    with TemporaryDirectory() as where:
        store = new_store(Path(where), IMAGE, TEXT)
        store.add(batch(OTHERS, license=["cc"] * len(OTHERS)))
        own = {name: [gone[name]] for name in ("caption", "image_uri", "source", "license")}
        own["attributes"] = [f'{{"mail": "{gone["mail"]}"}}']
        for number, text in enumerate(sorted(alike)):
            store.add(batch([f"other {number} id"], caption=[text], image_uri=[text + ".png"]))
            store.publish(command="ingest", message=f"came with {text}; and more")
            append(store, "predictions", image=f"zoo/{text}/{number}", prediction_id=f"p{number}")
            append(store, "queries", prediction_id=f"p{number}")
            append(store, "attributions", pair_id=text, prediction_id=f"p{number}")
        store.add_rejects("x", [Reject(text, f"{text}/1", f"not {text}") for text in sorted(alike)])
        store.publish(command="ingest")
        before = dump(store)
        store.add(batch([gone["pair_id"]], **own))
        receipt = forget(store, [gone["pair_id"]], reason="asked to")
        assert receipt.clean, receipt.findings
        assert dump(store) == before


# Whatever brings it back

GONE = names(50, 51)[0]
ROW = batch([GONE], caption=["Joe X"], source=["jane-doe-private"], license=["NDA 1980"])
SOUGHT = (GONE, "Joe X", f"photos/{GONE}.jpg", "jane-doe-private", "NDA 1980")
#: Text columns of tables that are not about pairs, but for what users ask with.
COLUMNS = [
    (table.name, field.name)
    for table in TABLES
    for field in table.schema(IMAGE, TEXT)
    if table.name not in ("pairs", "attributions")
    and pa.types.is_string(field.type)
    and field.name not in ("label", "label_set", "templates", "truth")
]


@pytest.fixture(scope="module")
def forgotten(tmp_path_factory: pytest.TempPathFactory) -> tuple[PairStore, str]:
    store = new_store(tmp_path_factory.mktemp("forgotten"), IMAGE, TEXT)
    store.add(pa.concat_tables([batch(OTHERS, license=["cc"] * 12).select(ROW.column_names), ROW]))
    store.publish(command="ingest")
    return store, forget(store, [GONE], reason="asked to").receipt_id


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_text_that_comes_back_is_found(
    forgotten: tuple[PairStore, str], tmp_path: Path, table: str, column: str
) -> None:
    store, receipt = forgotten
    store = replace(store, uri=str(shutil.copytree(store.uri, tmp_path / "copy")))
    assert verify_receipt(store, receipt).verdict == "confirmed"
    for text in SOUGHT if column in ("message", "reason", "source") else SOUGHT[::2]:
        fresh = shutil.copytree(store.uri, tmp_path / f"again {len(text)}")
        append(replace(store, uri=str(fresh)), table, **{column: text})
        report = verify_receipt(replace(store, uri=str(fresh)), receipt)
        assert (report.verdict, bool(report.findings)) == ("refuted", True), text


@pytest.mark.parametrize("table", ["queries", "prompts"])
def test_a_vector_that_comes_back_is_found(
    forgotten: tuple[PairStore, str], tmp_path: Path, table: str
) -> None:
    store, receipt = forgotten
    store = replace(store, uri=str(shutil.copytree(store.uri, tmp_path / "copy")))
    side = "image_vector" if table == "queries" else "text_vector"
    append(store, table, vector=np.asarray(ROW[side][0].as_py(), np.float16).tolist())
    assert verify_receipt(store, receipt).verdict == "refuted"


def test_a_pair_that_comes_back_is_found_in_any_version(
    forgotten: tuple[PairStore, str], tmp_path: Path
) -> None:
    store, receipt = forgotten
    store = replace(store, uri=str(shutil.copytree(store.uri, tmp_path / "copy")))
    changed = ROW.set_column(1, "caption", pa.array(["other words"]))
    added = changed.select(["pair_id", "caption", "image_vector", "text_vector"])
    store.add(added, waiver=AGAIN)
    store.publish(command="ingest", waiver=AGAIN)
    store.delete([GONE])
    store.publish(command="delete")
    assert not pc.any(pc.equal(store.read()["pair_id"], GONE)).as_py()
    assert verify_receipt(store, receipt).verdict == "refuted"
    assert verify(Path(store.uri), receipt).verdict == "undecided"
