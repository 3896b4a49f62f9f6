"""What is told of a failure: a status and one line, never a path of this machine or a traceback."""

from __future__ import annotations

import re

from asif_lance.errors import (
    AsifError,
    CorruptDatabaseError,
    DatabaseBusyError,
    DatabaseError,
    ForgottenPairError,
    StaleModelError,
    VersionNotFoundError,
    printable,
)

_LONGEST = 500

_OPTION = re.compile(r"--label-vectors\b")  # the command's name of what a request has

#: Kinds of errors with what is answered; the first that fits counts. None tells the error's words.
_ANSWERS: tuple[tuple[type[AsifError], int, str | None], ...] = (
    (VersionNotFoundError, 404, None),
    (DatabaseBusyError, 503, "another writer holds the database: ask again"),
    (StaleModelError, 503, "pairs are being forgotten at this moment: ask again"),
    (CorruptDatabaseError, 500, "the database is damaged: its keeper should run `check`"),
    (DatabaseError, 500, "the database could not be used: the service's log says why"),
    (ForgottenPairError, 409, None),
    (AsifError, 422, None),
)


class RequestError(Exception):
    """A request that cannot be answered: an HTTP status and one line for a person.

    `back` is the address of a page to go on with and what its link says, where there is a better
    one than that of where the person was.
    """

    def __init__(self, status: int, message: str, back: tuple[str, str] | None = None) -> None:
        self.status, self.message, self.back = status, message, back
        super().__init__(message)


def describe_failure(error: AsifError, uri: str) -> tuple[int, str]:
    """The HTTP status of an error and what is told of it; the database's address is not."""
    status, told = next((s, t) for kind, s, t in _ANSWERS if isinstance(error, kind))
    message = " ".join(str(error).split()) if told is None else told
    message = _OPTION.sub("label_vectors", printable(message.replace(uri, "the database")))
    return status, message if len(message) <= _LONGEST else message[:_LONGEST] + "…"
