"""Definitions of search indices: read from one state of the pairs table, built again on another.

Forgetting drops indices, for they hold content of rows; their definitions hold none.
"""

from __future__ import annotations

import logging
from typing import Any

import lance

from asif_lance.database.commits import committing

_LOG = logging.getLogger(__name__)

IndexDefinition = dict[str, Any]

# What `describe_indices` reports of a full-text index and `create_scalar_index` takes.
_TEXT_OPTIONS = (
    "with_position",
    "base_tokenizer",
    "language",
    "max_token_length",
    "lower_case",
    "stem",
    "remove_stop_words",
    "ascii_folding",
)


def describe_indices(state: lance.LanceDataset) -> list[IndexDefinition]:
    """How to build the indices of a state again, in values that JSON can hold."""
    return [_describe_index(state, index) for index in state.describe_indices()]


def _describe_index(state: lance.LanceDataset, index: Any) -> IndexDefinition:
    definition = {
        "name": index.name,
        "column": index.field_names[0],
        "kind": index.index_type.upper(),
    }
    if "metric_type" not in index.details:
        text = {name: index.details[name] for name in _TEXT_OPTIONS if name in index.details}
        return {**definition, "vector": False, "options": text}
    quantised = index.details.get("compression", {})
    numbers = {n: quantised[n] for n in ("num_sub_vectors", "num_bits") if n in quantised}
    statistics = state.stats.index_stats(index.name)["indices"][0]
    options = {"metric": index.details["metric_type"].lower(), **numbers}
    return {**definition, "vector": True, "options": {**options, **_partition_option(statistics)}}


def _partition_option(statistics: dict[str, Any]) -> dict[str, int]:
    return (
        {"num_partitions": statistics["num_partitions"]} if "num_partitions" in statistics else {}
    )


def rebuild_indices(uri: str, wanted: list[IndexDefinition]) -> list[str]:
    """Builds indices at head; returns the names of those that came about.

    An index is a convenience: one that cannot be built any more (too few rows are left to train
    it) is a warning in the log, and searches go on without.
    """
    built = []
    for definition in wanted:
        table = lance.dataset(uri)
        create = table.create_index if definition["vector"] else table.create_scalar_index
        try:
            with committing(uri):
                create(
                    definition["column"],
                    definition["kind"],
                    name=definition["name"],
                    **definition["options"],
                )
        except (ValueError, OSError, RuntimeError) as error:
            _LOG.warning("index %s was not built again: %s", definition["name"], error)
        else:
            built.append(definition["name"])
    return built
