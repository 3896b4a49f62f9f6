"""The process that changes a database for a service, so that searches keep the interpreter.

Started by `changes`, see `child_process`. If it is killed, the next one finishes what it had begun:
opening the database does.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asif_lance.child_process import read_requests, send_reply
from asif_lance.errors import AsifError
from asif_lance.service.failures import describe_failure
from asif_lance.store import PairStore
from asif_lance.store import forget as forgetting


@dataclass(frozen=True, slots=True)
class Changer:
    """Does what is asked, with the keys of a folder."""

    store: PairStore
    keys_folder: Path | None

    def delete(self, pairs: list[str], message: str) -> dict[str, Any]:
        """Take pairs out of the newest model."""
        deleted = self.store.delete(pairs)
        version = self.store.publish(command="delete", message=message)
        return {"deleted": deleted, "model": (version or self.store.version()).name}

    def plan(self, pairs: list[str], twins: bool) -> dict[str, Any]:
        """What forgetting pairs would touch; whether others have the same picture takes longer."""
        found = forgetting.plan(self.store, pairs, twins=twins, folder=self.keys_folder)
        return {
            "pairs": [{"pair_id": p.pair_id, "caption": p.caption} for p in found.listing],
            "unknown": found.unknown,
            "versions": found.versions,
            "fragments": found.fragments,
            "bytes": found.bytes,
            "recordings": len(found.runs),
            "same_picture": found.twins.same_picture if found.twins else [],
            "copies": [copy.place for copy in found.copies],
            "pictures": sorted(found.pictures),
            "forgotten": dict(found.forgotten),
        }

    def forget(self, pairs: list[str], reason: str) -> dict[str, Any]:
        """Forget pairs for good."""
        receipt = forgetting.forget(self.store, pairs, reason=reason, folder=self.keys_folder)
        return {"receipt_id": receipt.receipt_id}


def main() -> None:
    """Answer requests until stdin ends."""
    try:
        _answer_all()
    except BrokenPipeError:  # whoever asked is gone; nothing is left to say, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _answer_all() -> None:
    requests = read_requests()
    settings = next(requests)
    uri, folder = settings["uri"], settings["keys_folder"]
    try:
        changer = Changer(PairStore.open(uri), folder and Path(folder))
    except AsifError as error:
        send_reply(_describe(error, uri))
        return
    send_reply({})
    for request in requests:
        try:
            reply = getattr(changer, request.pop("do"))(**request)
        except AsifError as error:
            reply = _describe(error, uri)
        send_reply(reply)


def _describe(error: AsifError, uri: str) -> dict[str, Any]:
    status, message = describe_failure(error, uri)
    return {"status": status, "message": message, "log": str(error)}


if __name__ == "__main__":
    main()
