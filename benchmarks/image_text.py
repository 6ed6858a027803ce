"""Samples per second of a training step on images and texts, with each of our ways beside the plain one.

    plain            decodes every image again, pads every text to max_length, float32: what a first script does
    no cache         ours, but images are decoded and texts tokenised for every batch
    ours             decoded images and tokens from the memory-mapped cache, texts padded to the longest of the batch
    grouped          ours, with batches of texts of similar length (it changes who is contrasted with whom)
    bfloat16         grouped, with autocast (on a GPU)
    compiled         bfloat16, with torch.compile (on a GPU)

Images are JPEG files of 500 x 375 pixels, texts have 10 to 400 words (median 50), weights are random, and the loss is
M3CoL's with mixing, so that each step passes every sample through its encoder twice. Each row is a process of its own,
because peak memory is a process's. `tokens`: mean padded length of a batch. On a GPU `peak` is the share of the card's
bfloat16 peak that the floating-point operations of the step amount to.

    python benchmarks/image_text.py [--pair small base] [--steps 8] [--peak-tflops 989]
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image

from benchmarks.common import machine, parser, table
from m3col import tasks
from m3col.checks.resolve import resolve
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
ON_GPU = ("bfloat16", "compiled")


def make_folder(folder: Path, count: int) -> None:
    """Writes random images and texts in the layout of the data set `image_text`."""
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(draw.choice(letters, draw.integers(2, 11))) for _ in range(5000)]
    (folder / "imgs").mkdir(parents=True)
    lines = ["image,text,label"]
    for number in range(count):
        coarse = draw.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"imgs/{number}.jpg")
        length = int(np.clip(draw.lognormal(np.log(50), 0.8), 10, 400))
        lines.append(f"imgs/{number}.jpg,{' '.join(draw.choice(words, length))},{number % 4}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")


def config_of(pair: str, row: str, folder: Path, options: argparse.Namespace) -> RunConfig:
    raw = json.loads(json.dumps(PAIRS[pair]))
    raw["data"] |= {"name": "image_text", "dir": str(folder)}
    raw["data"]["text"] |= {"tokenizer": "fitted", "vocabulary": 8000}
    for part in ("image", "text"):
        raw["model"][part]["pretrained"] = False
    overrides = {**ROWS[row], "validation.kind": "none", "train.epochs": 1000, "train.schedule.kind": "none"}
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
    split = ready.dataset.train
    trainer = FoldTrainer(ready.config, split, features=ready.dataset.features, task=tasks.build(classes=4))
    warm = 3 if trainer.device.type == "cuda" else 1
    taken = list(steps(trainer, split, plain=row == "plain", count=options.steps + warm))[warm:]
    seconds = statistics.median(s / n for s, n, _ in taken)
    result = {"rate": 1 / seconds, "tokens": statistics.mean(length for *_, length in taken)}
    if trainer.device.type == "cuda":
        result["memory"] = torch.cuda.max_memory_allocated() / 1e6
        uncompiled = with_overrides(ready.config, {"model.compile": False})
        again = FoldTrainer(uncompiled, split, features=ready.dataset.features, task=tasks.build(classes=4))
        result["flops"] = flops_per_sample(again, split, plain=row == "plain", skip=warm, count=options.steps)
    else:
        result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    results.put(result)


def flops_per_sample(trainer: FoldTrainer, split: Any, *, plain: bool, skip: int, count: int) -> float:
    """Floating-point operations per sample of the timed steps, forward and backward.

    They are counted by torch, for matrix products and attention. `trainer` must not be compiled, because the counter
    does not see operations in compiled kernels.
    """
    from torch.utils.flop_counter import FlopCounterMode

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


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--pair", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    arguments.add_argument("--row", nargs="+", choices=list(ROWS), help="default: all that the machine can run")
    arguments.add_argument("--samples", type=int, default=512)
    arguments.add_argument("--steps", type=int, default=8, help="that are timed, in each row")
    arguments.add_argument("--batch", type=int, help="default: 32, as in Table 6")
    arguments.add_argument(
        "--peak-tflops", type=float, default=989.0, help="of the GPU in bfloat16; default: an H100 or H200"
    )
    options = arguments.parse_args()
    if options.quick:
        options.pair, options.samples, options.steps, options.batch = ["small"], 32, 2, 8
    on_gpu = torch.cuda.is_available()
    rows = options.row or [row for row in ROWS if on_gpu or row not in ON_GPU]
    print(machine() if not on_gpu else f"{torch.cuda.get_device_name()}, {os.cpu_count()} CPU cores")
    with tempfile.TemporaryDirectory(prefix="m3col-benchmark-") as scratch:
        os.environ["M3COL_CACHE"] = f"{scratch}/cache"
        make_folder(Path(scratch) / "data", options.samples)
        for pair in options.pair:
            batch = options.batch or PAIRS[pair]["train"]["batch_size"]
            print(f"\n{pair}: batches of {batch}, median of {options.steps} steps\n", flush=True)
            results = {row: one_row(pair, row, Path(scratch) / "data", options) for row in rows}
            base = results[rows[0]]["rate"]
            header = ["loop", "samples / s", f"of {rows[0]}", "peak MB", "tokens", *(["peak"] if on_gpu else [])]
            lines = []
            for row, values in results.items():
                share = values.get("flops", 0.0) * values["rate"] / (options.peak_tflops * 1e12)
                lines.append([row, f"{values['rate']:.3g}", f"{values['rate'] / base:.2f}", f"{values['memory']:.0f}",
                              f"{values['tokens']:.0f}", *([f"{share:.1%}"] if on_gpu else [])])  # fmt: skip
            print(table(header, lines), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
