"""Somebody else's Lance table becomes a model where it is: its columns and encoders are found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from asif_lance.arguments import PATH, TEXT, takes
from asif_lance.database import (
    Attachment,
    find_attachment,
    is_made,
    open_table,
    resolve_uri,
    storage_errors,
    vector_width,
    write_attachment,
)
from asif_lance.encoders import (
    DEFAULT_IMAGE,
    DEFAULT_TEXT,
    encoder_name,
    image_encoder,
    text_encoder,
)
from asif_lance.errors import (
    DatabaseExistsError,
    DimensionError,
    EncoderUnavailableError,
    InputError,
    printable,
)
from asif_lance.ingest.columns import PAIR_COLUMNS, spelling
from asif_lance.ingest.lance_reader import find_only_table
from asif_lance.object_files import is_object
from asif_lance.object_stores import check_address
from asif_lance.progress import note
from asif_lance.records import BROUGHT, EncoderPin
from asif_lance.store import PairStore

_VECTORS = ("image_vector", "text_vector")

# Names of LanceDB's embedding functions, and how the encoders that they load are called here.
_IMAGE_FUNCTIONS = {"asif-timm": ("", DEFAULT_IMAGE)}
_TEXT_FUNCTIONS = {
    "asif-sentence-transformers": ("", DEFAULT_TEXT),
    "sentence-transformers": ("sentence-transformers/", "all-MiniLM-L6-v2"),
}
#: Arguments that name a column.
_ROLES = (*_VECTORS, "id", "caption", "image", "source", "license")
_IDS = ("pair_id", "id", "key", "uuid", "image_id", "item_id")


@dataclass(frozen=True, slots=True)
class Attached:
    """What `attach` found.

    Attributes:
        uri: the database that reads the table, to be opened as any other.
        image, text: the encoders of the vectors, as far as they are known.
        table: the table's address.
        columns: what columns of ours are called there.
        pairs: how many of the newest version's rows are pairs.
        left_out: how many are not, by reason.
        unread: columns whose names fit and whose types do not, and the types.
    """

    uri: str
    image: EncoderPin
    text: EncoderPin
    table: str
    columns: Mapping[str, str]
    pairs: int
    left_out: Mapping[str, int]
    unread: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Function:
    """What a table's metadata says of one vector column that an embedding function fills."""

    side: str
    vector: str
    source: str
    encoder: str


@takes(db=PATH.or_none, **dict.fromkeys(_ROLES, TEXT.or_none))
def attach(
    table: Any,
    db: str | Path | None = None,
    *,
    image_vector: str | None = None,
    text_vector: str | None = None,
    id: str | None = None,
    caption: str | None = None,
    image: str | None = None,
    source: str | None = None,
    license: str | None = None,
    image_encoder: str | None = None,
    text_encoder: str | None = None,
) -> Attached:
    """Make a database that reads its pairs from a Lance table of somebody else's, in place.

    The table is not changed, and nothing of its rows is kept in the database. Columns that are not
    named are found by their names or by the table's embedding functions, encoders by the latter.
    Where the database is there and attached to the same columns already, it stays as it is.

    Args:
        table: a LanceDB table, or a Lance table's address; a LanceDB folder with one table.
        db: a local folder for the database, which holds runs, settings and the table's address;
            by default `NAME.asif` beside a local table `NAME.lance`.
        image_vector: the column of image vectors: float16, float32 or float64.
        text_vector: the column of text vectors likewise.
        id: the column that names rows, texts or whole numbers.
        caption: the text of a row; nothing is shown where there is none.
        image: where its picture is, or the picture itself.
        source: what a row comes from.
        license: its licence.
        image_encoder: what made the image vectors: `timm/NAME`. Without a name `asif-lance
            encoders` can give it later, and compare it with the vectors.
        text_encoder: what made the text vectors: `sentence-transformers/NAME`.

    Raises:
        DatabaseExistsError: there is a database already.
        InputError: no such table or columns, a database within the table or around it, or an
            encoder whose vectors have another length.
    """
    address = _find_address(table)
    uri = resolve_uri(address.removesuffix(".lance") + ".asif" if db is None else db)
    _check_place(uri, address)
    with storage_errors(address):
        dataset = lance.dataset(address)
    functions = _read_functions(dataset.schema)
    asked = {"image_vector": image_vector, "text_vector": text_vector, "pair_id": id}
    asked |= {"caption": caption, "image": image, "source": source, "license": license}
    columns, unread = _find_columns(printable(address), dataset.schema, asked, functions)
    pins = {
        side: _make_pin(side, encoder_name(side, name), dataset.schema, columns, functions)
        for side, name in (("image", image_encoder), ("text", text_encoder))
    }
    for side, asked_for in (("image", image_encoder), ("text", text_encoder)):
        if asked_for is not None:  # LanceDB has seen to it that its own functions' vectors fit
            _check_length(side, pins[side], columns[f"{side}_vector"])
    store = _open_or_create(uri, Attachment(address, columns), pins)
    state = open_table(uri, "pairs")
    counts = state.count_rows(), state.left_out()
    return Attached(uri, store.image, store.text, address, columns, *counts, unread)


