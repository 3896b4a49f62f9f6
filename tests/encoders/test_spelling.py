"""Encoders are found under the names that people write; misspelt ones are told from their like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asif_lance.encoders.spelling import spell_encoder
from asif_lance.errors import EncoderUnavailableError

pytestmark = pytest.mark.encoders


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("side", "written", "kept"),
    [
        ("image", "resnet18", "timm/resnet18"),
        ("image", "resnet18+bfloat16", "timm/resnet18+bfloat16"),
        ("image", "timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k"),
        ("image", "transformers/facebook/dinov2-small", "transformers/facebook/dinov2-small"),
        ("image", "open_clip/timm/ViT-B-16-SigLIP", "open_clip/timm/ViT-B-16-SigLIP"),
        ("text", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("text", "intfloat/e5-small-v2", "sentence-transformers/intfloat/e5-small-v2"),
        ("text", "sentence-transformers/x", "sentence-transformers/x"),
    ],
)
def test_a_name_is_kept_with_its_library(side: str, written: str, kept: str) -> None:
    assert spell_encoder(side, written) == kept
    assert spell_encoder(side, kept) == kept


@pytest.mark.parametrize(
    ("side", "files", "library"),
    [
        ("image", {"config.json": {"architecture": "resnet18"}}, "timm"),
        ("image", {"config.json": {"model_type": "dinov2"}}, "transformers"),
        ("image", {"open_clip_config.json": {}, "config.json": {}}, "open_clip"),
        ("text", {"modules.json": []}, "sentence-transformers"),
        ("text", {"config.json": {"model_type": "bert"}}, "sentence-transformers"),
        ("text", {"open_clip_config.json": {}}, "open_clip"),
    ],
)
def test_a_folder_is_of_the_library_that_its_files_are_of(
    side: str,
    files: dict[str, object],
    library: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "model").mkdir()
    for name, content in files.items():
        (tmp_path / "model" / name).write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    for written in ("model", "./model", str(tmp_path / "model")):
        assert spell_encoder(side, written) == f"{library}/{tmp_path / 'model'}"


def test_a_folder_of_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(EncoderUnavailableError, match="holds no image encoder of timm or"):
        spell_encoder("image", str(tmp_path))


@pytest.mark.parametrize(
    ("side", "written", "told"),
    [
        ("image", "resnet81", "did you mean 'timm/resnet"),
        (
            "image",
            "sentence-transformers/all-MiniLM-L6-v2",
            "name it timm/NAME or transformers/NAME",
        ),
        ("image", "timm/", "name it timm/NAME"),
        ("image", "", "name it timm/NAME"),
        ("text", "timm/resnet18", "name it sentence-transformers/NAME or open_clip/NAME"),
        ("image", "nobody/knows-this", "name it timm/NAME or transformers/NAME"),
    ],
)
def test_a_name_that_means_nothing_says_how_names_are_spelt(
    side: str, written: str, told: str
) -> None:
    with pytest.raises(EncoderUnavailableError) as caught:
        spell_encoder(side, written)
    assert f"unknown {side} encoder {written!r}" in str(caught.value)
    assert told in str(caught.value)
