"""Several models as one: the mean of their scores, exact after any history, and told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm
from conftest import Cli, pairs_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import asif_scores
from PIL import Image
from timm.models import save_for_hf

import asif_lance
from asif_lance.errors import DimensionError, ImageError, InputError
from asif_lance.evaluation.accuracy import predict_together
from asif_lance.evaluation.labelled_pictures import Labelled
from asif_lance.ingest.pipeline import ingest_sources
from asif_lance.model.joint import JointPrediction, Together
from asif_lance.model.model import Model
from asif_lance.records import Reject
from asif_lance.relative.recipes import RECIPES
from asif_lance.search.query_grid import unit_queries
from asif_lance.store.pair_store import PairStore

LABELS, K, P = ("a", "b", "c"), (9, 7), (4.0, 2.0)
SIZES = {"one": (16, 12), "other": (10, 6)}  # image and text dimension of each database


def frame(name: str, ids: range) -> pl.DataFrame:
    """Pairs whose vectors are fixed by id and database."""
    image, text = SIZES[name]
    rows = [np.random.default_rng([i, image]).standard_normal(image + text) for i in ids]
    matrix = np.array(rows, dtype=np.float32)
    plain = pairs_frame(len(ids), np.random.default_rng(0), start=ids.start)
    return plain.with_columns(image_vector=matrix[:, :image], text_vector=matrix[:, image:])


def ingest(folder: Path, name: str, pairs: pl.DataFrame) -> Path:
    uri, source = folder / f"{name}.lancedb", folder / f"{name}.parquet"
    pairs.write_parquet(source)
    ingest_sources(uri, [source])
    return uri


def opened(folder: Path, recipe: str = "centred") -> Together:
    return Together(
        {n: asif_lance.open(folder / f"{n}.lancedb", recipe=recipe, k=K, p=P) for n in SIZES}
    )


def asked(rows: int = 5) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Pictures and prompts as each database's encoders would embed them."""
    rng = np.random.default_rng(7)
    return {
        name: (
            rng.standard_normal((rows, image)).astype(np.float32),
            {label: rng.standard_normal(text).astype(np.float32) for label in LABELS},
        )
        for name, (image, text) in SIZES.items()
    }


def answers(together: Together) -> list[JointPrediction]:
    questions = asked()
    labels = [m.label_vectors(questions[name][1]) for name, m in together.models.items()]
    vectors = [questions[name][0] for name in together.models]
    return list(together.classify_vectors([f"q{i}" for i in range(5)], vectors, labels))


def oracle(model: Model, name: str) -> np.ndarray:
    pairs = pl.DataFrame(model.store.read(model.version.name)).sort("pair_id")
    images, texts = (np.array(pairs[f"{side}_vector"].to_list()) for side in ("image", "text"))
    queries, prompts = asked()[name]
    both = unit_queries(queries), unit_queries(np.stack(list(prompts.values())))
    return np.array(asif_scores(*both, images, texts, K, P, recipe=model.recipe.name))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_joint_score_is_the_mean_of_both_models_scores(tmp_path: Path, recipe: str) -> None:
    for name in SIZES:
        ingest(tmp_path, name, frame(name, range(30)))
    together = opened(tmp_path, recipe)
    expected = sum(oracle(model, name) for name, model in together.models.items()) / 2
    found = answers(together)
    told = [[dict(p.ranking)[label] for label in LABELS] for p in found]
    assert np.array(told) == pytest.approx(expected, abs=1e-5)
    for prediction in found:
        alone = [dict(part.ranking) for part in prediction.parts]
        assert dict(prediction.ranking) == {
            label: (alone[0][label] + alone[1][label]) / 2 for label in LABELS
        }
        assert prediction.score == max(score for _, score in prediction.ranking)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    gone=st.dictionaries(st.sampled_from(sorted(SIZES)), st.sets(st.integers(0, 39), max_size=25)),
    recipe=st.sampled_from(sorted(RECIPES)),
)
def test_after_adding_and_deleting_they_answer_like_databases_built_fresh(
    tmp_path_factory: pytest.TempPathFactory, gone: dict[str, set[int]], recipe: str
) -> None:
    changed, fresh = (tmp_path_factory.mktemp(name) for name in ("changed", "fresh"))
    for name in SIZES:
        uri, out = ingest(changed, name, frame(name, range(30))), gone.get(name, set())
        ingest(changed, name, frame(name, range(25, 40)))
        store = PairStore.open(str(uri))
        store.delete([f"p{i}" for i in out])
        store.publish(command="delete")
        left = frame(name, range(40)).filter(~pl.col("pair_id").is_in([f"p{i}" for i in out]))
        ingest(fresh, name, left)
    after, anew = (answers(opened(folder, recipe)) for folder in (changed, fresh))
    assert [p.ranking for p in after] == [p.ranking for p in anew]
    assert [p.attributions(50) for p in after] == [p.attributions(50) for p in anew]


