"""How sources are ingested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from asif_lance.arguments import (
    COUNT,
    MAPPING,
    PATH,
    TEXT,
    check_kinds,
    instance_of,
    take_texts,
)
from asif_lance.encoders import ImageEncoder, TextEncoder
from asif_lance.errors import InputError
from asif_lance.forgetting import Waiver
from asif_lance.records import EXAMPLE

_CHOICES = {
    "on_conflict": ("skip", "update", "fail"),
    "captions": ("mean", "each"),
    "role": (None, EXAMPLE),
    "rights": (None, "flag", "refuse"),
}

_KINDS = {
    **dict.fromkeys(("message", "device"), TEXT),
    **dict.fromkeys(("format", "license", "source"), TEXT.or_none),
    **dict.fromkeys(("image_root", "keys_folder"), PATH.or_none),
    **dict.fromkeys(("columns", "checks"), MAPPING),
    "batch_size": COUNT,
    "waiver": instance_of("a Waiver of asif_lance.forgetting", Waiver).or_none,
}


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to ingest.

    Attributes:
        format: one of `FORMATS`; recognised when None.
        image_root: where relative image paths begin; by default found near the manifest.
        columns: what columns are called that are not recognised, see `ColumnNames.choose`.
        image_encoder: a name as `encoders.spell_encoder` takes it, or an encoder; None is the
            database's own, or the packaged default.
        text_encoder: likewise.
        license: for pairs that name none of their own.
        source: likewise; by default the name of the file or folder they come from.
        message: kept with the model version.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: pictures encoded at once; a few such batches are under way.
        on_conflict: what becomes of an item whose pair is there with other content: `skip` leaves
            the pair as it is, `update` replaces it, `fail` refuses the whole ingest.
        captions: what neighbouring captions of one picture become: `each` a pair, `mean` one pair
            whose text vector is the mean of theirs, see `caption_groups`.
        role: of all pairs: None for ordinary ones, or `records.EXAMPLE`.
        require: what an item must state, of `license` and `source`; one that does not is refused.
        rights: what becomes of an item with a mark that reserves its rights, see `admission`:
            `flag` adds the attribute `rights_reserved`, `refuse` refuses it, None looks for none.
        checks: further ones of `hygiene.CHECKS`, and what becomes of items that they find.
        keys_folder: where the keys are that tell what was forgotten; by default the user's.
        waiver: lets in what was forgotten, or may have been, and keeps on record why.
    """

    format: str | None = None
    image_root: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    image_encoder: str | ImageEncoder | None = None
    text_encoder: str | TextEncoder | None = None
    license: str | None = None
    source: str | None = None
    message: str = ""
    device: str = "auto"
    batch_size: int = 32
    on_conflict: str = "skip"
    captions: str = "mean"
    role: str | None = None
    require: tuple[str, ...] = ()
    rights: str | None = None
    checks: Mapping[str, str] = field(default_factory=dict)
    keys_folder: Path | None = None
    waiver: Waiver | None = None

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        check_kinds(_KINDS, given)
        for name in ("image_root", "keys_folder"):
            if isinstance(given[name], str):
                object.__setattr__(self, name, Path(given[name]))
        object.__setattr__(self, "require", tuple(take_texts("require", self.require)))
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                choices = ", ".join(map(repr, known))
                raise InputError(f"{name}={getattr(self, name)!r}: choose one of {choices}")
