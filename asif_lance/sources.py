"""Image-text pairs out of folders, CSV, TSV, JSONL and Parquet, as frames of one shape.

Every source becomes batches of rows with the same columns; what cannot be a pair becomes a reject
with its reason, and the rest goes on. Vectors that come along stay columnar all the way.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from asif_lance.errors import SourceError
from asif_lance.records import Reject

FORMATS = ("folder", "csv", "tsv", "jsonl", "parquet")

PICTURES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".jp2",
        ".ico",
        ".tga",
        ".avif",
    ]
)

#: Names under which people keep these columns, best first.
NAMES = {
    "image": (
        "image", "image_path", "image_file", "file_name", "filename", "filepath", "file", "path",
        "image_uri", "url",
    ),
    "caption": ("caption", "text", "title", "description", "alt_text", "sentence"),
}  # fmt: skip

#: Longer captions are a mistake in the file; encoders read some hundred characters.
MAX_CAPTION = 100_000

_TAKEN = ("pair_id", "license", "source", "image_vector", "text_vector")

#: The columns of every batch. `picture` is a path or the file's bytes; `attributes` is JSON.
COLUMNS: dict[str, pl.DataType] = {
    "item": pl.String(),
    "pair_id": pl.String(),
    "caption": pl.String(),
    "image_path": pl.String(),
    "image_bytes": pl.Binary(),
    "image_uri": pl.String(),
    "license": pl.String(),
    "source": pl.String(),
    "attributes": pl.String(),
}


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Some items of a source.

    Attributes:
        frame: rows with `COLUMNS` and, where the source has them, `image_vector` and
            `text_vector` (lists of float32, null where missing).
        rejects: items that cannot be a pair.
    """

    frame: pl.DataFrame
    rejects: list[Reject]


def read_source(
    location: str | Path, *, format: str | None = None, batch_size: int = 1024
) -> Iterator[SourceBatch]:
    """Read a source in batches.

    Args:
        location: a folder or a file.
        format: one of `FORMATS`; told from the name when None.
        batch_size: rows per batch.

    Raises:
        SourceError: missing, of no known format, unreadable, or without usable columns.
    """
    path = Path(location)
    if not path.exists():
        raise SourceError(f"no such source: {path}")
    kind = format or _sniff(path)
    if kind == "folder":
        if not path.is_dir():
            raise SourceError(f"{path} is not a folder")
        return _read_folder(path, batch_size)
    if path.is_dir():
        raise SourceError(f"{path} is a folder, not a {kind} file")
    raw = {"csv": _csv, "tsv": _tsv, "jsonl": _jsonl, "parquet": _parquet}[kind](path, batch_size)
    return (_normalised(path, batch) for batch in raw)


def count_items(location: str | Path, *, format: str | None = None) -> int | None:
    """About how many items a source has, for a progress bar; None when counting is slow."""
    path = Path(location)
    kind = format or (_sniff(path) if path.exists() else None)
    if kind == "folder":
        return sum(1 for p in path.rglob("*") if p.suffix.lower() in PICTURES)
    if kind == "parquet":
        return int(pq.read_metadata(path).num_rows)
    return None


@dataclass(frozen=True, slots=True)
class _Raw:
    """Rows as the file has them, each with the name by which a reject will call it."""

    frame: pl.DataFrame
    items: list[str]
    rejects: list[Reject]


def _sniff(path: Path) -> str:
    if path.is_dir():
        return "folder"
    endings = {".ndjson": "jsonl", ".pq": "parquet"} | {f".{f}": f for f in FORMATS}
    try:
        return endings[path.suffix.lower()]
    except KeyError:
        known = ", ".join(FORMATS)
        raise SourceError(f"cannot tell what {path} is; name its format, one of {known}") from None


