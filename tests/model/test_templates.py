"""Template sets and class names, as text and as prompts of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli

from asif_lance.errors import InputError
from asif_lance.model.labels import fill_templates, resolve_templates
from asif_lance.model.templates import TEMPLATE_SETS, read_class_names, template_set

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
