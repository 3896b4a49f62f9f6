"""What does SQL over recorded attributions cost beside DuckDB on the same rows in Parquet?

    python benchmarks/audit.py [--rows 1000000] [--pairs 100000] [--rounds 7]

The same rows lie in the database's tables, written in commits of 500 predictions as `--record`
does, and in one Parquet file a table. Each query runs in turn on both, on connections that are open
already; the table shows medians and their ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from asif_lance.audit import Audit, report
from asif_lance.database import schemas
from asif_lance.records import EncoderPin
from asif_lance.search import describe_processor
from asif_lance.store import PairStore

LABELS, PAIRS, COMMIT = 5, 20, 500  # labels a prediction, pairs a label, predictions a commit
SCHEMAS = {"predictions": schemas.PREDICTIONS, "attributions": schemas.ATTRIBUTIONS}

QUERIES = {
    "group by pair": """\
SELECT pair_id, count(*) AS labels, sum(contribution) AS weight
FROM attributions GROUP BY pair_id ORDER BY weight DESC, pair_id LIMIT 50""",
    "one pair": "SELECT * FROM attributions WHERE pair_id = 'pair-000017' ORDER BY ALL",
    "report drivers": report("drivers").sql,
    "report weight-by-source": report("weight-by-source").sql,
}


def pairs(count: int) -> pa.Table:
    """Make pairs of five sources, with vectors of no account."""
    ids = [f"pair-{i:06d}" for i in range(count)]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(count * 4, np.float16)), 4)
    return pa.table(
        {
            "pair_id": ids,
            "caption": [f"a caption about {i}" for i in ids],
            "source": [f"source {i % 5}" for i in range(count)],
            "license": ["CC-BY"] * count,
            "image_vector": vectors,
            "text_vector": vectors,
        }
    )


def recorded(first: int, count: int, among: int, rng: np.random.Generator) -> dict[str, pa.Table]:
    """Make the rows of `count` predictions; pairs are drawn as unevenly as they drive answers."""
    labels = count * LABELS
    of_label = np.repeat(np.arange(first, first + count), LABELS)
    of_pair = np.repeat(of_label, PAIRS)
    drawn = np.minimum(rng.zipf(1.3, size=labels * PAIRS) - 1, among - 1)
    now = pa.scalar(0, pa.timestamp("us", tz="UTC"))
    rows = {
        "predictions": {
            "prediction_id": [f"r-{i}" for i in of_label],
            "run_id": ["r"] * labels,
            "image": [f"image-{i}.jpg" for i in of_label],
            "model": ["v1"] * labels,
            "label_set": ["0"] * labels,
            "label": [f"label {i % LABELS}" for i in range(labels)],
            "rank": np.tile(np.arange(1, LABELS + 1), count),
            "score": rng.random(labels),
            "truth": ["label 0"] * labels,
            "coverage": rng.random(labels),
            "k": ["800"] * labels,
            "p": ["8"] * labels,
            "created_at": pa.repeat(now, labels),
        },
        "attributions": {
            "prediction_id": [f"r-{i}" for i in of_pair],
            "label": np.repeat([f"label {i}" for i in range(LABELS)], PAIRS).tolist() * count,
            "pair_id": [f"pair-{i:06d}" for i in drawn],
            "image_similarity": rng.random(len(drawn)),
            "text_similarity": rng.random(len(drawn)),
            "contribution": rng.random(len(drawn)),
            "rank": np.tile(np.arange(1, PAIRS + 1), labels),
        },
    }
    return {
        name: pa.table({field.name: columns[field.name] for field in SCHEMAS[name]}).cast(
            SCHEMAS[name]
        )
        for name, columns in rows.items()
    }


def build(home: Path, rows: int, among: int) -> PairStore:
    """Write the database and, beside it, the Parquet files."""
    pins = (EncoderPin("timm/bench", "1", 4), EncoderPin("sentence-transformers/bench", "1", 4))
    store = PairStore.create(str(home / "db"), image=pins[0], text=pins[1])
    store.add(pairs(among))
    store.publish(command="ingest")
    pq.write_table(pairs(among).drop(["image_vector", "text_vector"]), home / "pairs.parquet")
    rng, made = np.random.default_rng(0), []
    for first in range(0, rows // (LABELS * PAIRS), COMMIT):
        made.append(recorded(first, COMMIT, among, rng))
        for name, table in made[-1].items():
            lance.write_dataset(table, f"{store.uri}/{name}.lance", mode="append")
    for name in made[0]:
        pq.write_table(pa.concat_tables([part[name] for part in made]), home / f"{name}.parquet")
    return store


def main() -> None:
    """Build, check that both answer the same, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    print(describe_processor())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        store = build(home, asked.rows, asked.pairs)
        plain = duckdb.connect()
        for name in ("pairs", "predictions", "attributions"):
            file = home / f"{name}.parquet"
            plain.execute(f"CREATE VIEW {name} AS FROM read_parquet('{file}')")
        print(f"{asked.rows:,} attributions, {asked.pairs:,} pairs")
        print(f"{'':26}{'audit ms':>10}{'Parquet ms':>12}{'ratio':>8}")
        with Audit(store) as audit:
            for name, sql in QUERIES.items():
                ours, theirs = compare(audit, plain, sql, asked.rounds)
                print(f"{name:26}{ours * 1e3:10.1f}{theirs * 1e3:12.1f}{ours / theirs:8.2f}")


def compare(audit: Audit, plain: Any, sql: str, rounds: int) -> tuple[float, float]:
    """Give the median seconds of each, the first round not counted."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        ours = audit.query(sql)
        between = time.perf_counter()
        theirs = plain.sql(sql).to_arrow_table()
        times.append((between - begun, time.perf_counter() - between))
        assert ours.num_rows == theirs.num_rows
    ours_s, theirs_s = np.median(times[1:], axis=0)
    return float(ours_s), float(theirs_s)


if __name__ == "__main__":
    main()
