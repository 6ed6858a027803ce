"""Milliseconds and memory of a training step of CoMM, for batches of 64 to 4,096 samples.

    python benchmarks/comm.py

Three columns, timed in turns so that each round meets the same noise:

- ours: the step of the trainer.
- plain: the same arithmetic as a careful person writes it with the modules of torch. The M + 1 subsets of the
  modalities are one batch with a padding mask; the loss is a cross-entropy over the [2N, 2N] similarities of each pair.
- calls: the published way. The fusion transformer is called once per view and subset with the tokens of that subset
  alone, and the loss is as in plain.

All three have the same encoders and start from the same weights. Before anything is timed, their losses and gradients
are compared in float64. The memory is the peak of a process that makes two steps and nothing else, less what it needed
before them.
"""

import argparse
import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m3col import tasks
from m3col.config import loading
from m3col.config.rules import IN_MEMORY
from m3col.data import arrays
from m3col.methods.batch import Batch, Step
from m3col.methods.comm import CoMM
from m3col.training.fold_trainer import FoldTrainer

NAMES = ("vision", "text")
CONTENDERS = ("ours", "plain", "calls")
# What the method calls the modules and weights of `Plain`; the projector has the same name.
_LAYER = "transformer.layers.0."
OF_PLAIN = {
    "token": "transformer.token", "attention.in_proj_weight": f"{_LAYER}attention_in.weight",
    "attention.in_proj_bias": f"{_LAYER}attention_in.bias", "attention.out_proj": f"{_LAYER}attention_out",
    "norms.0": f"{_LAYER}attention_norm", "norms.1": f"{_LAYER}mlp_norm", "norms.2": "transformer.norm",
    "mlp.0": f"{_LAYER}mlp_in", "mlp.1": f"{_LAYER}mlp_out",
    **{f"parts.{number}": f"encoders.{name}" for number, name in enumerate(NAMES)},
}  # fmt: skip

LEAST_SHARE = 1e-3  # of the largest gradient, which smaller ones are compared with

AGREE = 1e-9  # relative difference of a loss, and of a gradient from its largest value, in float64


def trainer(samples: int, *, steps: int, width: int, precision: str, threads: int) -> FoldTrainer:
    """A trainer of CoMM on noise: two modalities of sequences with `steps` steps, one batch per epoch."""
    overrides = {
        "data.name": IN_MEMORY, "method": "comm", "train.batch_size": samples, "train.precision": precision,
        "train.optimizer": "adamw", "train.decay": "weights", "train.device": "cpu", "resources.threads": threads,
        "model.embedding_dim": width, "data.sequence.augment": ["noise", "drop"],
        "model.sequence.name": "convolution", "model.sequence.layers": 1, "model.sequence.width": width,
        "model.sequence.dropout": 0.0,
    }  # fmt: skip
    config = loading.load("sequences", overrides=overrides)
    rng = np.random.default_rng(0)
    values = {
        name: [*rng.normal(size=(samples, steps, features)).astype(np.float32)]
        for name, features in zip(NAMES, (20, 30), strict=True)
    }
    dataset = arrays.from_arrays(values, np.arange(samples) % 2)
    return FoldTrainer(config, dataset.train, features=dataset.features, task=tasks.build(classes=dataset.classes))


def step_of(run: FoldTrainer) -> tuple[Batch, Step]:
    """The only batch of the first epoch."""
    ((batch, step, _),) = run._steps(1)
    return batch, step