def test_shares_of_both_databases_pairs_sum_to_the_joint_score(tmp_path: Path) -> None:
    for name in SIZES:
        ingest(tmp_path, name, frame(name, range(30)))
    for prediction in answers(opened(tmp_path)):
        for label, score in prediction.ranking:
            shares = prediction.attributions(100, label)
            assert sum(pair.contribution for _, pair in shares) == pytest.approx(score)
            sizes = [pair.contribution for _, pair in shares]
            assert sizes == sorted(sizes, reverse=True)
            assert {name for name, _ in shares} <= set(SIZES)
            assert prediction.attributions(3, label) == shares[:3]


def test_versions_are_chosen_for_each_and_stay_themselves(tmp_path: Path) -> None:
    for name in SIZES:
        ingest(tmp_path, name, frame(name, range(30)))
    before = answers(opened(tmp_path))
    ingest(tmp_path, "other", frame("other", range(30, 60)))
    assert [p.ranking for p in answers(opened(tmp_path))] != [p.ranking for p in before]
    old = {
        name: asif_lance.open(tmp_path / f"{name}.lancedb", "v1", recipe="centred", k=K, p=P)
        for name in SIZES
    }
    assert [p.ranking for p in answers(Together(old))] == [p.ranking for p in before]


def test_what_cannot_answer_together_is_refused(tmp_path: Path) -> None:
    for name in SIZES:
        ingest(tmp_path, name, frame(name, range(30)))
    together = opened(tmp_path)
    one, other = together.models.values()
    with pytest.raises(InputError, match="at least two models, got 1"):
        Together({"one": one})
    questions = asked()
    prompts = [questions[name][1] for name in SIZES]
    vectors = [questions[name][0] for name in SIZES]
    reversed_ = dict(reversed(prompts[1].items()))
    labels = [one.label_vectors(prompts[0]), other.label_vectors(reversed_)]
    with pytest.raises(InputError, match="the same labels in the same order"):
        list(together.classify_vectors(["q"] * 5, vectors, labels))
    labels = [one.label_vectors(prompts[0]), other.label_vectors(prompts[1])]
    with pytest.raises(DimensionError, match="expected 16 dimensions, got 10"):
        list(together.classify_vectors(["q"] * 5, vectors[::-1], labels))
    with pytest.raises(InputError, match="vectors are of one encoder"):
        predict_together(together, Labelled(("q",), ("a",), vectors=vectors[0][:1]), labels)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Databases `lite.lancedb` and `resnet.lancedb` of three squares, and pictures to classify."""
    folder = tmp_path_factory.mktemp("pictures")
    save_for_hf(timm.create_model("test_resnet"), folder / "resnet", safe_serialization=True)
    for name, color in {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0)}.items():
        for where in (folder / "pairs", folder / "test" / name):
            where.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), color).save(where / f"{name}.png")
        (folder / "pairs" / f"{name}.txt").write_text(f"a {name} square")
    (folder / "test" / "red" / "broken.png").write_bytes(b"no picture")
    from asif_lance.ingest import IngestOptions

    encoders = {"lite": None, "resnet": f"timm/{folder / 'resnet'}"}
    for name, encoder in encoders.items():
        options = IngestOptions(image_encoder=encoder)
        ingest_sources(folder / f"{name}.lancedb", [folder / "pairs"], options)
    return folder


@pytest.mark.encoders
def test_each_part_is_what_the_model_says_alone_and_a_bad_picture_is_told_once(
    pictures: Path,
) -> None:
    models = {name: asif_lance.open(pictures / f"{name}.lancedb") for name in ("lite", "resnet")}
    together = Together(models)
    assert len({model.store.image.dimension for model in models.values()}) == 2
    labels = together.labels(["red", "blue", "green"])
    images = sorted(pictures.glob("test/*/*.png"))
    rejects: list[Reject] = []
    found = list(together.classify(images, labels, rejects=rejects))
    assert [Path(r.item).name for r in rejects] == ["broken.png"]
    assert [Path(p.image).name for p in found] == ["blue.png", "green.png", "red.png"]
    good = [image for image in images if image.name != "broken.png"]
    for i, model in enumerate(models.values()):
        alone = [p.ranking for p in model.classify(good, labels[i])]
        assert [p.parts[i].ranking for p in found] == alone
        of_folder = model.classify([pictures / "test"], labels[i], rejects=[])
        assert [(p.image, p.ranking) for p in of_folder] == [
            (p.image, p.parts[i].ranking) for p in found
        ]
    of_folder = together.classify([pictures / "test"], labels, rejects=[])
    assert [p.image for p in of_folder] == [p.image for p in found]
    with pytest.raises(ImageError, match=r"broken\.png: "):
        list(together.classify(images, labels))


@pytest.mark.encoders
def test_the_commands_name_every_database_and_refuse_what_is_for_one(
    pictures: Path, cli: Cli
) -> None:
    lite, resnet = pictures / "lite.lancedb", pictures / "resnet.lancedb"
    red = pictures / "test" / "red" / "red.png"
    ask = ("--db", lite, "classify", red, "--labels", "red,blue")
    done = cli(*ask, "--with", f"{resnet}@v1", "--explain", "2", "--format", "json")
    assert done.status == 0, done.err
    (told,) = done.objects
    assert [(m["database"], m["model"]) for m in told["models"]] == [
        (str(lite), "v1"),
        (str(resnet), "v1"),
    ]
    (alone,) = cli(*ask, "--format", "json").objects
    assert {"image": str(red), **told["models"][0]} == {"database": str(lite), **alone}
    mean = [{p["label"]: p["score"] for p in m["predictions"]} for m in told["models"]]
    for said in told["predictions"]:
        assert said["score"] == (mean[0][said["label"]] + mean[1][said["label"]]) / 2
    assert {p["database"] for p in told["pairs"]} <= {str(lite), str(resnet)}
    shown = cli(*ask, "--with", resnet, "--explain", "1")
    assert shown.out.splitlines()[0].split() == [str(red), f"{lite}@v1", "+", f"{resnet}@v1"]
    assert "database" in shown.out

    measure = ("--db", lite, "evaluate", pictures / "test", "--with", resnet)
    done = cli(*measure, "--format", "json")
    assert done.status == 1
    assert done.err.count("broken.png") == 1
    first, second, joint, *against = done.objects
    assert (first["model"], second["model"]) == (f"{lite}@v1", f"{resnet}@v1")
    assert joint["model"] == f"{lite}@v1 + {resnet}@v1"
    assert [(c["first"], c["second"]) for c in against] == [
        (f"{lite}@v1", "together"),
        (f"{resnet}@v1", "together"),
    ]
    assert against[0]["difference"] == pytest.approx(joint["top_1"] - first["top_1"])
    assert "together against" in cli(*measure).out

    for wrong, reason in (
        ((*ask, "--with", resnet, "--record"), "--record is about one database"),
        ((*ask, "--with", lite), f"{lite}@v1 is there already"),
        ((*ask[:-2], "--with", resnet), "--labels or --labels-file"),
        ((*measure, "--plot", "x.png"), "--plot is about one database"),
        ((*measure, "--model", "v1", "--model", "v1"), "give one --model"),
    ):
        done = cli(*wrong)
        assert (done.status, reason in done.err) == (2, True), done.err
    gone = cli(*ask, "--with", f"{resnet}@v9")
    assert gone.status == 1
    assert "v9" in gone.err
