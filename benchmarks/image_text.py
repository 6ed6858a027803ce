"""Samples per second of training on images and texts, with each of our ways beside a plain one.

One batch of each row is one step, and the host waits for each:

    plain            decodes every image again, pads every text to max_length, float32: what a first script does
    no cache         ours, but images are decoded and texts tokenised for every batch
    ours             decoded images and tokens from the memory-mapped cache, texts padded to the longest of the batch
    grouped          ours, with batches of texts of similar length (it changes who is contrasted with whom)
    bfloat16         grouped, with autocast (on a GPU)
    compiled         bfloat16, with torch.compile (on a GPU)

Four batches are one step, in bfloat16, as the shipped configs train on a GPU, and nothing waits within an epoch:

    plain bf16       a careful plain loop: all samples in memory, the same padded lengths, fused Adam (plain_pair.py)
    accumulate 4     ours
    plain switch     plain bf16, after the switch to MultiSClip
    switch           ours, after the switch
    epoch            ours: whole epochs, with validation, and from the first batch on; and again with checkpoints
    uncached         accumulate 4, but images are decoded and texts tokenised for every batch, by one thread
    predictor        a loaded model predicts the samples; beside the evaluation of a training
    compiled 4, checkpointing, tf32, float32    accumulate 4, with one setting changed (on a GPU)

Images are JPEG files of 500 x 375 pixels, texts have 10 to 400 words (median 50; or `--words`, all alike), weights are
random. Before the switch the loss is M3CoL's with mixing, so that each step passes every sample through its encoder
twice. Each row is a process of its own, because peak memory is a process's. `tokens`: mean padded length of a batch.
`peak`: the share of the card's bfloat16 peak that the floating-point operations of the steps amount to; `busy`: that of
the time in which it computes. Bars are for ViT-B/16 with BERT-base on an H100, texts of 80 tokens.

    python benchmarks/image_text.py [--pair small base] [--row ...] [--words 78] [--peak-tflops 989]
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cards, pair_rates
from benchmarks.common import machine, parser, table
from m3col import tasks
from m3col.checks.resolve import ResolvedRun, resolve
from m3col.config.loading import load, with_overrides
from m3col.config.schema import RunConfig
from m3col.data.images import decoding
from m3col.devices import autocast
from m3col.inputs.specs import Tokens
from m3col.methods.batch import Batch, Step
from m3col.training.fold_trainer import FoldTrainer

PAIRS: dict[str, dict[str, Any]] = {
    "small": {
        "data": {"image": {"size": 64}, "text": {"max_length": 128}},
        "model": {
            "embedding_dim": 128, "classifier_dim": 128,
            "image": {"name": "vit_tiny_patch16_224",
                      "options": {"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4}},
            "text": {"name": "bert", "options": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
                                                 "intermediate_size": 256}},
        },
        "train": {"batch_size": 32},
    },
    "base": {
        "data": {"image": {"size": 224}, "text": {"max_length": 512}},
        "model": {
            "embedding_dim": 768, "classifier_dim": 256, "classifier_layers": 3,
            "image": {"name": "vit_base_patch16_224"}, "text": {"name": "bert"},
        },
        "train": {"batch_size": 32},
    },
}  # fmt: skip
ROWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no cache": {"data.cache": False},
    "ours": {},
    "grouped": {"data.text.group_by_length": True},
    "bfloat16": {"data.text.group_by_length": True, "train.precision": "bfloat16"},
    "compiled": {"data.text.group_by_length": True, "train.precision": "bfloat16", "model.compile": True},
}
_FOUR = {"train.precision": "bfloat16", "train.accumulate": 4}
_SWITCHED = {**_FOUR, "objective.switch_point": 0.0}
PLAIN = ("plain bf16", "plain switch")
FOUR: dict[str, dict[str, Any]] = {
    "plain bf16": _FOUR,
    "accumulate 4": _FOUR,
    "plain switch": _SWITCHED,
    "switch": _SWITCHED,
    "epoch": {**_FOUR, "validation.kind": "holdout", "validation.fraction": 0.1},
    "uncached": {**_FOUR, "data.cache": False},
    "predictor": _FOUR,
    "compiled 4": {**_FOUR, "model.compile": True},
    "checkpointing": {**_FOUR, "model.gradient_checkpointing": True},
    "tf32": {**_FOUR, "train.precision": "tf32"},
    "float32": {**_FOUR, "train.precision": "float32"},
}
ON_GPU = ("bfloat16", "compiled", *FOUR)


def make_folder(folder: Path, count: int, word_count: int | None = None) -> None:
    """Writes random images and texts in the layout of the data set `image_text`. `word_count`: of each text; None: they
    differ."""
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(draw.choice(letters, draw.integers(2, 11))) for _ in range(5000)]
    (folder / "imgs").mkdir(parents=True)
    lines = ["image,text,label"]
    for number in range(count):
        coarse = draw.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"imgs/{number}.jpg")
        length = word_count or int(np.clip(draw.lognormal(np.log(50), 0.8), 10, 400))
        lines.append(f"imgs/{number}.jpg,{' '.join(draw.choice(words, length))},{number % 4}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")


def config_of(pair: str, row: str, folder: Path, options: argparse.Namespace) -> RunConfig:
    raw = json.loads(json.dumps(PAIRS[pair]))
    raw["data"] |= {"name": "image_text", "dir": str(folder)}
    raw["data"]["text"] |= {"tokenizer": "fitted", "vocabulary": 8000}
    for part in ("image", "text"):
        raw["model"][part]["pretrained"] = False
    overrides: dict[str, Any] = {"validation.kind": "none", "train.epochs": 1000, "train.schedule.kind": "none"}
    overrides |= {**ROWS, **FOUR}[row]
    if options.batch:
        overrides["train.batch_size"] = options.batch
    return load(raw, overrides=overrides)


def plain_batches(trainer: FoldTrainer, split: Any, size: int) -> Iterator[Batch]:
    """Yields batches that are decoded, tokenized and padded without any cache."""
    prepared = trainer.transforms
    image, text = prepared["image"], prepared["text"]
    cut, longest = image.size, text.prepared.max_length  # type: ignore[attr-defined]
    order = np.random.default_rng(0).permutation(len(split))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        squares = []
        for path in split.inputs["image"][rows].values:
            whole = decoding.decode(path, image.short_side)  # type: ignore[attr-defined]
            top, left = (whole.shape[0] - cut) // 2, (whole.shape[1] - cut) // 2
            squares.append(whole[top : top + cut, left : left + cut])
        pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float().div(255).to(trainer.device)
        ids = torch.full((len(rows), longest), text.prepared.pad)  # type: ignore[attr-defined]
        for number, tokens in enumerate(
            text.prepared.encode(list(split.inputs["text"][rows].values))  # type: ignore[attr-defined]
        ):
            ids[number, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
        mask = ids != text.prepared.pad  # type: ignore[attr-defined]
        labels = torch.as_tensor(split.labels[rows]).to(trainer.device)
        yield Batch.of({"image": pixels, "text": Tokens(ids, mask).to(trainer.device)}, labels)


def steps(trainer: FoldTrainer, split: Any, *, plain: bool, count: int) -> Iterator[tuple[float, int, int]]:
    """Seconds, samples and padded length of each of `count` steps."""
    size, epoch, done = trainer.config.train.batch_size or 32, 1, 0
    while done < count:
        batches = plain_batches(trainer, split, size) if plain else (batch for batch, _, _ in trainer._steps(epoch))
        start = time.perf_counter()
        for number, batch in enumerate(batches):
            trainer.optimizer.zero_grad(set_to_none=True)
            with autocast(trainer.config, trainer.device):
                loss = trainer.method(batch, Step(0, 0, 1, number))["loss"]
            loss.backward()
            trainer.optimizer.step()
            float(loss.detach())  # waits for the device
            now = time.perf_counter()
            text: Any = batch.inputs["text"]
            if batch.size == size:
                yield now - start, size, text.mask.shape[1]
                done += 1
            if done >= count:
                return
            start = time.perf_counter()
        epoch += 1


def measure(pair: str, row: str, place: str, options: argparse.Namespace, results: Any) -> None:
    """Measures one row in a process of its own; puts a dictionary of results into the queue `results`."""
    if not torch.cuda.is_available():
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    ready = resolve(config_of(pair, row, Path(place), options))
    result = (measure_four if row in FOUR else measure_one)(row, ready, options)
    if not torch.cuda.is_available():
        result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    results.put(result)


def new_trainer(ready: ResolvedRun, **changes: Any) -> FoldTrainer:
    return FoldTrainer(
        with_overrides(ready.config, changes), ready.dataset.train, features=ready.dataset.features,
        task=tasks.build(classes=4),
    )  # fmt: skip


def measure_four(row: str, ready: ResolvedRun, options: argparse.Namespace) -> dict[str, float]:
    """A row whose steps have four batches each."""
    if row == "epoch":
        result = pair_rates.rates_of_epochs(ready, rounds=options.rounds)
        if torch.cuda.is_available():
            result["memory"] = torch.cuda.max_memory_allocated() / 1e6
        return result

    if row == "predictor":
        return pair_rates.rates_of_predictions(new_trainer(ready), ready.dataset.train, rounds=options.rounds)

    def epochs(trainer: FoldTrainer) -> pair_rates.Epoch:
        if row in PLAIN:
            return pair_rates.plain_epochs(trainer, mixing=row == "plain bf16")
        return pair_rates.our_epochs(trainer)

    trainer = new_trainer(ready)
    result = pair_rates.measured(trainer, epochs(trainer), rounds=options.rounds)
    if torch.cuda.is_available() or options.quick:
        eager = new_trainer(ready, **{"model.compile": False})
        result["flops"] = pair_rates.flops(eager, epochs(eager))
    return result


def measure_one(row: str, ready: ResolvedRun, options: argparse.Namespace) -> dict[str, float]:
    """A row whose steps have one batch each."""
    split, trainer = ready.dataset.train, new_trainer(ready)
    warm = 3 if trainer.device.type == "cuda" else 1
    taken = list(steps(trainer, split, plain=row == "plain", count=options.steps + warm))[warm:]
    seconds = statistics.median(s / n for s, n, _ in taken)
    result = {"rate": 1 / seconds, "tokens": statistics.mean(length for *_, length in taken)}
    if trainer.device.type == "cuda":
        result["memory"] = torch.cuda.max_memory_allocated() / 1e6
        again = new_trainer(ready, **{"model.compile": False})
        result["flops"] = flops_per_sample(again, split, plain=row == "plain", skip=warm, count=options.steps)
    return result


def flops_per_sample(trainer: FoldTrainer, split: Any, *, plain: bool, skip: int, count: int) -> float:
    """Floating-point operations per sample of the timed steps, forward and backward.

    They are counted by torch, for matrix products and attention. `trainer` must not be compiled, because the counter
    does not see operations in compiled kernels.
    """
    with FlopCounterMode(display=False) as counter:
        taken = []
        for number, (_, samples, _) in enumerate(steps(trainer, split, plain=plain, count=skip + count)):
            if number == skip - 1:
                before = counter.get_total_flops()
            taken.append(samples)
    return float(counter.get_total_flops() - before) / sum(taken[skip:])


def one_row(pair: str, row: str, place: Path, options: argparse.Namespace) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure, args=(pair, row, str(place), options, results))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{pair}, {row}: ended with exit code {process.exitcode}")
    measured: dict[str, float] = results.get()
    return measured


def arguments() -> argparse.Namespace:
    given = parser(__doc__)
    given.add_argument("--pair", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    given.add_argument("--row", nargs="+", choices=[*ROWS, *FOUR], help="default: all that the machine can run")
    given.add_argument("--samples", type=int, help="default: 1,280 on a GPU, else 512")
    given.add_argument("--words", type=int, help="of each text; default: 10 to 400, median 50")
    given.add_argument("--steps", type=int, default=8, help="that are timed, in rows of one batch a step")
    given.add_argument("--rounds", type=int, default=5, help="epochs that are timed, in rows of four batches a step")
    given.add_argument("--batch", type=int, help="default: 32, as in Table 6")
    given.add_argument("--peak-tflops", type=float, default=989.0,
                       help="of the GPU in bfloat16; default: an H100 or H200")  # fmt: skip
    options = given.parse_args()
    options.samples = options.samples or (1280 if torch.cuda.is_available() else 512)
    if options.quick:
        options.pair, options.samples, options.words = ["small"], 48, 8
        options.steps, options.batch, options.rounds = 2, 4, 1
    return options


def table_of(results: Mapping[str, Mapping[str, float]], peak_tflops: float) -> str:
    """Markdown table of the rows of a pair; a dash where a row has no such figure."""
    first = next(iter(results))

    def cells(row: str) -> list[str]:
        values = results[row]
        operations, busy = values.get("flops"), values.get("busy")
        peak = operations and operations * values["rate"] / (peak_tflops * 1e12)
        return [
            row, f"{values['rate']:.3g}", f"{values['rate'] / results[first]['rate']:.2f}",
            f"{values['memory']:.0f}", f"{values['tokens']:.0f}" if "tokens" in values else "-",
            f"{peak:.1%}" if peak else "-", f"{busy:.0%}" if busy else "-",
        ]  # fmt: skip

    return table(["loop", "samples / s", f"of {first}", "peak MB", "tokens", "peak", "busy"], [*map(cells, results)])


def main() -> int:
    options = arguments()
    on_gpu = torch.cuda.is_available()
    rows = options.row or [row for row in (*ROWS, *FOUR) if on_gpu or row not in ON_GPU]
    with tempfile.TemporaryDirectory(prefix="m3col-benchmark-") as scratch:
        os.environ["M3COL_CACHE"] = f"{scratch}/cache"
        make_folder(Path(scratch) / "data", options.samples, options.words)
        for pair in options.pair:
            batch = options.batch or PAIRS[pair]["train"]["batch_size"]
            print(f"\n{cards.description()}\n{machine()}")
            print(
                f"{pair}: batches of {batch}, median of {options.steps} steps or {options.rounds} epochs\n", flush=True
            )
            results = {row: one_row(pair, row, Path(scratch) / "data", options) for row in rows}
            print(table_of(results, options.peak_tflops), flush=True)
            bars = pair_rates.bars(results, peak_tflops=options.peak_tflops) if pair == "base" or options.quick else []
            if bars:
                print(f"\n{cards.bar_table(bars)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
