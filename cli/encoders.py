"""encoders: which networks made the vectors; names for those of vectors that were brought along."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import Context, device_option, format_option, open_store, tell_of_database
from .output import note, print_json, print_table
from .parameter_types import PathOption

if TYPE_CHECKING:
    from asif_lance.records import EncoderPin


@click.command(short_help="Show the encoders of the vectors, or name those brought along.")
@click.option(
    "--image-encoder", metavar="N", help="What made the image vectors: resnet18, a folder, …"
)
@click.option(
    "--text-encoder", metavar="N", help="What made the text vectors: all-MiniLM-L6-v2, a folder, …"
)
@click.option(
    "--image-root",
    type=PathOption(path_type=Path),
    metavar="FOLDER",
    help="Where pictures are by now, under the ends of their recorded paths.",
)
@click.option("--unchecked", is_flag=True, help="Name it also if nothing can be compared.")
@device_option
@format_option
@click.pass_obj
def encoders(
    context: Context,
    /,
    image_encoder: str | None,
    text_encoder: str | None,
    image_root: Path | None,
    unchecked: bool,
    device: str,
    output: str,
) -> None:
    """Show the encoders of the vectors, or name those of vectors that were brought along.

    With a name, pictures and texts can be classified, searched and ingested. It is checked first:
    some captions, and some pictures that lie where they were, are encoded and compared with the
    stored vectors; where they differ, the name is refused and the cosines are told.

    \b
      asif-lance encoders
      asif-lance encoders --image-encoder timm/vit_base_patch16_224 --image-root photos/
    """
    if image_encoder is None and text_encoder is None:
        store = open_store(context)
        _print({"image": store.image, "text": store.text}, output)
        return
    from asif_lance.ingest import name_and_check_encoders

    tell_of_database(context)
    named = name_and_check_encoders(
        context.db,
        image=image_encoder,
        text=text_encoder,
        image_root=image_root,
        unchecked=unchecked,
        device=device,
    )
    if output == "json":
        for one in named:
            print_json(asdict(one))
        return
    for one in named:
        told = "nothing could be compared"
        if one.compared:
            told = (
                f"{one.compared} stored vectors compared with its own: cosines from "
                f"{one.lowest:.4f} on, half of them from {one.median:.4f} on"
            )
        note(f"{one.side} encoder: {one.pin.name}; {told}")


def describe(pin: EncoderPin) -> str:
    """An encoder as people are told of it."""
    from asif_lance.records import BROUGHT

    unnamed = ", no encoder is named: `asif-lance encoders` names it"
    return f"{pin.name} ({pin.dimension}-d)" + (unnamed if pin.name == BROUGHT else "")


def _print(pins: dict[str, EncoderPin], output: str) -> None:
    if output == "json":
        for side, pin in pins.items():
            print_json({"side": side, **asdict(pin)})
        return
    print_table(["", ""], [(f"{side} encoder", describe(pin)) for side, pin in pins.items()])
