"""Databases in object stores (`s3://bucket/…`): their files as paths, and writes on condition.

Lance reads and writes its tables there by itself. What lies beside them goes through here, with the
same settings: the environment (`AWS_ENDPOINT`, `AWS_ACCESS_KEY_ID`, …), where
`use_storage_options` puts what a program brings.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from asif_lance.errors import InputError, StorageError, printable

#: What a store says of the state of an object; a later write may ask that it is still that one.
Mark = Mapping[str, str]

#: How addresses of objects begin.
SCHEMES = ("s3", "gs", "az")
# How the names of settings begin in the environment, by scheme.
_PREFIXES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
# The settings that name a server.
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
}
_BUCKET = re.compile(r"[A-Za-z0-9._$-]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*")  # a name, or an IPv6 address

# How the libraries tell what a server answered, and that none did.
_ANSWER = re.compile(
    r"Error performing (?P<asked>[A-Z]+ \w+://[^\s?]+).*? - "
    r"Server returned non-2xx status code: (?P<status>\d+)(?P<name>[\w ]*):?(?P<body>.*)",
    re.DOTALL,
)
_SILENCE = re.compile(
    r"Error performing \w+ (?P<server>\w+://[^/\s]+).*? - HTTP error: (?P<why>[\w ]+)", re.DOTALL
)
_CODE = re.compile(r"<Code>(\w+)</Code>")
_TO_CHECK = {
    "400": "check the credentials and the region",
    "301": "check the region",
    "401": "check the credentials",
    "403": "check the credentials, and what they are allowed to do",
    "404": "check that the bucket is there",
}


def is_remote(uri: str | Path) -> bool:
    """Whether an address is one of an object store."""
    return "://" in str(uri)


def use_storage_options(uri: str | Path, options: Mapping[str, str] | None) -> None:
    """Has this process, and those that it starts, reach an object store with these settings.

    Args:
        uri: the database; options for a folder are refused.
        options: as Lance takes them: `endpoint`, `region`, `aws_access_key_id`, `allow_http`, …

    Raises:
        InputError: the database is a folder, or options that are no mapping.
    """
    if options is not None and not isinstance(options, Mapping):
        raise InputError(f"storage options are a mapping, not {type(options).__name__}")
    if not options:
        return
    prefix = _PREFIXES.get(str(uri).partition("://")[0])
    if prefix is None:
        raise InputError(f"storage options are for object stores ({', '.join(SCHEMES)})")
    for name, value in options.items():
        key = name.upper()
        os.environ[key if key.startswith(prefix) else prefix + key] = str(value)
    open_store.cache_clear()
    check_endpoint(uri)


def check_address(uri: str) -> None:
    """Passes the address of a database that all libraries take for the same objects.

    Lance reads it as a URL: what is beyond `?` or `#` is cut off there, and `%41` is an A. To
    fsspec `*` and `[` are patterns where it lists what is in a folder.

    Raises:
        StorageError: it is another one, or the server's address is none.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    wrong = next((sign for sign in key if sign in "?#%*[" or printable(sign) != sign), None)
    if scheme not in SCHEMES:
        reason = f"the address of an object store begins with {'://, '.join(SCHEMES)}://"
    elif not _BUCKET.fullmatch(bucket):
        reason = "it names no bucket"
    elif not key:
        reason = f"a database has a name in its bucket, as {scheme}://{bucket}/pairs.lancedb"
    elif wrong is not None:
        reason = f"the address of a database in an object store has no {printable(wrong)!r} in it"
    elif not {"", ".", ".."}.isdisjoint(key.split("/")) or key != key.strip():
        reason = "the address of a database has no empty names, `.` or `..`, nor a space at its end"
    else:
        check_endpoint(uri)
        return
    raise StorageError(f"{printable(uri)}: {reason}")


def check_endpoint(uri: str | Path) -> None:
    """Passes the server that the environment names; http is allowed to who names one by http.

    Raises:
        StorageError: it is no address of a server, at which the libraries would panic.
    """
    scheme = str(uri).partition("://")[0]
    for name in _ENDPOINTS.get(scheme, ()):
        address = os.environ.get(name)
        if address is None:
            continue
        if not _is_server(address):
            raise StorageError(
                f"{name} is {printable(address)!r}, which is no address of a server: "
                "it has to be like https://s3.example.com or http://127.0.0.1:9000"
            )
        setting = f"{_PREFIXES[scheme]}ALLOW_HTTP"
        if urlsplit(address).scheme == "http" and _is_no(os.environ.setdefault(setting, "true")):
            raise StorageError(f"{name} is {address!r}, but {setting} forbids http")


def _is_no(setting: str) -> bool:
    return setting.lower() in ("false", "0", "no", "off", "f", "n")


def _is_server(address: str) -> bool:
    try:
        parts = urlsplit(address)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:  # a port that is no number, or brackets that do not close
        return False
    plain = address.isascii() and address.isprintable() and " " not in address
    known = parts.scheme in ("http", "https") and not parts.query and not parts.fragment
    return plain and known and bool(_HOST.fullmatch(host or ""))


def open_path(uri: str | Path) -> Path:
    """A database's place: a folder's path, or one that reads and lists objects in the same way.

    Raises:
        StorageError: it is in an object store, and what reads these is not installed.
    """
    if not isinstance(uri, str):
        return uri
    if not is_remote(uri):
        return Path(uri)
    _register()
    check_endpoint(uri)
    from upath import UPath

    return cast("Path", UPath(uri))


