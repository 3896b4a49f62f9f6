"""Arrow schemas of today's tables; `registry` says what each table is for."""

from __future__ import annotations

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", "UTC")
_KEY = {"lance-schema:unenforced-primary-key": "true"}

VERSIONS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("number", pa.int64(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("command", pa.string(), nullable=False),
        pa.field("created_at", TIMESTAMP, nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("added", pa.int64(), nullable=False),
        pa.field("removed", pa.int64(), nullable=False),
        pa.field("aliases", pa.list_(pa.string()), nullable=False),
    ]
)

REJECTS = pa.schema(
    [
        pa.field("ingest_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("created_at", TIMESTAMP, nullable=False),
    ]
)

RECEIPTS = pa.schema(
    [
        pa.field("receipt_id", pa.string(), nullable=False),
        pa.field("created_at", TIMESTAMP, nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("clean", pa.bool_(), nullable=False),
        pa.field("body", pa.string(), nullable=False),
        pa.field("number", pa.int64()),
        pa.field("timestamp", pa.binary()),
    ]
)

#: Settings that tuning chose, see `model.stored_settings`; k and p of image and text side.
TUNED = pa.schema(
    [
        pa.field("version", pa.string(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),
        pa.field("k", pa.list_(pa.int64(), 2), nullable=False),
        pa.field("p", pa.list_(pa.float64(), 2), nullable=False),
        pa.field("ensemble", pa.string(), nullable=False),
        pa.field("top_1", pa.float64(), nullable=False),
        pa.field("pictures", pa.int64(), nullable=False),
        pa.field("comparisons", pa.int64(), nullable=False),
        pa.field("held_out", pa.float64()),
        pa.field("created_at", TIMESTAMP, nullable=False),
        pa.field("templates", pa.string()),
    ]
)

#: Runs of `classify --record`, see `audit.runs`.
RUNS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("created_at", TIMESTAMP, nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),
        pa.field("label_set", pa.string(), nullable=False),
        pa.field("labels", pa.int64(), nullable=False),
        pa.field("predictions", pa.int64(), nullable=False),
        pa.field("templates", pa.string()),
    ]
)

#: Their answers. `k` and `p` are `800`, or `800,200` for image and text side; `coverage` is the
#: share of the score that the recorded attributions add up to.
PREDICTIONS = pa.schema(
    [
        pa.field("prediction_id", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("label_set", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("coverage", pa.float64(), nullable=False),
        pa.field("truth", pa.string()),
        pa.field("k", pa.string(), nullable=False),
        pa.field("p", pa.string(), nullable=False),
        pa.field("created_at", TIMESTAMP, nullable=False),
    ]
)

#: The pairs that add most to each of those scores.
ATTRIBUTIONS = pa.schema(
    [
        pa.field("prediction_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("image_similarity", pa.float32(), nullable=False),
        pa.field("text_similarity", pa.float32(), nullable=False),
        pa.field("contribution", pa.float64(), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),
    ]
)

MIGRATIONS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("hash", pa.string(), nullable=False),
        pa.field("applied_at", TIMESTAMP, nullable=False),
    ]
)


def pairs_schema(image_dim: int, text_dim: int) -> pa.Schema:
    """The pairs table, without the pins that its metadata holds.

    `pair_id` is the primary key (Lance keeps concurrent inserts apart by it); `attributes` is a
    JSON object as text, which DuckDB queries as `attributes->>'key'`; vectors are L2-normalised.
    """
    return pa.schema(
        [
            pa.field("pair_id", pa.string(), nullable=False, metadata=_KEY),
            pa.field("caption", pa.string(), nullable=False),
            pa.field("image_uri", pa.string()),
            pa.field("image_sha256", pa.string()),
            pa.field("source", pa.string()),
            pa.field("license", pa.string()),
            pa.field("attributes", pa.string()),
            pa.field("thumbnail", pa.binary()),
            pa.field("image_vector", pa.list_(pa.float16(), image_dim), nullable=False),
            pa.field("text_vector", pa.list_(pa.float16(), text_dim), nullable=False),
            pa.field("ingested_at", TIMESTAMP, nullable=False),
        ]
    )


def queries_schema(image_dim: int, text_dim: int) -> pa.Schema:
    """What predictions were made of, see `audit.replay`."""
    return pa.schema(
        [
            pa.field("prediction_id", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), image_dim), nullable=False),
            pa.field("neighbors", pa.int64(), nullable=False),
            pa.field("similarities", pa.list_(pa.float64()), nullable=False),
            pa.field("weight", pa.float64(), nullable=False),
            pa.field("labels", pa.list_(pa.int32()), nullable=False),
            pa.field("scores", pa.list_(pa.float64()), nullable=False),
        ]
    )


def prompts_schema(image_dim: int, text_dim: int) -> pa.Schema:
    """The label sets of runs as vectors, see `audit.replay`."""
    return pa.schema(
        [
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("position", pa.int64(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("ensemble", pa.string(), nullable=False),
            pa.field("pairs", pa.int64(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), text_dim), nullable=False),
        ]
    )