def _check_place(uri: str, address: str) -> None:
    """Pass a local folder for the database that neither is in the table nor holds it."""
    if "://" in uri:
        raise InputError(f"{uri}: a database that is attached to a table is a local folder")
    if "://" in address:
        return
    place, table = Path(uri).resolve(), Path(address).resolve()
    if place.is_relative_to(table) or table.is_relative_to(place):
        raise InputError(
            f"{printable(uri)} and the table {printable(address)} would lie within one another: "
            "give the database a folder of its own"
        )


def _check_length(side: str, pin: EncoderPin, column: str) -> None:
    """Pass an encoder whose vectors are as long as the table's, as far as it is to be had here."""
    load = image_encoder if side == "image" else text_encoder
    try:
        own = load(pin.name).pin.dimension
    except EncoderUnavailableError:
        note(f"{pin.name} is not here: nothing shows yet that it made the {side} vectors")
        return
    if own != pin.dimension:
        raise DimensionError(f"the vectors in {column!r}, made by {pin.name}", own, pin.dimension)


def _open_or_create(uri: str, wanted: Attachment, pins: dict[str, EncoderPin]) -> PairStore:
    if not is_made(uri):
        Path(uri).mkdir(parents=True, exist_ok=True)
        store = PairStore.create(uri, image=pins["image"], text=pins["text"])
        write_attachment(uri, wanted)
        return store
    store = PairStore.open(uri)
    if find_attachment(uri) != wanted:
        raise DatabaseExistsError(uri)
    return store


def _find_address(table: Any) -> str:
    if not isinstance(table, str | Path):
        found = getattr(table, "uri", None)
        if not isinstance(found, str):
            raise InputError(f"attach a LanceDB table or its address, not {type(table).__name__}")
        table = found
    address = str(table).removeprefix("file://").rstrip("/")
    if "://" in address:
        if is_object(address):
            check_address(address)
        return address
    path = Path(address).expanduser().absolute()
    if not path.is_dir():
        raise InputError(f"there is no Lance table at {printable(address)}")
    for folder in (path, path.parent):
        if (known := find_attachment(str(folder))) and path in (folder, folder / "pairs.lance"):
            raise InputError(
                f"{printable(str(folder))} has no pairs of its own, it is attached to "
                f"{printable(known.table)}: attach that table"
            )
    return str(find_only_table(path))


def _read_functions(schema: pa.Schema) -> list[_Function]:
    """The embedding functions that the table's metadata names, as far as they are known here."""
    try:
        told = json.loads((schema.metadata or {}).get(b"embedding_functions", b"[]"))
        entries = [(f["name"], f["model"], f["vector_column"], f["source_column"]) for f in told]
    except (ValueError, KeyError, TypeError):
        return []
    found = []
    for side, known in (("image", _IMAGE_FUNCTIONS), ("text", _TEXT_FUNCTIONS)):
        for name, model, vector, source in entries:
            if name in known and isinstance(model, dict):
                prefix, default = known[name]
                encoder = prefix + str(model.get("name", default)).removeprefix(prefix)
                found.append(_Function(side, str(vector), str(source), encoder))
    return found


