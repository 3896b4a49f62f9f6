"""What only reads, as tools of the Model Context Protocol: needs the extra `mcp`.

A language model asks with the same words as the HTTP API and gets the same answers. It reaches
pictures below one folder, or those that it sends along; nothing else of the machine.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import ToolAnnotations
from pydantic import Field, ValidationError

from asif_lance import __version__
from asif_lance.errors import AsifError, InputError, suggest
from asif_lance.service import api
from asif_lance.service.failures import RequestError, describe_failure
from asif_lance.service.held_pictures import UploadedPicture
from asif_lance.service.messages import (
    Classified,
    ComparedVersions,
    EvaluationAnswer,
    EvaluationsAnswer,
    Explained,
    FewestAnswer,
    PairsAnswer,
    SearchAnswer,
    SqlAnswer,
    VersionsAnswer,
)
from asif_lance.service.queries import (
    CompareQuery,
    EvaluationQuery,
    Kind,
    PairsQuery,
    SearchQuery,
    ViewQuery,
)
from asif_lance.service.requests import RUN_FORM, ClassifyRequest, Question
from asif_lance.service.service import Service
from asif_lance.service.validation import describe_validation

PictureInput = Annotated[
    str,
    Field(description="A file below the folder of pictures, or `data:image/png;base64,…`."),
]
Labels = Annotated[list[str], Field(description="Labels to choose from.", min_length=1)]
Version = Annotated[str, Field(description="A model version (v3) or an alias.")]
PairIds = Annotated[list[str], Field(description="Pairs by id.")]

_ABOUT = """An ASIF model: two encoders and a table of image-text pairs, nothing trained. Every
version of the table is a model. A picture's label is decided by the pairs most like it, so every
answer can be traced to pairs, and asked again without some of them. Nothing here changes anything.
"""

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")


class Tools:
    """The tools of one service. Safe from threads."""

    def __init__(self, service: Service, pictures: Path | None) -> None:
        """Answer from a service; files below a folder may be asked about, none by default."""
        self._service, self._folder = service, pictures

    def classify(
        self,
        picture: PictureInput,
        labels: Labels,
        model: Version = "latest",
        templates: list[str] | None = None,
        recipe: str | None = None,
    ) -> Classified:
        """Say which labels fit a picture best, how probable they are, and which pairs decided."""
        held = self._hold(picture)
        request = ClassifyRequest(
            pictures=[held.sha256],
            labels=labels,
            model=model,
            templates=templates,
            recipe=recipe,
            explain=5,
            confidence=True,
        )
        return api.classify(self._service, request).answers[0]

    def explain(
        self,
        picture: PictureInput,
        labels: Labels,
        model: Version = "latest",
        without: PairIds | None = None,
        since: Annotated[str | None, Field(description="A version to compare with.")] = None,
        pairs: Annotated[int, Field(ge=1, le=50)] = 6,
    ) -> Explained:
        """Take an answer apart into pairs; on request without some pairs, or since a version."""
        held = self._hold(picture)
        query = ViewQuery(
            labels="\n".join([*labels, ""]),
            model=model,
            without=without or [],
            since=since,
            pairs=pairs,
        )
        view = self._service.views.explain(held, query)
        for label in view.deciding:
            label.others = []  # they are for a plot
        return view

    def fewest_pairs_that_flip(
        self, picture: PictureInput, labels: Labels, model: Version = "latest"
    ) -> FewestAnswer:
        """Find the fewest pairs without which the picture has another label."""
        question = Question(labels=labels, model=model)
        return self._service.operations.fewest(question, self._hold(picture))

    def search(
        self,
        text: str | None = None,
        picture: PictureInput | None = None,
        model: Version = "latest",
        top: Annotated[int, Field(ge=1, le=50)] = 10,
    ) -> SearchAnswer:
        """Find pairs whose pictures fit a text, or whose captions fit a picture."""
        held = None if picture is None else self._hold(picture).sha256
        query = SearchQuery(text=text, picture=held, model=model, top=top)
        return api.search(self._service, query)

    def pairs(
        self,
        ids: PairIds | None = None,
        text: Annotated[str, Field(description="What a caption has in it.")] = "",
        source: str | None = None,
        license: str | None = None,
        kind: Kind | None = None,
        model: Version = "latest",
        offset: Annotated[int, Field(ge=0)] = 0,
        limit: Annotated[int, Field(ge=1, le=100)] = 20,
    ) -> PairsAnswer:
        """List pairs of a version: by id or filters, duplicates, hubs, drivers of wrong answers."""
        query = PairsQuery(
            model=model,
            id=ids or [],
            text=text,
            source=source,
            license=license,
            kind=kind,
            offset=offset,
            limit=limit,
        )
        return api.pairs(self._service, query)

    def versions(self) -> VersionsAnswer:
        """List all model versions, oldest first."""
        return api.versions(self._service)

    def compare_versions(self, old: Version, new: Version = "latest") -> ComparedVersions:
        """Tell which pairs came, went or changed between two versions."""
        return api.compare_versions(self._service, CompareQuery(old=old, new=new))

    def evaluations(self) -> EvaluationsAnswer:
        """List recorded runs over pictures whose labels are known."""
        return api.evaluations(self._service)

    def evaluation(
        self,
        run: Annotated[str, Field(pattern=RUN_FORM)],
        truth: str | None = None,
        label: str | None = None,
    ) -> EvaluationAnswer:
        """Tell which labels a run took for which, and pictures of one such case."""
        query = EvaluationQuery(truth=truth, label=label)
        return api.evaluation(self._service, run, query)

    def audit(
        self,
        sql: Annotated[str | None, Field(description="One SELECT.", max_length=20_000)] = None,
        report: Annotated[str | None, Field(description="Or a canned report's name.")] = None,
        model: Version = "latest",
    ) -> SqlAnswer:
        """Ask the database in SQL (DuckDB): pairs, versions, runs, predictions, attributions."""
        return self._service.changes.ask_sql(api.chosen_sql(sql, report), model)

    def _hold(self, picture: str) -> UploadedPicture:
        """Read and encode a picture.

        Raises:
            InputError: it is not below the folder, or cannot be used.
        """
        head, mark, data = picture.partition(";base64,")
        if mark and head.startswith("data:"):
            name, content = "picture", _decode(data)
        else:
            name, content = picture, self._read(picture)
        held, rejected = self._service.operations.hold([(name, content)])
        if not held:
            raise InputError(f"this picture cannot be used: {rejected[0].reason}")
        return held[0]

    def _read(self, picture: str) -> bytes:
        if self._folder is None:
            raise InputError("no folder of pictures is open here: send the picture along")
        folder, limit = self._folder.resolve(), self._service.settings.body_bytes
        try:
            file = (folder / picture).resolve()
            if not file.is_relative_to(folder):
                raise InputError("this file is not below the folder of pictures")
            with file.open("rb") as stream:
                content = stream.read(limit + 1)
        except (OSError, ValueError) as error:
            raise InputError("there is no such file below the folder of pictures") from error
        return _check_size(content, limit)


def _decode(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise InputError("the picture is no base64") from error


def _check_size(content: bytes, limit: int) -> bytes:
    if len(content) > limit:
        raise InputError(f"a picture may have at most {limit:,} bytes")
    return content


class _StrictTool(Tool):
    """A tool that refuses arguments which it does not know, and tells in one line what is wrong."""

    async def run(self, arguments: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Run it.

        Raises:
            ToolError: an argument that it does not have, or of another kind; or the tool's own.
        """
        known = self.parameters["properties"]
        for name in arguments:
            if name not in known:
                there = f"there is no argument {name[:100]!r}"
                near = suggest(name[:100], known) or f"; there are: {', '.join(known) or 'none'}"
                raise ToolError(f"{self.name}: {there}{near}")
        try:
            return await super().run(arguments, *args, **kwargs)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                told = describe_validation(error.__cause__.errors())
                raise ToolError(f"{self.name}: {told}") from error
            raise


