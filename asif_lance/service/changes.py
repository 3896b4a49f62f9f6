"""What changes a database, and questions in SQL: delete, forget with a plan, audit."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

import pyarrow as pa

from asif_lance.audit import HEAD, Audit, matching_ids, matching_ids_anywhere
from asif_lance.audit.csv_lines import name_infinities
from asif_lance.audit.values import values_of
from asif_lance.child_process import ChildProcess
from asif_lance.database import LATEST
from asif_lance.errors import InputError
from asif_lance.forgetting import Document, load_document
from asif_lance.service.failures import RequestError
from asif_lance.service.messages import (
    DeleteAnswer,
    ForgetPlanAnswer,
    ReceiptAnswer,
    SqlAnswer,
)
from asif_lance.service.operations import Operations
from asif_lance.service.requests import ChosenPairs

#: Rows of an answer to SQL that are handed on.
SQL_ROWS = 1000

_TOLD = 3  # pairs that an error names

_QUESTIONS = 2  # in SQL at once; each has a process of its own

log = logging.getLogger("asif_lance.service")


class PairChanges:
    """Writing operations, and SQL, of one service. Safe from threads.

    What changes pairs runs in a process of its own, see `change_process`, one change at a time.
    """

    def __init__(self, operations: Operations) -> None:
        """Change what these operations read."""
        self._operations, self._settings = operations, operations.settings
        self._store = operations.models.store
        self._process: ChildProcess | None = None
        self._closed = False
        self._keepers: list[Callable[[], None]] = []
        self._questions = threading.BoundedSemaphore(_QUESTIONS)
        self._writing = threading.Lock()

    def on_forget(self, forget_kept: Callable[[], None]) -> None:
        """Call this, too, before the receipt of a forget is answered."""
        self._keepers.append(forget_kept)

    def delete(self, chosen: ChosenPairs, message: str) -> DeleteAnswer:
        """Take pairs out of the newest model."""
        with self._one_change():
            ids = self._ids(chosen, anywhere=False)
            done = self._ask("delete", pairs=ids, message=message)
        deleted = done["deleted"]
        return DeleteAnswer(deleted=deleted, not_found=len(ids) - deleted, model=done["model"])

    def plan(self, chosen: ChosenPairs) -> ForgetPlanAnswer:
        """What forgetting pairs would touch."""
        ids = self._ids(chosen, anywhere=True)
        with self._one_change():
            found = self._ask("plan", pairs=ids, twins=True)
        told = {name: found[name] for name in ForgetPlanAnswer.model_fields if name in found}
        return ForgetPlanAnswer(**told, confirm=_confirmation(found))

    def forget(self, pair_ids: Sequence[str], confirm: str, reason: str) -> ReceiptAnswer:
        """Forget pairs for good; nothing here answers from them once the receipt is there.

        Raises:
            RequestError: the plan that was confirmed is another one by now.
        """
        with self._one_change():
            found = self._ask("plan", pairs=list(pair_ids), twins=False)
            if not found["pairs"]:
                told = [f"{pair}: {when}" for pair, when in found["forgotten"].items()]
                known = f" ({'; '.join(told[:_TOLD])})" if told else ""
                raise RequestError(404, f"none of these pairs is in any version{known}")
            if _confirmation(found) != confirm:
                raise RequestError(409, "this is not the plan that was confirmed: plan again")
            pairs = [pair["pair_id"] for pair in found["pairs"]]
            try:
                done = self._ask("forget", pairs=pairs, reason=reason)
            finally:  # though it failed, some may be gone already
                self._operations.models.close_all()
                self._operations.pictures.drop(found["pictures"])
                for forget_kept in self._keepers:
                    forget_kept()
        return self.receipt(done["receipt_id"])

    def receipt(self, receipt_id: str) -> ReceiptAnswer:
        """A receipt that was given out before.

        Raises:
            RequestError: there is none of this id.
        """
        try:
            document, _ = load_document(self._store.uri, receipt_id)
        except InputError as error:
            raise RequestError(404, "there is no such receipt") from error
        return _to_answer(document)

    def ask_sql(self, sql: str, model: str) -> SqlAnswer:
        """The answer to one SELECT as JSON; errors are those of `query`."""
        return _to_rows(self.query(sql, model))

    def query(self, sql: str, model: str = LATEST) -> pa.Table:
        """The answer to one SELECT, from a process of its own.

        Raises:
            AuditError: the SQL is wrong, reaches outside, or takes too much.
            RequestError: others are asking.
        """
        settings = self._settings
        with self._question():
            self._store.version(model)
            with Audit(
                self._store,
                model,
                seconds=settings.sql_seconds,
                memory=settings.sql_memory,
                result_bytes=settings.sql_bytes,
            ) as audit:
                return audit.query(sql)

    def _ids(self, chosen: ChosenPairs, *, anywhere: bool) -> list[str]:
        if bool(chosen.pairs) == (chosen.where is not None):
            raise InputError("name the pairs by id or by where, one of the two")
        if chosen.where is None:
            return list(dict.fromkeys(chosen.pairs))
        with self._question():
            if anywhere:
                return matching_ids_anywhere(self._store, chosen.where)
            return matching_ids(self._store, chosen.where, HEAD)

    def close(self) -> None:
        """End the process that changes, once what it does is done."""
        self._closed = True
        self._end_process()

    def _ask(self, do: str, **request: Any) -> dict[str, Any]:
        """What the process that changes replies; it starts with the first request.

        Raises:
            RequestError: the request failed, or the process was ended.
        """
        try:
            return _check(self._start().ask({"do": do, **request}))
        except EOFError as error:
            self._end_process()
            with suppress(EOFError, RequestError):
                self._start()  # which finishes what was begun
            raise RequestError(503, "what changes pairs was ended meanwhile: ask again") from error

    def _start(self) -> ChildProcess:
        if self._closed:
            raise RequestError(503, "the service is ending")
        if self._process is None:
            self._process = ChildProcess("asif_lance.service.change_process")
            folder = self._settings.keys_folder
            keys = None if folder is None else str(folder)
            try:
                _check(self._process.ask({"uri": self._store.uri, "keys_folder": keys}))
            except (EOFError, RequestError):  # it has ended
                self._end_process()
                raise
        return self._process

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()

    @contextmanager
    def _question(self) -> Iterator[None]:
        if not self._questions.acquire(timeout=self._settings.sql_seconds):
            raise RequestError(503, "others are asking in SQL: ask again")
        try:
            yield
        finally:
            self._questions.release()

    @contextmanager
    def _one_change(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=self._store.lock_timeout):
            raise RequestError(503, "another change is under way: ask again")
        try:
            yield
        finally:
            self._writing.release()


def _check(reply: dict[str, Any]) -> dict[str, Any]:
    """Pass on a reply that tells of no failure."""
    if "status" not in reply:
        return reply
    if reply["status"] == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s", reply["log"])
    raise RequestError(reply["status"], reply["message"])


def _confirmation(plan: dict[str, Any]) -> str:
    """Names what a person saw: the pairs and the versions that have them."""
    seen = json.dumps([[pair["pair_id"] for pair in plan["pairs"]], plan["versions"]]).encode()
    return hashlib.sha256(seen).hexdigest()[:32]


def _to_answer(document: Document) -> ReceiptAnswer:
    receipt = document.receipt
    return ReceiptAnswer(
        receipt_id=receipt.receipt_id,
        created_at=receipt.created_at,
        pairs=receipt.pairs,
        reason=receipt.reason,
        clean=receipt.clean,
        findings=list(receipt.findings),
        versions=[
            version.name
            for version in receipt.versions
            if version.pairs_before != version.pairs_after
        ],
        files_searched=receipt.files_scanned,
        document=json.loads(document.body),
    )


def _to_rows(table: pa.Table) -> SqlAnswer:
    columns = [map(_to_json, values_of(column)) for column in table.slice(0, SQL_ROWS).columns]
    return SqlAnswer(
        columns=table.column_names,
        rows=[list(row) for row in zip(*columns, strict=True)],
        total=len(table),
    )


def _to_json(value: Any) -> Any:
    """A value as JSON has it: bytes in base64; `NaN` and `Infinity`, which it lacks, as texts."""
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return name_infinities(value)
        case bytes():
            return base64.b64encode(value).decode()
        case list() | tuple():
            return [_to_json(inner) for inner in value]
        case dict():
            return {str(key): _to_json(inner) for key, inner in value.items()}
    return str(value)
