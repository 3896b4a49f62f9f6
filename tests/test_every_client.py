"""Who may hand over pictures and work on pairs, and what each can do: docs/clients-tested.md."""

from __future__ import annotations

import inspect
import io
import pickle
import re
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from lancedb.index import FTS
from PIL import Image
from torch.utils.data import DataLoader

import asif_lance
from asif_lance.errors import ImageError
from asif_lance.model import Model

pytestmark = pytest.mark.encoders

PAGE = Path(__file__).parents[1] / "docs" / "clients-tested.md"
LABELS = ["red", "blue"]


@dataclass
class Place:
    """A folder with pictures of two colours, a database of them, and its model."""

    folder: Path
    model: Model

    @property
    def red(self) -> Path:
        return self.folder / "red.png"

    @property
    def pixels(self) -> np.ndarray:
        return np.asarray(Image.open(self.red))

    @property
    def uri(self) -> str:
        return self.model.store.uri

    @property
    def pairs(self) -> Any:
        return lancedb.connect(self.uri).open_table("pairs")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for colour in LABELS:
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{colour}.png")
        (tmp_path / f"{colour}.txt").write_text(f"The colour {colour}.")
    asif_lance.ingest_sources(tmp_path / "db", [tmp_path])
    return Place(tmp_path, asif_lance.open(tmp_path / "db"))


# Pictures: each is given to `classify`. The outcome is how many it is, all red; or why it is none.


def in_a_zip(place: Place) -> Any:
    with zipfile.ZipFile(place.folder / "a.zip", "w") as archive:
        archive.write(place.red, "red.png")
    return zipfile.ZipFile(place.folder / "a.zip").open("red.png")


def normalised(place: Place) -> Any:
    return (tensor(place) - 0.5) / 0.25


def tensor(place: Place) -> torch.Tensor:
    return torch.from_numpy(place.pixels.copy()).permute(2, 0, 1).float() / 255


PICTURES: dict[str, tuple[Callable[[Place], Any], str]] = {
    "a path's text": (lambda p: str(p.red), "1"),
    "`Path`": (lambda p: p.red, "1"),
    "a file's address (`file://…`)": (lambda p: p.red.as_uri(), "1"),
    "a list of paths": (lambda p: [p.red, str(p.red)], "2"),
    "a generator": (lambda p: (p.red for _ in range(3)), "3"),
    "`bytes`": (lambda p: p.red.read_bytes(), "1"),
    "`bytearray`": (lambda p: bytearray(p.red.read_bytes()), "1"),
    "`memoryview`": (lambda p: memoryview(p.red.read_bytes()), "1"),
    "a file opened with `rb`": (lambda p: p.red.open("rb"), "1"),
    "`BytesIO`": (lambda p: io.BytesIO(p.red.read_bytes()), "1"),
    "a member of a ZIP archive": (in_a_zip, "1"),
    "`urlopen(address)`": (lambda p: urllib.request.urlopen(p.red.as_uri()), "1"),
    "Pillow's `Image`": (lambda p: Image.open(p.red), "1"),
    "NumPy (height, width, 3), bytes": (lambda p: p.pixels, "1"),
    "NumPy (height, width, 3), floats": (lambda p: p.pixels / 255, "1"),
    "NumPy, a batch of those": (lambda p: np.stack([p.pixels] * 4), "4"),
    "PyTorch (3, height, width), bytes": (lambda p: (tensor(p) * 255).byte(), "1"),
    "PyTorch (3, height, width), floats": (tensor, "1"),
    "PyTorch, a batch of those": (lambda p: torch.stack([tensor(p)] * 4), "4"),
    "a `DataLoader` of pictures and labels": (
        lambda p: DataLoader([(tensor(p), 0)] * 5, batch_size=2),
        "5",
    ),
    "a Hugging Face row with a Pillow image": (lambda p: {"image": Image.open(p.red)}, "1"),
    "a Hugging Face row with bytes": (
        lambda p: {"image": {"bytes": p.red.read_bytes(), "path": "red.png"}},
        "1",
    ),
    "a column of polars or pandas with paths": (lambda p: pl.Series([str(p.red)] * 2), "2"),
    "a column of Arrow with bytes": (lambda p: pa.array([p.red.read_bytes()] * 2), "2"),
    "rows of a polars frame with paths": (
        lambda p: pl.DataFrame({"image": [str(p.red)]}).iter_rows(named=True),
        "1",
    ),
    "an address": (lambda p: "https://example.org/red.png", "addresses are not fetched: …"),
    "a file opened as text": (lambda p: p.red.open(), "the file is opened as text: …"),
    "PyTorch (height, width, 3)": (
        lambda p: tensor(p).permute(1, 2, 0),
        "shape (64, 64, 3): a tensor is (channels, height, width)",
    ),
    "a tensor normalised for another network": (normalised, "numbers from … to …"),
    "a number": (lambda p: [5], "int is no picture"),
}


