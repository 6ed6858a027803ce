"""`m3col.train`: from a name, a file, arrays or a trial; resumed where it was cut; never half validated."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import m3col
from m3col.api import validate
from m3col.config import yaml_files
from m3col.errors import InputError
from m3col.evaluation import test_ledger
from m3col.training import checkpoint
from tests.support.helpers import TINY, tiny_config, tiny_data

DATA = tiny_data()
PRECISE = {"data.preprocess": ["standard"], "train.precision": "float64"}


@pytest.fixture(autouse=True)
def checkpoints_at_every_epoch(monkeypatch):
    """Where `checkpoint.every_s` is 0; else they would come less often, because these epochs take no time."""
    monkeypatch.setattr(checkpoint, "_WRITING_SHARE", 1e9)


def train(runs, source=TINY, **named) -> m3col.TrainResult:
    named.setdefault("data", DATA)
    return m3col.train(source, runs=runs, tracking_uri="none", **named)


def test_a_result_has_metrics_history_checkpoint_and_predictions(tmp_path):
    seen = []
    result = train(tmp_path, overrides={"validation.folds": 2}, report=lambda *args: seen.append(args))
    assert [record.epoch for record, _, _ in seen] == [1, 2, 3, 4, 5, 6] and seen[0][1:] == (6, result.folder)
    assert list(result.history["epoch"]) == [1, 2, 3, 4, 5, 6] and "val/auroc" in result.history
    assert isinstance(result.history, pd.DataFrame) and result.mlflow_run_id is None
    assert {"train/loss", "val/auroc", "test/auroc", "test/accuracy_view_0"} <= set(result.metrics)
    assert result.metrics == json.loads((result.folder / "metrics.json").read_text())
    assert result.metrics["val/auroc"] == result.history["val/auroc"].iloc[-1]
    inputs = DATA.test.inputs
    assert np.array_equal(result.predict_proba(inputs), m3col.load(result.checkpoint).predict_proba(inputs))
    votes = result.predict_proba(inputs).argmax(1)
    assert result.metrics["test/accuracy"] == pytest.approx((votes == DATA.test.labels).mean())
    assert sorted(path.name for path in result.folder.iterdir()) == [
        "config.yaml", "data.json", "history.jsonl", "metrics.json", "model",
    ]  # fmt: skip


def test_kfold_trains_one_model_per_fold_and_none_trains_one(tmp_path):
    assert len(train(tmp_path, overrides={"validation.folds": 3}).predictor) == 3
    alone = train(tmp_path, overrides={"validation.kind": "none"})
    assert len(alone.predictor) == 1 and alone.history["value"].isna().all()
    assert alone.folder.name == "arrays-m3col-2"


def test_digits_by_name_with_overrides(tmp_path):
    result = train(tmp_path, "digits", data=None, overrides={"train.epochs": 2, "objective.beta": 0.5})
    assert result.config.objective.beta == 0.5 and len(result.history) == 2 and result.config.data.name == "digits"
    again = train(tmp_path, result.folder / "config.yaml", data=None)
    assert again.metrics == result.metrics  # same config, same numbers
    (entry, other) = test_ledger.entries(tmp_path)
    assert entry["dataset"] == "digits" and other["by"] == "train/digits-m3col-2"


def test_arrays_and_frames_in_memory(tmp_path):
    pair = (DATA.train.inputs, DATA.train.labels)
    arrays = train(tmp_path, data=pair, overrides=PRECISE)
    assert not any(name.startswith("test/") for name in arrays.metrics) and test_ledger.entries(tmp_path) == []
    frames = {name: pd.DataFrame(x, columns=list(DATA.features[name])) for name, x in DATA.train.inputs.items()}
    splits = {"train": (frames, DATA.train.labels), "test": (DATA.test.inputs, DATA.test.labels)}
    named = train(tmp_path, data=splits, overrides=PRECISE)
    assert named.history["train/loss"].tolist() == arrays.history["train/loss"].tolist()  # to the last bit
    assert yaml_files.read(named.folder / "config.yaml")["data"]["name"] == "arrays"


def test_a_trial_of_a_study_is_trained_again(tmp_path):
    study = tmp_path / "mine"
    for number in (3, 17):
        (study / "trials" / str(number)).mkdir(parents=True)
        run = tiny_config(objective__beta=0.01 * number, validation__folds=2)
        (study / "trials" / str(number) / "config.yaml").write_text(run.to_yaml())
    (study / "study.json").write_text("{}")
    assert train(tmp_path, "mine#17").config.objective.beta == pytest.approx(0.17)
    assert train(tmp_path, f"{study}#3", overrides={"train.epochs": 2}).config.train.epochs == 2
    wrong = {
        "mine#4": "are 3 to 17",
        "mine#x": "no trial 'x'",
        "mien#17": "did you mean 'mine'",
        "mine#": "no trial ''",
    }
    for name, words in wrong.items():
        with pytest.raises(InputError, match=words):
            train(tmp_path, name)


class Cut(Exception):
    pass


def cut_at(epoch):
    def report(record, epochs, folder):
        if record.epoch == epoch:
            raise Cut

    return report


def cut_run(runs, **overrides):
    overrides = {"checkpoint.every_s": 0, "validation.folds": 2, "model.dropout": 0.3, **overrides}
    with pytest.raises(Cut):
        train(runs, overrides=overrides, report=cut_at(4))
    (folder,) = (runs / "train").iterdir()
    return folder


def test_resuming_a_run_that_was_cut_off_equals_never_having_stopped(tmp_path):
    whole = train(tmp_path / "a", overrides={"checkpoint.every_s": 0, "validation.folds": 2, "model.dropout": 0.3})
    folder = cut_run(tmp_path / "b")
    assert not (folder / "model").exists() and checkpoint.newest_training(folder).name == "epoch-000004"
    epochs = []
    resumed = train(tmp_path / "b", "ignored", resume=folder, report=lambda r, *_: epochs.append(r.epoch))
    assert epochs == [5, 6] and resumed.folder == folder
    assert resumed.metrics == whole.metrics
    assert np.array_equal(resumed.predict_proba(DATA.test.inputs), whole.predict_proba(DATA.test.inputs))
    assert not (folder / "state").exists()
    with pytest.raises(InputError, match="finished"):
        train(tmp_path / "b", resume=folder)


def test_a_run_without_any_checkpoint_is_resumed_from_its_beginning(tmp_path):
    folder = cut_run(tmp_path, **{"checkpoint.every_s": 1000})
    assert len(train(tmp_path, resume=folder).history) == 6


def test_resuming_refuses_what_is_not_the_same_run(tmp_path):
    folder = cut_run(tmp_path)
    for named, words in (
        ({"overrides": {"train.epochs": 9}}, "keeps its config"),
        ({"data": tiny_data(seed=1)}, r"data is not what the run began with \(train, test\)"),
        ({"data": None}, "hand them over"),
    ):
        with pytest.raises(InputError, match=words):
            train(tmp_path, resume=folder, **named)
    for wrong in (tmp_path, tmp_path / "no"):
        with pytest.raises(InputError, match="not the folder of a training run"):
            train(tmp_path, resume=wrong)


def test_a_full_disk_while_training_is_a_warning_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    real = checkpoint.write_training

    def full_from_three(folder, training):
        if training.epoch >= 3:
            raise OSError(28, "No space left on device")
        real(folder, training)

    monkeypatch.setattr(checkpoint, "write_training", full_from_three)
    kept = []
    with pytest.warns(UserWarning, match=r"no checkpoint at epoch 5 .*epoch-000002 stays"):
        result = train(tmp_path, overrides={"checkpoint.every_s": 0},
                       report=lambda r, _, folder: kept.append(checkpoint.newest_training(folder)))  # fmt: skip
    assert [path and path.name for path in kept] == ["epoch-000001"] + ["epoch-000002"] * 5
    assert len(result.history) == 6 and result.checkpoint.exists()


def test_a_full_disk_at_the_end_keeps_what_can_be_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_save", lambda tensors, path: (_ for _ in ()).throw(OSError(28, "full"))
                        if "member" in path.name else save(tensors, path))  # fmt: skip
    with pytest.raises(OSError, match="full"):
        train(tmp_path, overrides={"checkpoint.every_s": 0})
    monkeypatch.undo()
    (folder,) = (tmp_path / "train").iterdir()
    assert checkpoint.newest_training(folder).name == "epoch-000005" and not (folder / "model").exists()
    assert train(tmp_path, resume=folder).checkpoint.exists()


save = checkpoint._save


def test_faults_of_config_data_and_disk_come_together_and_nothing_is_written(tmp_path):
    (tmp_path / "file").write_text("")
    views = {name: np.where(np.arange(len(x))[:, None] == 3, np.nan, x) for name, x in DATA.train.inputs.items()}
    with pytest.raises(InputError) as caught:
        m3col.train({**TINY, "epochs": 1}, data=(views, DATA.train.labels), runs=tmp_path / "file" / "runs",
                    overrides={"metric": "val/x", "train.seed": -1})  # fmt: skip
    text = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 6 and text.count("impute") == 2
    for words in ("unknown key 'epochs'", "train.seed must be >= 0", "'val/x' is never reported", "is a file"):
        assert words in text
    with pytest.raises(InputError):
        train(tmp_path / "runs", {"x": 1})
    assert not (tmp_path / "runs").exists()


def test_too_little_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="MB are free"):
        train(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_validate_gives_what_would_be_trained(tmp_path):
    prepared = validate(TINY, data=DATA, runs=tmp_path / "runs")
    assert prepared.config.metric == "val/auroc" and prepared.dataset is DATA and not (tmp_path / "runs").exists()


def test_workers_that_are_refused_when_they_start_again_lose_nothing(tmp_path):
    trained: list[bool] = []

    def execute(prepared, folder, report):
        if trained[0]:
            m3col.api.run(prepared, folder, report)
        raise InputError(["this node lacks the encoder"])

    for done, left in ((False, 0), (True, 1)):
        trained[:] = [done]
        with pytest.raises(InputError, match="lacks the encoder"):
            train(tmp_path, execute=execute)
        assert len(list((tmp_path / "train").iterdir())) == left
