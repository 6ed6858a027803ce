"""Trainings of several ranks that cannot work: refused before anything is written, or failed with the reason."""

import time
from pathlib import Path

import pytest

import tune
from m3col.errors import InputError, TrainingFailed
from tests.support.driving import prepare_study, small
from tune import checks
from tune.engine import ray_cluster

pytestmark = pytest.mark.slow


def test_encoders_that_normalise_over_the_batch_are_refused_for_several_workers(tmp_path):
    from tests.support import pairs

    place = pairs.folder(tmp_path / "data")
    resnet = {"model__image__name": "resnet18", "model__image__options": {}, "data__image__size": 32}
    with pytest.raises(
        InputError, match=r"'resnet18' normalises over the rows of a batch .*use one worker, or a model"
    ):
        tune.train(pairs.config(place, **resnet), workers=2, runs=tmp_path / "runs", tracking_uri="none")
    (tmp_path / "run.yaml").write_text(pairs.config(place, **resnet).to_yaml())
    search = {
        "base": str(tmp_path / "run.yaml"), "space": {"objective.beta": {"low": 0.01, "high": 1.0}},
        "resources": {"workers_per_trial": 2},
    }  # fmt: skip
    with pytest.raises(InputError, match="'resnet18' normalises over the rows of a batch"):
        checks.validate(search, data=None, overrides={}, options=checks.Options(runs=tmp_path / "runs"))


@pytest.mark.parametrize(
    "given", [{"gpus_per_worker": -1}, {"gpus_per_worker": float("inf")}, {"cpus_per_worker": float("nan")}]
)
def test_numbers_that_no_worker_can_have_are_refused_before_a_folder_is_made(tmp_path, given):
    with pytest.raises(InputError, match=f"{next(iter(given))} must be a number >"):
        tune.train("digits", workers=2, runs=tmp_path, tracking_uri="none", **given)
    assert list(tmp_path.iterdir()) == []


def test_more_workers_than_the_cluster_holds_are_refused_and_leave_no_folder(cluster, monkeypatch, tmp_path):
    monkeypatch.setattr(ray_cluster, "WAIT_FOR_NODES_S", 1.0)
    with pytest.raises(
        InputError, match=r"training asks for 3 workers with 1 CPUs and 0 GPUs on one node each.*has 2 CPUs"
    ):
        tune.train("digits", workers=3, runs=tmp_path, tracking_uri="none")
    assert list(tmp_path.glob("train/*")) == []


def test_workers_that_cannot_share_the_batch_are_refused_with_everything_else(tmp_path):
    with pytest.raises(InputError) as caught:
        tune.train("digits", workers=2, overrides={"train.shards": 3, "train.epochs": 0}, runs=tmp_path)
    text = "\n".join(caught.value.faults)
    assert "train.shards must be a multiple of the number of workers (2), but is 3" in text and "train.epochs" in text
    assert not list(Path(tmp_path).iterdir())


def test_resources_that_do_not_fit_together_are_refused_at_once():
    wrong = small(resources={"workers_per_trial": 2, "gpus_per_worker": 0.5}, overrides={"train.shards": 3})
    with pytest.raises(InputError) as caught:
        checks.validate(wrong, data=None, overrides={}, options=checks.Options())
    text = "\n".join(caught.value.faults)
    assert "gpus_per_worker must be a whole number for several workers per trial, but is 0.5; nearest valid: 1" in text
    assert "train.shards must be a multiple of the number of workers (2), but is 3" in text


def test_a_resumed_study_keeps_its_shards_and_the_workers_must_divide_them(tmp_path):
    folder, _ = prepare_study(tmp_path, small())
    with pytest.raises(InputError, match=r"train\.shards must be a multiple of the number of workers \(2\), but is 1"):
        checks.validate(None, data=None, overrides={"resources.workers_per_trial": 2},
                  options=checks.Options(runs=tmp_path, resume=folder.name))  # fmt: skip


def test_what_all_ranks_return_as_a_failure_is_raised(cluster, monkeypatch, tmp_path):
    from tune.engine import ray_train

    monkeypatch.setattr(ray_train, "fit", lambda *given, **named: "the training loss became nan in epoch 1")
    with pytest.raises(TrainingFailed, match="nan in epoch 1"):
        tune.train("digits", workers=2, runs=tmp_path, tracking_uri="none")


@pytest.mark.dear(reason="one more start of Ray Train: a trial of the search above fails alike, and is not tried again")
def test_a_training_that_fails_on_all_workers_says_why_at_once(cluster, tmp_path):
    started = time.monotonic()
    with pytest.raises(TrainingFailed, match="nan in epoch"):
        tune.train("digits", workers=2, overrides={"train.learning_rate": 1e30, "train.epochs": 4}, runs=tmp_path,
                   tracking_uri="none")  # fmt: skip
    assert time.monotonic() - started < 120  # it is not tried again