def create_tools(service: Service, pictures: Path | None) -> MCPServer[Any]:
    """A server of the protocol with all tools."""
    tools = Tools(service, pictures)
    offered = (
        tools.classify,
        tools.explain,
        tools.fewest_pairs_that_flip,
        tools.search,
        tools.pairs,
        tools.versions,
        tools.compare_versions,
        tools.evaluations,
        tools.evaluation,
        tools.audit,
    )
    return MCPServer(
        "asif-lance",
        instructions=_ABOUT,
        version=__version__,
        log_level="WARNING",
        tools=[_make_tool(_told(tool, service.settings.uri)) for tool in offered],
    )


def _make_tool(tool: Callable[..., Any]) -> Tool:
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    made = _StrictTool.from_function(tool, annotations=reads)
    made.parameters["additionalProperties"] = False
    return made


def _told(tool: Callable[_Asked, _Answer], uri: str) -> Callable[_Asked, _Answer]:
    """The same tool, whose failures are told in one line, without a path."""

    @functools.wraps(tool)
    def answer(*args: _Asked.args, **kwargs: _Asked.kwargs) -> _Answer:
        try:
            return tool(*args, **kwargs)
        except RequestError as error:
            raise ToolError(error.message) from error
        except AsifError as error:
            raise ToolError(describe_failure(error, uri)[1]) from error
        except ValidationError as error:
            raise ToolError(describe_validation(error.errors())) from error

    return answer
