"""Encoders are fetched from a hub where somebody allowed it, and from nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from conftest import Cli, picture
from model_hub import Hub, running_hub
from timm.models import save_for_hf

pytestmark = pytest.mark.encoders

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real timm network, small and untrained, saved as a hub stores it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    save_for_hf(timm.create_model("test_resnet"), folder, safe_serialization=True)
    return folder


@pytest.fixture
def hub(tiny: Path, tmp_path: Path) -> Iterator[Hub]:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((tiny / "config.json").read_text())
    torch.save({}, pickled / "pytorch_model.bin")
    models = {"owner/tiny": (tiny, "timm"), "owner/pickled": (pickled, "timm")}
    with running_hub(models) as running:
        yield running


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """`asif-lance` in a process of its own, with that hub and an empty cache."""
    picture(tmp_path / "photos" / "a.png", 1)
    (tmp_path / "photos" / "a.txt").write_text("A photo.")
    command = "import sys; from asif_lance.cli import main; sys.exit(main())"
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("ASIF_LANCE_D", "HF_HUB_O"))}
    own = {**plain, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache")}

    def start(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", command, *arguments],
            cwd=tmp_path,
            env={**own, **variables},
            capture_output=True,
            text=True,
        )

    return start


INGEST = ("ingest", "photos", "--image-encoder", "timm/owner/tiny")


def test_without_leave_nothing_is_asked_of_the_hub_and_the_way_to_allow_it_is_told(
    run: Run, hub: Hub
) -> None:
    done = run(*INGEST)
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert "'owner/tiny' is not on this machine: --download (ASIF_LANCE_DOWNLOAD=1, " in told
    assert f"{hub.address}/owner/tiny" in told
    assert run("ingest", "photos", "--image-encoder", "owner/tiny").stderr.count("--download") == 1
    assert hub.asked == []


@pytest.mark.parametrize("allowed", ["option", "variable"])
def test_what_was_fetched_with_leave_is_used_without_asking_again(
    run: Run, hub: Hub, allowed: str
) -> None:
    option = ["--download"] if allowed == "option" else []
    variables = {} if option else {"ASIF_LANCE_DOWNLOAD": "1"}
    done = run("ingest", "photos", "--image-encoder", "owner/tiny", *option, **variables)
    assert done.returncode == 0, done.stderr
    assert f"fetching owner/tiny from {hub.address}: " in done.stderr
    assert "owner/tiny/resolve" in " ".join(hub.asked)
    hub.asked.clear()
    done = run("classify", "photos/a.png", "--labels", "a photo,a drawing")
    assert done.returncode == 0, done.stderr
    assert hub.asked == []


def test_pickled_weights_are_not_fetched_even_with_leave(run: Run, hub: Hub) -> None:
    done = run("ingest", "photos", "--image-encoder", "timm/owner/pickled", "--download")
    assert done.returncode == 1
    assert "pickled weights are never loaded" in done.stderr
    assert not [path for path in hub.asked if path.endswith(".bin")]


def test_a_model_that_the_hub_does_not_have_is_told(run: Run, hub: Hub) -> None:
    done = run("ingest", "photos", "--image-encoder", "timm/owner/none", "--download")
    assert f"there is no model 'owner/none' on {hub.address}" in done.stderr


def test_what_a_folder_only_names_is_not_fetched_either(run: Run, hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("open_clip", reason="needs the extra clip")
    folder = tmp_path / "clip"
    folder.mkdir()
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32}
    text = '{"hf_model_name": "owner/words", "hf_tokenizer_name": "owner/words"}'
    (folder / "open_clip_config.json").write_text(
        '{"model_cfg": {"embed_dim": 24, "custom_text": true, "vision_cfg": '
        + str(vision).replace("'", '"')
        + f', "text_cfg": {text}}}, "preprocess_cfg": {{}}}}'
    )
    (folder / "open_clip_model.safetensors").write_bytes(
        (hub.models["owner/tiny"][0] / "model.safetensors").read_bytes()
    )
    done = run("ingest", "photos", "--text-encoder", "./clip")
    assert done.returncode == 1
    assert "is not a model of open_clip" in done.stderr
    assert hub.asked == []


def test_a_folders_settings_cannot_allow_it(cli: Cli) -> None:
    Path("asif-lance.toml").write_text("[ingest]\ndownload = true\n")
    done = cli("versions")
    assert done.status == 1
    assert "'download' can only be given on the command line or in your own settings" in done.err
