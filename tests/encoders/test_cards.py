"""What encoders' makers say is told as they say it, and only of the very same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import save_file

from asif_lance.encoders import EncoderCard, image_encoder, read_card, text_encoder
from asif_lance.encoders.weights import weights_digest
from asif_lance.records import EncoderPin


def folder_with(folder: Path, readme: str | bytes | None) -> Path:
    """A model folder with weights and, if given, a model card."""
    import numpy as np

    folder.mkdir()
    save_file({"w": np.ones(3, np.float32)}, folder / "model.safetensors")
    if isinstance(readme, str):
        readme = readme.encode()
    if readme is not None:
        (folder / "README.md").write_bytes(readme)
    return folder


def card_of(folder: Path, revision: str | None = None) -> EncoderCard:
    found = weights_digest(folder) if revision is None else revision
    return read_card(EncoderPin(f"sentence-transformers/{folder}", found, 3))


@pytest.mark.encoders
def test_the_packaged_encoders_say_what_their_packages_say() -> None:
    text = read_card(text_encoder().pin)
    assert text.license == "apache-2.0"
    assert {"s2orc", "ms_marco", "snli"} <= set(text.trained_on)
    image = read_card(image_encoder().pin)
    assert image.license == "Apache Software License 2.0"
    assert image.trained_on == ()
    assert "timm says: apache-2.0, in1k" in image.remark


def test_a_model_card_is_read_from_the_models_folder(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", "---\nlicense: mit\ndatasets: [coco, sbu]\n---\n")
    card = card_of(folder)
    assert (card.license, card.trained_on, card.stated_by, card.remark) == (
        "mit",
        ("coco", "sbu"),
        "its model card",
        "",
    )


def test_a_card_of_other_weights_says_nothing_of_these(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", "---\nlicense: mit\n---\n")
    card = card_of(folder, "0123456789ab")
    assert (card.license, card.stated_by) == ("", "")
    assert "other weights" in card.remark
    assert "does not know which weights" in card_of(folder, "").remark


def test_timms_own_configuration_is_read_where_there_is_no_card(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", None)
    (folder / "config.json").write_text('{"pretrained_cfg": {"tag": "in1k", "license": "mit"}}')
    card = read_card(EncoderPin(f"timm/{folder}", weights_digest(folder), 3))
    assert (card.license, card.trained_on) == ("mit", ("in1k",))


@pytest.mark.parametrize(
    "readme",
    [
        None,
        "no metadata",
        "---\n- a list\n---\n",
        "---\nlicense: [unclosed\n---\n",
        "---\nlicense: {a: 1}\ndatasets: 7\n---\n",
        "---\nlicense: !!python/object/apply:os.system ['false']\n---\n",
        b"\xff\xfe\x00",
    ],
)
def test_a_card_that_says_nothing_readable_states_nothing(
    tmp_path: Path, readme: str | bytes | None
) -> None:
    card = card_of(folder_with(tmp_path / "m", readme))
    assert (card.license, card.trained_on, card.remark) == ("", (), "its files state neither")


@pytest.mark.parametrize("name", ["timm/owner/nowhere", "sentence-transformers/nowhere", "vectors"])
def test_an_encoder_that_is_not_here_is_not_described(name: str) -> None:
    card = read_card(EncoderPin(name, "0123456789ab", 3))
    assert (card.license, card.trained_on) == ("", ())
    assert card.remark
