"""Milliseconds per epoch on ROSMAP at the sizes of the paper's Table 6, in both phases of the training.

    python benchmarks/epoch.py

Three columns, timed in turns (ours, plain, products, ours, plain, products, ...), so that each round meets the same
noise: our trainer; a plain loop that does the same arithmetic as the equations are written; and the matrix products of
an epoch alone, forward and backward, which no implementation can do without. Before anything is timed, ours and the
plain loop train side by side in float64 and must agree; the plain loop takes over the first weights and the random
draws, which are inputs of the arithmetic, and nothing else.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import common
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m3col import randomness, tasks
from m3col.augmentation import sample_mixing
from m3col.config import loading as run_config
from m3col.config import rules
from m3col.config.loading import with_overrides
from m3col.config.schema import RunConfig
from m3col.data import arrays, loading
from m3col.data.dataset import Dataset
from m3col.errors import InputError
from m3col.training.fold_trainer import FoldTrainer

AGREE = 1e-5  # relative difference of a loss
EPOCHS_COMPARED = 3
M3CO, SOFTCLIP = "M3Co", "MultiSClip"


@dataclass(frozen=True)
class Problem:
    """What is trained. `first_epoch`: for each phase, the first of its timed epochs."""

    config: RunConfig
    dataset: Dataset
    first_epoch: Mapping[str, int]

    def trainer(self, **overrides: object) -> FoldTrainer:
        return FoldTrainer(
            with_overrides(self.config, overrides),
            self.dataset.train,
            features=self.dataset.features,
            task=tasks.build(classes=self.dataset.classes),
        )


def problem(*, quick: bool, threads: int, data_dir: Path | None) -> Problem:
    """ROSMAP with the settings of Table 6; with `quick`, noise and a model of 16 units."""
    overrides = {"train.device": "cpu", "resources.threads": threads}
    if quick:
        overrides |= {"model.embedding_dim": 16, "model.classifier_dim": 16, "data.name": rules.IN_MEMORY}
    config = run_config.load("rosmap", overrides=overrides)
    if quick:
        rng = np.random.default_rng(0)
        dataset = arrays.from_arrays({f"view_{m}": rng.normal(size=(24, 10)) for m in range(3)}, np.arange(24) % 2)
    else:
        dataset = loading.load("rosmap", data_dir=data_dir, splits=("train",))
    # The loss switches after a third of the epochs, far from the first epoch and from the middle.
    return Problem(config, dataset, {M3CO: 1, SOFTCLIP: config.train.epochs // 2})


class Plain:
    """The model and its training step, written in the most direct way."""

    def __init__(
        self, trainer: FoldTrainer, inputs: Mapping[str, Tensor], labels: Tensor, *, fused: bool = False
    ) -> None:
        self.config = trainer.config
        self.names = list(inputs)
        self.x, self.y = [inputs[name] for name in self.names], labels
        width, hidden = self.config.model.embedding_dim, self.config.model.classifier_dim
        drop = self.config.model.dropout

        def head(count: int) -> nn.Sequential:
            last = nn.Linear(hidden, trainer.task.width)
            return nn.Sequential(nn.Linear(count, hidden), nn.ReLU(), nn.Dropout(drop), last)

        self.encoders = [
            nn.Sequential(nn.Linear(x.shape[1], width), nn.ReLU(), nn.Linear(width, width)) for x in self.x
        ]
        self.heads = [head(width) for _ in self.x]
        self.fusion = head(width * len(self.x))
        self.model = nn.ModuleList([*self.encoders, *self.heads, self.fusion]).to(labels.device, self.x[0].dtype)
        self._take_weights(trainer)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=self.config.train.learning_rate,
            weight_decay=self.config.train.weight_decay,
            foreach=False,
            fused=fused,
        )

    def _take_weights(self, trainer: FoldTrainer) -> None:
        state = trainer.method.state_dict()
        modules = {f"encoders.{name}": encoder for name, encoder in zip(self.names, self.encoders, strict=True)}
        modules |= {f"heads.{name}": head for name, head in zip(self.names, self.heads, strict=True)}
        for prefix, module in {**modules, "fusion": self.fusion}.items():
            for part, layer in (("first", module[0]), ("second", module[-1])):
                assert isinstance(layer, nn.Linear)
                layer.weight.data.copy_(state[f"{prefix}.{part}.weight"])
                layer.bias.data.copy_(state[f"{prefix}.{part}.bias"])

    def epoch(self, epoch: int, phase: str) -> float:
        """One full-batch step (Eq. 16); the loss before it."""
        seed = self.config.train.seed
        torch.manual_seed(randomness.torch_seed(seed=seed, fold=0, epoch=epoch, purpose="dropout"))
        p = [encoder(x) for encoder, x in zip(self.encoders, self.x, strict=True)]
        loss = torch.zeros((), dtype=p[0].dtype, device=p[0].device)
        for head, embedding in zip(self.heads, p, strict=True):
            loss = loss + F.cross_entropy(head(embedding), self.y)
        loss = loss + F.cross_entropy(self.fusion(torch.cat(p, dim=1)), self.y)
        contrast = self._m3co(p, epoch) if phase == M3CO else self._softclip(p)
        loss = loss + self.config.objective.beta * contrast
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _m3co(self, p: list[Tensor], epoch: int) -> Tensor:
        """Eq. 5-8 and 12."""
        drawn = sample_mixing.draw_mixing(
            len(self.y),
            self.names,
            alpha=self.config.objective.alpha,
            shards=1,
            key={"seed": self.config.train.seed, "fold": 0, "epoch": epoch, "step": 0},
            dtype=p[0].dtype,
            device=p[0].device,
        )
        lam, pi = drawn.lam, [drawn.permutations[name] for name in self.names]
        tau, i = self.config.objective.temperature, torch.arange(len(self.y), device=self.y.device)
        q = []
        for m, x in enumerate(self.x):
            q.append(self.encoders[m](lam[:, None] * x + (1 - lam)[:, None] * x[pi[m]]))
        total = torch.zeros((), dtype=p[0].dtype, device=p[0].device)
        for a in range(len(p)):
            for b in range(a + 1, len(p)):
                for one, other in ((a, b), (b, a)):
                    v, u = F.normalize(q[one]), F.normalize(p[other])
                    r = F.log_softmax(v @ u.T / tau, dim=1)
                    k = F.log_softmax(u @ v.T / tau, dim=1)
                    j = pi[one]
                    each = lam * r[i, i] + (1 - lam) * r[i, j] + lam * k[i, i] + (1 - lam) * k[j, i]
                    total = total - each.mean() / 2
        return total

    def _softclip(self, p: list[Tensor]) -> Tensor:
        """Eq. 9-11 and 13."""
        tau = self.config.objective.temperature
        total = torch.zeros((), dtype=p[0].dtype, device=p[0].device)
        for a in range(len(p)):
            for b in range(a + 1, len(p)):
                for one, other in ((a, b), (b, a)):
                    u, w = F.normalize(p[one]), F.normalize(p[other])
                    weights = F.softmax(u @ u.T / tau, dim=1)
                    there = -F.log_softmax(w @ u.T / tau, dim=1)
                    back = -F.log_softmax(u @ w.T / tau, dim=1)
                    total = total + (weights * (there + back.T)).sum() / len(u) / 2
        return total


class Products:
    """The matrix products of one epoch, with preallocated outputs: a lower bound of the time of an epoch."""

    def __init__(
        self, config: RunConfig, features: Mapping[str, int], *, samples: int, classes: int, phase: str
    ) -> None:
        self.flop = 0
        self._triples: list[tuple[Tensor, Tensor, Tensor]] = []
        width, hidden, count = config.model.embedding_dim, config.model.classifier_dim, len(features)
        passes = 2 if phase == M3CO else 1  # clean and mixed samples
        for inputs in features.values():
            self._layer(samples, inputs, width, passes=passes, to_inputs=False)
            self._layer(samples, width, width, passes=passes)
            self._layer(samples, width, hidden)
            self._layer(samples, hidden, classes)
        self._layer(samples, width * count, hidden)
        self._layer(samples, hidden, classes)
        pairs = count * (count - 1) // 2
        for _ in range(2 * pairs if phase == M3CO else pairs + count):
            u, v, g = torch.rand(samples, width), torch.rand(samples, width), torch.rand(samples, samples)
            self._add(u, v.T)
            self._add(g, v)
            self._add(g.T, u)

    def _layer(self, rows: int, inputs: int, outputs: int, *, passes: int = 1, to_inputs: bool = True) -> None:
        """Products of a linear layer: output, gradient of the weights and (except for data) gradient of the inputs."""
        weight = torch.rand(outputs, inputs)
        for _ in range(passes):
            x, g = torch.rand(rows, inputs), torch.rand(rows, outputs)
            self._add(x, weight.T)
            self._add(g.T, x)
            if to_inputs:
                self._add(g, weight)

    def _add(self, a: Tensor, b: Tensor) -> None:
        self._triples.append((a, b, torch.empty(a.shape[0], b.shape[1])))
        self.flop += 2 * a.shape[0] * a.shape[1] * b.shape[1]

    def run(self) -> None:
        for a, b, out in self._triples:
            torch.mm(a, b, out=out)


def plain_twin(setup: Problem, trainer: FoldTrainer, *, fused: bool = False) -> Plain:
    train = setup.dataset.train
    inputs = {name: source.rows(slice(None)) for name, source in trainer.prepare(train.inputs).items()}
    return Plain(trainer, inputs, torch.as_tensor(np.array(train.labels)).to(trainer.device), fused=fused)


def disagreement(setup: Problem, phase: str) -> float:
    """The largest relative difference of the losses of the first epochs of a phase, in float64."""
    ours = setup.trainer(**{"train.precision": "float64"})
    plain = plain_twin(setup, ours)
    worst = 0.0
    for epoch in range(setup.first_epoch[phase], setup.first_epoch[phase] + EPOCHS_COMPARED):
        loss = ours.train_epoch(epoch, learning_rate=setup.config.train.learning_rate)["loss"]
        worst = max(worst, abs(plain.epoch(epoch, phase) / loss - 1))
    return worst


def timed(call: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def rounds(setup: Problem, phase: str, count: int) -> tuple[list[list[float]], float]:
    """Milliseconds of ours, plain and products, a list each, and the GFLOP of the products; the first round is a
    warm-up and left out."""
    ours = setup.trainer()
    plain = plain_twin(setup, ours)
    features = {name: len(columns) for name, columns in setup.dataset.features.items()}
    products = Products(
        setup.config, features, samples=len(setup.dataset.train), classes=len(setup.dataset.classes), phase=phase
    )
    rate = setup.config.train.learning_rate
    times: list[list[float]] = [[], [], []]
    for number in range(count + 1):
        epoch = setup.first_epoch[phase] + number
        times[0].append(timed(partial(ours.train_epoch, epoch, learning_rate=rate)))
        times[1].append(timed(partial(plain.epoch, epoch, phase)))
        times[2].append(timed(products.run))
    return [column[1:] for column in times], products.flop / 1e9


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="per phase (default: 20)")
    parser.add_argument("--threads", type=int, default=1, help="of torch; a trial has 1 by default")
    parser.add_argument("--data-dir", type=Path, help="folder that contains rosmap/, if not one of the usual ones")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    try:
        setup = problem(quick=options.quick, threads=options.threads, data_dir=options.data_dir)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(common.machine())
    print(f"torch {torch.__version__}, threads {options.threads}, samples {len(setup.dataset.train)}\n")
    worst = {phase: disagreement(setup, phase) for phase in setup.first_epoch}
    lines = []
    for phase in setup.first_epoch:
        (ours, plain, products), gflop = rounds(setup, phase, 3 if options.quick else options.rounds)
        medians = [statistics.median(column) for column in (ours, plain, products)]
        lines.append(
            [phase, *(f"{value:.1f}" for value in medians), f"{common.median_ratio(plain, ours):.2f}",
             f"{common.median_ratio(ours, products):.2f}", f"{gflop:.1f}", f"{gflop / medians[2] * 1e3:.0f}",
             f"{worst[phase]:.0e}"]
        )  # fmt: skip
    header = ["phase", "ours ms", "plain ms", "products ms", "plain / ours", "ours / products", "GFLOP",
              "GFLOP/s of products", "losses differ by"]  # fmt: skip
    print(common.table(header, lines))
    if max(worst.values()) > AGREE:
        print(f"the losses differ by more than {AGREE:g}: not the same arithmetic", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