def _read_folder(root: Path, batch_size: int) -> Iterator[SourceBatch]:
    pictures = sorted(p for p in root.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not pictures:
        raise SourceError(f"no pictures in {root}")
    for start in range(0, len(pictures), batch_size):
        rows, rejects = [], []
        for picture in pictures[start : start + batch_size]:
            item = _text(picture.relative_to(root).as_posix())
            caption, fault = _caption_beside(picture)
            if fault:
                rejects.append(Reject(_text(str(root)), item, fault))
                continue
            path = _text(str(picture.resolve()))
            rows.append(
                {
                    "item": item,
                    "caption": caption,
                    "image_path": path,
                    "image_uri": path,
                    "source": _text(root.resolve().name),
                }
            )
        yield SourceBatch(_frame(rows), rejects)


def _caption_beside(picture: Path) -> tuple[str, str | None]:
    """The first line that is not empty; stamps and img2dataset keep more below it."""
    try:
        lines = picture.with_suffix(".txt").read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return "", "no caption: there is no .txt file beside it"
    except UnicodeDecodeError:
        return "", "caption is not UTF-8 text"
    except OSError as error:
        return "", f"caption cannot be read ({error.strerror})"
    caption = next((line.strip() for line in lines if line.strip()), "")
    return caption, _caption_fault(caption)


def _caption_fault(caption: str | None) -> str | None:
    if not caption or not caption.strip():
        return "empty caption"
    if len(caption) > MAX_CAPTION:
        return f"caption longer than {MAX_CAPTION:,} characters"
    return None


def _csv(path: Path, batch_size: int, separator: str = ",") -> Iterator[_Raw]:
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text (byte {error.start:,})") from None
    try:
        frame = pl.read_csv(
            io.BytesIO(content.encode()),
            separator=separator,
            infer_schema=False,
            truncate_ragged_lines=True,
        )
    except pl.exceptions.PolarsError as error:
        raise SourceError(f"{path} cannot be read as a table: {_first_line(error)}") from None
    for start in range(0, len(frame), batch_size):
        part = frame.slice(start, batch_size)
        yield _Raw(part, [f"row {start + i + 1}" for i in range(len(part))], [])


def _tsv(path: Path, batch_size: int) -> Iterator[_Raw]:
    return _csv(path, batch_size, separator="\t")


def _jsonl(path: Path, batch_size: int) -> Iterator[_Raw]:
    rows: list[dict[str, Any]] = []
    items: list[str] = []
    rejects: list[Reject] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row = _json_object(line)
            if row is None:
                rejects.append(Reject(str(path), f"line {number}", "not a JSON object"))
                continue
            rows.append(row)
            items.append(f"line {number}")
            if len(rows) == batch_size:
                yield _Raw(_from_dicts(rows), items, rejects)
                rows, items, rejects = [], [], []
    if rows or rejects:
        yield _Raw(_from_dicts(rows), items, rejects)


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _from_dicts(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Columns of any JSON values: texts and vectors as they are, everything else as JSON text."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame({name: _column(name, [row.get(name) for row in rows]) for name in names})


def _column(name: str, values: list[Any]) -> pl.Series:
    if name in ("image_vector", "text_vector"):
        numbers = [_numbers(v) for v in values]
        return pl.Series(name, numbers, dtype=pl.List(pl.Float32))
    texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pl.Series(name, texts, dtype=pl.String)


def _numbers(value: Any) -> list[float] | None:
    if not isinstance(value, list):
        return None
    try:
        return [float("nan") if v is None else float(v) for v in value]
    except (TypeError, ValueError):
        return [float("nan")] * len(value)


def _parquet(path: Path, batch_size: int) -> Iterator[_Raw]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} cannot be read as Parquet: {_first_line(error)}") from None
    # Without an encoder in the way larger batches are faster.
    rows = max(batch_size, 8192) if "image_vector" in file.schema_arrow.names else batch_size
    start = 0
    try:
        for batch in file.iter_batches(batch_size=rows):
            frame = pl.DataFrame(pl.from_arrow(batch))
            yield _Raw(frame, [f"row {start + i + 1}" for i in range(len(frame))], [])
            start += len(frame)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{path} cannot be read after row {start:,}: {_first_line(error)}"
        ) from None


def _normalised(path: Path, raw: _Raw) -> SourceBatch:
    """Any table's rows under our column names, without those that cannot be a pair."""
    if not len(raw.frame):
        return SourceBatch(_frame([]), raw.rejects)
    image, caption = (_find(raw.frame, what) for what in ("image", "caption"))
    has_vectors = "image_vector" in raw.frame.columns
    if image is None and not has_vectors:
        raise SourceError(_no_column(path, "image", raw.frame))
    if caption is None and "text_vector" not in raw.frame.columns:
        raise SourceError(_no_column(path, "caption", raw.frame))
    columns = [
        pl.Series("item", raw.items, dtype=pl.String),
        *_picture_columns(raw.frame, image, path.parent),
        _string(raw.frame, caption, "caption").str.strip_chars(),
        *(_string(raw.frame, name, name) for name in ("pair_id", "license", "source")),
        _attributes(raw.frame, {image, caption, *_TAKEN}),
        *_vector_columns(raw.frame),
    ]
    frame = pl.DataFrame(columns).with_columns(
        pair_id=pl.when(pl.col("pair_id") != "").then(pl.col("pair_id")),
        source=pl.col("source").fill_null(_text(path.name)),
    )
    faults = _faults(frame)
    usable = frame.filter(pl.Series([f is None for f in faults], dtype=pl.Boolean))
    refused = zip(raw.items, faults, strict=True)
    rejects = [Reject(_text(str(path)), item, why) for item, why in refused if why]
    return SourceBatch(usable, raw.rejects + rejects)


