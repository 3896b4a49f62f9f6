"""Models of transformers and open_clip, of random weights, through the real libraries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from safetensors.torch import save_file

import asif_lance
from asif_lance.encoders import image_encoder, read_card, text_encoder
from asif_lance.errors import EncoderUnavailableError
from asif_lance.ingest import IngestOptions, ingest_sources

pytestmark = pytest.mark.encoders

_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}
_SIGLIP = {
    "embed_dim": 192,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 224,
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "none",
    },
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DINOv2 with its processor, as transformers saves them."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}}
    BitImageProcessor(**sizes).save_pretrained(folder)
    return folder


@pytest.fixture(params=["clip", "siglip"])
def open_clip_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small model as open_clip saves it."""
    open_clip = pytest.importorskip("open_clip", reason="needs the extra clip")
    config = {"clip": _CLIP, "siglip": _SIGLIP}[request.param]
    torch.manual_seed(0)
    custom = config.get("custom_text", False)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = kind(**{key: value for key, value in config.items() if key != "custom_text"})
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    grey = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": grey})
    )
    return tmp_path


def test_a_dinov2_folder_encodes_as_transformers_does(dinov2: Path, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, Dinov2Model

    encoder = image_encoder(str(dinov2))
    assert encoder.pin.name == f"transformers/{dinov2}"
    assert encoder.pin.dimension == 32
    shown = [Image.open(picture(tmp_path / f"{i}.png", i)).convert("RGB") for i in range(3)]
    made = encoder.encode(torch.stack([encoder.prepare(one) for one in shown]))
    process = AutoImageProcessor.from_pretrained(dinov2)
    with torch.inference_mode():
        model = Dinov2Model.from_pretrained(dinov2).eval()
        expected = model(**process(images=shown, return_tensors="pt")).pooler_output.numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert made == pytest.approx(expected, abs=1e-5)
    half = image_encoder(f"{dinov2}+bfloat16")
    assert half.pin.name.endswith("+bfloat16")
    assert half.encode(encoder.prepare(shown[0])[None]) == pytest.approx(made[:1], abs=0.05)
    assert read_card(encoder.pin).remark == "its files state neither"


def test_both_towers_of_an_open_clip_model_agree_with_the_library(
    open_clip_folder: Path, tmp_path: Path
) -> None:
    import open_clip

    images, texts = image_encoder(str(open_clip_folder)), text_encoder(str(open_clip_folder))
    assert images.pin.name == texts.pin.name == f"open_clip/{open_clip_folder}"
    shown = Image.open(picture(tmp_path / "a.png", 1)).convert("RGB")
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{open_clip_folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{open_clip_folder}")
    captions = ["a red bus", "two birds on a wire"]
    with torch.inference_mode():
        image = model.eval().encode_image(transform(shown)[None], normalize=True).numpy()
        words = model.encode_text(tokenize(captions), normalize=True).numpy()
    assert images.encode(images.prepare(shown)[None]) == pytest.approx(image, abs=1e-5)
    assert texts.encode(captions) == pytest.approx(words, abs=1e-5)
    assert texts.encode([]).shape == (0, texts.pin.dimension)
    assert texts.max_tokens == 16
    assert texts.count_cut(["bus", "bus " * 40]) == 1


def test_pairs_of_such_encoders_are_ingested_and_asked(
    dinov2: Path, open_clip_folder: Path, tmp_path: Path
) -> None:
    for i in range(3):
        picture(tmp_path / "photos" / f"{i}.png", i)
        (tmp_path / "photos" / f"{i}.txt").write_text(f"Picture number {i}.")
    encoders = IngestOptions(image_encoder=str(dinov2), text_encoder=str(open_clip_folder))
    ingest_sources(tmp_path / "t.lancedb", [tmp_path / "photos"], encoders)
    model = asif_lance.open(tmp_path / "t.lancedb")
    assert model.store.image.name == f"transformers/{dinov2}"
    assert model.store.text.name == f"open_clip/{open_clip_folder}"
    (answer,) = model.classify(tmp_path / "photos" / "1.png", ["number 0", "number 1"])
    assert {label for label, _ in answer.ranking} == {"number 0", "number 1"}


def test_a_damaged_folder_is_told_in_one_line(dinov2: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((dinov2 / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(EncoderUnavailableError) as caught:
        image_encoder(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1
