"""Samples per second of trainings on images and texts, of ours and of the plain loop; no epoch waits within."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cards import Bar, Stopwatch, seconds
from benchmarks.plain_pair import PlainLoop
from m3col.checks.resolve import ResolvedRun
from m3col.config.loading import with_overrides
from m3col.data.dataset import Split
from m3col.ensemble_member import Member
from m3col.training import run as training_run
from m3col.training.fold_trainer import FoldTrainer

NEVER_S = 1e9  # between two checkpoints
_RATE = 1e-4  # learning rate

Epoch = Callable[[int, Stopwatch | None], object]  # trains an epoch of a number


def samples_per_step(trainer: FoldTrainer) -> int:
    """Samples of an optimizer step; the last one of an epoch may have fewer."""
    return (trainer.config.train.batch_size or len(trainer)) * trainer.config.train.accumulate


def our_epochs(trainer: FoldTrainer) -> Epoch:
    """Trains with our trainer."""

    def epoch(number: int, stopwatch: Stopwatch | None) -> None:
        hook = trainer.optimizer.register_step_post_hook(lambda *given: stopwatch and stopwatch.step_done())
        trainer.train_epoch(number, learning_rate=_RATE)
        hook.remove()

    return epoch


def plain_epochs(trainer: FoldTrainer, *, mixing: bool) -> Epoch:
    """Trains with the plain loop. `mixing`: the phase of M3Co."""
    loop = PlainLoop(trainer, precision=trainer.config.train.precision)
    return lambda number, stopwatch: loop.train_epoch(number, mixing=mixing, stopwatch=stopwatch)


def rates_of_steps(trainer: FoldTrainer, epoch: Epoch, *, rounds: int) -> list[float]:
    """Samples per second of the optimizer steps in the middle of each of `rounds` epochs, after one that warms up."""
    size, rates = samples_per_step(trainer), []
    last = len(trainer) // size
    assert last >= 2, f"{len(trainer)} samples are fewer than two optimizer steps of {size}"
    for number in range(1, rounds + 2):
        stopwatch = Stopwatch(trainer.device, skip=1, last=last)
        epoch(number, stopwatch)
        rates.append(stopwatch.steps * size / stopwatch.seconds)
    return rates[1:]


def measured(trainer: FoldTrainer, epoch: Epoch, *, rounds: int) -> dict[str, float]:
    """Rate, peak memory of the GPU, share of the time in which it computes, and padded length of texts."""
    device = trainer.device
    result = {"rate": statistics.median(rates_of_steps(trainer, epoch, rounds=rounds)), "tokens": tokens(trainer)}
    if device.type == "cuda":
        result["memory"] = torch.cuda.max_memory_allocated() / 1e6
        result["busy"] = busy_share(lambda: epoch(rounds + 2, None), device)
    return result


def flops(trainer: FoldTrainer, epoch: Epoch) -> float:
    """Floating-point operations per sample, forward and backward, of matrix products and attention.

    Args:
        trainer: whose samples are trained. Its encoders must not be compiled, since compiled kernels are not counted.
        epoch: trains an epoch of it.
    """
    with FlopCounterMode(display=False) as counter:
        epoch(1, None)
    return float(counter.get_total_flops()) / len(trainer)


def busy_share(call: Callable[[], object], device: torch.device) -> float:
    """The share of the time of a call in which the GPU computes; 0 on a CPU."""
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as recorded:
        wall = seconds(call, device)
    return sum(float(event.self_device_time_total) for event in recorded.key_averages()) / 1e6 / wall


def tokens(trainer: FoldTrainer) -> float:
    """The mean padded length of the batches of an epoch."""
    source: Any = trainer._inputs["text"]
    lengths = source.lengths()
    return float(np.mean([lengths[index if isinstance(index, slice) else index.cpu().numpy()].max()
                          for index in trainer._indices(1)]))  # fmt: skip


def rates_of_epochs(ready: ResolvedRun, *, rounds: int) -> dict[str, float]:
    """Samples per second of whole epochs: with validation, without and with checkpoints, from the first batch on."""
    result = {}
    for name, every_s in (("rate", NEVER_S), ("with checkpoints", 0.0)):
        changes = {"train.epochs": rounds + 1, "checkpoint.every_s": every_s}
        prepared = ResolvedRun(with_overrides(ready.config, changes), ready.dataset)
        count = len(training_run.folds_of(prepared)[0].train)
        ends: list[float] = []
        with tempfile.TemporaryDirectory(prefix="m3col-benchmark-") as folder:
            training_run.run(prepared, Path(folder), lambda *given: ends.append(time.perf_counter()))  # noqa: B023
        # A mean: a checkpoint is not written after each epoch.
        result[name] = count * rounds / (ends[-1] - ends[0])
    return result


def rates_of_predictions(trainer: FoldTrainer, samples: Split, *, rounds: int) -> dict[str, float]:
    """Samples per second of a loaded model, and of the evaluation within a training; after one round that warms up."""
    member = Member(trainer.method, trainer.transforms, trainer.dtype, trainer.task, trainer.device)
    prepared = trainer.prepare(samples.inputs)
    calls: dict[str, Callable[[], object]] = {
        "rate": lambda: member.probabilities(samples.inputs),
        "evaluation": lambda: trainer.logits(prepared),
    }
    return {
        name: len(samples) / statistics.median([seconds(call, trainer.device) for _ in range(rounds + 1)][1:])
        for name, call in calls.items()
    }


def bars(rows: Mapping[str, Mapping[str, float]], *, peak_tflops: float) -> Sequence[Bar]:
    """The bars of the rows that were measured, for ViT-B/16 with BERT-base in batches of 32."""

    def rate(name: str, key: str = "rate") -> float | None:
        return rows[name].get(key) if name in rows else None

    def share(name: str) -> float | None:
        operations = rate(name, "flops")
        return None if not operations else operations * rows[name]["rate"] / (peak_tflops * 1e12)

    def ratio(one: float | None, other: float | None) -> float | None:
        return one / other if one and other else None

    eager, compiled = rate("accumulate 4"), rate("compiled 4")
    table = [
        ("share of the peak, eager", share("accumulate 4"), 0.30, True, ""),
        ("share of the peak, compiled", share("compiled 4"), 0.42, True, ""),
        ("eager", eager, 1000, True, "samples / s"),
        ("compiled", compiled, 1400, True, "samples / s"),
        ("accumulate 4 / plain bf16", ratio(eager, rate("plain bf16")), 0.97, True, ""),
        ("compiled 4 / plain bf16", ratio(compiled, rate("plain bf16")), 1.25, True, ""),
        ("switch / plain switch", ratio(rate("switch"), rate("plain switch")), 0.97, True, ""),
        ("bfloat16 / tf32", ratio(eager, rate("tf32")), 1.7, True, ""),
        ("bfloat16 / float32", ratio(eager, rate("float32")), 5, True, ""),
        ("time in which the card computes", rate("accumulate 4", "busy"), 0.95, True, ""),
        ("time of an epoch / of its steps", ratio(eager, rate("epoch")), 1.05, False, ""),
        ("with checkpoints / without", ratio(rate("epoch"), rate("epoch", "with checkpoints")), 1.02, False, ""),
        ("uncached / cached", ratio(rate("uncached"), eager), 0.9, True, ""),
        ("predictor / evaluation", ratio(rate("predictor"), rate("predictor", "evaluation")), 0.9, True, ""),
        ("memory, checkpointing on / off",
         ratio(rate("checkpointing", "memory"), rate("accumulate 4", "memory")), 0.5, False, ""),
    ]  # fmt: skip
    return [Bar(what, value, limit, at_least, unit) for what, value, limit, at_least, unit in table if value]
