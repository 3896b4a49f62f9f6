"""Predictions as a stream that is also a table: polars, pandas, Arrow, or a page in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


class Answer(Protocol):
    """A prediction of one model or of several."""

    @property
    def label(self) -> str:
        """The best label."""
        ...

    @property
    def score(self) -> float:
        """Its score."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The prediction as JSON has it, `image`, `model` and `predictions` among others."""
        ...

    def _repr_html_(self) -> str: ...


One = TypeVar("One", bound=Answer)

# What a notebook shows of a stream without using it up.
_SHOWN = 20


class Predictions(Generic[One]):
    """Predictions in order, made while they are read: go through them once, or `list` them.

    The tables have a row per picture: `image`, `model`, `label`, `score` and `predictions`, a list
    of every label with its score, best first.
    """

    def __init__(self, made: Iterable[One]) -> None:
        """Wrap predictions, which are asked for one by one."""
        self._rest = iter(made)

    def __repr__(self) -> str:
        """One line, which makes none of them."""
        return "Predictions(made while they are read)"

    def __iter__(self) -> Iterator[One]:
        """Go on where the last reader stopped."""
        return self

    def __next__(self) -> One:
        """Make the next one."""
        return next(self._rest)

    def to_dicts(self) -> list[dict[str, Any]]:
        """What is left, each as its `to_dict`."""
        return [prediction.to_dict() for prediction in self]

    def to_arrow(self) -> pa.Table:
        """What is left as an Arrow table."""
        import pyarrow as pa  # a program that asks for no table need not wait for it

        ranked = pa.list_(pa.struct({"label": pa.string(), "score": pa.float64()}))
        texts = [(name, pa.string()) for name in ("image", "model", "label")]
        schema = pa.schema([*texts, ("score", pa.float64()), ("predictions", ranked)])
        rows = [{**one.to_dict(), "label": one.label, "score": one.score} for one in self]
        return pa.Table.from_pylist(rows, schema=schema)

    def to_polars(self) -> pl.DataFrame:
        """What is left as a polars frame."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_pandas(self) -> pd.DataFrame:
        """What is left as a pandas frame; pandas must be installed."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def _repr_html_(self) -> str:
        first = list(islice(self._rest, _SHOWN))
        self._rest = chain(first, self._rest)
        more = "" if len(first) < _SHOWN else "<p>…</p>"
        return "".join(one._repr_html_() for one in first) + more
