"""Names that a person may give, against the rules of the MLflow that is installed and a real store of it."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import m3col
from m3col.data.arrays import from_arrays
from m3col.tracking import mlflow_names, mlflow_store, payload
from m3col.tracking.mlflow_store import GIVEN, Tracker
from m3col.tracking.payload import Point

ODD = [
    "CpG (450k)", "miRNA/", "/miRNA", "a//b", "./a", "../a", "..a", "a/../b", "a/./b", ".", "..", "", " ", "a\nb",
    "a\n", "a\tb", "a\0b", "[x]", "{x}", "it's", 'say "x"', "a`b", "50%", "a=b&c", "a?b#c", "a\\b", "a,b;c", "β-actin",
    "基因", "e\u0301", "a\u200bb", "🧬", "x" * 250, "x" * 251, "x" * 600, "基" * 300, "a" * 249 + "(", "\ud800",
    "ゲノム", "*", "a|b", "-x0123456789ab", "val/a-x0123456789ab",
]  # fmt: skip


def _refused(name: str) -> bool:
    """What MLflow's own checks of metrics, params and tags say."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils import validation

    try:
        validation._validate_metric(name, 1.0, 1, 1)
        validation._validate_param(name, "1")
        validation._validate_tag(name, "1")
    except MlflowException:
        return True
    return False


def _names() -> list[str]:
    draw = random.Random(0)
    characters = "ab/. -_:()[]{}'\"`\\%#?&=\n\t\0é日本\u0301\u200b\ud800𝔛~+@*,;|<>$^!"
    found = {"".join(draw.choice(characters) for _ in range(draw.randint(0, 9))) for _ in range(5000)}
    found |= {f"val/accuracy_{name}" for name in ODD} | {*ODD}
    return sorted(found | {mlflow_names.key(name) for name in found})


def test_mlflow_takes_every_name_keeps_two_apart_and_leaves_good_ones_alone() -> None:
    found: dict[str, str] = {}
    for name in _names():
        key = mlflow_names.key(name)
        assert not _refused(key) and "\n" not in key and key.encode(), (name, key)
        assert found.setdefault(key, name) == name, "two names are one in MLflow"
        # MLflow's own check lets a line break at the end pass.
        if not _refused(name) and not name.endswith("\n") and not mlflow_names._MARKED.fullmatch(name):
            assert key == name


@pytest.mark.parametrize("name", ["val/accuracy", "train/ce_rna.seq", "基因", "a b:c", "data.preprocess.mRNA.kind"])
def test_names_that_studies_have_used_stay_as_they_are(name: str) -> None:
    assert mlflow_names.key(name) == name and mlflow_names.experiment(name) == name


def test_a_changed_name_can_still_be_read() -> None:
    assert mlflow_names.key("val/accuracy_CpG (450k)").startswith("val/accuracy_CpG _450k_-x")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    tracker = mlflow_store.connect(None, tmp_path_factory.mktemp("store"))
    assert tracker is not None
    return tracker


@pytest.mark.parametrize("name", [name for name in ODD if "\ud800" not in name])
def test_a_store_gives_back_what_was_written_under_any_name(store: Tracker, name: str) -> None:
    run = store.create(store.experiment("odd"), name, tags={f"tag {name}": name}, started=1.0)
    store.write(run, [Point(f"val/accuracy_{name}", 0.5, 7, 2.0)], params={f"data.{name}.kind": name}, tags={name: "x"})
    assert store.last_step(run, f"val/accuracy_{name}") == 7
    found = store.client.get_run(run)
    assert list(found.data.metrics.values()) == [0.5]
    given = [value for key, value in found.data.tags.items() if key.startswith(GIVEN)]
    changed = [text for text in (f"val/accuracy_{name}", f"data.{name}.kind") if mlflow_names.key(text) != text]
    assert sorted(given) == sorted(mlflow_names.text(text) for text in changed), "the page shows the name as given"


@pytest.mark.parametrize(
    "name", ["it's", 'say "x"', "both ' and \"", "a`b", "基因 (1)", "", " ", "x" * 501, "\ud800", "a\0b"]
)
def test_an_experiment_may_have_any_name_and_is_found_again(store: Tracker, name: str) -> None:
    made = store.experiment(name)
    assert store.experiment(name) == made
    assert store.experiment(f"{name}!") != made


