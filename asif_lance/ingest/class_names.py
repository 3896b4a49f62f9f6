"""Columns of numbers that stand for names, as the datasets library writes them into Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl
from polars.datatypes import DataType, DataTypeClass

# What a schema's metadata say of its columns.
Features = Mapping[str, Any]

# The first and last day that every program can write, as days since 1970.
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_PER_DAY = {"ms": 86_400_000, "us": 86_400_000_000}


def read_features(metadata: Mapping[bytes, bytes] | None) -> Features:
    """The features that the datasets library noted in a Parquet schema, by column."""
    try:
        noted = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    except ValueError:
        return {}
    found = _inside(_inside(noted, "info"), "features")
    return found if isinstance(found, dict) else {}


def class_columns(features: Features) -> dict[str, list[str]]:
    """The columns that hold numbers of classes, and the classes' names."""
    named = {column: _class_names(feature) for column, feature in features.items()}
    return {column: names for column, names in named.items() if names}


def replace_codes(frame: pl.DataFrame, features: Features) -> pl.DataFrame:
    """The frame with classes by name, at any depth; -1, which means none, becomes null.

    Dates that cannot be written become null too.
    """
    changed = {
        name: _cleaned(pl.col(name), dtype, features.get(name))
        for name, dtype in frame.schema.items()
        if _has_dates(dtype) or features.get(name)
    }
    return frame.with_columns(**changed)


def _cleaned(values: pl.Expr, dtype: DataType | DataTypeClass, feature: Any) -> pl.Expr:
    names = _class_names(feature)
    if names and dtype.is_integer():
        by_code = dict(enumerate(names)) | {-1: None}
        cleaned = values.replace_strict(
            by_code, default=values.cast(pl.String), return_dtype=pl.String
        )
    elif isinstance(dtype, pl.List):
        cleaned = values.list.eval(_cleaned(pl.element(), dtype.inner, _element(feature)))
    elif isinstance(dtype, pl.Struct):
        fields = [
            _cleaned(pl.field(f.name), f.dtype, _inside(_element(feature), f.name)).alias(f.name)
            for f in dtype.fields
        ]
        cleaned = values.struct.with_fields(*fields)
    elif isinstance(dtype, pl.Datetime) and dtype.time_unit in _PER_DAY:
        cleaned = _within(values, _PER_DAY[dtype.time_unit])
    else:
        cleaned = _within(values, 1) if dtype == pl.Date else values
    return cleaned


def _within(dates: pl.Expr, per_day: int) -> pl.Expr:
    low, high = _FIRST_DAY * per_day, _LAST_DAY * per_day
    return pl.when(dates.to_physical().is_between(low, high)).then(dates)


def _has_dates(dtype: DataType | DataTypeClass) -> bool:
    return "Date" in str(dtype)


def _class_names(feature: Any) -> list[str]:
    """The names of a class feature, none for any other."""
    names = _inside(feature, "names")
    if _inside(feature, "_type") != "ClassLabel" or not isinstance(names, list):
        return []
    return [str(name) for name in names]


def _element(feature: Any) -> Any:
    """The feature of a list's elements; lists are noted in three ways."""
    if isinstance(feature, list):
        return feature[0] if feature else None
    inner = _inside(feature, "feature")
    return feature if inner is None else inner


def _inside(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None
