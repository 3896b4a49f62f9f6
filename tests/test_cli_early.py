"""Wrong arguments are told before any encoder is loaded, and before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli, picture
from pairs_at_hand import names, new_store, pairs

DB = ("--db", "db")


@pytest.fixture
def ready(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A database whose encoders must not be asked for, and four pictures of two classes."""
    store = new_store(tmp_path)
    store.add(pairs(names(0, 30)))
    store.publish(command="ingest")
    for i, label in enumerate(("cat", "dog") * 2):
        picture(tmp_path / "test" / label / f"{i}.png", i)
    picture(tmp_path / "single" / "cat" / "1.png", 1)

    def load(*_: object, **__: object) -> None:
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr("asif_lance.model.model.image_encoder", load)
    monkeypatch.setattr("asif_lance.model.model.text_encoder", load)
    return cli


def test_the_encoders_would_be_asked_for(ready: Cli) -> None:
    with pytest.raises(AssertionError, match="an encoder was loaded"):
        ready(*DB, "evaluate", "test")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("evaluate", "test", "--plot", "x.gif"), "has to end in .png or .svg or .pdf"),
        (("evaluate", "test", "--labels", "cat"), "the class 'dog' is not among the 1 label"),
        (("evaluate", "test", "--with", "db@v1", "--labels", "cat"), "db@v1 is there already"),
        (("evaluate", "test", "--template", "a photo"), "has no {} where the label goes"),
        (("evaluate", "test", "--templates", "none"), "no template set 'none'"),
        (("evaluate", "test", "--labels", "cat,dog,cat"), "'cat'"),
        (("evaluate", "test", "--clip", "no-such-clip"), "no-such-clip"),
        (("tune", "test", "--labels", "dog,bird"), "the class 'cat' is not among the 2 labels"),
        (("tune", "test", "--holdout", "0.999"), "too few to hold out"),
        (("tune", "test", "--try-recipe", "none"), "no recipe 'none'"),
        (("tune", "test", "--try-templates", "none"), "no template set 'none'"),
        (("tune", "test", "--try-ensemble", "none"), "'none' is not one of"),
        (("scaling", "test", "--sizes", "10,31"), "between 1 and the 30 pairs"),
        (("scaling", "test", "--labels", "cat"), "the class 'dog' is not among the 1 label"),
        (("adapt", "single"), "no class has two pictures"),
        (("adapt", "test", "--caption", "a photo"), "has no {} where the label goes"),
        (("adapt", "test", "--keep", "--per-class", "1,2"), "--keep needs one number"),
        (("adapt", "test", "--old", "none"), "does not exist"),
        (("adapt", "test", "--old", "db"), "has no column 'label'"),
        (("explain", "test/cat/0.png"), "give --labels"),
        (("explain", "none.png", "--labels", "a,b"), "does not exist"),
        (("explain", "test/cat/0.png", "--labels", "a,a"), "'a' is given twice"),
        (("explain", "test/cat/0.png", "--labels-file", "none.txt"), "does not exist"),
        (("search", "--image", "none.png"), "does not exist"),
        (("search", "x", "--model", "v1", "--as-of", "2026-01-31"), "give --model or --as-of"),
        (("what-if", "delete", "x", "--images", "test"), "give --labels"),
        (("what-if", "delete", "x", "--images", "test", "--labels", "a,a"), "'a' is given twice"),
        (("what-if", "delete", "x", "--ensemble", "max"), "give --images, or --vectors"),
        (("diff", "v1", "v1", "--images", "test"), "give --labels"),
        (("diff", "v1", "v1", "--images", "test", "--labels", "a,a"), "'a' is given twice"),
        (("diff", "v1", "v1", "--labels", "a,b"), "give --images, or --vectors"),
        (("diff", "v1", "--rows", "2", "--images", "test", "--labels", "a"), "--top shows pairs"),
        (("index", "build", "--model", "v1", "--labels", "a"), "which is v2, not v1"),
    ],
)
def test_what_cannot_be_is_told_before_the_work(
    ready: Cli, arguments: tuple[str, ...], reason: str
) -> None:
    if arguments[0] == "index":
        ready(*DB, "delete", names(0, 1)[0])
    done = ready(*DB, *arguments)
    assert done.status in (1, 2)
    assert reason in done.err
