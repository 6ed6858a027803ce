"""The benchmarks of a GPU run on a CPU: their opponents do the same arithmetic, and their bars are judged rightly."""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cards, image_text, pair_rates, plain_pair
from m3col.checks.resolve import resolve
from m3col.methods.batch import Step
from m3col.training.fold_trainer import FoldTrainer
from tests.project.test_benchmarks import run_here, run_quick, tables

CPU = torch.device("cpu")


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that returns a run of the small pair in float32, with 16 pairs in batches of 4, by the row's name."""
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path / "cache"))
    image_text.make_folder(tmp_path / "data", 16)
    options = argparse.Namespace(batch=4)

    def of(row: str) -> Any:
        monkeypatch.setitem(image_text.FOUR[row], "train.precision", "float32")
        monkeypatch.setitem(image_text.FOUR[row], "train.accumulate", 2)
        return resolve(image_text.config_of("small", row, tmp_path / "data", options))

    return of


def first_loss(trainer: FoldTrainer) -> float:
    batch, step, _ = next(trainer._steps(1))
    trainer.method.train()
    with torch.no_grad():
        return float(trainer.method.losses(batch, Step(step.seed, step.fold, 1, 0))["loss"])


@pytest.mark.parametrize(("row", "mixing"), [("accumulate 4", True), ("switch", False)])
def test_the_plain_loop_of_pairs_has_the_loss_of_ours(row, mixing, ready):
    trainer = image_text.new_trainer(ready(row))
    loop = plain_pair.PlainLoop(trainer, precision="float32")
    _without_dropout(trainer.method, loop.model)
    expected = first_loss(trainer)
    watch = cards.Stopwatch(CPU, skip=1, last=2)
    assert float(loop.train_epoch(1, mixing=mixing, stopwatch=watch)) == pytest.approx(expected, rel=1e-5)
    assert watch.steps == 1 and watch.seconds > 0, "16 pairs are two steps of two batches of 4"


def _without_dropout(*models: torch.nn.Module) -> None:
    """Masks are drawn in another order."""
    for module in (module for model in models for module in model.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = 0.0


def test_rates_are_those_of_the_steps_in_the_middle(ready):
    trainer = image_text.new_trainer(ready("accumulate 4"))
    assert pair_rates.samples_per_step(trainer) == 8
    (rate,) = pair_rates.rates_of_steps(trainer, pair_rates.our_epochs(trainer), rounds=1)
    assert rate > 0 and len(trainer.optimizer._optimizer_step_post_hooks) == 0
    assert pair_rates.tokens(trainer) > 10


def test_a_loaded_model_is_timed_beside_the_evaluation_of_a_training(ready):
    run = ready("predictor")
    trainer = image_text.new_trainer(run)
    rates = pair_rates.rates_of_predictions(trainer, run.dataset.train, rounds=1)
    assert rates["rate"] > 0 and rates["evaluation"] > 0
    (bar,) = pair_rates.bars({"predictor": rates}, peak_tflops=989)
    assert bar.value == rates["rate"] / rates["evaluation"]


def test_a_stopwatch_leaves_out_the_first_and_the_last_steps():
    watch = cards.Stopwatch(CPU, skip=2, last=4)
    for pause in (0.05, 0.05, 0.01, 0.01, 0.05):
        time.sleep(pause)
        watch.step_done()
    assert watch.steps == 2 and 0.02 <= watch.seconds < 0.05


def test_a_profile_of_a_cpu_has_no_time_of_a_card():
    assert pair_rates.busy_share(lambda: torch.ones(3).sum(), CPU) == 0


def test_bars_are_judged_on_their_card_alone():
    fast, slow = cards.Bar("step", 4.0, 4.5, unit="ms"), cards.Bar("step", 5.0, 4.5, unit="ms")
    assert [bar.verdict("NVIDIA H100 80GB HBM3") for bar in (fast, slow)] == ["met", "missed"]
    assert fast.verdict("NVIDIA A100") == fast.verdict("") == "not judged: the bar is for an H100 or H200"
    high = cards.Bar("rate", 990.0, 1000, at_least=True, unit="samples / s")
    assert high.verdict("NVIDIA H200") == "missed" and high.text(1400) == "1,400 samples / s"


def test_the_bars_of_pairs_need_both_of_their_rows():
    rows = {"accumulate 4": {"rate": 1200.0, "flops": 3e11}, "plain bf16": {"rate": 1000.0}}
    bars = {bar.what: bar.value for bar in pair_rates.bars(rows, peak_tflops=900)}
    assert bars == {"share of the peak, eager": pytest.approx(0.4), "eager": 1200.0,
                    "accumulate 4 / plain bf16": pytest.approx(1.2)}  # fmt: skip


def test_the_description_names_the_versions():
    assert torch.__version__ in cards.description() and f"{os.cpu_count()} CPU cores" in cards.description()


def test_steps_of_rosmap_agree_with_the_plain_loop_and_show_their_bars():
    text = run_here("rosmap_steps", "--small", "--precision", "float32")
    assert cards.description() in text and "in float64" in text
    times, bars = tables(text)
    assert [row[:2] for row in times[1:]] == [["float32", "M3Co"], ["float32", "MultiSClip"]]
    assert {row[0] for row in bars[1:]} == {
        "step of M3Co", "step of MultiSClip", "M3Co, float32: ours / plain", "MultiSClip, float32: ours / plain",
    }  # fmt: skip
    assert {row[3] for row in bars[1:]} == {"not judged: the bar is for an H100 or H200"}


@pytest.mark.slow
@pytest.mark.dear("it only measures a speed; the arithmetic of both loops is compared above")
def test_image_text_measures_ours_and_the_plain_loop_with_their_bars():
    rows = ["plain bf16", "accumulate 4", "plain switch", "switch", "epoch"]
    times, bars = tables(run_quick("image_text", "--row", *rows, seconds=550))
    assert [row[0] for row in times[1:]] == rows
    assert {"accumulate 4 / plain bf16", "switch / plain switch", "time of an epoch / of its steps"} <= {
        row[0] for row in bars[1:]
    }
