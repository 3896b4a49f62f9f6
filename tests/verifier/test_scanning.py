from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pairs_at_hand import names, new_store, pairs

from asif_lance.database import registry
from asif_lance.forgetting import find_keys
from asif_lance.forgetting.content import Content
from asif_lance.store.forget import forget
from asif_lance.store.pair_store import PairStore
from asif_lance.verifier import ContentMatcher, scan, verify, vocabulary

IMAGE, TEXT = 64, 32
[GONE] = names(7, 8)
ROW = pairs([GONE], image=IMAGE, text=TEXT)
CAPTION, URI = ROW["caption"][0].as_py(), ROW["image_uri"][0].as_py()
SOUGHT = Content(b"some salt", ROW)
VECTOR = np.asarray(ROW["image_vector"][0].as_py(), np.float16)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """A database that never had the pair."""
    store = new_store(tmp_path, IMAGE, TEXT)
    ids = [i for i in names(0, 300) if i != GONE]
    store.add(pairs(ids, image=IMAGE, text=TEXT))
    store.publish(command="ingest")
    return store


def found(store: PairStore, matcher: ContentMatcher = SOUGHT) -> set[str]:
    return {hit.file for hit in scan(store.uri, matcher).hits}


Plant = Callable[[Path], object]


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.json", json.dumps({"caption": CAPTION}))


def noisy(path: Path) -> None:
    """The vector as another program rounded it, in float32, among others."""
    near = VECTOR.astype(np.float32) * 3 + np.float32(1e-3)
    rows = np.stack([np.ones(IMAGE, np.float32), near])
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), IMAGE)
    pq.write_table(pa.table({"embedding": column}), path)


BY_ANY_MEANS: dict[str, Plant] = {
    "cache/vectors16.bin": lambda p: p.write_bytes(b"\x07" * 13 + VECTOR.tobytes() + b"\x00" * 9),
    "cache/vectors32.npy": lambda p: np.save(p, VECTOR.astype(np.float32)[None]),
    "cache/vectors.npz": lambda p: np.savez_compressed(p, anchors=np.stack([VECTOR, VECTOR])),
    "labels.json": lambda p: p.write_text(json.dumps({"prompt": CAPTION})),
    "run.log": lambda p: p.write_text(f"2024-01-01 read {URI}, took 3 ms\n"),
    "words.parquet": lambda p: pq.write_table(pa.table({"text": ["x", CAPTION]}), p),
    "nested.parquet": lambda p: pq.write_table(pa.table({"a": [{"b": [CAPTION]}]}), p),
    "copy.zip": zipped,
    "model.pickle": lambda p: p.write_bytes(b"\x80\x04\x95" + GONE.encode() + b"\x94."),
    "state.sqlite": lambda p: p.write_bytes(b"SQLite format 3\x00" + CAPTION.encode()),
}


@pytest.mark.parametrize("file", BY_ANY_MEANS)
def test_content_is_found_wherever_it_lies(store: PairStore, file: str) -> None:
    assert found(store) == set()
    path = Path(store.uri) / file
    path.parent.mkdir(exist_ok=True)
    BY_ANY_MEANS[file](path)
    assert {name.split(":")[0] for name in found(store)} == {file}


BY_FINGERPRINT = sorted(BY_ANY_MEANS.keys() - {"cache/vectors16.bin", "cache/vectors32.npy"} - {
    "cache/vectors.npz", "run.log",
})  # fmt: skip


@pytest.mark.parametrize("file", BY_FINGERPRINT)
def test_fingerprints_find_whole_texts(store: PairStore, file: str) -> None:
    assert found(store, SOUGHT.fingerprints()) == set()
    BY_ANY_MEANS[file](Path(store.uri) / file)
    hits = {name.split(":")[0] for name in found(store, SOUGHT.fingerprints())}
    assert hits == {file}


def test_a_vector_is_known_by_its_direction(store: PairStore) -> None:
    noisy(Path(store.uri) / "export.parquet")
    assert found(store) == {"export.parquet"}


def test_a_vector_in_a_lance_table_is_found_by_its_fingerprint(store: PairStore) -> None:
    column = ROW["image_vector"].combine_chunks()
    lance.write_dataset(pa.table({"v": column}), f"{store.uri}/cache.lance")
    [file] = found(store, SOUGHT.fingerprints())
    assert file.startswith("cache.lance/data/")


def test_rows_that_are_only_soft_deleted_are_found(store: PairStore) -> None:
    store.add(ROW)
    store.delete([GONE])
    assert any("/data/" in file for file in found(store))


@pytest.mark.parametrize("kind", ["IVF_FLAT", "IVF_SQ", "IVF_HNSW_SQ"])
def test_an_index_that_outlives_its_rows_is_found(store: PairStore, kind: str) -> None:
    leave_index(
        store, lambda t: t.create_index("image_vector", kind, metric="cosine", num_partitions=1)
    )
    assert {file.split("/")[1] for file in found(store)} == {"_indices"}


@pytest.mark.parametrize("kind", ["IVF_PQ", "IVF_RQ", "INVERTED"])
def test_codes_and_words_of_rows_that_are_gone_are_doubtful(store: PairStore, kind: str) -> None:
    def build(table: lance.LanceDataset) -> None:
        if kind == "INVERTED":
            table.create_scalar_index("caption", kind)
        else:
            options = {"num_sub_vectors": 8} if kind == "IVF_PQ" else {}
            table.create_index("image_vector", kind, metric="l2", num_partitions=1, **options)

    leave_index(store, build)
    doubtful = scan(store.uri, SOUGHT).doubtful
    assert {hit.where for hit in doubtful} == {"codes of rows that no state has"}
    assert all("/_indices/" in hit.file for hit in doubtful)


