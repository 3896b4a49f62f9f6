"""Proof that versions answer as models do that never had the forgotten pairs.

Each version is built anew: its rows are added to a fresh database in a temporary place, from which
nothing was ever forgotten, and both models are asked the same. Which pairs are nearest, how similar
they are, every label's score and the order of labels have to be the same, bit for bit, under the
version's own recipe and every named one. What is asked: recorded queries, vectors of the version's
own pairs, and random directions; labels are random directions and captions of its own.

That the forgotten pairs' data are gone is not shown here but by the search of all files, see
`forgetting`; here it is shown that nothing of them is left in the answers. The disk has to have
room for one more copy of the largest version; versions with the same content are built once.
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.anchors import Side
from asif_lance.database import append_rows, live_rows_key, read_table, schemas
from asif_lance.errors import EmptyModelError, StorageError
from asif_lance.model import Model, open_model
from asif_lance.progress import track
from asif_lance.records import Float32Array
from asif_lance.relative import RECIPES, Recipe
from asif_lance.search import unit_queries
from asif_lance.store import PairStore

#: How many queries of each kind are asked, and how many labels of each kind there are.
QUERIES, LABELS = 64, 16

_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Proof:
    """What asking versions and their copies brought.

    Attributes:
        receipt_id: the receipt that it belongs to.
        proved_at: when.
        versions: names of the versions that were built anew and answered the same.
        different: names of those that did not.
        pairs: how many pairs the models had that were built.
        queries: how many queries were asked of each.
        recipes: under which recipes.
        seed: of what was drawn.
        digest: sha256 of all answers, by which two proofs with one seed can be compared.
    """

    receipt_id: str
    proved_at: datetime
    versions: tuple[str, ...]
    different: tuple[str, ...]
    pairs: int
    queries: int
    recipes: tuple[str, ...]
    seed: int
    digest: str

    @property
    def holds(self) -> bool:
        """Whether every version answered as its copy does."""
        return not self.different


@dataclass(frozen=True, slots=True)
class _Questions:
    """Unit vectors that models are asked with: (m, d) of pictures and (l, e) of labels."""

    images: Float32Array
    texts: Float32Array


def prove_equivalence(store: PairStore, receipt_id: str, *, seed: int | None = None) -> Proof:
    """Compares every version with one built anew from its rows, and keeps the result.

    Args:
        store: the database.
        receipt_id: the receipt that the result is kept with.
        seed: of what is drawn; by default another one each time.

    Raises:
        StorageError: the disk has no room for the copies.
    """
    seed = secrets.randbelow(2**31) if seed is None else seed
    rng, digest = np.random.default_rng(seed), hashlib.sha256()
    same: list[str] = []
    different: list[str] = []
    pairs = asked = 0
    recorded = _read_recorded(store)
    for names in track("prove versions", _group_versions(store)):
        model = open_model(store.uri, names[0])
        try:
            questions = _draw(model, recorded, rng)
        except EmptyModelError:  # it answers nothing, and nor does its copy
            same += names
            continue
        found, expected = _compare(store, model, questions)
        (same if found == expected else different).extend(names)
        digest.update(found)
        pairs, asked = pairs + model.version.pairs, max(asked, len(questions.images))
    proof = Proof(
        receipt_id=receipt_id,
        proved_at=datetime.now(UTC),
        versions=tuple(same),
        different=tuple(different),
        pairs=pairs,
        queries=asked,
        recipes=tuple(RECIPES),
        seed=seed,
        digest=digest.hexdigest(),
    )
    _keep(store, proof)
    return proof


def load_proofs(uri: str, receipt_id: str) -> list[Proof]:
    """The proofs that were kept with a receipt, oldest first."""
    rows = read_table(uri, "proofs").sort_by("proved_at").to_pylist()
    return [_from_row(row) for row in rows if row["receipt_id"] == receipt_id]


def _from_row(row: dict[str, Any]) -> Proof:
    lists = {name: tuple(row[name]) for name in ("versions", "different", "recipes")}
    return Proof(**{**row, **lists})


def _keep(store: PairStore, proof: Proof) -> None:
    row = {name: getattr(proof, name) for name in schemas.PROOFS.names}
    with store.writing("prove", beside=True):
        append_rows(store.uri, "proofs", pa.Table.from_pylist([row], schema=schemas.PROOFS))


def _group_versions(store: PairStore) -> list[list[str]]:
    """Names of the versions, together where they have the same rows."""
    groups: dict[object, list[str]] = {}
    for version in store.versions():
        fragments = store.dataset(version.name).get_fragments()
        groups.setdefault(frozenset(map(live_rows_key, fragments)), []).append(version.name)
    return list(groups.values())


def _read_recorded(store: PairStore) -> Float32Array:
    column = read_table(store.uri, "queries", ["vector"], limit=QUERIES)["vector"]
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(column), store.image.dimension)


def _draw(model: Model, recorded: Float32Array, rng: np.random.Generator) -> _Questions:
    """Recorded queries, vectors of the version's own pairs, and random directions."""
    anchors = model.anchors
    live = np.flatnonzero(anchors.there)
    # By their ids: upkeep changes the order of rows, and a seed should go on meaning the same.
    by_id = live[pc.sort_indices(anchors.pair_ids.take(pa.array(live))).to_numpy()]
    own = rng.choice(by_id, min(QUERIES, len(live)), replace=False)
    images = [recorded, anchors.vectors("image", own).astype(np.float32)]
    images.append(rng.standard_normal((QUERIES, model.store.image.dimension), np.float32))
    texts = [anchors.vectors("text", own[:LABELS]).astype(np.float32)]
    texts.append(rng.standard_normal((LABELS, model.store.text.dimension), np.float32))
    return _Questions(*(unit_queries(_usable(np.concatenate(part))) for part in (images, texts)))


