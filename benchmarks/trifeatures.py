"""What each method finds in Trifeatures: the shared shape, the two textures, and the rule across both images.

    python benchmarks/trifeatures.py --out trifeatures.jsonl

Each row is trained for each seed; the data set is the same for all of them, as in the papers. A method without labels
is trained twice: on unbiased pairs, for the targets `share`, `unique1` and `unique2`, and on pairs that obey the rule,
for `synergy`. A method with labels is trained once per target. All methods see the same number of pairs with the same
encoders, batch size, optimizer and learning rate, which were chosen for CoMM on another draw of the data set
(`--data-seed`), so that no test pair had a part in it. Augmentations are SimCLR's but for two values: parts of images
are larger (from a fifth of the area), and there is no blur, which is given in pixels and would erase the textures of
images this small.

The score is balanced accuracy, which the tables of CoMM (arXiv 2409.07402) call accuracy, on test pairs whose
combinations of shape, texture and colour no training pair has. The linear evaluation is that of the product: fitted on
training pairs (`--fit-pairs`), its regularisation chosen inside of them, classes weighted equally for `synergy`.

Finished trainings are lines of the file `--out`, each with the options that its scores depend on. A second call resumes
where the first one ended; with other options it is refused, and a line that was cut off is trained again.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from m3col import tasks
from m3col.config import loading
from m3col.config.schema import RunConfig
from m3col.data.formats import trifeatures
from m3col.data.trifeatures import pairs
from m3col.data.trifeatures.pairs import TARGETS
from m3col.evaluation import linear_evaluation
from m3col.metrics import classification
from m3col.storage import atomic_files
from m3col.training.fold_trainer import FoldTrainer

UNBIASED, SYNERGY = TARGETS[:3], TARGETS[3]

# Those that scores depend on.
OPTIONS = (
    "data_seed", "size", "pairs", "test_pairs", "fit_pairs", "epochs", "encoder", "width", "learning_rate",
)  # fmt: skip

SHOWN = 10  # faults of a file that are listed

_NO_CROP = ["jitter", "grey", "flip"]

_AUGMENT = [{"resized_crop": {"area": [0.2, 1.0]}}, *_NO_CROP]


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        method: its name in the config.
        overrides: config values that differ from those of the other rows.
        uses_labels: whether it is trained for each target.
        trained: whether it is trained at all; False: random weights are evaluated.
        published: R, U1, U2, S of the papers in percent, where they are known.
    """

    method: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    uses_labels: bool = False
    trained: bool = True
    published: Sequence[float | None] = (None, None, None, None)


ROWS = {
    "comm": Row("comm", published=(99.9, 84.4, 91.2, 71.9)),
    "cross": Row("cross", {"objective.projector_dim": 512}, published=(100.0, 11.6, 11.6, 50.0)),
    "cross_self": Row("cross_self", published=(99.7, 86.9, 86.9, 50.0)),
    # The crop would destroy what is unique in the second modality (published settings of this row). Critics of the
    # published 512 units take most of the time on a CPU.
    "factorcl": Row(
        "factorcl",
        {"data.image.augment": {"image_1": _AUGMENT, "image_2": _NO_CROP}, "objective.critic_hidden": 128},
        published=(99.8, 62.5, 62.5, 46.5),
    ),
    "comm, only L_0": Row("comm", {"objective.terms": "full"}),
    "comm, only L_1 and L_2": Row("comm", {"objective.terms": "masked"}),
    "random weights": Row("comm", trained=False),
    "supcon": Row("supcon", uses_labels=True),
    "concat": Row("concat", uses_labels=True),
    "m3col": Row("m3col", uses_labels=True),
    "fusion_transformer": Row("fusion_transformer", uses_labels=True),
}


