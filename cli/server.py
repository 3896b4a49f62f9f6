"""classify by a running service: no encoder is loaded here, not even torch."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import InputError, StorageError, printable

from .options import chosen_templates
from .query import read_names

if TYPE_CHECKING:
    import httpx

    from asif_lance.records import Float32Array, PictureKind, Reject

#: Files and bytes of one request.
FILES, BYTES = 16, 16 * 2**20

_SECONDS = 300.0

_TOO_LARGE = 413  # the HTTP status of a body that is

server_option = click.option(
    "--server",
    envvar="ASIF_LANCE_SERVER",
    show_envvar=True,
    metavar="URL",
    help="Ask a running `asif-lance serve`, with the token in ASIF_LANCE_TOKEN if it needs one.",
)

# What only a database at hand can do, with what is asked when it is not.
_HERE = {
    "record": ("--record", False),
    "others": ("--with", ()),
    "search_by": ("--search", "exact"),
    "coverage": ("--coverage", None),
    "calibrate": ("--calibrate", None),
    "as_of": ("--as-of", None),
    "memory_limit": ("--memory-limit", None),
    "engine": ("--engine", None),
    "workers": ("--workers", None),
}


def choose_server(server: str | None) -> str | None:
    """The service to ask; none where the command line names a database, which then answers.

    Raises:
        click.UsageError: the command line names both.
    """
    command = click.get_current_context()
    typed = click.core.ParameterSource.COMMANDLINE
    is_typed = command.get_parameter_source("server") is typed
    context: click.Context | None = command
    while server is not None and context is not None:
        if context.get_parameter_source("db") is typed:
            if is_typed:
                raise click.UsageError("give --db or --server: a service answers from its own")
            return None
        context = context.parent
    return server


def refuse_with_server(asked: dict[str, Any]) -> None:
    """Refuse what a service cannot do.

    Raises:
        click.UsageError: something of that is asked.
    """
    for name, (option, usual) in _HERE.items():
        if asked.get(name, usual) != usual:
            raise click.UsageError(f"{option} needs the database at hand, not --server")


def ask_server(
    url: str,
    images: Sequence[str],
    vectors: Path | None,
    question: dict[str, Any],
    rejects: list[Reject],
) -> Iterator[dict[str, Any]]:
    """Answers of a service about pictures or vectors, in order.

    Raises:
        InputError: the service refuses the question.
        StorageError: it cannot be reached.
    """
    if vectors is None:
        return Server(url).classify_files(_find_files(images, rejects), question, rejects)
    from asif_lance.encoders import read_vectors

    ids, matrix = read_vectors(vectors)
    return Server(url).classify_vectors(ids, matrix, question)


def make_question(
    asked: Mapping[str, Any],
    arguments: Mapping[str, Any],
    top: int,
    explain: int | None,
    confidence: bool,
) -> dict[str, Any]:
    """What options ask, as the service's API has it; what is not given is left out.

    Args:
        asked: `label_options`, by name.
        arguments: `model_options`, by name.
        top: labels of each picture.
        explain: deciding pairs of each picture.
        confidence: whether it says how far answers are to be trusted.
    """
    prompts = chosen_templates(asked["templates"], asked["template_set"])
    question = {
        **_read_labels(asked),
        "templates": list(prompts) if isinstance(prompts, tuple) else prompts,
        "ensemble": asked["ensemble"],
        **{name: arguments[name] for name in ("model", "recipe", "k", "p")},
        "top": top,
        "explain": explain,
        "confidence": confidence or None,
    }
    return {name: value for name, value in question.items() if value is not None}


def _read_labels(asked: Mapping[str, Any]) -> dict[str, Any]:
    if asked["labels"] is not None:  # without loading anything
        return {"labels": read_names(asked["labels"], None)}
    if asked["label_vectors"] is not None:
        from asif_lance.encoders import read_label_vectors

        found = read_label_vectors(asked["label_vectors"])
        return {"label_vectors": {name: rows.tolist() for name, rows in found.items()}}
    names = read_names(None, asked["labels_file"])
    if isinstance(names, dict):
        raise click.UsageError("a labels file with several names of a label needs the database")
    return {"labels": list(names)}


def _find_files(images: Sequence[str], rejects: list[Reject]) -> list[Path]:
    """The files, and those in folders, for which more has to be loaded."""
    if not any(Path(image).is_dir() for image in images):
        return [Path(image) for image in images]
    from asif_lance.encoders import expand_folders

    return [Path(str(found)) for found in expand_folders(images, rejects)]


class _TooLargeError(InputError):
    """A request that is larger than a service takes."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running service.

    Attributes:
        url: its address.
    """

    url: str

    def classify_files(
        self, pictures: Sequence[Path], question: dict[str, Any], rejects: list[Reject]
    ) -> Iterator[dict[str, Any]]:
        """Answers of pictures, in order; those that cannot be used are gathered.

        Raises:
            InputError: the service refuses the question.
            StorageError: it cannot be reached.
        """
        with self._client() as client:
            for batch in _batches(pictures, rejects):
                yield from self._classify_batch(client, batch, question, rejects)

    def _classify_batch(
        self,
        client: httpx.Client,
        batch: Sequence[tuple[Path, bytes]],
        question: dict[str, Any],
        rejects: list[Reject],
    ) -> Iterator[dict[str, Any]]:
        """Answers of a few pictures; of those that are too large together one at a time."""
        from asif_lance.records import Reject

        names = [str(path) for path, _ in batch]
        files = [("files", (str(i), content)) for i, (_, content) in enumerate(batch)]
        data = {"question": json.dumps(question)}
        try:
            answer = self._post(client, "/api/classify/files", files=files, data=data)
        except _TooLargeError:
            if len(batch) == 1:
                if len(data["question"]) > len(batch[0][1]):
                    raise
                reason = "larger than the service takes"
                rejects.append(Reject("classify", printable(names[0]), reason))
            else:
                for one in batch:
                    yield from self._classify_batch(client, [one], question, rejects)
            return
        for one in answer["rejected"]:
            name = printable(names[int(one["image"])])
            rejects.append(Reject("classify", name, one["reason"]))
        yield from ({**one, "image": names[int(one["image"])]} for one in answer["answers"])

    def classify_vectors(
        self, ids: Sequence[str], vectors: Float32Array, question: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Answers of vectors, in order; errors are those of `classify_files`."""
        with self._client() as client:
            for start in range(0, len(ids), FILES):
                at = slice(start, start + FILES)
                packed = base64.b64encode(vectors[at].astype("<f4").tobytes()).decode()
                given = {"dimension": vectors.shape[1], "float32": packed}
                body = {**question, "vectors": given}
                answer = self._post(client, "/api/classify", json=body)
                for name, one in zip(ids[at], answer["answers"], strict=True):
                    yield {**one, "image": name}

    def _client(self) -> httpx.Client:
        if find_spec("httpx") is None:
            raise InputError("--server needs an extra: pip install 'asif-lance[serve]'")
        import httpx

        if not self.url.lower().startswith(("http://", "https://")):
            raise InputError(f"--server {self.url!r} has to begin with http:// or https://")
        token = os.environ.get("ASIF_LANCE_TOKEN")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            return httpx.Client(base_url=self.url, headers=headers, timeout=_SECONDS)
        except (httpx.InvalidURL, ValueError) as error:
            raise InputError(f"--server {self.url!r} is no address") from error

    def _post(self, client: httpx.Client, path: str, **request: Any) -> dict[str, Any]:
        import httpx

        try:
            answer = client.post(path, **request)
            too_large = answer.status_code == _TOO_LARGE
            value = {} if too_large and not answer.text.startswith("{") else answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise StorageError(f"{self.url} does not answer as asif-lance does: {error}") from error
        if not isinstance(value, dict) or answer.status_code != 200:
            told = value.get("error") if isinstance(value, dict) else None
            kind = _TooLargeError if too_large else InputError
            raise kind(f"{self.url} refuses: {told or answer.status_code}")
        return value