class Plain(nn.Module):
    """CoMM with the modules of torch; takes over the weights of a method. `calls`: one call per subset."""

    def __init__(self, method: CoMM, *, calls: bool) -> None:
        super().__init__()
        self.calls, self.temperature = calls, method.settings.temperature
        self.encoders: dict[str, Any] = {name: copy.deepcopy(method.encoders[name]) for name in NAMES}
        self.parts = nn.ModuleList(self.encoders.values())
        theirs = method.transformer
        width = len(theirs.token)
        self.token = nn.Parameter(theirs.token.detach().clone())
        self.attention = nn.MultiheadAttention(width, method.settings.fusion_heads, batch_first=True)
        (layer,) = theirs.layers
        first: Any = layer
        self.attention.in_proj_weight.data.copy_(first.attention_in.weight)
        self.attention.in_proj_bias.data.copy_(first.attention_in.bias)
        self.attention.out_proj.load_state_dict(first.attention_out.state_dict())
        self.norms = nn.ModuleList(map(copy.deepcopy, (first.attention_norm, first.mlp_norm, theirs.norm)))
        self.mlp = nn.ModuleList(map(copy.deepcopy, (first.mlp_in, first.mlp_out)))
        self.projector = copy.deepcopy(method.projector)
        self.to(self.token.dtype)

    def embed(self, tokens: Tensor, padding: Tensor | None) -> Tensor:
        """Class tokens [n, D] after one layer, of tokens [n, T, D]; `padding` [n, T]: True where a token is masked."""
        x = self.norms[0](tokens)
        x = tokens + self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        hidden = self.mlp[0](self.norms[1](x))
        x = x + self.mlp[1](hidden * torch.sigmoid(1.702 * hidden))
        return self.norms[2](x[:, 0])

    def view(self, inputs: Any) -> list[Tensor]:
        """The projected rows [n, P] of all modalities, then of each alone."""
        tokens: list[Tensor] = []
        for name in NAMES:
            values, _ = self.encoders[name].sequence(inputs[name])  # all sequences are equally long
            tokens.append(values)
        n = len(tokens[0])
        token = self.token.expand(n, 1, -1)
        subsets = [[0, 1], [0], [1]]
        if self.calls:
            rows = [self.embed(torch.cat([token, *(tokens[m] for m in subset)], dim=1), None) for subset in subsets]
        else:
            whole = torch.cat([token, *tokens], dim=1)
            owner = torch.cat([torch.full((len(t[0]),), m) for m, t in enumerate([token, *tokens], start=-1)])
            masks = [~torch.isin(owner, torch.tensor([-1, *subset])) for subset in subsets]
            padding = torch.cat([mask.expand(n, -1) for mask in masks])
            rows = [*self.embed(whole.repeat(len(subsets), 1, 1), padding).split(n)]
        return [self.projector(x) for x in rows]

    def forward(self, batch: Batch) -> Tensor:
        first, second = (self.view(batch.views[view]) for view in ("a", "b"))
        halves = [
            (self.ntxent(a, second[0]) + self.ntxent(b, first[0])) / 2 for a, b in zip(first, second, strict=True)
        ]
        return torch.stack(halves).mean()

    def ntxent(self, a: Tensor, b: Tensor) -> Tensor:
        """The cross-entropy of each of the 2N rows with its other view among the 2N - 1 other rows."""
        rows, n = F.normalize(torch.cat([a, b])), len(a)
        similarity = rows @ rows.T / self.temperature
        similarity = similarity.masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
        return F.cross_entropy(similarity, torch.arange(2 * n).roll(n))


def contender(name: str, run: FoldTrainer) -> tuple[nn.Module, Callable[[], float]]:
    """The model of a contender, and its training step: gradients, then AdamW; returns the loss."""
    batch, step = step_of(run)
    method = run.method
    assert isinstance(method, CoMM)
    model: nn.Module = method if name == "ours" else Plain(method, calls=name == "calls")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, foreach=False)

    def once() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = method.losses(batch, step)["loss"] if name == "ours" else model(batch)
        loss.backward()
        optimizer.step()
        return loss.item()

    return model, once