@dataclass(frozen=True)
class Training:
    """One training: a row, a seed, and the target whose labels or biased pairs it uses."""

    row: str
    seed: int
    target: str

    @property
    def scored(self) -> tuple[str, ...]:
        """The targets on which its embeddings are evaluated."""
        uses_labels = ROWS[self.row].uses_labels
        return UNBIASED if self.target in UNBIASED and not uses_labels else (self.target,)


def trainings(rows: Sequence[str], seeds: int) -> Iterator[Training]:
    """All trainings, seed by seed, so that an interrupted run has whole seeds."""
    for seed in range(seeds):
        for row in rows:
            targets = TARGETS if ROWS[row].uses_labels else (UNBIASED[0], SYNERGY)
            yield from (Training(row, seed, target) for target in targets)


def config_of(training: Training, options: argparse.Namespace) -> RunConfig:
    row = ROWS[training.row]
    overrides = {
        "method": row.method, "train.seed": training.seed, "train.device": "cpu",
        "data.trifeatures.target": training.target, "data.trifeatures.seed": options.data_seed,
        "data.trifeatures.size": options.size, "data.image.size": options.size, "data.image.short_side": options.size,
        "data.trifeatures.train_pairs": options.pairs, "data.trifeatures.test_pairs": options.test_pairs,
        "data.image.augment": "none" if row.uses_labels else _AUGMENT,
        "model.embedding_dim": options.width, "model.classifier_dim": options.width,
        "model.image.name": options.encoder, "model.image.options": {"output_stride": 8},
        "train.epochs": options.epochs, "train.batch_size": 64, "train.learning_rate": options.learning_rate,
        "train.optimizer": "adamw", "train.decay": "weights", "train.weight_decay": 1e-4,
        "train.schedule.kind": "none",
        "objective.class_weight": "balanced" if training.target == SYNERGY else "none",
        **row.overrides,
    }  # fmt: skip
    return loading.load("trifeatures", overrides=overrides)


def scores(training: Training, options: argparse.Namespace) -> dict[str, float]:
    """Trains; returns the balanced accuracy by target on the test pairs."""
    config = config_of(training, options)
    dataset, pretrain = trifeatures.with_pretraining(config.data.trifeatures)
    run = FoldTrainer(
        config, dataset.train, features=dataset.features, task=tasks.build(classes=dataset.classes), pretrain=pretrain
    )
    for epoch in range(1, config.train.epochs + 1 if ROWS[training.row].trained else 1):
        run.train_epoch(epoch, learning_rate=config.train.learning_rate)
    assert dataset.test is not None
    test = run.prepare(dataset.test.inputs)
    if ROWS[training.row].uses_labels and training.row != "supcon":
        outputs = run.logits(test)["fused"]
        return {training.target: balanced(labels(training.target, "test", options), outputs)}
    fitted = dataset.train.take(range(min(options.fit_pairs, len(dataset.train))))
    train_rows, test_rows = run.features(run.prepare(fitted.inputs)), run.features(test)
    result = {}
    for target in training.scored:
        known = labels(target, "train", options)[: len(fitted)]
        weight = len(known) / np.bincount(known) / len(np.bincount(known)) if target == SYNERGY else None
        model = linear_evaluation.logistic(
            train_rows, known, num_classes=int(known.max()) + 1, class_weight=weight, seed=training.seed
        )
        result[target] = balanced(labels(target, "test", options), model.outputs(test_rows))
    return result


def labels(target: str, split: str, options: argparse.Namespace) -> NDArray[np.int64]:
    count = options.pairs if split == "train" else options.test_pairs
    drawn = pairs.draw_pairs(split, count, seed=options.data_seed)
    return pairs.labels(pairs.images_of(split, seed=options.data_seed), drawn, target, seed=options.data_seed)


def balanced(known: NDArray[np.int64], outputs: NDArray[np.float64]) -> float:
    return classification.score("balanced_accuracy", known, classification.softmax(outputs))


