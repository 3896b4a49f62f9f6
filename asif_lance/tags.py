"""Model versions as Lance tags, with what is known of each as the tag's metadata.

A tag's metadata is one small file that is replaced at once, and tags cost nothing to readers of
the table; so there is no second table that could disagree with the tags.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import lance

from asif_lance.errors import InvalidNameError, VersionNotFoundError
from asif_lance.records import ModelVersion

LATEST = "latest"
_NUMBERED = re.compile(r"v\d+")
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Tags:
    """The tags of one pairs table. Callers that change them hold the write lock."""

    def __init__(self, table_uri: str) -> None:
        self._table_uri = table_uri

    def versions(self) -> list[ModelVersion]:
        """All published versions, oldest first."""
        tags = self._tags().list()
        names: dict[int, list[str]] = {}
        for name, tag in tags.items():
            if not _NUMBERED.fullmatch(name) and name != LATEST:
                names.setdefault(tag["version"], []).append(name)
        numbered = [(n, t) for n, t in tags.items() if _NUMBERED.fullmatch(n) and t["metadata"]]
        found = [_from_tag(n, t, sorted(names.get(t["version"], []))) for n, t in numbered]
        return sorted(found, key=lambda v: v.number)

    def version(self, name: str) -> ModelVersion:
        """One version by number, alias or `latest`.

        Raises:
            VersionNotFoundError: there is none.
        """
        versions = self.versions()
        if name == LATEST and versions:
            return versions[-1]
        for version in versions:
            if name == version.name or name in version.aliases:
                return version
        raise VersionNotFoundError(name, tuple(v.name for v in versions))

    def newest(self) -> ModelVersion | None:
        """The version with the highest number."""
        versions = self.versions()
        return versions[-1] if versions else None

    def publish(self, version: ModelVersion) -> None:
        """Make a version exist: tag, then metadata (from then on it counts), then `latest`."""
        tags = self._tags()
        tags.create(version.name, version.lance_version)
        tags.replace_metadata(version.name, _to_metadata(version))
        _point(tags, LATEST, version.lance_version)

    def remove_unfinished(self) -> None:
        """Take away tags whose publisher was killed before it wrote their metadata."""
        tags = self._tags()
        for name, tag in tags.list().items():
            if _NUMBERED.fullmatch(name) and not tag["metadata"]:
                tags.delete(name)

    def set_alias(self, alias: str, version: str) -> None:
        """Point an alias at a version.

        Raises:
            InvalidNameError, VersionNotFoundError: as they say.
        """
        if alias == LATEST or _NUMBERED.fullmatch(alias):
            raise InvalidNameError(f"{alias!r} is kept for model versions; choose another alias")
        if not _ALIAS.fullmatch(alias):
            raise InvalidNameError(
                f"alias {alias!r} may only have letters, digits, '.', '-' and '_'"
            )
        _point(self._tags(), alias, self.version(version).lance_version)

    def remove_alias(self, alias: str) -> None:
        """Take an alias away.

        Raises:
            InvalidNameError: it is no alias.
        """
        if all(alias not in v.aliases for v in self.versions()):
            raise InvalidNameError(f"there is no alias {alias!r}")
        self._tags().delete(alias)

    def _tags(self) -> Any:
        return lance.dataset(self._table_uri).tags


def _point(tags: Any, name: str, lance_version: int) -> None:
    if name in tags.list():
        tags.update(name, lance_version)
    else:
        tags.create(name, lance_version)


def _to_metadata(version: ModelVersion) -> dict[str, str]:
    fields = ("message", "command", "pairs", "added", "removed")
    values = {name: str(getattr(version, name)) for name in fields}
    return values | {"created_at": version.created_at.isoformat()}


def _from_tag(name: str, tag: dict[str, Any], aliases: list[str]) -> ModelVersion:
    known = tag["metadata"]
    return ModelVersion(
        name=name,
        number=int(name[1:]),
        lance_version=tag["version"],
        message=known["message"],
        command=known["command"],
        created_at=datetime.fromisoformat(known["created_at"]),
        pairs=int(known["pairs"]),
        added=int(known["added"]),
        removed=int(known["removed"]),
        aliases=tuple(aliases),
    )
