"""Arrow schemas of today's tables; `registry` says what each table is for."""

from __future__ import annotations

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", "UTC")
_KEY = {"lance-schema:unenforced-primary-key": "true"}


def _schema(*, optional: tuple[str, ...] = (), **columns: pa.DataType) -> pa.Schema:
    """Columns of these types, in their order; those that are not optional are never null."""
    fields = (pa.field(n, kind, nullable=n in optional) for n, kind in columns.items())
    return pa.schema(list(fields))


VERSIONS = _schema(
    name=pa.string(),
    number=pa.int64(),
    message=pa.string(),
    command=pa.string(),
    created_at=TIMESTAMP,
    pairs=pa.int64(),
    added=pa.int64(),
    removed=pa.int64(),
    aliases=pa.list_(pa.string()),
)

REJECTS = _schema(
    ingest_id=pa.string(),
    source=pa.string(),
    item=pa.string(),
    reason=pa.string(),
    created_at=TIMESTAMP,
)

RECEIPTS = _schema(
    optional=("number", "timestamp"),
    receipt_id=pa.string(),
    created_at=TIMESTAMP,
    reason=pa.string(),
    pairs=pa.int64(),
    clean=pa.bool_(),
    body=pa.string(),
    number=pa.int64(),
    timestamp=pa.binary(),
)

#: Why something was let in that is forgotten, or may be, see `forgetting.waivers`; `ids` are keyed
#: fingerprints. A command may have several rows.
WAIVERS = _schema(
    waiver_id=pa.string(),
    created_at=TIMESTAMP,
    allows=pa.string(),
    reason=pa.string(),
    pairs=pa.int64(),
    ids=pa.list_(pa.string()),
)

#: What receipts are about as quick hashes, encrypted, see `forgetting.sealed_hashes`.
SEALED_HASHES = _schema(
    receipt_id=pa.string(),
    key_id=pa.string(),
    sealed=pa.list_(pa.uint64()),
)

#: Settings that tuning chose, see `model.stored_settings`; k and p of image and text side.
TUNED = _schema(
    version=pa.string(),
    recipe=pa.string(),
    k=pa.list_(pa.int64(), 2),
    p=pa.list_(pa.float64(), 2),
    ensemble=pa.string(),
    top_1=pa.float64(),
    pictures=pa.int64(),
    comparisons=pa.int64(),
    held_out=pa.float64(),
    created_at=TIMESTAMP,
    templates=pa.string(),
    optional=("held_out", "templates"),
)

#: Runs of `classify --record`, see `audit.runs`.
RUNS = _schema(
    run_id=pa.string(),
    created_at=TIMESTAMP,
    model=pa.string(),
    recipe=pa.string(),
    label_set=pa.string(),
    labels=pa.int64(),
    predictions=pa.int64(),
    templates=pa.string(),
    optional=("templates",),
)

#: Their answers. `k` and `p` are `800`, or `800,200` for image and text side; `coverage` is the
#: share of the score that the recorded attributions add up to.
PREDICTIONS = _schema(
    prediction_id=pa.string(),
    run_id=pa.string(),
    image=pa.string(),
    model=pa.string(),
    label_set=pa.string(),
    label=pa.string(),
    rank=pa.int64(),
    score=pa.float64(),
    coverage=pa.float64(),
    truth=pa.string(),
    k=pa.string(),
    p=pa.string(),
    created_at=TIMESTAMP,
    optional=("truth",),
)

#: The pairs that add most to each of those scores.
ATTRIBUTIONS = _schema(
    prediction_id=pa.string(),
    label=pa.string(),
    pair_id=pa.string(),
    image_similarity=pa.float32(),
    text_similarity=pa.float32(),
    contribution=pa.float64(),
    rank=pa.int64(),
)

#: What every other file was when it was written, see `digests`.
DIGESTS = _schema(
    file=pa.string(),
    bytes=pa.int64(),
    key=pa.binary(),
    digest=pa.binary(),
)

#: When files were compared with their digests, and what was found.
CHECKS = _schema(
    checked_at=TIMESTAMP,
    files=pa.int64(),
    bytes=pa.int64(),
    damaged=pa.int64(),
    unknown=pa.int64(),
)

#: What comparing versions with ones built anew brought, see `evaluation.equivalence`.
PROOFS = _schema(
    receipt_id=pa.string(),
    proved_at=TIMESTAMP,
    versions=pa.list_(pa.string()),
    different=pa.list_(pa.string()),
    pairs=pa.int64(),
    queries=pa.int64(),
    recipes=pa.list_(pa.string()),
    seed=pa.int64(),
    digest=pa.string(),
)

MIGRATIONS = _schema(
    id=pa.string(),
    hash=pa.string(),
    applied_at=TIMESTAMP,
)


#: The columns of pairs that states of before migrations m0011 and m0012 do not have.
CAPTIONS = pa.field("captions", pa.list_(pa.string()))
ROLE = pa.field("role", pa.string())
LATER = (CAPTIONS, ROLE)


def pairs_schema(image_dim: int, text_dim: int) -> pa.Schema:
    """The pairs table, without the pins that its metadata holds.

    `pair_id` is the primary key (Lance keeps concurrent inserts apart by it); `attributes` is a
    JSON object as text, which DuckDB queries as `attributes->>'key'`; vectors are L2-normalised;
    `captions` is null unless the picture has several, of which `caption` is the first and
    `text_vector` the mean; `role` is null for ordinary pairs, and `records.EXAMPLE` for examples.
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
            *LATER,
        ]
    )


#: The names of its columns; others are those of other programs.
PAIR_COLUMNS = tuple(pairs_schema(1, 1).names)


def queries_schema(image_dim: int, text_dim: int) -> pa.Schema:
    """What predictions were made of, see `audit.replay`."""
    return _schema(
        prediction_id=pa.string(),
        vector=pa.list_(pa.float32(), image_dim),
        neighbors=pa.int64(),
        similarities=pa.list_(pa.float64()),
        weight=pa.float64(),
        labels=pa.list_(pa.int32()),
        scores=pa.list_(pa.float64()),
    )


def prompts_schema(image_dim: int, text_dim: int) -> pa.Schema:
    """The label sets of runs as vectors, see `audit.replay`."""
    return _schema(
        run_id=pa.string(),
        position=pa.int64(),
        label=pa.string(),
        ensemble=pa.string(),
        pairs=pa.int64(),
        vector=pa.list_(pa.float32(), text_dim),
    )
