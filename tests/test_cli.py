"""The command line's contract, on vectors that users bring (no encoder is loaded)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, Cli, pairs_frame
from oracle import asif_scores

from asif_lance.relative.recipes import DEFAULT, RECIPES

DB = ("--db", "t.lancedb")


@pytest.fixture
def filled(cli: Cli, pairs_file: Path) -> Cli:
    assert cli(*DB, "ingest", pairs_file).status == 0
    return cli


def answers(cli: Cli, queries: Path, labels: Path, *more: object) -> list[dict[str, object]]:
    done = cli(
        *DB, "classify", "--vectors", queries, "--label-vectors", labels, "--format", "json", *more
    )
    assert done.status == 0, done.err
    return done.objects


def test_ingest_tells_what_became_of_every_item(cli: Cli, pairs_file: Path) -> None:
    done = cli(*DB, "ingest", pairs_file, "--format", "json")
    assert done.status == 0
    counts = {"added": 200, "already_there": 0, "changed": 0, "updated": 0, "rejected": 0}
    assert done.objects == [{**counts, "version": "v1", "cut_captions": 0}]


def test_ingesting_the_same_file_again_adds_nothing_and_makes_no_version(
    filled: Cli, pairs_file: Path
) -> None:
    done = filled(*DB, "ingest", pairs_file, "--format", "json")
    counts = {"added": 0, "already_there": 200, "changed": 0, "updated": 0, "rejected": 0}
    assert done.objects == [{**counts, "version": None, "cut_captions": 0}]
    assert [v["name"] for v in filled(*DB, "versions", "--format", "json").objects] == ["v1"]


def test_classify_prints_the_contract(filled: Cli, query_file: Path, label_file: Path) -> None:
    found = answers(filled, query_file, label_file, "--k", "50", "--p", "4,2", "--explain", "3")
    assert len(found) == 20
    assert list(found[0]) == ["image", "model", "recipe", "k", "p", "predictions", "pairs"]
    assert (found[0]["image"], found[0]["model"], found[0]["recipe"]) == ("q0", "v1", DEFAULT)
    assert (found[0]["k"], found[0]["p"]) == (50, [4.0, 2.0])
    assert list(found[0]["pairs"][0]) == [
        "pair_id",
        "caption",
        "captions",
        "role",
        "label",
        "image_similarity",
        "text_similarity",
        "contribution",
    ]


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("k", [1, 7, 200, 800])
def test_scores_and_labels_are_the_oracles(
    filled: Cli, pairs_file: Path, query_file: Path, label_file: Path, k: int, recipe: str
) -> None:
    pairs, labels = pl.read_parquet(pairs_file), pl.read_parquet(label_file)
    ids = pairs["pair_id"].to_list()
    expected = asif_scores(
        _unit(pl.read_parquet(query_file)["vector"].to_numpy()),
        _unit(labels["vector"].to_numpy()),
        _unit(pairs["image_vector"].to_numpy()).astype(np.float16),
        _unit(pairs["text_vector"].to_numpy()).astype(np.float16),
        (k, k),
        RECIPES[recipe].p,
        tie_order=[sorted(ids).index(i) for i in ids],
        recipe=recipe,
    )
    asked = ("--recipe", recipe, "--k", k, "--top", 5)
    for found, scores in zip(
        answers(filled, query_file, label_file, *asked), expected, strict=True
    ):
        by_label = {p["label"]: p["score"] for p in found["predictions"]}
        assert [by_label[name] for name in labels["label"]] == pytest.approx(scores, abs=1e-5)
        assert found["predictions"][0]["label"] == labels["label"][int(np.argmax(scores))]


def test_deleting_changes_the_newest_model_only_and_rollback_brings_it_back(
    filled: Cli, query_file: Path, label_file: Path
) -> None:
    before = answers(filled, query_file, label_file)
    done = filled(*DB, "delete", "--where", "license = 'CC-BY-NC'", "--format", "json")
    assert done.objects == [{"deleted": 100, "not_found": 0, "version": "v2"}]
    after = answers(filled, query_file, label_file)
    assert after != before
    assert answers(filled, query_file, label_file, "--model", "v1") == before
    assert filled(*DB, "rollback", "v1").status == 0
    again = answers(filled, query_file, label_file)
    assert [a | {"model": "v1"} for a in again] == before


def test_an_alias_and_a_moment_name_a_version(
    filled: Cli, query_file: Path, label_file: Path
) -> None:
    assert filled(*DB, "tag", "prod").status == 0
    filled(*DB, "delete", "p0", "p1")
    assert answers(filled, query_file, label_file, "--model", "prod")[0]["model"] == "v1"
    first, second = filled(*DB, "versions", "--format", "json").objects
    assert first["aliases"] == ["prod"]
    found = answers(filled, query_file, label_file, "--as-of", first["created_at"])
    assert found[0]["model"] == "v1"
    found = answers(filled, query_file, label_file, "--as-of", second["created_at"])
    assert found[0]["model"] == "v2"


def test_going_back_to_where_one_is_makes_no_version_and_says_so(filled: Cli) -> None:
    assert filled(*DB, "rollback", "v1").err == (
        "v1 is the newest already, with the pairs of v1; no new version\n"
    )
    assert len(filled(*DB, "versions", "--format", "json").objects) == 1


def test_deleting_ids_that_are_not_there_makes_no_version(filled: Cli) -> None:
    done = filled(*DB, "delete", "nobody", "--format", "json")
    assert done.objects == [{"deleted": 0, "not_found": 1, "version": "v1"}]


def test_a_folder_without_a_database_is_told_in_one_line(cli: Cli) -> None:
    done = cli(*DB, "versions")
    assert done.status == 1
    where = Path("t.lancedb").absolute()
    assert done.err == (
        f"asif-lance: no asif_lance database at {where}: `asif-lance ingest` makes one\n"
    )


def test_an_unknown_version_is_told_in_one_line(
    filled: Cli, query_file: Path, label_file: Path
) -> None:
    done = filled(
        *DB, "classify", "--vectors", query_file, "--label-vectors", label_file, "--model", "v9"
    )
    assert done.status == 1
    assert done.err == "asif-lance: no model version 'v9'; there are: v1\n"


def test_vectors_of_another_size_are_refused(
    filled: Cli, query_file: Path, label_file: Path
) -> None:
    done = filled(*DB, "classify", "--vectors", query_file, "--label-vectors", query_file)
    assert done.status == 1
    assert done.err.endswith("has no column 'label'; its columns: id, vector\n")
    wrong = pl.read_parquet(label_file).rename({"label": "id"})
    wrong.write_parquet("wrong.parquet")
    done = filled(*DB, "classify", "--vectors", "wrong.parquet", "--label-vectors", label_file)
    assert done.err == (
        f"asif-lance: image vectors: expected {IMAGE_DIM} dimensions, got {TEXT_DIM}\n"
    )


def test_pictures_need_an_encoder_that_made_the_vectors(filled: Cli, label_file: Path) -> None:
    done = filled(*DB, "classify", "cat.jpg", "--label-vectors", label_file)
    assert done.status == 1
    assert done.err == (
        f"asif-lance: {Path('t.lancedb').absolute()} holds vectors that were brought along, "
        "no encoder is known for them: use --vectors, or name them with `asif-lance encoders`\n"
    )


def test_bad_rows_of_vectors_are_rejected_with_their_reasons(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    frame = pairs_frame(6, rng)
    images = frame["image_vector"].to_numpy().copy()
    images[1, 3] = np.nan
    images[2] = 0
    frame = frame.with_columns(
        image_vector=images, pair_id=pl.Series(["p0", "p1", "p2", "p3", "p3", "p5"])
    )
    frame.write_parquet(tmp_path / "bad.parquet")
    done = cli(*DB, "ingest", "bad.parquet", "--format", "json", "--rejects", "rejects.csv")
    counts = {"added": 3, "already_there": 0, "changed": 0, "updated": 0, "rejected": 3}
    assert done.objects == [{**counts, "version": "v1", "cut_captions": 0}]
    reasons = pl.read_csv("rejects.csv")["reason"].to_list()
    assert reasons == [
        "image_vector holds NaN, infinity or a number beyond float32",
        "image_vector is all zeros",
        "duplicate of an earlier item",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["delete"], "name the pairs by ID or by --where, one of the two"),
        (["classify", "--labels", "a"], "give images, or --vectors, one of the two"),
        (["search"], "give a TEXT or --image, one of the two"),
        (["classify", "x.jpg", "--k", "a", "--labels", "a"], "'a' is not a whole number"),
        (["classify", "x.jpg", "--as-of", "soon", "--labels", "a"], "'soon' is not a time like"),
    ],
)
def test_wrong_usage_exits_with_2(filled: Cli, arguments: list[str], message: str) -> None:
    done = filled(*DB, *arguments)
    assert done.status == 2
    assert message in done.err


def test_a_predicate_that_is_no_sql_is_told_in_one_line(filled: Cli) -> None:
    done = filled(*DB, "delete", "--where", "license = = 3")
    assert done.status == 1
    assert done.err.startswith("asif-lance: cannot use --where 'license = = 3': ")
    assert done.err.count("\n") == 1


@pytest.mark.slow
def test_ten_thousand_brought_pairs_need_no_encoder_library(
    tmp_path: Path, rng: np.random.Generator, query_file: Path, label_file: Path
) -> None:
    pairs_frame(10_000, rng).write_parquet(tmp_path / "pairs.parquet")
    commands = [
        ["ingest", "pairs.parquet"],
        ["classify", "--vectors", str(query_file), "--label-vectors", str(label_file)],
        ["delete", "--where", "license = 'CC-BY'"],
        ["rollback", "v1"],
    ]
    code = f"""if True:
        import sys
        from asif_lance.cli import main
        for command in {commands!r}:
            main(["--db", "t.lancedb", *command], standalone_mode=False)
        print([m for m in ("timm", "sentence_transformers", "transformers") if m in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr.splitlines()[-1] == "v3 has the 10,000 pairs of v1"


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def test_the_help_names_every_recipe_and_the_default(cli: Cli) -> None:
    from asif_lance.relative import DEFAULT, RECIPES

    told = " ".join(cli("classify", "--help").out.split())
    assert f"compared: {', '.join(RECIPES)}." in told
    assert f"else {DEFAULT}]" in told
