"""A bill counts what a version has, and is valid in every format, whatever names hold."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import mlcroissant
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_at_hand import names, new_store, pairs

from asif_lance.bill import Bill, SourceCount, bill_page, make_bill, to_croissant, to_cyclonedx
from asif_lance.encoders import EncoderCard
from asif_lance.forgetting import Waiver
from asif_lance.records import Reject
from asif_lance.store import PairStore
from asif_lance.store.forget import forget

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "a\u202eb\x00\x1b[31m\n",
    "@id",
    "",
)


def add(
    store: PairStore,
    ids: Sequence[str],
    sources: Sequence[str | None],
    licenses: Sequence[str | None],
    pictures: Sequence[str | None] | None = None,
) -> None:
    columns = {
        "source": pa.array(sources, pa.string()),
        "license": pa.array(licenses, pa.string()),
        "image_sha256": pa.array(pictures or [None] * len(ids), pa.string()),
    }
    store.add(pairs(ids, **columns))
    store.publish(command="ingest")


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path)
    add(
        store,
        names(0, 6),
        ["web", "web", "web", "shop", "shop", None],
        ["CC BY 4.0", "cc-by-4.0", "cc-by-4.0", "CC BY", None, ""],
        ["aa", "bb", "bb", None, None, None],
    )
    return store


def check_formats(bill: Bill) -> None:
    """Both formats are valid, and say what the bill says."""
    bom = to_cyclonedx(bill)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom) is None
    [table] = [part for part in json.loads(bom)["components"] if part["type"] == "data"]
    data = {part["bom-ref"]: part for part in table.get("components", [])}
    assert [data[f"source-{i}"]["name"] for i in range(1, len(bill.sources) + 1)] == [
        one.source or "no source stated" for one in bill.sources
    ]
    dataset = mlcroissant.Dataset(jsonld=json.loads(to_croissant(bill)))
    assert not dataset.metadata.issues.errors
    if not bill.sources:
        return
    told = [{k.split("/")[1]: v for k, v in row.items()} for row in dataset.records("sources")]
    assert [SourceCount(**row) for row in told] == list(bill.sources)


class Tags(HTMLParser):
    """The elements of a page and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_pairs_are_counted_by_source_and_licence(store: PairStore) -> None:
    bill = make_bill(store)
    assert bill.sources == (
        SourceCount("web", "cc-by-4.0", "CC-BY-4.0", 2, 1),
        SourceCount("", "", "", 1, 0),
        SourceCount("shop", "", "", 1, 0),
        SourceCount("shop", "CC BY", "", 1, 0),
        SourceCount("web", "CC BY 4.0", "CC-BY-4.0", 1, 1),
    )
    assert bill.licenses == (("CC-BY-4.0", 3), ("", 2), ("CC BY", 1))
    assert (bill.database, bill.model, bill.pairs) == ("db", "v1", 6)
    check_formats(bill)


def test_a_bill_is_of_its_version_and_says_what_changed_since_another(store: PairStore) -> None:
    add(store, names(6, 7), ["new"], ["mit"])
    store.delete(names(0, 2))
    store.publish(command="delete")
    store.tag("prod", "v1")
    assert make_bill(store, "prod").pairs == 6
    since = make_bill(store, since="prod").since
    assert since is not None
    assert (since.version, since.added, since.removed, since.changed) == ("v1", 1, 2, 0)
    assert since.sources == (("new", 1, 0, 0), ("web", 0, 2, 0))


def test_an_item_that_was_refused_twice_counts_once(store: PairStore) -> None:
    for ingest in ("first", "again"):
        store.add_rejects(ingest, [Reject("web", "1.jpg", "no caption")])
    store.add_rejects("again", [Reject("web", "2.jpg", "no caption"), Reject("web", "3", "<b>")])
    assert make_bill(store).refused == (("no caption", 2), ("<b>", 1))


def test_what_was_forgotten_is_counted_and_a_redacted_reason_stays_so(store: PairStore) -> None:
    add(store, ["ann-1", "bob"], ["web", "web"], [None, None])
    forget(store, ["bob"], reason="see ann-1")
    forget(store, ["ann-1"], reason="asked by letter")
    bill = make_bill(store)
    assert [(f.pairs, f.clean, f.reason) for f in bill.forgotten] == [
        (1, True, "[forgotten]"),
        (1, True, "asked by letter"),
    ]
    for written in (bill_page(bill), to_cyclonedx(bill), to_croissant(bill)):
        assert "ann-1" not in written


def test_pairs_that_were_flagged_are_counted(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    text = json.dumps({"note": '"rights_reserved": "noai"'})
    flagged = [json.dumps({"rights_reserved": "noai"}), text, None]
    store.add(pairs(names(0, 3), attributes=pa.array(flagged, pa.string())))
    store.publish(command="ingest")
    bill = make_bill(store)
    assert bill.reserved == 1
    assert "The rights of 1 pair are reserved" in bill_page(bill)


def test_pairs_that_came_back_by_a_waiver_are_told(store: PairStore) -> None:
    rows = store.read().filter(pc.field("pair_id") == names(0, 1)[0])
    forget(store, names(0, 1), reason="asked by letter")
    store.add(rows, waiver=Waiver("agreed again", allow_forgotten=True))
    bill = make_bill(store)
    assert [(w.allows, w.pairs, w.reason) for w in bill.let_in] == [
        ("forgotten pairs", 1, "agreed again")
    ]
    assert "agreed again" in bill_page(bill)
    check_formats(bill)


def test_no_caption_id_or_picture_is_in_a_bill(store: PairStore) -> None:
    bill = make_bill(store)
    for written in (bill_page(bill), to_cyclonedx(bill), to_croissant(bill), repr(bill)):
        assert not re.search(r"a caption about|pair-\d|photos/", written)


def test_hostile_names_are_text_in_every_format(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add(store, names(0, len(HOSTILE)), HOSTILE, HOSTILE[::-1])
    store.add_rejects("i", [Reject("web", "1", HOSTILE[0])])
    bill = make_bill(store)
    check_formats(bill)
    page = bill_page(bill)
    assert not {"script", "img", "a"} & Tags(page).names
    assert not {a for a in Tags(page).attributes if a.startswith("on") or a in ("src", "href")}
    assert "{{ 7 * 7 }}" in page
    assert "\u202e" not in page


NAMES = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None, max_examples=30)
@given(sources=st.lists(st.builds(SourceCount, NAMES, NAMES, st.just(""), *[st.integers(0)] * 2)))
def test_any_names_give_valid_files(sources: list[SourceCount]) -> None:
    nothing = EncoderCard("vectors", "", 4)
    now = datetime.now(UTC)
    made = Bill(
        "db", "v1", now, now, 1, 0, tuple(sources), (), (nothing, nothing), (), (), (), None
    )
    check_formats(made)


def test_a_version_without_pairs_has_a_bill(store: PairStore) -> None:
    store.delete(names(0, 6))
    store.publish(command="delete")
    bill = make_bill(store)
    assert bill.sources == ()
    assert "0 pairs" in bill_page(bill)
    check_formats(bill)


def test_many_sources_are_counted_on_the_page_and_listed_in_the_files(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    ids = names(0, 300)
    add(store, ids, [f"site {i}" for i in ids], ["mit"] * 300)
    bill = make_bill(store)
    page = bill_page(bill)
    assert "100 further sources" in page
    assert page.count("site pair-") == 200
    check_formats(bill)
