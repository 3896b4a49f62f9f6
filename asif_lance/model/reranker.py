"""LanceDB's search results in the order of a model's scores."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from lancedb.rerankers import Reranker

from asif_lance.arguments import TEXT, instance_of, takes
from asif_lance.errors import InputError
from asif_lance.model.model import Model

_SCORE = "_relevance_score"


class AsifReranker(Reranker):  # type: ignore[misc]  # lancedb ships no types
    """Orders what LanceDB found by how well each pair's picture fits the text that was asked.

        table.search("a red bird", query_type="hybrid", vector_column_name="text_vector")
             .rerank(AsifReranker(asif_lance.open("pets.lancedb")))

    Rows that are no pairs of the model's version have the score 0.

    Args:
        model: the model version; its text encoder embeds the text.
        id_column: the column of results that names pairs.
        return_score: `relevance`, or `all` to keep LanceDB's own scores beside it.
    """

    @takes(model=instance_of("a model of `asif_lance.open`", Model), id_column=TEXT)
    def __init__(
        self, model: Model, *, id_column: str = "pair_id", return_score: str = "relevance"
    ) -> None:
        super().__init__(return_score)
        self._model, self._id_column = model, id_column

    def rerank_hybrid(
        self, query: str, vector_results: pa.Table, fts_results: pa.Table
    ) -> pa.Table:
        """Both results in one, each row once."""
        return self._order(query, self.merge_results(vector_results, fts_results))

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        """Results of a vector search."""
        return self._order(query, vector_results)

    def rerank_fts(self, query: str, fts_results: pa.Table) -> pa.Table:
        """Results of a text search."""
        return self._order(query, fts_results)

    def _order(self, query: str, results: pa.Table) -> pa.Table:
        if self._id_column not in results.column_names:
            raise InputError(
                f"the results have no column {self._id_column!r}: select it, or name another one "
                "with id_column"
            )
        ids = [str(one) for one in results[self._id_column].to_pylist()]
        scores = self._model.score_pairs(query, ids)
        ordered = results.append_column(_SCORE, pa.array(scores.astype(np.float32)))
        ordered = ordered.take(np.lexsort((np.array(ids, dtype=object), -scores)))
        return self._keep_relevance_score(ordered)
