"""The settings of approximate search that were measured for a model version, and kept with it.

They are kept in the configuration of the pairs table, which Lance versions with the rows: later
versions inherit them, older ones do not have them, restored ones have their own again, and
forgetting keeps them. They hold settings and figures, nothing of any pair.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import lance

from asif_lance.database import AttachedState, update_config
from asif_lance.errors import SearchUnavailableError
from asif_lance.relative import Recipe, recipe_from_values

SearchKind = Literal["exact", "index", "sampled"]
SEARCH_KINDS: tuple[str, ...] = get_args(SearchKind)

#: The name of the index of the image side in Lance.
INDEX = "asif_image"

_KEY = "asif.search."


@dataclass(frozen=True, slots=True)
class SearchSetting:
    """How far to look for neighbors; settings of the other kind of search are 0.

    Attributes:
        nprobes: partitions of the index that are looked into.
        candidates: how many of them, as a multiple of k, are ranked by their true similarities.
        fraction: the share of the anchors without weight for any label that are compared.
    """

    nprobes: int = 0
    candidates: float = 0.0
    fraction: float = 0.0


@dataclass(frozen=True, slots=True)
class MeasuredSetting:
    """What a setting gave, beside exact search, on the same queries one by one.

    Attributes:
        setting: what was measured.
        recall: mean share of the k exact neighbors that were found.
        agreement: share of queries that got the same label as by exact search.
        ratio: exact search's time to this one's, means.
        milliseconds: mean time of one query.
    """

    setting: SearchSetting
    recall: float
    agreement: float
    ratio: float
    milliseconds: float

    @property
    def exact_milliseconds(self) -> float:
        """Mean time of one query by exact search, in the same run."""
        return self.ratio * self.milliseconds


@dataclass(frozen=True, slots=True)
class SearchChoice:
    """The setting that serves a version, and what it was measured on.

    Attributes:
        search: `index` or `sampled`.
        kind: of index, such as `IVF_RQ`; `sampled` for none.
        metric: of the index.
        measured: what the setting gave.
        target: the agreement that was asked for.
        version: the model version that it was measured on.
        recipe: what it was measured with, as `Recipe.as_values`.
        queries: how many queries.
        labels: how many labels.
        asked: where queries and labels came from, for people.
        seconds: how long building the index took; 0 for none.
    """

    search: str
    kind: str
    metric: str
    measured: MeasuredSetting
    target: float
    version: str
    recipe: dict[str, Any]
    queries: int
    labels: int
    asked: str
    seconds: float

    @property
    def setting(self) -> SearchSetting:
        """The setting itself."""
        return self.measured.setting


def load_choice(state: lance.LanceDataset, search: str) -> SearchChoice | None:
    """The choice of a state of the pairs table; None if it has none, or its index is gone."""
    text = state.config().get(_KEY + search)
    if text is None or (search == "index" and not has_index(state)):
        return None
    value = json.loads(text)
    measured = value.pop("measured")
    setting = SearchSetting(**measured.pop("setting"))
    return SearchChoice(**value, measured=MeasuredSetting(**measured, setting=setting))


def save_choice(head: lance.LanceDataset, choice: SearchChoice) -> None:
    """Write a choice down at head."""
    update_config(head, {_KEY + choice.search: json.dumps(asdict(choice))})


def drop_choice(head: lance.LanceDataset, search: str) -> None:
    """Take a choice away, if there is one."""
    if _KEY + search in head.config():
        update_config(head, {_KEY + search: None})


def require_choice(
    state: lance.LanceDataset, search: str, version: str, recipe: Recipe
) -> SearchChoice:
    """The choice that serves a version under a recipe.

    Raises:
        SearchUnavailableError: it has none, or one that was measured with another recipe.
    """
    if isinstance(state, AttachedState):
        raise SearchUnavailableError(
            version,
            f"{version} is a version of somebody else's table, for which no index is built: use "
            "--search exact",
        )
    choice = load_choice(state, search)
    kind = " --kind sampled" if search == "sampled" else ""
    if choice is None:
        raise SearchUnavailableError(
            version,
            f"{version} has nothing measured for --search {search}: `asif-lance index build{kind}` "
            "does that for the newest version and those after it; --search exact always works",
        )
    if recipe_from_values(choice.recipe) != recipe:
        raise SearchUnavailableError(
            version,
            f"--search {search} of {version} was measured with "
            f"{recipe_from_values(choice.recipe)}, not {recipe}: run "
            f"`asif-lance index build{kind}` with these options, or use --search exact",
        )
    return choice


def has_index(state: lance.LanceDataset) -> bool:
    """Whether a state has the index of the image side."""
    return any(index.name == INDEX for index in state.describe_indices())