def _faults(frame: pl.DataFrame) -> list[str | None]:
    vectors = "image_vector" in frame.columns
    faults = []
    for row in frame.select(
        "caption",
        "image_path",
        has_bytes=pl.col("image_bytes").is_not_null(),
        has_image=pl.col("image_vector").is_not_null() if vectors else pl.lit(False),
        has_text=pl.col("text_vector").is_not_null()
        if "text_vector" in frame.columns
        else pl.lit(False),
    ).iter_rows():
        faults.append(_fault(*row))
    return faults


def _fault(
    caption: str | None, path: str | None, has_bytes: bool, has_image: bool, has_text: bool
) -> str | None:
    if not (caption is None and has_text) and (fault := _caption_fault(caption)):
        return fault
    if has_image or has_bytes:
        return None
    if not path:
        return "no image"
    if "://" in path:
        return "remote images are not fetched"
    return None


def _picture_columns(frame: pl.DataFrame, name: str | None, base: Path) -> list[pl.Series]:
    """Where each picture is: Hugging Face's {bytes, path}, plain bytes, or a path."""
    n = len(frame)
    none = pl.Series([None] * n, dtype=pl.String)
    data = pl.Series("image_bytes", [None] * n, dtype=pl.Binary)
    column = frame[name] if name else none
    if isinstance(column.dtype, pl.Struct):
        fields = [f.name for f in column.dtype.fields]
        data = column.struct.field("bytes").alias("image_bytes") if "bytes" in fields else data
        column = column.struct.field("path") if "path" in fields else none
    elif column.dtype == pl.Binary:
        data, column = column.alias("image_bytes"), none
    uris = column.cast(pl.String)
    paths = [None if not u else u if "://" in u else str(base / u) for u in uris]
    own = frame["image_uri"].cast(pl.String) if "image_uri" in frame.columns else None
    return [
        pl.Series("image_path", paths, dtype=pl.String),
        data,
        (own if own is not None else pl.Series(paths, dtype=pl.String)).alias("image_uri"),
    ]


def _vector_columns(frame: pl.DataFrame) -> list[pl.Series]:
    found = [name for name in ("image_vector", "text_vector") if name in frame.columns]
    for name in found:
        if not isinstance(frame[name].dtype, pl.List | pl.Array):
            raise SourceError(f"column {name} holds {frame[name].dtype}, not lists of numbers")
    try:
        return [frame[name].cast(pl.List(pl.Float32)) for name in found]
    except pl.exceptions.PolarsError:
        raise SourceError(f"columns {', '.join(found)} do not hold numbers") from None


def _attributes(frame: pl.DataFrame, known: Iterable[str | None]) -> pl.Series:
    """All further columns of a row as one JSON object; empty when there are none."""
    rest = [c for c in frame.columns if c not in set(known) | {"image_uri", "attributes"}]
    if not rest:
        own = frame["attributes"].cast(pl.String) if "attributes" in frame.columns else None
        return (own if own is not None else pl.Series(["{}"] * len(frame))).alias("attributes")
    rows = frame.select(rest).iter_rows(named=True)
    return pl.Series("attributes", [json.dumps(r, default=str, ensure_ascii=False) for r in rows])


def _string(frame: pl.DataFrame, name: str | None, alias: str) -> pl.Series:
    if name is None or name not in frame.columns:
        return pl.Series(alias, [None] * len(frame), dtype=pl.String)
    return frame[name].cast(pl.String).alias(alias)


def _find(frame: pl.DataFrame, what: str) -> str | None:
    by_lower = {c.lower(): c for c in frame.columns}
    return next((by_lower[n] for n in NAMES[what] if n in by_lower), None)


def _no_column(path: Path, what: str, frame: pl.DataFrame) -> str:
    return (
        f"{path} has no {what} column; its columns: {', '.join(frame.columns)}; "
        f"expected one of {', '.join(NAMES[what])}"
    )


def _frame(rows: list[dict[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=COLUMNS).with_columns(attributes=pl.lit("{}"))


def _text(name: str) -> str:
    """A file name as text that Arrow can hold; undecodable bytes are shown escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