def disagreement(options: argparse.Namespace) -> float:
    """The largest relative difference of the losses of four steps and of all gradients of the last, in float64."""
    worst = 0.0
    run = trainer(32, steps=options.steps, width=options.width, precision="float64", threads=options.threads)
    models = {name: contender(name, run) for name in CONTENDERS}
    losses = {name: [once() for _ in range(4)] for name, (_, once) in models.items()}
    mine = losses["ours"]
    for name in CONTENDERS[1:]:
        worst = max(worst, *(abs(a / b - 1) for a, b in zip(losses[name], mine, strict=True)))
        theirs, ours = gradients(models[name][0], OF_PLAIN), gradients(models["ours"][0])
        assert theirs.keys() == ours.keys(), sorted(theirs.keys() ^ ours.keys())
        largest = max(float(value.abs().max()) for value in ours.values())
        for key, value in ours.items():
            # The loss does not depend on some weights, such as a bias before BatchNorm: their gradients are rounding.
            scale = max(float(value.abs().max()), LEAST_SHARE * largest)
            worst = max(worst, float((theirs[key] - value).abs().max()) / scale)
    return worst


def gradients(model: nn.Module, names: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """The gradient of every weight by its name. `names`: other names for the start of some of them."""
    values = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        start = next((start for start in names or () if f"{name}.".startswith(f"{start}.")), "")
        values[(names or {}).get(start, "") + name[len(start) :]] = parameter.grad
    return values


def rounds(samples: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of a step by contender; the first round is left out."""
    run = trainer(samples, steps=options.steps, width=options.width, precision="float32", threads=options.threads)
    steps = {name: contender(name, run)[1] for name in CONTENDERS}
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds + 1):
        for name, once in steps.items():
            began = time.perf_counter()
            once()
            times[name].append((time.perf_counter() - began) * 1e3)
    return {name: values[1:] for name, values in times.items()}


def reset_peak() -> None:
    """Forgets the peak of this process, which imports may have reached (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The peak since it was forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def memory(name: str, samples: int, options: argparse.Namespace) -> float:
    """The MB that two steps add to the peak of a fresh process."""
    command = [sys.executable, __file__, "--memory-of", name, "--samples", str(samples)]
    command += ["--steps", str(options.steps), "--width", str(options.width), "--threads", str(options.threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_memory(options: argparse.Namespace) -> None:
    (samples,) = options.samples
    shape = partial(trainer, steps=options.steps, width=options.width, precision="float32", threads=options.threads)
    contender(options.memory_of, shape(8))[1]()  # what the first step of any size loads
    _, once = contender(options.memory_of, shape(samples))
    reset_peak()
    before = peak_bytes()
    once()
    once()
    print((peak_bytes() - before) / 1e6)


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="per batch size (default: 7)")
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 256, 1024, 4096], help="batch sizes")
    parser.add_argument("--steps", type=int, default=20, help="steps of a sequence, which are its tokens (default: 20)")
    parser.add_argument("--width", type=int, default=40, help="width of the embeddings (default: 40, as in MOSI)")
    parser.add_argument("--threads", type=int, default=1, help="of torch; a trial has 1 by default")
    parser.add_argument("--memory-of", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.samples, options.steps, options.width = 2, [16], 4, 16
    return options


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print_memory(options)
        return 0
    print(common.machine())
    print(f"torch {torch.__version__}, threads {options.threads}, 2 x {options.steps} tokens, D = {options.width}\n")
    worst = disagreement(options)
    lines = []
    for samples in options.samples:
        times = rounds(samples, options)
        ours, plain, calls = (times[name] for name in CONTENDERS)
        used = [0.0 if options.quick else memory(name, samples, options) for name in CONTENDERS]
        lines.append(
            [f"{samples:,}", *(f"{statistics.median(values):.1f}" for values in (ours, plain, calls)),
             f"{common.median_ratio(plain, ours):.2f}", f"{common.median_ratio(calls, ours):.2f}",
             *(f"{value:.0f}" for value in used), f"{worst:.0e}"]
        )  # fmt: skip
    header = ["N", "ours ms", "plain ms", "calls ms", "plain / ours", "calls / ours", "ours MB", "plain MB", "calls MB",
              "losses differ by"]  # fmt: skip
    print(common.table(header, lines))
    if worst > AGREE:
        print(f"losses or gradients differ by more than {AGREE:g}: not the same arithmetic", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