def _batches(pictures: Sequence[Path], rejects: list[Reject]) -> Iterator[list[tuple[Path, bytes]]]:
    """Files with their content, as many as one request takes."""
    from asif_lance.records import Reject

    batch: list[tuple[Path, bytes]] = []
    size = 0
    for path in pictures:
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = "missing file" if isinstance(error, FileNotFoundError) else "unreadable file"
            rejects.append(Reject("classify", printable(str(path)), reason))
            continue
        if batch and (len(batch) == FILES or size + len(content) > BYTES):
            yield batch
            batch, size = [], 0
        batch.append((path, content))
        size += len(content)
    if batch:
        yield batch


def join_kind(seen: Sequence[tuple[bool, bool, float]]) -> PictureKind:
    """The kind of pictures, by whether each has a low score and is unlike the pairs.

    The third number is how usual the first is.
    """
    from asif_lance.records import PictureKind

    return PictureKind(len(seen), *(sum(one) / len(seen) for one in zip(*seen, strict=True)))


def plain_answer(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as `classify --format json` prints it from the database at hand."""
    names = ("image", "model", "recipe", "k", "p", "predictions")
    value = {name: answer[name] for name in names}
    value["predictions"] = [
        {"label": one["label"], "score": one["score"]} for one in answer["predictions"]
    ]
    if answer["templates"]:
        value |= {"templates": answer["templates"], "ensemble": answer["ensemble"]}
    if answer["confidence"] is not None:
        for entry, one in zip(value["predictions"], answer["predictions"], strict=True):
            entry["probability"] = one["probability"]
        found = answer["confidence"]
        value["confidence"] = {
            "possible": found["possible"],
            "coverage": None,  # the pairs' own pictures state none
            "none_of_these": found["none"],
            "share_as_low": found["low"],
            "source": found["source"],
            "pictures": found["pictures"],
        }
    if answer["pairs"] is not None:
        beside = ("source", "license", "like")
        pairs = [{k: v for k, v in pair.items() if k not in beside} for pair in answer["pairs"]]
        value["pairs"] = pairs
    return value
