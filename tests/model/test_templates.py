"""Template sets, by name and as prompts of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli

from asif_lance.errors import InputError
from asif_lance.model.labels import resolve_templates
from asif_lance.model.templates import TEMPLATE_SETS, template_set

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


def test_label_vectors_take_no_templates(cli: Cli, pairs_file: Path, label_file: Path) -> None:
    cli("--db", "t.lancedb", "ingest", pairs_file)
    vectors = ("--vectors", label_file, "--label-vectors", label_file)
    done = cli("--db", "t.lancedb", "classify", *vectors, "--templates", "lit")
    assert done.status == 2
    assert "--template needs label names" in done.err
