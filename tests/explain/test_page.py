"""The page of one prediction: complete, self-contained, and harmless whatever captions say."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, Cli, pairs_frame
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import asif_lance
from asif_lance.errors import ImageError, InputError
from asif_lance.explain.content import Explanation, ShownLabel, describe_prediction
from asif_lance.explain.page import explain_page
from asif_lance.explain.plot import draw_pairs, plot_svg
from asif_lance.explain.png import explain_png
from asif_lance.model.predictions import Prediction

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></svg><script>alert(2)</script>",
    "{{ 7 * 7 }}{% include 'x' %}",
    "javascript:alert(3)",
    "\u202egnp.exe\x1b[31m\x07",
    "' onmouseover='alert(4)",
    "&lt;b&gt;<iframe src='http://evil.example'></iframe>",
]
WRITTEN = "adds {:.4f}; similarity of the images {:.3f}, of caption and label {:.3f}"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """Elements, attributes and text of a page, as a browser would take them apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def words(self) -> str:
        """The text with every run of spaces as one."""
        return " ".join(self.text.split())


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (800, 600), "teal").save(path)
    return path


@pytest.fixture
def prediction(cli: Cli, tmp_path: Path, picture: Path) -> Prediction:
    """Eight pairs with hostile captions, half of them with a picture that can be shown."""
    rng = np.random.default_rng(3)
    frame = pairs_frame(8, rng).with_columns(
        caption=pl.Series(HOSTILE),
        source=pl.lit("<b>source</b>"),
        image_vector=rng.random((8, IMAGE_DIM)).astype(np.float32),  # all alike: all pairs count
        text_vector=rng.random((8, TEXT_DIM)).astype(np.float32),
        image_uri=pl.Series([str(picture), "/nowhere.png", "http://a.example/x.png", ""] * 2),
    )
    frame.write_parquet(tmp_path / "pairs.parquet")
    assert cli("--db", "t.lancedb", "ingest", "pairs.parquet").status == 0
    model = asif_lance.open(tmp_path / "t.lancedb", recipe="paper", p=1)
    vectors = {name: rng.random((2, TEXT_DIM)) for name in ("<i>one</i>", "two")}
    labels = model.label_vectors({n: v.astype(np.float32) for n, v in vectors.items()})
    query = rng.random((1, IMAGE_DIM)).astype(np.float32)
    (found,) = model.classify_vectors(["<u>photo</u>.png"], query, labels)
    return found


def test_the_page_shows_both_labels_their_pairs_and_every_number(
    prediction: Prediction, picture: Path
) -> None:
    page = Page(explain_page(prediction, picture, pairs=3))
    for label, score in prediction.ranking[:2]:
        assert label in page.text
        assert f"{score:.4f}" in page.text
        for pair in prediction.attributions(3, label):
            similar = (
                f"{pair.image_similarity:.3f}, of caption and label {pair.text_similarity:.3f}"
            )
            assert f"adds {pair.contribution:.4f}; similarity of the images {similar}" in page.words
    marks = sum(len(prediction.attributions(200, label)) for label, _ in prediction.ranking[:2])
    assert page.tags.count("a") == marks
    assert page.tags.count("title") == marks + 1  # the page's own, too
    assert "target" not in dict(page.attributes)
    targets = [value[1:] for name, value in page.attributes if name == "xlink:href"]
    entries = [value for name, value in page.attributes if name == "id"]
    assert sum(target in entries for target in targets if target.startswith("pair-")) == marks
    for caption in HOSTILE[:5]:  # for both labels, in the lists and as titles of the marks
        assert page.text.count(caption) == 4


def test_the_contributions_that_are_listed_add_up_as_they_are_written(
    prediction: Prediction, picture: Path
) -> None:
    words = Page(explain_page(prediction, picture, pairs=5)).words
    for label in words.split("Pairs that say")[1:]:
        listed = [float(adds) for adds in re.findall(r"adds (0\.\d{4});", label)]
        (total,) = re.findall(r"add up to (0\.\d{4}) of its score", label)
        assert len(listed) == 5
        assert sum(listed) == pytest.approx(float(total), abs=1e-9)