def _usable(vectors: Float32Array) -> Float32Array:
    return vectors[np.any(vectors, axis=1)]


def _compare(store: PairStore, model: Model, questions: _Questions) -> tuple[bytes, bytes]:
    """Digests of a version's answers and of those of the same rows in a fresh database."""
    recipes = list(dict.fromkeys([model.recipe, *RECIPES.values()]))
    with tempfile.TemporaryDirectory(prefix="asif-prove-") as folder:
        fresh = _build(store.dataset(model.version.name), store, Path(folder))
        other = open_model(fresh.uri)
        found = _answer(model, recipes, questions)
        return found, _answer(other, recipes, questions)


def _build(rows: lance.LanceDataset, store: PairStore, folder: Path) -> PairStore:
    """A database with the live rows of a version and no history."""
    fresh = PairStore.create(str(folder / "db"), image=store.image, text=store.text)
    for batch in rows.scanner(batch_size=_ROWS_AT_ONCE).to_batches():
        fresh.add(pa.Table.from_batches([batch]))
    if fresh.publish(command="prove") is None:
        raise StorageError(f"{store.uri}: a version without pairs cannot be built anew")
    return fresh


def _answer(model: Model, recipes: Sequence[Recipe], questions: _Questions) -> bytes:
    digest = hashlib.sha256()
    for recipe in recipes:
        for part in _tell(model.under(recipe), questions):
            digest.update(part)
    return digest.digest()


def _tell(model: Model, questions: _Questions) -> Iterator[bytes]:
    """All that a model says, as bytes: neighbors on both sides, scores and labels."""
    asked: dict[Side, Float32Array] = {"image": questions.images, "text": questions.texts}
    each = zip(asked.items(), model.recipe.k, model.recipe.measures, strict=True)
    for (side, vectors), k, measure in each:
        near = model.anchors.top_k(side, vectors, k, measure=measure)
        ids = model.anchors.pair_ids.take(pa.array(near.indices.ravel()))
        yield "\n".join(ids.to_pylist()).encode()
        yield near.similarities.tobytes()
    labels = model.label_vectors({f"{i}": text[None] for i, text in enumerate(questions.texts)})
    names = [str(i) for i in range(len(questions.images))]
    for prediction in model.classify_vectors(names, questions.images, labels):
        yield "\n".join(label for label, _ in prediction.ranking).encode()
        yield np.array([score for _, score in prediction.ranking]).tobytes()
