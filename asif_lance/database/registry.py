"""What a database is made of: one value per Lance table and per directory of cache files.

SQL, upkeep, pruning of runs, forgetting and the tests take their lists of tables from here. Whoever
adds a table adds it here, and says who erases forgotten pairs from it and who verifies that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from asif_lance.database import schemas

#: Directories of cache files.
LABEL_SETS, DISTANCES, PROMPT_VECTORS = "label_sets", "distances", "prompt_vectors"

#: The directory of ingests that several processes share, see `open_ingests`.
INGESTS = "ingests"

#: The eraser of `pairs` itself: every fragment with a forgotten row is rewritten.
PURGE = "purge"

Schema = Callable[[int, int], pa.Schema]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Something that lies in a database's directory.

    Attributes:
        name: of the table or directory.
        holds_content: whether it can hold something of pairs: an id, a text, a vector, a place.
        eraser: name of what takes forgotten pairs out of it, see `forgetting.derived_data`;
            receipts count by these names, in this order.
        verifier: name of how the verifier reads it, see `verifier.scanning`.
    """

    name: str
    holds_content: bool = False
    eraser: str | None = None
    verifier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Stored):
    """A Lance table.

    Attributes:
        schema: its columns, for image and text vectors of these sizes.
        pair_column: the column that names pairs by id.
        run_column: the column that says which run a row belongs to; its values are run ids or
            begin with one.
        in_sql: whether SQL reads it as it is; `pairs` and `versions` are shown in their own way.
    """

    schema: Schema
    pair_column: str | None = None
    run_column: str | None = None
    in_sql: bool = False


def _fixed(schema: pa.Schema) -> Schema:
    """The schema of a table without vectors."""
    return lambda image_dim, text_dim: schema


#: All Lance tables. Of those with runs `runs` goes first: a run that is half dropped is not listed.
TABLES = (
    Table(
        name="pairs",
        holds_content=True,
        eraser=PURGE,
        verifier="columns",
        schema=schemas.pairs_schema,
        pair_column="pair_id",
    ),
    Table(
        name="rejects",
        holds_content=True,
        eraser="rejects",
        verifier="columns",
        schema=_fixed(schemas.REJECTS),
        in_sql=True,
    ),
    Table(
        name="versions",
        holds_content=True,
        eraser="messages",
        verifier="columns",
        schema=_fixed(schemas.VERSIONS),
    ),
    Table(name="runs", schema=_fixed(schemas.RUNS), run_column="run_id", in_sql=True),
    Table(
        name="predictions",
        holds_content=True,
        eraser="predictions",
        verifier="columns",
        schema=_fixed(schemas.PREDICTIONS),
        run_column="run_id",
        in_sql=True,
    ),
    Table(
        name="queries",
        holds_content=True,
        eraser="predictions",
        verifier="columns",
        schema=schemas.queries_schema,
        run_column="prediction_id",
    ),
    Table(
        name="attributions",
        holds_content=True,
        eraser="attributions",
        verifier="columns",
        schema=_fixed(schemas.ATTRIBUTIONS),
        pair_column="pair_id",
        run_column="prediction_id",
        in_sql=True,
    ),
    Table(
        name="prompts",
        holds_content=True,
        eraser="prompts",
        verifier="columns",
        schema=schemas.prompts_schema,
        run_column="run_id",
    ),
    Table(
        name="receipts",
        holds_content=True,
        eraser="receipts",
        verifier="columns",
        schema=_fixed(schemas.RECEIPTS),
        in_sql=True,
    ),
    Table(name="waivers", schema=_fixed(schemas.WAIVERS), in_sql=True),
    Table(name="sealed_hashes", schema=_fixed(schemas.SEALED_HASHES)),
    Table(name="tuned", schema=_fixed(schemas.TUNED)),
    Table(name="digests", schema=_fixed(schemas.DIGESTS)),
    Table(name="checks", schema=_fixed(schemas.CHECKS)),
    Table(name="proofs", schema=_fixed(schemas.PROOFS)),
    Table(name="migrations", schema=_fixed(schemas.MIGRATIONS)),
)

#: All directories beside the tables: of cache files, and of what is under way.
CACHES = (
    Stored(name=LABEL_SETS, holds_content=True, eraser="label sets", verifier="bytes"),
    Stored(name=DISTANCES, holds_content=True, eraser="distances", verifier="bytes"),
    Stored(name=PROMPT_VECTORS, holds_content=True, eraser="prompt vectors", verifier="bytes"),
    Stored(name=INGESTS, holds_content=True, eraser="open ingests", verifier="bytes"),
)


def find_missing_columns(name: str, columns: Sequence[str]) -> list[str]:
    """The columns that a table of ours has lost: another program may write over it."""
    (table,) = (one for one in TABLES if one.name == name)
    return [column for column in table.schema(1, 1).names if column not in columns]


def list_erasers() -> tuple[str, ...]:
    """Who erases what is derived from pairs: each name once, in the order of what they erase."""
    names = [stored.eraser for stored in (*TABLES, *CACHES) if stored.eraser]
    return tuple(dict.fromkeys(name for name in names if name != PURGE))
