"""What was read last of many items, by key: the oldest make room for the newest."""

from __future__ import annotations

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class RecentItems(Generic[Key, Value]):
    """A mapping that drops what it was given first when it holds more than `most` entries."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        """The value of a key, or None."""
        return self._held.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Take a value in."""
        self._held[key] = value
        if len(self._held) > self._most:
            del self._held[next(iter(self._held))]