# Clients: each does something with the pairs. The outcome is what it gives, or what it raises.


def alone(place: Place, code: str) -> str:
    """Plain LanceDB, in a process that has never imported us."""
    head = "import sys, lancedb, numpy as np\npairs = lancedb.connect(sys.argv[1])"
    script = f"{head}.open_table('pairs')\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script, place.uri], capture_output=True, text=True, cwd=place.folder
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def copied(place: Place) -> Any:
    """A row as the table has it, under another id, to be added."""
    row = place.pairs.search().limit(1).to_arrow()
    return row.set_column(0, row.schema.field("pair_id"), [["by hand"]])


def add_an_arrow_table(place: Place) -> Any:
    place.pairs.add(copied(place).cast(place.pairs.schema))
    return place.model.store.publish(command="publish").name


def append_with_pylance(place: Place) -> Any:
    lance.write_dataset(
        copied(place).cast(place.pairs.schema), f"{place.uri}/pairs.lance", mode="append"
    )
    return place.model.store.publish(command="publish").name


def delete_a_row(place: Place) -> Any:
    place.pairs.delete("caption = 'The colour blue.'")
    return place.model.store.publish(command="publish").pairs


def hybrid(place: Place) -> Any:
    place.pairs.create_index("caption", config=FTS())
    asked = place.pairs.search("red", query_type="hybrid", vector_column_name="text_vector")
    return asked.limit(1).rerank(asif_lance.AsifReranker(place.model)).to_list()[0]["caption"]


def without_vectors(place: Place) -> Any:
    return lance.dataset(f"{place.uri}/pairs.lance").to_table(columns=["caption"])


def with_duckdb(rows: Any) -> Any:
    duckdb = pytest.importorskip("duckdb")
    assert rows is not None  # DuckDB finds it by its name
    return duckdb.sql("SELECT count(*) FROM rows").fetchall()[0][0]


def in_threads(place: Place) -> Any:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, place.model, place.red) for _ in range(8)]
    return ", ".join({one.result() for one in asked})


def ask(model: Model, picture: Path) -> str:
    return next(model.classify(picture, LABELS)).label


def with_joblib(place: Place) -> Any:
    from joblib import Parallel, delayed

    return Parallel(n_jobs=2)(delayed(ask)(place.model, place.red) for _ in range(2))[1]


def with_sklearn(place: Place) -> Any:
    pytest.importorskip("sklearn", reason="needs the extra sklearn")
    taught = asif_lance.AsifClassifier(place.model)
    taught.fit([place.red, place.folder / "blue.png"], ["warm", "cold"])
    return taught.predict([place.red])[0]


def with_clip_benchmark(place: Place) -> Any:
    from_library = pytest.importorskip(
        "clip_benchmark.metrics.zeroshot_classification", reason="needs clip_benchmark"
    )
    model = place.model
    build = from_library.zero_shot_classifier
    weights = build(model, model.tokenizer, LABELS, ["the colour {c}."], "cpu", amp=False)
    features = model.encode_image(model.preprocess(place.red)[None])
    return LABELS[int((features @ weights).argmax())]