def _find_columns(
    table: str,
    schema: pa.Schema,
    asked: Mapping[str, str | None],
    functions: list[_Function],
) -> tuple[dict[str, str], dict[str, str]]:
    """What columns of ours are called in the table, and the types of those not to be read."""
    names = schema.names
    for name in filter(None, asked.values()):
        if name not in names:
            raise InputError(f"{table} has no column {name!r}; its columns: {', '.join(names)}")
    told = {f"{f.side}_vector": f.vector for f in functions}
    told |= {"caption" if f.side == "text" else "image": f.source for f in functions}
    known = {
        "pair_id": _IDS,
        "caption": PAIR_COLUMNS.caption,
        "image": PAIR_COLUMNS.image,
        "image_vector": PAIR_COLUMNS.image_vector,
        "text_vector": PAIR_COLUMNS.text_vector,
        "source": PAIR_COLUMNS.source,
        "license": PAIR_COLUMNS.license,
    }
    spelled = {spelling(name): name for name in names}
    found = {}
    for role, candidates in known.items():
        by_name = next((spelled[c] for c in candidates if c in spelled), None)
        by_function = told[role] if told.get(role) in names else None
        chosen = asked[role] or by_function or by_name
        if chosen is not None:
            found[role] = chosen
    return _check_columns(table, schema, found, asked)


def _check_columns(
    table: str, schema: pa.Schema, found: dict[str, str], asked: Mapping[str, str | None]
) -> tuple[dict[str, str], dict[str, str]]:
    """The columns that can be read as what they are to be, and the types of those that cannot.

    The latter must not be asked for.
    """
    for role in _VECTORS:
        if role not in found:
            raise InputError(
                f"{table} has no column {role}: name it with --{role.replace('_', '-')} among "
                f"{', '.join(schema.names)}"
            )
        vector_width(schema.field(found[role]))
    if found["image_vector"] == found["text_vector"]:
        raise InputError(
            f"{table}: the column {found['text_vector']!r} cannot hold the vectors of both sides: "
            f"name two of {', '.join(schema.names)}"
        )
    if "pair_id" not in found:
        raise InputError(
            f"{table} has no column of ids: name it with --id among {', '.join(schema.names)}"
        )
    kept, unread = {}, {}
    for role, name in found.items():
        if "`" in name:  # in any part of Lance that takes expressions it ends a name
            raise InputError(f"{table}: Lance reads no column whose name has a backtick: {name!r}")
        kind = schema.field(name).type
        ours = _place(role, kind)
        if ours is not None:
            kept[ours] = name
        elif asked[role] or role == "pair_id":
            raise InputError(
                f"the column {name!r} of {table} holds {kind}: it cannot be the {role}"
            )
        else:
            unread[name] = str(kind)
            note(f"the column {name!r} holds {kind}: it is not read as the {role}")
    return kept, unread


def _place(role: str, kind: pa.DataType) -> str | None:
    """Which column of ours a role is, for a column of this type; None if it does not fit."""
    text = _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)
    if role in _VECTORS:
        return role
    if role == "pair_id":
        return role if text or pa.types.is_integer(kind) else None
    if role == "image" and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return "thumbnail"
    if not text:
        return None
    return "image_uri" if role == "image" else role


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _make_pin(
    side: str,
    name: str | None,
    schema: pa.Schema,
    columns: Mapping[str, str],
    functions: list[_Function],
) -> EncoderPin:
    vector = columns[f"{side}_vector"]
    told = next((f.encoder for f in functions if f.side == side and f.vector == vector), None)
    return EncoderPin(name or told or BROUGHT, "", vector_width(schema.field(vector)))
