"""Recorded runs whose truth is known: accuracy, confusions, and the pictures behind them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from asif_lance.encoders import read_picture
from asif_lance.errors import ImageError, printable
from asif_lance.service.failures import RequestError
from asif_lance.service.messages import Cell, Evaluated, EvaluationAnswer, EvaluationsAnswer, Judged
from asif_lance.service.queries import EvaluationQuery

#: Runs, and confusions of a run, that are told.
RUNS, CELLS = 100, 400

_PICTURES = 4096  # whose files are known without asking; the ones not asked for longest go first

#: Answers SQL of our own.
Ask = Callable[[str], pa.Table]

_RUNS = """
SELECT run_id, any_value(model) AS model, min(created_at) AS created_at, count(*) AS pictures,
  count(*) FILTER (label = truth) AS right
FROM predictions WHERE rank = 1 AND truth IS NOT NULL{where}
GROUP BY run_id ORDER BY created_at DESC, run_id LIMIT {limit}"""

_CELLS = """
SELECT truth, label, count(*) AS pictures FROM predictions
WHERE rank = 1 AND truth IS NOT NULL AND run_id = {run}
GROUP BY ALL ORDER BY pictures DESC, truth, label LIMIT {limit}"""

_JUDGED = """
SELECT prediction_id, image, truth, label, score FROM predictions
WHERE rank = 1 AND truth IS NOT NULL AND run_id = {run}{where}
ORDER BY score DESC, prediction_id LIMIT {limit} OFFSET {offset}"""

_LABELS = """
SELECT DISTINCT label FROM (
  SELECT label FROM predictions WHERE run_id = {run}
  UNION ALL SELECT truth FROM predictions WHERE run_id = {run} AND truth IS NOT NULL)
ORDER BY label LIMIT {limit}"""


class Evaluations:
    """Reads runs with SQL. Safe from threads."""

    def __init__(self, ask: Ask) -> None:
        """Ask the database so."""
        self._ask = ask
        self._files: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def list_runs(self) -> EvaluationsAnswer:
        """The newest runs whose truth is known, newest first."""
        rows = self._ask(_RUNS.format(where="", limit=RUNS)).to_pylist()
        return EvaluationsAnswer(runs=[_to_evaluated(row) for row in rows])

    def find(self, run: str, query: EvaluationQuery) -> EvaluationAnswer:
        """One run: which label was taken for which, and the pictures of one such case.

        Raises:
            RequestError: there is no such run, or its truth is not known.
        """
        rows = self._ask(_RUNS.format(where=f" AND run_id = {_quote(run)}", limit=1)).to_pylist()
        if not rows:
            raise RequestError(404, "there is no such run whose truth is known")
        cells = self._ask(_CELLS.format(run=_quote(run), limit=CELLS)).to_pylist()
        names = ("truth", "label")
        chosen = [(n, value) for n in names if (value := getattr(query, n)) is not None]
        where = "".join(f" AND {name} = {_quote(value)}" for name, value in chosen)
        where += "" if chosen else " AND label <> truth"
        sql = _JUDGED.format(run=_quote(run), where=where, limit=query.limit, offset=query.offset)
        found = self._ask(sql).to_pylist()
        self._remember({row["prediction_id"]: row["image"] for row in found})
        return EvaluationAnswer(
            run=_to_evaluated(rows[0]),
            cells=[Cell(**cell) for cell in cells],
            pictures=[_to_judged(row) for row in found],
        )

    def labels(self, run: str, most: int) -> list[str]:
        """The labels that a run answered or should have."""
        found = self._ask(_LABELS.format(run=_quote(run), limit=most))
        return [str(label) for label in found["label"].to_pylist()]

    def read_picture(self, prediction: str) -> tuple[str, bytes]:
        """The name and the bytes of a picture that a run judged.

        Raises:
            RequestError: it is not known, or cannot be read here any more.
        """
        with self._lock:
            image = self._files.get(prediction)
        if image is None:
            asked = f"WHERE rank = 1 AND prediction_id = {_quote(prediction)} LIMIT 1"
            rows = self._ask(f"SELECT image FROM predictions {asked}").to_pylist()  # noqa: S608
            if not rows:
                raise RequestError(404, "no run has such a prediction")
            image = str(rows[0]["image"])
            self._remember({prediction: image})
        try:
            return _name_of(image), read_picture(image)
        except ImageError as error:
            raise RequestError(404, "the picture cannot be read here any more") from error

    def forget(self) -> None:
        """Keep nothing: runs may have lost pictures."""
        with self._lock:
            self._files.clear()

    def _remember(self, files: dict[str, str]) -> None:
        with self._lock:
            self._files.update(files)
            while len(self._files) > _PICTURES:
                self._files.popitem(last=False)


def _quote(value: str) -> str:
    """A text as SQL has it."""
    return "'" + value.replace("'", "''") + "'"


def _name_of(image: str) -> str:
    """A picture's name without the folders that it lies in."""
    return printable(PurePath(image).name or image)


def _to_evaluated(row: dict[str, Any]) -> Evaluated:
    return Evaluated(
        run_id=row["run_id"],
        model=row["model"],
        created_at=row["created_at"],
        pictures=row["pictures"],
        right=row["right"],
    )


def _to_judged(row: dict[str, Any]) -> Judged:
    return Judged(**{**row, "image": _name_of(row["image"])})