TEXT = {"vector_column_name": "text_vector"}
CLIENTS: list[tuple[str, str, Callable[[Place], Any], str]] = [
    (
        "LanceDB with our encoders imported",
        "asks with a text",
        lambda p: p.pairs.search("something red", **TEXT).limit(1).to_list()[0]["caption"],
        "The colour red.",
    ),
    (
        "",
        "asks with a picture",
        lambda p: (
            p.pairs.search(Image.open(p.red), vector_column_name="image_vector")
            .limit(1)
            .to_list()[0]["caption"]
        ),
        "The colour red.",
    ),
    ("", "searches with text and vector, ordered by `AsifReranker`", hybrid, "The colour red."),
    ("", "adds an Arrow table, and `publish` makes a version", add_an_arrow_table, "v2"),
    (
        "",
        "adds a list of dictionaries",
        lambda p: p.pairs.add(copied(p).to_pylist()),
        "…pair_id…",
    ),
    ("", "deletes, and `publish` makes a version of the rest", delete_a_row, "1"),
    (
        "LanceDB alone",
        "counts and filters",
        lambda p: alone(p, "print(pairs.count_rows(\"caption LIKE '%red%'\"))"),
        "1",
    ),
    (
        "",
        "searches with a vector of its own",
        lambda p: alone(
            p,
            "print(len(pairs.search(np.ones(384), vector_column_name='text_vector').to_list()))",
        ),
        "2",
    ),
    (
        "",
        "asks with a text",
        lambda p: alone(p, "pairs.search('red', vector_column_name='text_vector')"),
        "KeyError: 'asif-…'",
    ),
    (
        "pylance",
        "reads a version by its name",
        lambda p: lance.dataset(f"{p.uri}/pairs.lance", version="v1").count_rows(),
        "2",
    ),
    ("", "appends, and `publish` makes a version", append_with_pylance, "v2"),
    ("polars", "reads all of it", lambda p: len(p.pairs.to_polars().collect()), "2"),
    ("pandas", "reads all of it", lambda p: len(p.pairs.to_pandas()), "2"),
    (
        "DuckDB",
        "reads all of it",
        lambda p: with_duckdb(lance.dataset(f"{p.uri}/pairs.lance")),
        "…Unsupported Internal Arrow Type…",
    ),
    ("", "reads columns without vectors", lambda p: with_duckdb(without_vectors(p)), "2"),
    (
        "`asif-lance audit`",
        "SQL over all but the vectors",
        lambda p: command(p, "audit", "SELECT count(*) AS n FROM pairs", "--format", "json"),
        '{"n":2}',
    ),
    ("threads", "classify with one model", in_threads, "red"),
    ("joblib's processes", "classify with one model", with_joblib, "red"),
    (
        "`pickle`",
        "carries a model, as its address, version and recipe",
        lambda p: ask(pickle.loads(pickle.dumps(p.model)), p.red),
        "red",
    ),
    ("scikit-learn", "`fit` and `predict` on pictures", with_sklearn, "warm"),
    ("CLIP_benchmark", "its zero-shot classification", with_clip_benchmark, "red"),
]


def command(place: Place, *arguments: str) -> str:
    main = "import sys; from asif_lance.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", main, "--db", place.uri, *arguments], capture_output=True, text=True
    )
    return done.stdout.strip().replace(" ", "")


def matches(pattern: str, text: str) -> bool:
    """Whether a text is as the pattern says, where … stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), text, re.S) is not None


@pytest.mark.parametrize(("make", "outcome"), PICTURES.values(), ids=list(PICTURES))
def test_pictures_of_this_kind_are_seen_or_told(
    make: Callable[[Place], Any], outcome: str, place: Place
) -> None:
    rejects: list[Any] = []
    found = list(place.model.classify(make(place), LABELS, rejects=rejects))
    assert {one.label for one in found} <= {"red"}
    told = rejects[0].reason if rejects else str(len(found))
    assert matches(outcome, told), told
    if rejects:
        with pytest.raises(ImageError):
            list(place.model.classify(make(place), LABELS))


@pytest.mark.parametrize(
    ("does", "outcome"),
    [case[2:] for case in CLIENTS],
    ids=[f"{case[0]} {case[1]}".strip() for case in CLIENTS],
)
def test_this_client_does_so_or_says_why_not(
    does: Callable[[Place], Any], outcome: str, place: Place
) -> None:
    import asif_lance.encoders

    assert inspect.ismodule(asif_lance.encoders)
    try:
        told = str(does(place))
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    assert matches(outcome, told), told


def as_page() -> str:
    """Both tables as docs/clients-tested.md has them."""
    lines = [
        "# Pictures and clients as tested",
        "",
        "Written by `python tests/test_every_client.py`, which does each of these. `…` stands for",
        "details.",
        "",
        "## Pictures in a program's hands",
        "What `classify` makes of one: how many pictures it saw, or why it is none; that costs",
        "only this one where `rejects=` is given.",
        "",
        "| given | pictures |",
        "| --- | --- |",
        *(f"| {given} | {outcome} |" for given, (_, outcome) in PICTURES.items()),
        "",
        "## Clients of the pairs",
        "What each gives, on a database of two pictures, or what it raises.",
        "",
        "| client | does | gives |",
        "| --- | --- | --- |",
        *(f"| {client} | {does} | {told(outcome)} |" for client, does, _, outcome in CLIENTS),
        "",
    ]
    return "\n".join(lines)


def told(outcome: str) -> str:
    return f"`{outcome}`" if re.search(r"[{…]", outcome) else outcome


def test_the_page_of_what_is_tested_is_these_tables() -> None:
    assert PAGE.read_text() == as_page(), "write it anew: python tests/test_every_client.py"


if __name__ == "__main__":
    PAGE.write_text(as_page())