def test_hostile_captions_and_names_stay_text(prediction: Prediction, picture: Path) -> None:
    html = explain_page(prediction, picture, pairs=8)
    page = Page(html)
    known = {"html", "head", "meta", "title", "style", "body", "header", "main", "section"}
    known |= {"article", "div", "img", "h1", "h2", "p", "br", "table", "tr", "td", "span"}
    known |= {"b", "details", "summary", "rect"}
    assert set(page.tags) <= known | {"svg", "g", "defs", "path", "use", "text", "a", "clippath"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<u>photo</u>.png" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search("[\u202e\x1b\x07]", html)


def test_the_page_loads_nothing(prediction: Prediction, picture: Path) -> None:
    page = Page(explain_page(prediction, picture))
    links = [value for name, value in page.attributes if name in {"src", "href", "srcset"}]
    assert links
    assert all(value.startswith("data:image/jpeg;base64,") for value in links)
    linked = [value for name, value in page.attributes if name.endswith(":href")]
    assert all(value.startswith("#") for value in linked)
    (policy,) = [value for name, value in page.attributes if value.startswith("default-src")]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_real_browser_runs_nothing_of_it(
    prediction: Prediction, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text(explain_page(prediction, picture), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    page = Page(done.stdout)
    assert "script" not in page.tags
    assert "iframe" not in page.tags
    assert page.tags.count("article") == 2


def explanation(prediction: Prediction, picture: Path) -> Explanation:
    return describe_prediction(prediction, picture, pairs=3)


def test_the_area_of_a_mark_is_what_its_pair_adds(prediction: Prediction, picture: Path) -> None:
    axes = Figure().subplots()
    labels = explanation(prediction, picture).labels
    draw_pairs(axes, labels)
    drawn = [collection for collection in axes.collections if len(collection.get_offsets())]
    for collection, (label, _) in zip(drawn, prediction.ranking[:2], strict=True):
        pairs = prediction.attributions(200, label)
        places = [(pair.image_similarity, pair.text_similarity) for pair in pairs]
        assert collection.get_offsets().tolist() == [pytest.approx(place) for place in places]
        areas = collection.get_sizes() - 4
        added = np.array([pair.contribution for pair in pairs])
        assert areas / areas[0] == pytest.approx(added / added[0])
    numbers = [text.get_text() for text in axes.texts]
    assert numbers == [str(number) for number in range(1, 7)]
    listed = [pair.number for label in labels for pair in label.pairs]
    assert numbers == [str(number) for number in listed]


def test_the_plot_is_the_same_at_every_call(prediction: Prediction, picture: Path) -> None:
    labels = explanation(prediction, picture).labels
    assert plot_svg(labels) == plot_svg(labels)


def test_an_empty_plot_has_axes() -> None:
    svg = Page(plot_svg([ShownLabel("one", 0.0, (), ()), ShownLabel("$two", 0.0, (), ())]))
    assert "similarity of the images" in svg.text
    assert "$two" in svg.text
    assert "a" not in svg.tags


def test_what_cannot_be_explained_is_an_error(prediction: Prediction, picture: Path) -> None:
    with pytest.raises(ImageError, match="missing file"):
        explain_page(prediction, Path("nowhere.png"))
    with pytest.raises(InputError, match="n must be at least 1"):
        explain_page(prediction, picture, pairs=0)
    with pytest.raises(InputError, match="a page takes one picture"):
        explain_page(prediction, [picture, picture])
    with pytest.raises(InputError, match="prediction: give a prediction of `classify`, not list"):
        explain_page([prediction], picture)


def test_a_page_takes_the_picture_in_every_way_that_classify_does(
    prediction: Prediction, picture: Path
) -> None:
    page = explain_page(prediction, picture)
    held = Image.open(picture).copy()
    with picture.open("rb") as opened:
        given = [str(picture), picture.read_bytes(), held, opened]
        assert [explain_page(prediction, one) for one in given] == [page] * len(given)
    assert held.size == Image.open(picture).size


def test_the_png_shows_it_whatever_captions_say(
    prediction: Prediction, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    drawn = Figure.savefig

    def noted(self: Figure, *given: object, **how: object) -> None:
        found = self.findobj(Text)
        texts.extend(text.get_text() for text in found)
        theirs = [text for text in found if "$" in text.get_text()]
        assert not any(text.get_parse_math() for text in theirs)
        drawn(self, *given, **how)

    monkeypatch.setattr(Figure, "savefig", noted)
    long = replace(prediction, image="$\\frac{1}{0$" + "x" * 500)
    image = Image.open(BytesIO(explain_png(long, picture, pairs=8)))
    assert image.format == "PNG"
    assert min(image.size) > 1000
    together = "\n".join(texts)
    assert not re.search("[\u202e\x1b\x07]", together)
    assert "{{ 7 * 7 }}" in together
    assert f"{prediction.score:.4f}" in together
    assert max(map(len, texts)) < 130
    with pytest.raises(ImageError, match="missing file"):
        explain_png(prediction, Path("nowhere.png"))


@pytest.mark.encoders
def test_the_command_writes_the_page(cli: Cli, tmp_path: Path, picture: Path) -> None:
    (tmp_path / "picture.txt").write_text("a teal rectangle")
    assert cli("--db", "t.lancedb", "ingest", ".").status == 0
    asked = ("--db", "t.lancedb", "explain", "picture.png", "--recipe", "paper")
    done = cli(*asked, "--labels", "teal,pink", "-o", "why.html")
    assert done.status == 0
    assert done.err.startswith("why.html: picture.png is '")
    assert "a teal rectangle" in (tmp_path / "why.html").read_text(encoding="utf-8")
    assert cli(*asked, "--labels", "teal,pink", "-o", "why.png").status == 0
    assert Image.open(tmp_path / "why.png").format == "PNG"
    assert cli(*asked).status == 2
    missing = cli("--db", "t.lancedb", "explain", "nowhere.png", "--labels", "a,b")
    assert missing.status == 2
    assert "'nowhere.png' does not exist" in missing.err