@lru_cache(maxsize=1)
def _register() -> None:
    """Has fsspec reach object stores through the same library as Lance."""
    try:
        import fsspec
        import upath  # noqa: F401 - extras
        from obstore.fsspec import register
    except ImportError as error:
        raise StorageError(
            f"object stores need {error.name}: pip install 'asif-lance[s3]'"
        ) from error
    for scheme in SCHEMES:
        register(scheme)
        common = fsspec.get_filesystem_class(scheme)
        own = type(common.__name__, (common,), {"_open": _look_first(common._open)})
        fsspec.register_implementation(scheme, own, clobber=True)


def _look_first(begin: Callable[..., Any]) -> Callable[..., Any]:
    """Has fsspec begin no file of an object that is not there, which could not be closed."""

    def begin_if_there(system: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "rb":
            options["size"] = system.info(path)["size"]
        return begin(system, path, mode, **options)

    return begin_if_there


@contextmanager
def fetch_file(path: Path) -> Iterator[Path]:
    """A file as one on this machine, under its own name; a copy while it is used, if remote.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="asif-lance-") as folder:
        copy = Path(folder, path.name)
        with path.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield copy


def list_sizes(root: Path, below: str = "") -> dict[str, int]:
    """The files under a place and their sizes, by their names within `root`; one request if remote.

    Args:
        root: the place.
        below: only what is in this folder of it.
    """
    if not is_remote(root):
        return dict(_list_folder(root, below))
    import obstore

    with _store_errors(root):
        listed = obstore.list(open_store(str(root)), prefix=below or None)
        return {one["path"]: int(one["size"]) for batch in listed for one in batch}


def is_there(path: Path) -> bool:
    """Whether there is a file; an error of the store is no answer.

    Raises:
        StorageError: the store refused.
    """
    if not is_remote(path):
        return path.exists()
    import obstore

    with _store_errors(path), suppress(FileNotFoundError):
        obstore.head(open_store(str(path.parent)), path.name)
        return True
    return False


def _list_folder(root: Path, below: str) -> Iterator[tuple[str, int]]:
    for path in (root / below).rglob("*"):
        with suppress(FileNotFoundError):  # somebody took it away meanwhile
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                yield path.relative_to(root).as_posix(), status.st_size


def remove_folder(path: Path) -> None:
    """Removes a folder with all that is in it; the objects under a prefix, if remote."""
    if not is_remote(path):
        shutil.rmtree(path)
        return
    remove_objects(str(path), list(list_sizes(path)))


def remove_objects(uri: str, names: Sequence[str]) -> None:
    """Removes objects, in this order as far as the store takes many at once."""
    import obstore

    with _store_errors(uri):
        obstore.delete(open_store(uri), names)


def read_range(uri: str, name: str, begin: int, size: int) -> bytes:
    """Some bytes of an object.

    Raises:
        StorageError: it is not there, or the store refused.
    """
    import obstore

    with _store_errors(uri):
        return bytes(obstore.get_range(open_store(uri), name, start=begin, length=size))


def read_marked(uri: str, name: str) -> tuple[bytes, Mark] | None:
    """An object and the mark of its state; None if it is not there."""
    import obstore

    with _store_errors(uri):
        try:
            found = obstore.get(open_store(uri), name)
        except FileNotFoundError:
            return None
        return bytes(found.bytes()), _make_mark(found.meta)


def create_object(uri: str, name: str, data: bytes) -> Mark | None:
    """Makes an object if there is none of this name; its mark, or None if there is."""
    return _put(uri, name, data, "create")


def replace_object(uri: str, name: str, data: bytes, mark: Mark) -> Mark | None:
    """Replaces an object in the state of this mark; its new mark, or None if it is in another."""
    return _put(uri, name, data, mark)


def remove_object(uri: str, name: str) -> None:
    """Removes an object, if it is there."""
    import obstore

    with _store_errors(uri):
        obstore.delete(open_store(uri), name)


def _put(uri: str, name: str, data: bytes, mode: Any) -> Mark | None:
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    with _store_errors(uri):
        try:
            done = obstore.put(open_store(uri), name, data, mode=mode)
        except (AlreadyExistsError, PreconditionError):
            # The answer to a first try may have got lost: then this is what was just written.
            found = read_marked(uri, name)
            return found[1] if found and found[0] == data else None
        return _make_mark(done)


def _make_mark(found: Any) -> Mark:
    return {key: found[key] for key in ("e_tag", "version") if found[key] is not None}


@lru_cache(maxsize=16)
def open_store(uri: str) -> Any:
    """The store of a bucket, or of a folder in it.

    Raises:
        StorageError: what reads it is not installed.
    """
    _register()
    check_endpoint(uri)
    from obstore.store import from_url

    return from_url(uri)


def is_store_error(error: BaseException) -> bool:
    """Whether an object store refused; such an error is of no common class."""
    return type(error).__module__.startswith("obstore")


def explain_refusal(error: BaseException) -> str:
    """What a store refused, in one line; what follows is for those who debug its client."""
    text = shorten_answer(str(error).partition("Debug source:")[0].strip("\n"))
    return printable(text)  # an object's name may have line ends in it


def shorten_answer(text: str) -> str:
    """What a server answered, or that none did, in a sentence; other texts as they are."""
    if silence := _SILENCE.search(text):
        return f"no answer from {silence['server']} ({silence['why'].strip()}): check the endpoint"
    if (answer := _ANSWER.search(text)) is None:
        return text
    code = _CODE.search(answer["body"])
    status, named = answer["status"], f" [{code[1]}]" if code else ""
    advice = f": {_TO_CHECK[status]}" if status in _TO_CHECK else ""
    return f"the store answered {status}{answer['name']} to {answer['asked']}{named}{advice}"


@contextmanager
def _store_errors(uri: str | Path) -> Iterator[None]:
    """What the store refuses, in one line.

    Raises:
        StorageError: it did.
    """
    _register()
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        raise StorageError(f"{uri}: {explain_refusal(error)}") from error
