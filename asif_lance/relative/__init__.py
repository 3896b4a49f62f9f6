"""The paper's arithmetic: similarities become relative vectors, relative vectors become scores.

Promises: scores and attributions are sums in an order fixed by the items alone, so they do not
depend on the batch; a pair's shares sum to the score. A released recipe never changes its meaning.
Assumes: similarities come from `asif_lance.search`. Values in, values out: no files, no devices,
nothing that another thread could see.
"""

from typing import TYPE_CHECKING

from asif_lance.on_demand import import_on_demand

if TYPE_CHECKING:
    from asif_lance.relative.centring import (
        BlockDistances,
        BlockSummary,
        BlockSums,
        Centre,
        make_centre,
        mean_at,
        mean_of,
        total_of,
        turn_centred,
    )
    from asif_lance.relative.examples import (
        MEMBER_COSINE,
        Teaching,
        find_members,
        fit_teaching,
        make_teaching,
    )
    from asif_lance.relative.leaving_out import turn_centred_without, turn_whitened_without
    from asif_lance.relative.recipes import (
        DEFAULT,
        RECIPES,
        Measure,
        Recipe,
        check_k_and_p,
        format_sides,
        make_recipe,
        recipe_from_values,
    )
    from asif_lance.relative.vectors import (
        CompiledTexts,
        TextBlock,
        attributions,
        best_scores,
        compile_block,
        compile_texts,
        cut_runs,
        densify,
        mean_vectors,
        relative_vectors,
        scores,
        single_vector,
    )
    from asif_lance.relative.whitening import SAMPLE, WhitenedSide, Whitening, WhiteningStep
else:
    __getattr__ = import_on_demand(
        __name__,
        {
            "centring": (
                "BlockDistances BlockSummary BlockSums Centre make_centre mean_at mean_of total_of "
                "turn_centred"
            ),
            "examples": "MEMBER_COSINE Teaching find_members fit_teaching make_teaching",
            "leaving_out": "turn_centred_without turn_whitened_without",
            "recipes": (
                "DEFAULT RECIPES Measure Recipe check_k_and_p format_sides make_recipe "
                "recipe_from_values"
            ),
            "vectors": (
                "CompiledTexts TextBlock attributions best_scores compile_block "
                "compile_texts cut_runs densify mean_vectors relative_vectors scores "
                "single_vector"
            ),
            "whitening": "SAMPLE WhitenedSide Whitening WhiteningStep",
        },
    )

# fmt: off
__all__ = [
    "DEFAULT", "MEMBER_COSINE", "RECIPES", "SAMPLE", "BlockDistances", "BlockSummary", "BlockSums",
    "Centre", "CompiledTexts", "Measure", "Recipe", "Teaching", "TextBlock", "WhitenedSide",
    "Whitening", "WhiteningStep", "attributions", "best_scores", "check_k_and_p", "compile_block",
    "compile_texts", "cut_runs", "densify", "find_members", "fit_teaching", "format_sides",
    "make_centre", "make_recipe", "make_teaching", "mean_at", "mean_of", "mean_vectors",
    "recipe_from_values", "relative_vectors", "scores", "single_vector", "total_of",
    "turn_centred", "turn_centred_without", "turn_whitened_without",
]
# fmt: on
