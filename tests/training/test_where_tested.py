"""A model of a GPU that is tested on the CPU says so."""

import json
import warnings

import pytest
import torch

import m3col
from jobs import cli
from jobs.terminal import interrupt
from m3col.training import checkpoint
from m3col.training.run import run
from tests.support.helpers import TINY, tiny_data

DATA = tiny_data()


def train(runs, **named):
    return m3col.train(
        TINY, data=DATA, overrides={"train.epochs": 1, "validation.kind": "holdout"}, runs=runs, tracking_uri="none",
        **named,
    )  # fmt: skip


def mark(model, device: str | None) -> None:
    """Makes a model checkpoint one of a training on `device`; None: of an older version."""
    path = model / checkpoint.DESCRIPTION
    content = json.loads(path.read_text())
    for member in content["members"]:
        assert member.pop("device") == "cpu"
        member |= {} if device is None else {"device": device}
    path.write_text(json.dumps(content))


def on_gpus_elsewhere(prepared, folder, report):
    """Stands for workers of a cluster that have GPUs."""
    run(prepared, folder, report)
    mark(folder / "model", "cuda")


def test_a_training_on_gpus_that_is_tested_on_the_cpu_warns(tmp_path):
    with pytest.warns(UserWarning, match="the model was trained on a GPU, and its scores are computed on the CPU"):
        result = train(tmp_path, execute=on_gpus_elsewhere)
    assert "test/accuracy" in result.metrics


def test_a_model_says_where_it_was_trained_and_the_note_follows_from_where_it_computes(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = train(tmp_path)
    model = m3col.load(result.checkpoint)
    assert model.device_note == ""
    mark(result.checkpoint, "cuda")
    checkpoint.join_models(tmp_path / "joined", [result.checkpoint])
    for folder in (result.checkpoint, tmp_path / "joined"):
        model = m3col.load(folder)
        assert "computed on the CPU" in model.device_note
        for member in model.members:
            member.device = torch.device("cuda")
        assert model.device_note == "", "it computes where it was trained"


def test_the_command_evaluate_warns_as_well(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(interrupt, "on_interrupt", lambda message: None)  # this process keeps its signals
    overrides = {"train.epochs": 1}
    result = m3col.train("digits", overrides=overrides, runs=tmp_path / "runs", tracking_uri="none")
    mark(result.checkpoint, "cuda")
    assert cli.main(["evaluate", str(result.checkpoint), "--runs-dir", str(tmp_path / "mine")]) == 0
    told = capsys.readouterr()
    assert "test/accuracy" in told.out
    assert "the model was trained on a GPU, and its scores are computed on the CPU" in told.err


def test_a_model_of_an_older_version_says_nothing(tmp_path):
    result = train(tmp_path)
    mark(result.checkpoint, None)
    assert m3col.load(result.checkpoint).device_note == ""
