"""Milliseconds of a training step at ROSMAP's sizes, in both phases, on the device at hand.

    python benchmarks/rosmap_steps.py [--precision float32 tf32] [--rounds 5] [--steps 50]

A step is a full batch of 245 samples with three tables of 200 columns, at the settings of the paper's Table 6; the
samples are noise, since no speed depends on their values. Ours is the trainer's epoch, which reads its losses once. The
plain loop is that of `epoch.py`: the same arithmetic, with a fused Adam, all data on the device, under the same
settings of precision and determinism, and it reads its loss once. The two take turns, and each figure is the median
over the rounds. Before anything is timed both train side by side in float64 and must agree. The bars are for an H100.
`--small` (or `--quick`): tiny sizes, whose figures mean nothing.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import epoch
import numpy as np
import torch

from benchmarks import cards
from benchmarks.common import median_ratio, parser, table
from m3col import devices
from m3col.config import loading, rules
from m3col.config.loading import with_overrides
from m3col.data import arrays

SAMPLES, COLUMNS, TABLES = 245, 200, 3
LIMITS_MS = {epoch.M3CO: 4.5, epoch.SOFTCLIP: 3.5}  # of a step in float32
LIMIT_RATIO = 1.05  # time of ours over time of the plain loop


def problem(*, small: bool, device: str, threads: int) -> epoch.Problem:
    """The settings of Table 6 and noise of ROSMAP's size; with `small` 24 samples and a model of 16 units."""
    overrides = {"train.device": device, "resources.threads": threads, "data.name": rules.IN_MEMORY}
    if small:
        overrides |= {"model.embedding_dim": 16, "model.classifier_dim": 16}
    config = loading.load("rosmap", overrides=overrides)
    samples, columns = (24, 10) if small else (SAMPLES, COLUMNS)
    draw = np.random.default_rng(0)
    dataset = arrays.from_arrays(
        {f"view_{number}": draw.normal(size=(samples, columns)) for number in range(TABLES)}, np.arange(samples) % 2
    )
    # The loss switches after a third of the epochs, far from the first epoch and from the middle.
    return epoch.Problem(config, dataset, {epoch.M3CO: 1, epoch.SOFTCLIP: config.train.epochs // 2})


def rounds(setup: epoch.Problem, phase: str, *, count: int, steps: int) -> tuple[list[float], list[float]]:
    """Milliseconds per step of ours and of the plain loop in each round, in turns; the first round warms up."""
    trainer = setup.trainer()
    plain = epoch.plain_twin(setup, trainer, fused=True)
    rate, device = setup.config.train.learning_rate, trainer.device

    def ours(number: int) -> object:
        return trainer.train_epoch(number, learning_rate=rate)

    def theirs(number: int) -> object:
        return plain.epoch(number, phase)

    def per_step(step: Callable[[int], object]) -> float:
        numbers = range(setup.first_epoch[phase], setup.first_epoch[phase] + steps)
        return cards.seconds(lambda: [step(number) for number in numbers], device) / steps * 1e3

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(count + 1):
        times[0].append(per_step(ours))
        with devices.settings(setup.config, device, {"numeric"}):
            times[1].append(per_step(theirs))
    return times[0][1:], times[1][1:]


def arguments() -> argparse.Namespace:
    given = parser(__doc__)
    given.add_argument("--small", action="store_true", help="as --quick")
    given.add_argument("--rounds", type=int, default=5)
    given.add_argument("--steps", type=int, default=50, help="of each round (at most 100: the phase then ends)")
    given.add_argument("--threads", type=int, default=1, help="of torch on a CPU")
    given.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    given.add_argument("--precision", nargs="+", choices=["float32", "tf32"], default=["float32", "tf32"])
    return given.parse_args()


def measured(
    setup: epoch.Problem, precision: str, options: argparse.Namespace
) -> tuple[list[list[str]], list[cards.Bar]]:
    """The rows of a precision, and its bars."""
    config = with_overrides(setup.config, {"train.precision": precision})
    setup = epoch.Problem(config, setup.dataset, setup.first_epoch)
    lines, bars = [], []
    for phase in setup.first_epoch:
        ours, plain = rounds(setup, phase, count=options.rounds, steps=options.steps)
        ratio = median_ratio(ours, plain)
        lines.append(
            [precision, phase, f"{statistics.median(ours):.2f}", f"{statistics.median(plain):.2f}", f"{ratio:.2f}"]
        )  # fmt: skip
        if precision == "float32":
            bars.append(cards.Bar(f"step of {phase}", statistics.median(ours), LIMITS_MS[phase], unit="ms"))
        bars.append(cards.Bar(f"{phase}, {precision}: ours / plain", ratio, LIMIT_RATIO))
    return lines, bars


def main() -> int:
    options = arguments()
    small = options.small or options.quick
    if small:
        options.rounds, options.steps = min(options.rounds, 2), min(options.steps, 3)
    torch.set_num_threads(options.threads)
    setup = problem(small=small, device=options.device, threads=options.threads)
    print(cards.description())
    worst = {phase: epoch.disagreement(setup, phase) for phase in setup.first_epoch}
    if max(worst.values()) > epoch.AGREE:
        print(f"the losses differ by {worst}, more than {epoch.AGREE:g}: not the same arithmetic", file=sys.stderr)
        return 1
    samples = len(setup.dataset.train)
    print(f"{samples} samples, steps of a full batch, {options.rounds} rounds of {options.steps} steps; "
          f"losses of ours and plain differ by {max(worst.values()):.0e} in float64\n")  # fmt: skip
    lines, bars = [], []
    for precision in options.precision:
        rows, limits = measured(setup, precision, options)
        lines += rows
        bars += limits
    print(table(["precision", "phase", "ours ms", "plain ms", "ours / plain"], lines, words=["phase"]))
    print(f"\n{cards.bar_table(bars)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