def stored_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options that scores depend on."""
    return {name: getattr(options, name) for name in OPTIONS}


def finished(path: Path, options: argparse.Namespace) -> dict[Training, dict[str, float]]:
    """The trainings of an earlier call with the same options. A last line that was cut off is removed from the file.

    Raises:
        SystemExit: with a line for each fault: a line that is no training, or other options.
    """
    if not path.exists():
        return {}
    text = path.read_text()
    whole, _, cut = text.rpartition("\n")
    if cut:
        atomic_files.write_text(path, whole + "\n" if whole else "")
    done: dict[Training, dict[str, float]] = {}
    faults: list[str] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            entry = json.loads(line)
            training, known = Training(entry["row"], entry["seed"], entry["target"]), entry.get("options")
            done[training] = entry["scores"]
        except (ValueError, KeyError, TypeError, AttributeError):
            faults.append(f"{path}: line {number} is not one of this script")
            continue
        if known is None:
            faults.append(f"{path}: line {number} does not say its options; give another file")
        else:
            faults += [
                f"{path}: line {number} has --{name.replace('_', '-')} {known.get(name)!r}, but this call has "
                f"{value!r}; give the same value, or another file"
                for name, value in stored_options(options).items()
                if known.get(name) != value
            ]
    if faults:
        sys.exit("\n".join(faults[:SHOWN]))
    return done


def cell(values: Sequence[float]) -> str:
    """The mean in percent, and half of the 95 % interval of Student's t over the seeds."""
    percent = [100 * value for value in values]
    if len(percent) < 2:
        return f"{percent[0]:.1f}" if percent else "-"
    half = stats.t.ppf(0.975, len(percent) - 1) * np.std(percent, ddof=1) / math.sqrt(len(percent))
    return f"{np.mean(percent):.1f} +- {half:.1f}"


def print_table(done: Mapping[Training, Mapping[str, float]], rows: Sequence[str]) -> None:
    lines = []
    for row in rows:
        mine = [(training, result) for training, result in done.items() if training.row == row]
        values = [[result[target] for _, result in mine if target in result] for target in TARGETS]
        known = ["-" if value is None else f"{value:.1f}" for value in ROWS[row].published]
        if any(values):
            lines.append([row, *map(cell, values), " / ".join(known), len({training.seed for training, _ in mine})])
    print(common.table(["row", "R", "U1", "U2", "S", "published R / U1 / U2 / S", "seeds"], lines))


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--out", type=Path, help="file of finished trainings (default: none)")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS], metavar="ROW", help="default: all")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each row (default: 5)")
    parser.add_argument("--data-seed", type=int, default=42, help="of the data set (default: 42, as published)")
    parser.add_argument("--size", type=int, default=32, help="side of the images (default: 32; published: 224)")
    parser.add_argument("--pairs", type=int, default=10_000, help="for training (default: 10000, as published)")
    parser.add_argument("--test-pairs", type=int, default=10_000, help="at most (default: 10000, as published)")
    parser.add_argument("--fit-pairs", type=int, default=4_000, help="for the linear evaluation (default: 4000)")
    parser.add_argument("--epochs", type=int, default=3, help="of each training (default: 3; published: 100)")
    parser.add_argument("--encoder", default="test_byobnet", help="timm model with random weights")
    parser.add_argument("--width", type=int, default=64, help="of the embeddings (default: 64; published: 512)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="default: 0.001; published: 0.0003")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.seeds, options.pairs, options.test_pairs, options.epochs = (
            ["comm", "concat"],
            1,
            96,
            64,
            1,
        )
    return options


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    done = finished(options.out, options) if options.out else {}
    for training in trainings(options.rows, options.seeds):
        if training in done:
            continue
        began = time.perf_counter()
        done[training] = scores(training, options)
        line = {"row": training.row, "seed": training.seed, "target": training.target, "scores": done[training]}
        print(json.dumps({**line, "seconds": round(time.perf_counter() - began, 1)}), file=sys.stderr, flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps({**line, "options": stored_options(options)}) + "\n")
    print_table(done, options.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
