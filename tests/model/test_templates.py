"""Template sets and class names, as text and as prompts of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli

from asif_lance.errors import InputError
from asif_lance.model.labels import fill_templates, resolve_templates
from asif_lance.model.templates import (
    TEMPLATE_SETS,
    describe_class_names,
    read_class_names,
    template_set,
)

SIZES = {"imagenet-80": 80, "imagenet-7": 7, "lit": 8, "cifar10": 18, "eurosat": 3, "resisc45": 18}


@pytest.mark.parametrize("name", TEMPLATE_SETS)
def test_every_template_has_one_place_for_the_label_and_is_there_once(name: str) -> None:
    templates = template_set(name)
    assert all(template.count("{}") == 1 for template in templates)
    assert len(set(templates)) == len(templates)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_published_sets_have_their_published_sizes(name: str, size: int) -> None:
    assert len(template_set(name)) == size


def test_the_short_imagenet_sets_are_part_of_the_long_one() -> None:
    assert set(template_set("imagenet-7")) < set(template_set("imagenet-80"))
    assert set(template_set("lit")) - set(template_set("imagenet-7")) == {"{}"}


def test_an_unknown_set_is_told_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="no template set 'clip'; there are: single, general"):
        template_set("clip")


def test_results_call_templates_by_their_set_or_by_themselves() -> None:
    assert resolve_templates("lit") == (template_set("lit"), "lit")
    assert resolve_templates(["a {}.", "{}"]) == (("a {}.", "{}"), "a {}. | {}")
    assert resolve_templates("a {}. | {}") == (("a {}.", "{}"), "a {}. | {}")


def test_a_class_may_have_several_names(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("\ufeffbird\n\n vehicle: car, fire truck \nC: x\n")
    names = read_class_names(file)
    assert names == {"bird": ("bird",), "vehicle": ("car", "fire truck"), "C": ("x",)}
    texts, owner = fill_templates(names, ["a {}.", "{}!"])
    assert texts == [
        "a bird.",
        "bird!",
        "a car.",
        "car!",
        "a fire truck.",
        "fire truck!",
        *texts[6:],
    ]
    assert owner.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a\na\n", "label 'a' is given twice"), ("a: b,,c", "label 'a' has an empty name")],
)
def test_class_files_that_mean_nothing_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_class_names(tmp_path / "classes.txt")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["bird", "fruit"]', {"bird": ("bird",), "fruit": ("fruit",)}),
        (
            '{"bird": ["a bird", "an owl"], "0": "fruit"}',
            {"bird": ("a bird", "an owl"), "0": ("fruit",)},
        ),
        (
            "Star Wars\\: A New Hope\nbird",
            {"Star Wars: A New Hope": ("Star Wars: A New Hope",), "bird": ("bird",)},
        ),
        ("12:30\nhttp://x", {"12:30": ("12:30",), "http://x": ("http://x",)}),
        ("0: bird\n1: fruit", {"0": ("bird",), "1": ("fruit",)}),
    ],
)
def test_class_files_may_be_json_or_lines(
    tmp_path: Path, text: str, names: dict[str, tuple[str, ...]]
) -> None:
    (tmp_path / "classes.json").write_text(text)
    assert read_class_names(tmp_path / "classes.json") == names


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Star Wars: A New Hope\nbird", "1 of 2 lines have a colon, as in 'Star Wars: A New Hope'"),
        ('["bird", 1]', "1 is no label"),
        ('["bird", "bird"]', "'bird' is given twice"),
        ('{"a": "x", "a": "y"}', "'a' is given twice"),
        ('{"a": []}', "'a' has an empty name"),
        ('{"bird": 0}', "'bird' is no label with a name"),
        ('["bird",', "begins like JSON but is not"),
    ],
)
def test_class_files_that_are_not_clear_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_class_names(tmp_path / "classes.txt")


def test_what_was_understood_of_a_class_file_is_one_line() -> None:
    assert describe_class_names({"bird": ("bird",)}) is None
    assert describe_class_names({"bird": ("bird",), "vehicle": ("car", "fire truck")}) == (
        "2 labels, 1 under other names: 'vehicle' is car, fire truck"
    )


def test_class_files_must_be_text(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_class_names(tmp_path / "classes.txt")


def test_label_vectors_take_no_templates(cli: Cli, pairs_file: Path, label_file: Path) -> None:
    cli("--db", "t.lancedb", "ingest", pairs_file)
    vectors = ("--vectors", label_file, "--label-vectors", label_file)
    done = cli("--db", "t.lancedb", "classify", *vectors, "--templates", "lit")
    assert done.status == 2
    assert "--template needs label names" in done.err
