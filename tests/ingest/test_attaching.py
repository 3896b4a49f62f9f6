"""Somebody else's table as a model: in place, unchanged, whatever its columns are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from conftest import Cli

import asif_lance
from asif_lance.audit import Audit
from asif_lance.errors import (
    AttachedDatabaseError,
    DatabaseExistsError,
    DimensionError,
    InputError,
    VersionNotFoundError,
)
from asif_lance.progress import listen
from asif_lance.store import forget

N, IMAGE_DIM, TEXT_DIM = 300, 16, 12
LABELS = {label: np.eye(TEXT_DIM, dtype=np.float32)[i] for i, label in enumerate("abc")}
QUERIES = np.random.default_rng(9).standard_normal((20, IMAGE_DIM)).astype(np.float32)
NAMES = [f"q{i}" for i in range(len(QUERIES))]


def vectors(n: int, width: int, dtype: Any, seed: int) -> pa.FixedSizeListArray:
    rows = np.random.default_rng(seed).standard_normal((n, width)).astype(dtype)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width)


def rows(n: int = N, dtype: Any = np.float32, seed: int = 0, **names: str) -> pa.Table:
    called = {"id": "key", "caption": "words", "image": "clip", "text": "emb"} | names
    return pa.table(
        {
            called["id"]: [f"id {seed}-{i}" for i in range(n)],
            "stars": pa.array(np.arange(n) % 5, pa.int32()),
            called["caption"]: [f"caption {i}" for i in range(n)],
            called["image"]: vectors(n, IMAGE_DIM, dtype, seed),
            called["text"]: vectors(n, TEXT_DIM, dtype, seed + 1),
        }
    )


COLUMNS = {"image_vector": "clip", "text_vector": "emb", "id": "key", "caption": "words"}


@pytest.fixture
def table(tmp_path: Path) -> Any:
    return lancedb.connect(tmp_path / "birds.lancedb").create_table("birds", rows())


def files(table: Any) -> dict[str, bytes]:
    """Every byte of a table."""
    root = Path(table.uri)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def answers(db: str | Path, model: str | None = None) -> list[tuple[Any, ...]]:
    opened = asif_lance.open(db, model)
    labels = opened.label_vectors(LABELS)
    found = opened.classify_vectors(NAMES, QUERIES, labels)
    return [(p.ranking, p.attributions(5)) for p in found]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("named", [{}, {"id": "pair_id", "image": "Bild vektor", "text": "t-v"}])
def test_it_answers_as_a_database_that_ingested_the_same_rows(
    tmp_path: Path, dtype: Any, indexed: bool, named: dict[str, str]
) -> None:
    there = rows(dtype=dtype, **named)
    table = lancedb.connect(tmp_path / "other").create_table("birds", there)
    names = {"id": "key", "caption": "words", "image": "clip", "text": "emb"} | named
    if indexed:
        table.create_scalar_index(names["id"])
        table.create_fts_index(names["caption"])
        if dtype == np.float32:
            table.create_index(
                "cosine", 4, vector_column_name=names["image"], index_type="IVF_FLAT"
            )
    before, version = files(table), table.version
    attached = asif_lance.attach(
        table,
        tmp_path / "a.asif",
        image_vector=names["image"],
        text_vector=names["text"],
        id=names["id"],
        caption=names["caption"],
    )
    assert (attached.pairs, attached.left_out) == (N, {})
    ours = there.rename_columns(["pair_id", "stars", "caption", "image_vector", "text_vector"])
    pl.DataFrame(pl.from_arrow(ours)).write_parquet(tmp_path / "same.parquet")
    asif_lance.ingest_sources(tmp_path / "own", [tmp_path / "same.parquet"])
    assert answers(attached.uri) == answers(tmp_path / "own")
    assert (files(table), table.version) == (before, version)


def test_rows_that_are_no_pairs_are_left_out_and_counted(tmp_path: Path) -> None:
    broken = rows().to_pylist()
    broken[3]["clip"] = None
    broken[4]["emb"] = [0.0] * TEXT_DIM
    broken[5]["key"] = None
    broken[6]["key"] = broken[7]["key"]
    broken[8]["words"] = None
    broken[9]["clip"][2] = float("inf")
    path = str(tmp_path / "broken.lance")
    lance.write_dataset(pa.Table.from_pylist(broken, schema=rows().schema), path)
    attached = asif_lance.attach(path, **COLUMNS)
    assert attached.uri == str(tmp_path / "broken.asif")
    assert attached.pairs == N - 5
    assert attached.left_out == {
        "no id": 1,
        "no image vector": 2,
        "no text vector": 1,
        "an id of an earlier row": 1,
    }
    model = asif_lance.open(attached.uri)
    assert model.anchors.count == N - 5
    assert model.left_out() == attached.left_out
    good = [row for i, row in enumerate(broken) if i not in (3, 4, 5, 7, 9)]
    good[[row["key"] for row in good].index("id 0-8")]["words"] = ""
    lance.write_dataset(pa.Table.from_pylist(good, schema=rows().schema), tmp_path / "good.lance")
    clean = asif_lance.attach(tmp_path / "good.lance", **COLUMNS)
    assert answers(attached.uri) == answers(clean.uri)
    with Audit(model.store) as audit:
        ids = audit.query("SELECT pair_id FROM pairs WHERE stars >= 0")["pair_id"].to_pylist()
    assert sorted(ids) == sorted(row["key"] for row in good)


def test_versions_and_tags_of_the_table_are_the_models(table: Any, tmp_path: Path) -> None:
    table.tags.create("v1", 1)
    table.delete("stars = 0")
    table.add(rows(40, seed=5))
    table.tags.create("prod", 2)
    uri = asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS).uri
    store = asif_lance.open(uri).store
    told = [(v.name, v.pairs, v.added, v.removed, v.aliases) for v in store.versions()]
    assert told == [
        ("1", 300, 300, 0, ("v1",)),
        ("2", 240, 0, 60, ("prod",)),
        ("3", 280, 40, 0, ()),
    ]
    assert answers(uri, "v1") == answers(uri, "1") != answers(uri, "prod") == answers(uri, "2")
    assert asif_lance.open(uri).version.name == "3"
    second = store.version("2")
    assert store.version_as_of(second.created_at).name == "2"
    changes = store.diff("prod").changes
    assert (len(changes.added), len(changes.removed)) == (40, 0)
    table.add(rows(1, seed=7))
    assert asif_lance.open(uri).anchors.count == 281
    with pytest.raises(VersionNotFoundError, match="there are: 1, 2, 3, 4"):
        store.version("v4")


def test_deleted_and_compacted_fragments_give_the_same_answers(table: Any, tmp_path: Path) -> None:
    for seed in (2, 3, 4):
        table.add(rows(50, seed=seed))
    table.delete("stars = 1")
    uri = asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS).uri
    before = answers(uri)
    captions = asif_lance.open(uri).store.read("latest", ["pair_id", "caption"])
    table.to_lance().optimize.compact_files()
    table.to_lance().delete("key = 'none'")
    assert len(asif_lance.open(uri).store.versions()) > 5
    assert answers(uri) == before
    after = asif_lance.open(uri).store.read("latest", ["pair_id", "caption"])
    assert after.sort_by("pair_id") == captions.sort_by("pair_id")


def test_columns_that_come_later_leave_older_versions_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "t.lance")
    lance.write_dataset(rows(50).drop_columns(["emb"]), path)
    added = pa.table({"key": rows(50)["key"], "emb": rows(50)["emb"]})
    lance.dataset(path).merge(added, "key")
    uri = asif_lance.attach(path, **COLUMNS).uri
    assert asif_lance.open(uri).anchors.count == 50
    older = asif_lance.open(uri, "1")
    with pytest.raises(InputError, match=r"version 1 of .* has no 'emb'"):
        len(older.anchors)


def test_vectors_of_another_size_are_told(tmp_path: Path) -> None:
    path = str(tmp_path / "t.lance")
    lance.write_dataset(rows(50), path)
    uri = asif_lance.attach(path, **COLUMNS).uri
    wider = rows(50).set_column(3, "clip", vectors(50, 20, np.float32, 3))
    lance.write_dataset(wider, path, mode="overwrite")
    model = asif_lance.open(uri)
    with pytest.raises(DimensionError, match=r"clip of version 2.*16.*20"):
        len(model.anchors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda store: store.delete(["id 0-1"]), "no `delete` here; delete the rows with LanceDB"),
        (lambda store: store.publish(command="x"), "every version of the table is a model version"),
        (lambda store: store.tag("prod", "1"), "tag the table's version with LanceDB"),
        (lambda store: store.rollback("1"), "restore the version with LanceDB"),
        (lambda store: forget.plan(store, ["id 0-1"]), "its owner's to erase"),
        (lambda store: forget.forget(store, ["id 0-1"], reason="x"), "its owner's to erase"),
        (
            lambda store: asif_lance.ingest_sources(store.uri, ["nowhere.parquet"]),
            "no `ingest` here; add the rows with LanceDB",
        ),
    ],
)
def test_what_would_change_the_table_is_refused_with_the_reason(
    table: Any, tmp_path: Path, change: Any, message: str
) -> None:
    uri = asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS).uri
    before = files(table)
    with pytest.raises(AttachedDatabaseError, match=message):
        change(asif_lance.open(uri).store)
    assert files(table) == before


def test_nothing_of_the_rows_is_kept_beside_the_table(table: Any, tmp_path: Path) -> None:
    uri = asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS).uri
    answers(uri)
    kept = b"".join(p.read_bytes() for p in Path(uri).rglob("*") if p.is_file())
    assert b"id 0-1" not in kept
    assert b"caption 1" not in kept
    assert lance.dataset(f"{uri}/pairs.lance").count_rows() == 0


def test_attaching_again_is_nothing_new_and_other_columns_are_refused(
    table: Any, tmp_path: Path
) -> None:
    first = asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS)
    assert asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS) == first
    with pytest.raises(DatabaseExistsError):
        asif_lance.attach(table, tmp_path / "a.asif", **(COLUMNS | {"caption": "key"}))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_vector": "clip"}, "no column text_vector: name it with --text-vector among key,"),
        (COLUMNS | {"caption": "stars"}, "'stars' of .* holds int32: it cannot be the caption"),
        (COLUMNS | {"image_vector": "words"}, "'words' holds string: vectors are fixed-size lists"),
        (COLUMNS | {"text_vector": "clip"}, "'clip' cannot hold the vectors of both sides"),
        (COLUMNS | {"id": "nothing"}, "has no column 'nothing'; its columns: key, stars"),
    ],
)
def test_columns_that_cannot_be_are_told(
    table: Any, tmp_path: Path, columns: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        asif_lance.attach(table, tmp_path / "a.asif", **columns)
    assert not (tmp_path / "a.asif").exists()


@pytest.mark.parametrize("text", ["asif-sentence-transformers", "sentence-transformers"])
def test_encoders_and_columns_come_from_the_tables_embedding_functions(
    tmp_path: Path, text: str
) -> None:
    told = (
        '[{"name": "asif-timm", "model": {"name": "timm/resnet18"}, "source_column": "photo",'
        ' "vector_column": "clip"}, {"name": "' + text + '", "model": {"name": "all-MiniLM-L6-v2"},'
        ' "source_column": "title", "vector_column": "emb"}]'
    )
    there = rows(caption="title").append_column("photo", pa.array(["a.jpg"] * N))
    there = there.set_column(4, "emb", vectors(N, 384, np.float32, 1))
    path = str(tmp_path / "t.lance")
    lance.write_dataset(there.replace_schema_metadata({"embedding_functions": told}), path)
    found = asif_lance.attach(path)
    assert found.columns == {
        "pair_id": "key",
        "caption": "title",
        "image_uri": "photo",
        "image_vector": "clip",
        "text_vector": "emb",
    }
    assert found.image.name == "timm/resnet18"
    assert found.text.name.endswith("all-MiniLM-L6-v2")


def test_texts_may_be_categories_and_columns_that_do_not_fit_are_told(tmp_path: Path) -> None:
    table = rows()
    for place, name in enumerate(table.column_names):
        if pa.types.is_string(table.schema.field(name).type):
            table = table.set_column(place, name, table[name].dictionary_encode())
    tags = pa.array([["a", "b"]] * N)
    lance.write_dataset(table.append_column("license", tags), tmp_path / "t.lance")
    told: list[str] = []
    with listen(lambda what, done, total: None, told.append):
        found = asif_lance.attach(tmp_path / "t.lance", **COLUMNS)
    assert told == ["the column 'license' holds list<item: string>: it is not read as the license"]
    assert found.unread == {"license": "list<item: string>"}
    assert "license" not in found.columns
    pairs = asif_lance.open(found.uri).store.read(columns=["pair_id", "caption"])
    assert pairs["pair_id"].to_pylist() == table["key"].to_pylist()
    assert pairs["caption"].to_pylist() == table["words"].to_pylist()


def test_a_tag_that_reads_as_another_version_is_no_alias(table: Any, tmp_path: Path) -> None:
    table.add(rows(5, seed=1))
    for tag in ("latest", "2", "first"):
        table.tags.create(tag, 1)
    uri = asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS).uri
    assert [v.aliases for v in asif_lance.PairStore.open(uri).versions()] == [("first",), ()]
    assert [asif_lance.open(uri, name).version.number for name in ("latest", "2")] == [2, 2]


def test_a_column_that_lance_cannot_read_by_its_name_is_told(tmp_path: Path) -> None:
    lance.write_dataset(rows(caption="`words`"), tmp_path / "t.lance")
    with pytest.raises(InputError, match="Lance reads no column whose name has a backtick"):
        asif_lance.attach(tmp_path / "t.lance", **(COLUMNS | {"caption": "`words`"}))


def test_whole_numbers_are_ids_and_pictures_are_shown(tmp_path: Path) -> None:
    there = rows(50).set_column(0, "key", pa.array(range(50), pa.uint16()))
    there = there.append_column("image", pa.array([b"picture"] * 50, pa.large_binary()))
    path = str(tmp_path / "t.lance")
    lance.write_dataset(there, path)
    store = asif_lance.open(asif_lance.attach(path, **COLUMNS).uri).store
    assert store.read("latest", ["pair_id", "thumbnail"]).to_pylist()[7] == {
        "pair_id": "7",
        "thumbnail": b"picture",
    }


def test_what_the_table_does_not_have_is_empty(table: Any, tmp_path: Path) -> None:
    state = asif_lance.open(
        asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS).uri
    ).store.dataset()
    assert state.take([0, 1], ["source"]).to_pylist() == [{"source": None}] * 2
    assert state.to_table(["license"])["license"].null_count == N


def test_a_table_with_stable_row_ids_works(tmp_path: Path) -> None:
    path = str(tmp_path / "t.lance")
    lance.write_dataset(rows(), path, enable_stable_row_ids=True)
    lance.dataset(path).delete("stars = 2")
    uri = asif_lance.attach(path, **COLUMNS).uri
    lance.write_dataset(rows().filter(pa.compute.field("stars") != 2), tmp_path / "same.lance")
    assert answers(uri) == answers(asif_lance.attach(tmp_path / "same.lance", **COLUMNS).uri)


def test_the_tables_vectors_are_read_once(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asif_lance.database import attached_rows

    asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS)
    converted: list[int] = []
    unit_vectors = attached_rows.unit_vectors

    def counted(column: pa.FixedSizeListArray) -> Any:
        converted.append(len(column))
        return unit_vectors(column)

    monkeypatch.setattr(attached_rows, "unit_vectors", counted)
    model = asif_lance.open(tmp_path / "a.asif")
    list(model.classify_vectors(NAMES, QUERIES, model.label_vectors(LABELS)))
    assert sum(converted) == 2 * N
    again = asif_lance.open(tmp_path / "a.asif")
    assert again.left_out() == {}
    assert sum(converted) == 4 * N  # rows are judged anew, vectors stay shared


@pytest.mark.parametrize(
    "command",
    [
        ("index", "build"),
        ("prune", "--keep", "10"),
        ("versions", "prune", "--yes"),
        ("adapt", "pictures", "--labels", "a,b", "--per-class", "1", "--keep"),
    ],
)
def test_what_would_change_the_table_is_refused_before_its_rows_are_looked_at(
    command: tuple[str, ...], table: Any, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asif_lance.database import attached

    asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS)
    (tmp_path / "pictures").mkdir()

    def judged(*_: object) -> None:
        raise AssertionError("its rows were looked at")

    monkeypatch.setattr(attached, "judge_rows", judged)
    done = cli("--db", tmp_path / "a.asif", *command)
    assert done.status == 1
    assert "somebody else's" in done.err or "its owner" in done.err or "LanceDB" in done.err
    assert len(done.err.splitlines()) == 1


def test_an_empty_version_differs_from_others_by_their_pairs(tmp_path: Path, cli: Cli) -> None:
    path = str(tmp_path / "t.lance")
    lance.write_dataset(rows().slice(0, 0), path)
    lance.write_dataset(rows(3), path, mode="append")
    lance.dataset(path).delete("true")
    uri = asif_lance.attach(path, **COLUMNS).uri
    for old, new, added, removed in (
        ("1", "2", 3, 0),
        ("2", "3", 0, 3),
        ("2", "1", 0, 3),
        ("1", "3", 0, 0),
    ):
        done = cli("--db", uri, "diff", old, new)
        told = f"{added} added, {removed} removed, 0 changed\n"
        assert (done.status, done.err) == (0, told)


@pytest.mark.parametrize("kind", [pa.int64(), pa.list_(pa.string())])
def test_captions_of_another_type_are_told_where_nobody_asked_for_them(
    tmp_path: Path, kind: pa.DataType
) -> None:
    there = rows(caption="caption")
    place = there.column_names.index("caption")
    there = there.set_column(place, "caption", pa.nulls(N, kind))
    lance.write_dataset(there, tmp_path / "t.lance")
    columns = {name: there for name, there in COLUMNS.items() if name != "caption"}
    told: list[str] = []
    with listen(lambda what, done, total: None, told.append):
        found = asif_lance.attach(tmp_path / "t.lance", **columns)
    assert told == [f"the column 'caption' holds {kind}: it is not read as the caption"]
    assert found.unread == {"caption": str(kind)}


@pytest.mark.parametrize("place", ["t.lance", "t.lance/inside", "."])
def test_a_database_lies_neither_in_the_table_nor_around_it(tmp_path: Path, place: str) -> None:
    table = lancedb.connect(tmp_path).create_table("t", rows())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="within one another: give the database a folder"):
        asif_lance.attach(table, tmp_path / place, **COLUMNS)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("inside", ["", "pairs.lance"])
def test_an_attached_database_is_no_table_to_attach(
    table: Any, tmp_path: Path, inside: str
) -> None:
    uri = asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS).uri
    with pytest.raises(InputError, match=r"it is attached to .*birds\.lance: attach that table"):
        asif_lance.attach(Path(uri) / inside, tmp_path / "b.asif")
    assert not (tmp_path / "b.asif").exists()


@pytest.mark.encoders
def test_an_encoder_whose_vectors_have_another_length_is_refused(
    table: Any, tmp_path: Path
) -> None:
    for named in ({"image_encoder": "tf_efficientnet_lite0"}, {"text_encoder": "all-MiniLM-L6-v2"}):
        with pytest.raises(DimensionError, match=r"expected (1280|384) dimensions, got (16|12)"):
            asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS, **named)
        assert not (tmp_path / "a.asif").exists()


def test_advice_is_what_can_be_done_with_somebody_elses_table(
    table: Any, tmp_path: Path, cli: Cli, query_file: Path
) -> None:
    uri = asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS).uri
    labels = tmp_path / "labels.parquet"
    pl.DataFrame({"label": list(LABELS), "vector": list(LABELS.values())}).write_parquet(labels)
    pl.DataFrame({"id": NAMES, "vector": QUERIES}).write_parquet(tmp_path / "q.parquet")
    asked = (
        "--db",
        uri,
        "classify",
        "--vectors",
        tmp_path / "q.parquet",
        "--label-vectors",
        labels,
    )
    indexed = cli(*asked, "--search", "index")
    assert indexed.status == 1
    assert "for which no index is built: use --search exact" in indexed.err
    table.delete("true")
    empty = cli(*asked)
    assert empty.status == 1
    assert "ingest" not in empty.err.replace(str(tmp_path), "")
    assert "a version that LanceDB makes of it with such rows is the next model" in empty.err


def test_a_table_that_is_gone_is_told_with_its_whole_path(
    table: Any, tmp_path: Path, cli: Cli
) -> None:
    uri = asif_lance.attach(table, tmp_path / "a.asif", **COLUMNS).uri
    lancedb.connect(tmp_path / "birds.lancedb").drop_table("birds")
    for command in ("info", "versions"):
        done = cli("--db", uri, command)
        gone = f"the table that this database is attached to is gone: {table.uri}"
        assert (done.status, gone in done.err, len(done.err.splitlines())) == (1, True, 1), done.err


@pytest.mark.parametrize("length", [1e300, 1e-310, 1e39, 1e-45])
def test_float64_vectors_of_any_length_have_their_direction(tmp_path: Path, length: float) -> None:
    there = rows(dtype=np.float64)
    lance.write_dataset(there, tmp_path / "usual.lance")
    for name, width in (("clip", IMAGE_DIM), ("emb", TEXT_DIM)):
        numbers = there[name].combine_chunks().flatten().to_numpy() * length
        place = there.column_names.index(name)
        far = pa.FixedSizeListArray.from_arrays(pa.array(numbers), width)
        there = there.set_column(place, name, far)
    lance.write_dataset(there, tmp_path / "far.lance")
    usual, far = (asif_lance.attach(tmp_path / f"{n}.lance", **COLUMNS) for n in ("usual", "far"))
    assert (far.pairs, far.left_out) == (N, {})
    for side in ("image_vector", "text_vector"):
        one, other = (
            np.array(asif_lance.open(a.uri).store.read(columns=[side])[side].to_pylist(), float)
            for a in (usual, far)
        )
        assert np.allclose(one, other, atol=1e-3)