@pytest.mark.parametrize("value", ["it's", 'say "x"', "both ' and \"", "a`b", "back\\slash", "50%_", "基因"])
def test_runs_are_found_by_tags_with_any_value(store: Tracker, value: str) -> None:
    experiment = store.experiment("values")
    mine, _ = (store.create(experiment, "run", tags={"m3col.study": text}, started=1.0) for text in (value, "other"))
    assert [run.id for run in store.find(experiment, {"m3col.study": value})] == [mine]


@pytest.mark.parametrize("name", ["x" * 300, "基" * 200, ".", "a/b", "a\0b"])
def test_a_folder_of_files_fits_every_file_system(tmp_path: Path, name: str) -> None:
    (tmp_path / mlflow_names.folder(name)).mkdir()


COLUMNS: dict[str, tuple[dict[str, list[str]], list[str]]] = {
    "nothing repeated": ({"a": ["b", "c"], "d": ["b"]}, ["a.b", "a.c", "d.b"]),
    "dots": ({"a": ["b.c"], "a.b": ["c"]}, ["a.b.c", "a.b.c (2)"]),
    "one name twice": ({"rna": ["1-Mar", "1-Mar", "TP53"]}, ["rna.1-Mar", "rna.1-Mar (2)", "rna.TP53"]),
    "the number is taken": ({"a": ["b", "b", "b (2)"]}, ["a.b", "a.b (3)", "a.b (2)"]),
    "thrice": ({"a": ["b", "b", "b"]}, ["a.b", "a.b (2)", "a.b (3)"]),
    "two dots": ({"a": ["b.c.d"], "a.b": ["c.d"], "a.b.c": ["d"]}, ["a.b.c.d", "a.b.c.d (2)", "a.b.c.d (3)"]),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_of_a_model_are_never_the_same(case: str) -> None:
    features, expected = COLUMNS[case]
    found = payload.model_columns(features, dict.fromkeys(features, "numeric"))
    assert [column for columns in found.values() for column in columns] == expected


def test_columns_of_a_image_and_of_numbers_are_never_the_same() -> None:
    found = payload.model_columns({"x": ["y"], "x.y": []}, {"x": "numeric", "x.y": "image"})
    assert found == {"x": ["x.y"], "x.y": ["x.y (2)"]}


def test_a_training_with_such_names_is_whole_in_mlflow(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(24) % 2
    views: dict[str, Any] = {
        "CpG (450k)": pd.DataFrame(draw.normal(size=(24, 3)) + labels[:, None], columns=["1/2", "b (c)", "d"]),
        "a": pd.DataFrame(draw.normal(size=(24, 1)), columns=["b.c"]),
        "基因": pd.DataFrame(draw.normal(size=(24, 1)), columns=["it's"]),
    }
    config = {
        "data": {"name": "arrays"}, "model": {"embedding_dim": 8, "classifier_dim": 8}, "train": {"epochs": 2},
        "validation": {"kind": "holdout"},
    }  # fmt: skip
    result = m3col.train(config, data=(views, labels), runs=tmp_path)
    tracker = mlflow_store.connect(None, tmp_path)
    assert tracker is not None and result.mlflow_run_id is not None
    run = tracker.client.get_run(result.mlflow_run_id)
    assert run.info.status == "FINISHED" and mlflow_store.LACKS not in run.data.tags
    assert tracker.last_step(result.mlflow_run_id, "val/accuracy_CpG (450k)") == 2
    assert "val/accuracy_CpG (450k)" in run.data.tags.values() and "val/accuracy_CpG (450k)" in result.metrics
    import mlflow

    mlflow.set_tracking_uri(tracker.uri)
    model = mlflow.pyfunc.load_model(f"models:/{run.outputs.model_outputs[0].model_id}")
    table = pd.concat([view.add_prefix(f"{name}.") for name, view in views.items()], axis=1)
    np.testing.assert_array_equal(model.predict(table).to_numpy(), result.predict_proba(views))
    assert from_arrays(views, labels).features["基因"] == ("it's",)
