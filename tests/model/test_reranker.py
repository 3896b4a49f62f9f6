"""Plain LanceDB on our own pairs: it embeds texts itself, and a model orders what it finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lancedb
import pytest
from lancedb.index import FTS
from PIL import Image, ImageDraw

import asif_lance
from asif_lance.errors import InputError

COLOURS = ("red", "green", "blue", "yellow", "black")
TEXT = "The colour red, and a black bar."

pytestmark = pytest.mark.encoders


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pairs that the packaged encoders embedded."""
    folder = tmp_path_factory.mktemp("lancedb")
    (folder / "photos").mkdir()
    for colour in COLOURS:
        for other in ("white", "grey"):
            image = Image.new("RGB", (64, 64), colour)
            ImageDraw.Draw(image).rectangle((0, 0, 20, 64), other)
            image.save(folder / "photos" / f"{colour}-{other}.png")
            text = f"The colour {colour}, and a {other} bar."
            (folder / "photos" / f"{colour}-{other}.txt").write_text(text)
    asif_lance.ingest_sources(folder / "pairs", [folder / "photos"])
    table = lancedb.connect(folder / "pairs").open_table("pairs")
    table.create_index("caption", config=FTS())
    return folder / "pairs"


def test_lancedb_embeds_what_it_is_asked_once_the_encoders_are_imported(db: Path) -> None:
    import asif_lance.encoders

    assert asif_lance.encoders.DEFAULT_TEXT
    table = lancedb.connect(db).open_table("pairs")
    texts = table.search("The colour red, and a grey bar.", vector_column_name="text_vector")
    assert texts.limit(1).to_list()[0]["caption"] == "The colour red, and a grey bar."
    picture = Image.open(db.parent / "photos" / "blue-white.png")
    images = table.search(picture, vector_column_name="image_vector")
    assert images.limit(1).to_list()[0]["image_uri"].endswith("blue-white.png")
    hybrid = table.search("red", query_type="hybrid", vector_column_name="text_vector")
    assert "red" in hybrid.limit(1).to_list()[0]["caption"]


WITHOUT = """
import sys, lancedb, lance, numpy as np
table = lancedb.connect(sys.argv[1]).open_table("pairs")
assert table.count_rows() == len(table.to_pandas()) == len(table.search().to_list()) == 10
table.search(np.ones(384, "f4"), vector_column_name="text_vector").limit(3).to_list()
table.search("red", query_type="fts").limit(3).to_list()
lance.dataset(sys.argv[1] + "/pairs.lance", version="v1").to_table()
table.delete("pair_id = 'nothing'")
try:
    table.search("red", vector_column_name="text_vector").to_list()
except KeyError as error:
    print(error)
"""


def test_without_the_import_all_works_that_needs_no_encoder(db: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(db)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "'asif-timm'\n"


def test_the_reranker_orders_every_kind_of_result_by_the_models_score(db: Path) -> None:
    model = asif_lance.open(db)
    table = lancedb.connect(db).open_table("pairs")
    reranker = asif_lance.AsifReranker(model)
    vector = model.encode_texts([TEXT]).vectors[0]
    searches = [
        table.search(TEXT, query_type="hybrid", vector_column_name="text_vector"),
        table.search(TEXT, query_type="fts"),
        table.search(vector, vector_column_name="text_vector"),
    ]
    expected = {m.pair_id: m.score for m in model.search_text(TEXT, top=10)}
    for search in searches[:2]:
        rows = search.limit(10).rerank(reranker).to_list()
        told = {row["pair_id"]: row["_relevance_score"] for row in rows}
        assert list(told.values()) == sorted(told.values(), reverse=True)
        assert told == pytest.approx({pair_id: expected[pair_id] for pair_id in told}, abs=1e-6)
        assert len(told) == 10
    rows = searches[2].limit(10).rerank(reranker, query_string=TEXT).to_list()
    assert [row["pair_id"] for row in rows] == list(expected)


def test_rows_that_are_no_pairs_of_the_model_come_last(db: Path) -> None:
    model = asif_lance.open(db)
    ids = [match.pair_id for match in model.search_text(TEXT, top=2)]
    scores = model.score_pairs(TEXT, ["unknown", *ids])
    assert scores[0] == 0.0
    assert scores[1] >= scores[2] > 0.0


def test_results_without_ids_are_refused(db: Path) -> None:
    table = lancedb.connect(db).open_table("pairs")
    search = table.search("red", query_type="fts").select(["caption"])
    with pytest.raises(InputError, match="have no column 'pair_id'"):
        search.rerank(asif_lance.AsifReranker(asif_lance.open(db))).to_list()
