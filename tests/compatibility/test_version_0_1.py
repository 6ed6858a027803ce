"""A checkpoint, a study and an MLflow model that version 0.1 wrote (see make.py), and its public names."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import m3col
import tune
from jobs import cli
from tests.compatibility.make import arrays
from tune.results import report
from tune.study.record import StudyFolder

REPOSITORY = Path(__file__).resolve().parents[2]
OLD = Path(__file__).with_name("version_0_1")
EXPECTED = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))
INPUTS = arrays()["test"][0]


@pytest.fixture
def study(tmp_path) -> Path:
    shutil.copytree(OLD / "study", tmp_path / "runs" / "old")
    return tmp_path / "runs" / "old"


def test_the_files_are_of_an_older_version():
    described = json.loads((OLD / "checkpoint" / "checkpoint.json").read_text(encoding="utf-8"))
    assert described["versions"]["m3col"] == EXPECTED["version"] == "0.1.0"
    assert "tracked" in (OLD / "mlflow_model" / "pyfunc_model.py").read_text(encoding="utf-8")


def test_its_checkpoint_predicts_the_same_to_the_last_bit():
    assert np.array_equal(m3col.load(OLD / "checkpoint").predict_proba(INPUTS), EXPECTED["probabilities"])


def test_its_study_is_listed_and_its_model_predicts_the_same(study, capsys):
    assert cli.main(["runs", "list", "--runs-dir", str(study.parent)]) == 0
    assert "old" in capsys.readouterr().out
    model = m3col.load(study / "results" / "model")
    assert np.array_equal(model.predict_proba(INPUTS), EXPECTED["of the study"])


def test_its_study_is_reported_again_with_the_same_numbers(study):
    before = pd.read_csv(study / "results" / "test_metrics.csv", dtype=str)
    report.write(StudyFolder(study))
    after = pd.read_csv(study / "results" / "test_metrics.csv", dtype=str)
    # Holm's correction counted all baselines in that version, and counts the best one now.
    same = [name for name in before.columns if name != "p_holm"]
    after = after[after["metric"].isin(before["metric"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(after[same], before[same])
    assert (study / "results" / "history.png").stat().st_size > 1000


@pytest.mark.slow
def test_its_study_is_resumed_with_one_trial_more(study):
    found = tune.search(
        None, data=arrays(), resume="old", overrides={"search.trials": 3}, runs=study.parent, tracking_uri="none"
    )
    assert found.trials["value"].tolist()[:2] == EXPECTED["trials"] and len(found.trials) == 3
    assert found.trials["state"].tolist() == ["complete"] * 3


def test_its_mlflow_model_is_loaded_and_predicts_the_same(tmp_path):
    code = (
        "import sys, json, mlflow.pyfunc, pandas as pd\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "table = pd.DataFrame(**json.load(open(sys.argv[2])))\n"
        "print(json.dumps(model.predict(table).to_numpy().tolist()))"
    )
    columns = [f"{name}.{name}_{number}" for name, x in INPUTS.items() for number in range(x.shape[1])]
    table = {"columns": columns, "data": np.hstack([*INPUTS.values()]).tolist()}
    (tmp_path / "table.json").write_text(json.dumps(table))
    done = subprocess.run(
        [sys.executable, "-c", code, str(OLD / "mlflow_model"), str(tmp_path / "table.json")],
        capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'm.db'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert np.array_equal(json.loads(done.stdout.splitlines()[-1]), EXPECTED["probabilities"])


def test_its_public_names_are_there():
    assert m3col.BadInput is m3col.InputError and issubclass(m3col.BadInput, ValueError)
    for module, names in {
        m3col: ("train", "load", "TrainResult", "Predictor", "__version__"),
        m3col.data: ("TABLE", "names", "load", "locate", "from_arrays", "Dataset", "Split", "concat"),
        m3col.losses: ("m3co_loss", "multi_softclip_loss"),
        m3col.methods: ("TABLE", "names", "load"),
        m3col.metrics: ("names", "compute", "score", "default", "higher_is_better"),
        m3col.statistics: ("Interval", "holm"),
        m3col.config: ("load", "RunConfig"),
        tune: ("search", "train", "SearchResult"),
    }.items():
        assert [name for name in names if not hasattr(module, name)] == []
