"""What a running service allows: where it listens, who may do what, and how much of everything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asif_lance.errors import InputError
from asif_lance.service.rights import Right, Token

#: Addresses that only this machine reaches.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The settings of one service.

    Attributes:
        uri: the database.
        host: the address to listen at; beyond loopback there have to be tokens.
        port: the port; 0 for any that is free.
        names: further names that browsers and proxies may call it by, without a port.
        tokens: who may do what; none on loopback for `rights` to everybody there.
        rights: what anybody may do where there are no tokens.
        keys_folder: where the keys of receipts are; None for the user's.
        device: where encoders and search run.
        body_bytes: the most that one request may send.
        pictures: the most pictures or vectors of one request.
        labels: the most labels of one request, and the most templates.
        held_bytes: what uploaded pictures may occupy; the oldest go first.
        sql_seconds: the longest that a question in SQL may take.
        sql_memory: the most memory that it may take.
        sql_bytes: the largest answer to it.
        requests: the most requests that are answered at once; others are told to come again.
    """

    uri: str
    host: str = LOOPBACK[0]
    port: int = 8000
    names: tuple[str, ...] = ()
    tokens: tuple[Token, ...] = ()
    rights: Right = Right.READ
    keys_folder: Path | None = None
    device: str = "auto"
    body_bytes: int = 32 * 2**20
    pictures: int = 64
    labels: int = 1000
    held_bytes: int = 256 * 2**20
    sql_seconds: float = 20.0
    sql_memory: str = "1GB"
    sql_bytes: int = 16 * 2**20
    requests: int = 64

    def __post_init__(self) -> None:
        """Refuse to be open to a network without tokens."""
        if self.host not in LOOPBACK and not self.tokens:
            raise InputError(
                f"{self.host} can be reached from other machines: give --tokens FILE, "
                "or listen at 127.0.0.1"
            )

    @property
    def hosts(self) -> frozenset[str]:
        """The names that a request's `Host` may have, in lower case."""
        return frozenset(name.lower() for name in (*LOOPBACK, "[::1]", self.host, *self.names))