def test_values_of_a_scalar_index_are_found(store: PairStore) -> None:
    leave_index(store, lambda table: table.create_scalar_index("caption", "BTREE"))
    assert any(file.endswith("page_data.lance") for file in found(store))


def leave_index(store: PairStore, build: Callable[[lance.LanceDataset], object]) -> None:
    """Indexes a fragment with the pair and then lets all of the pair but the index go."""
    store.add(ROW)
    path = f"{store.uri}/pairs.lance"
    build(lance.dataset(path))
    kept = {p: p.read_bytes() for p in Path(path).rglob("_indices/**/*") if p.is_file()}
    store.rollback("v1")
    table = lance.dataset(path)
    table.tags.update("v1", table.version)
    table.tags.update("latest", table.version)
    table.cleanup_old_versions(
        older_than=__import__("datetime").timedelta(0), delete_unverified=True
    )
    for file, data in kept.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def test_what_a_pair_that_stays_has_too_is_shared(store: PairStore) -> None:
    twin = ROW.set_column(0, "pair_id", pa.array(["its twin"]))
    store.add(twin.set_column(1, "caption", pa.array(["words of its own"])))
    (Path(store.uri) / "cache.bin").write_bytes(VECTOR.tobytes())
    report = scan(store.uri, SOUGHT)
    assert report.hits == ()
    assert len(report.held) == 4  # picture, source, and both vectors


def test_a_file_that_cannot_be_read_is_doubtful(store: PairStore) -> None:
    data = next((Path(store.uri) / "pairs.lance" / "data").iterdir())
    (data.parent / "torn.lance").write_bytes(data.read_bytes()[:1000])
    [hit] = scan(store.uri, SOUGHT).doubtful
    assert hit.file == "pairs.lance/data/torn.lance"
    assert hit.where.startswith("unreadable: ")


@pytest.mark.parametrize("folder", [GONE, f"a/{GONE}", f"a/{GONE}/b", f"{GONE}.lance"])
def test_a_folder_is_known_by_its_name_even_if_it_is_empty(store: PairStore, folder: str) -> None:
    Path(store.uri, folder).mkdir(parents=True)
    for matcher in (SOUGHT, SOUGHT.fingerprints()):
        assert folder in found(store, matcher)


def test_words_that_users_ask_about_are_their_own(store: PairStore) -> None:
    rows = pa.table({"label": [CAPTION], "truth": [CAPTION], "score": [0.5]})
    lance.write_dataset(rows, f"{store.uri}/answers.lance")
    assert found(store) == set()


def test_a_report_says_how_much_was_read(store: PairStore) -> None:
    report = scan(store.uri, SOUGHT)
    files = [path for path in Path(store.uri).rglob("*") if path.is_file()]
    assert (report.files, report.bytes) == (len(files), sum(f.stat().st_size for f in files))


# Words that the files themselves are made of

OWN = ["string", "model", "image", "source", "caption", "pairs", "int64", "fixed_size_list"]
OWN += ["paper", "latest", "image_vector", "float", "pair", "version", "payload", "forget"]
IDS = [*("pairs", "data", "v1", "manifest", "_indices"), *names(500, 495 + len(OWN))]
ORDINARY = Content(b"some salt", pairs(IDS, image=IMAGE, text=TEXT, caption=OWN))


def test_forgetting_ordinary_words_leaves_clean_receipts(tmp_path: Path) -> None:
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(ORDINARY.rows)
    store.add(pairs(names(100, 400), image=IMAGE, text=TEXT))
    lance.dataset(f"{store.uri}/pairs.lance").create_index(
        "image_vector", "IVF_FLAT", metric="cosine", num_partitions=1
    )
    store.publish(command="ingest")
    receipt = forget(store, IDS, reason="asked to")
    assert (receipt.findings, receipt.clean) == ((), True)
    keys = find_keys()
    assert keys is not None
    public = [keys.signer.public_key]
    report = verify(Path(store.uri), receipt.receipt_id, key=keys.fingerprint, public_keys=public)
    assert (report.findings, report.verdict) == ((), "confirmed")


@pytest.mark.parametrize("word", OWN)
def test_an_ordinary_word_is_found_where_neither_lance_nor_the_program_wrote_it(
    store: PairStore, word: str
) -> None:
    for matcher in (ORDINARY, ORDINARY.fingerprints()):
        assert found(store, matcher) == set()
    root = Path(store.uri)
    (root / "notes.txt").write_text(f"first\n{word}\nlast\n")
    (root / "pairs.lance" / "notes.bin").write_bytes(b"\x00\x01" + word.encode() + b"\x00\xff")
    lance.write_dataset(pa.table({"text": ["other", word]}), str(root / "copy.lance"))
    store.add(pairs(names(600, 601), image=IMAGE, text=TEXT))
    store.publish(command="ingest", message=f"without {word!r}, as asked")
    for matcher in (ORDINARY, ORDINARY.fingerprints()):
        places = {file.split("/data/")[0] for file in found(store, matcher)}
        assert places == {"notes.txt", "pairs.lance/notes.bin", "copy.lance", "versions.lance"}


def test_a_column_of_a_table_that_is_not_ours_may_be_named_by_a_pair(store: PairStore) -> None:
    lance.write_dataset(pa.table({GONE: [1]}), f"{store.uri}/wide.lance")
    assert {file.split("/")[0] for file in found(store)} == {"wide.lance"}


def test_the_verifier_knows_which_places_the_program_names() -> None:
    assert {table.name for table in registry.TABLES} == vocabulary.TABLES
    assert {cache.name for cache in registry.CACHES} == vocabulary.CACHES
