"""Who may do what: tokens with one of three rights, kept as digests."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from asif_lance.errors import InputError

#: The cookie of a browser that has shown a token; it holds the name of a session, not the token.
COOKIE = "asif_lance_session"

SESSION_SECONDS = 12 * 3600

_SESSIONS = 1000  # at once; the oldest end first
_DIGEST = 64  # hex digits of SHA-256


class Right(IntEnum):
    """What somebody may do; each includes those before it."""

    NONE = 0
    READ = 1
    WRITE = 2
    FORGET = 3


@dataclass(frozen=True, slots=True)
class Token:
    """A right and the SHA-256, in hex, of the token that gives it."""

    right: Right
    digest: str


def make_token(right: Right) -> tuple[str, str]:
    """A new token, and the line of a tokens file that lets it in."""
    token = secrets.token_urlsafe(32)
    return token, f"{right.name.lower()} {_digest_of(token)}"


def read_tokens(file: Path) -> tuple[Token, ...]:
    """The tokens of a file: a line `read|write|forget SHA256` each; `#` begins a comment.

    Raises:
        InputError: the file cannot be read, or a line is something else.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the tokens file {file}") from error
    tokens = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words:
            tokens.append(_parse(words, f"{file}, line {number}"))
    if not tokens:
        raise InputError(f"{file} has no tokens: `asif-lance serve --new-token read` makes one")
    return tuple(tokens)


def _parse(words: Sequence[str], where: str) -> Token:
    names = {right.name.lower(): right for right in Right if right}
    if len(words) != 2 or words[0] not in names or len(words[1]) != _DIGEST:
        raise InputError(f"{where}: expected read, write or forget, and the SHA-256 of a token")
    return Token(names[words[0]], words[1].lower())


class Guard:
    """Tells what the bearer of a token, or a browser's session, may do. Safe from threads."""

    def __init__(self, tokens: Sequence[Token], otherwise: Right) -> None:
        """Know the tokens; without any, everybody has the other right."""
        self._tokens, self._otherwise = tokens, otherwise
        self._sessions: dict[str, tuple[Right, float]] = {}
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether nobody needs a token."""
        return not self._tokens

    def right_of(self, authorization: str, session: str) -> Right:
        """What a request may do, by its `Authorization` header or its session's name."""
        if self.open:
            return self._otherwise
        kind, _, token = authorization.partition(" ")
        if kind.lower() == "bearer":
            return self.right_of_token(token.strip())
        with self._lock:
            right, until = self._sessions.get(session, (Right.NONE, 0.0))
        return right if time.monotonic() < until else Right.NONE

    def right_of_token(self, token: str) -> Right:
        """What a token lets somebody do; all digests are compared, each in constant time."""
        digest = _digest_of(token)
        found = [t.right for t in self._tokens if hmac.compare_digest(t.digest, digest)]
        return max(found, default=Right.NONE)

    def begin_session(self, right: Right) -> str:
        """The name of a new session with a right, for a cookie."""
        name = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._sessions) >= _SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[name] = right, time.monotonic() + SESSION_SECONDS
        return name

    def end_session(self, name: str) -> None:
        """Forget a session."""
        with self._lock:
            self._sessions.pop(name, None)


def _digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
