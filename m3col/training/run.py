"""One training run in its folder: trains, writes the history line by line, saves the models."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from m3col.checks.resolve import ResolvedRun
from m3col.data.splits import Fold, draw, pool
from m3col.distributed import SINGLE_RANK, RankContext
from m3col.runtime import exit_hooks, notices
from m3col.storage import atomic_files
from m3col.training import checkpoint, initial_weights
from m3col.training.history import Record, TrainingJob
from m3col.training.loop import LockstepTrainer

Report = Callable[[Record, int, Path], None]

Execute = Callable[[ResolvedRun, Path, "Report | None"], None]

HISTORY = "history.jsonl"


def folds_of(prepared: ResolvedRun) -> list[Fold]:
    """The folds that the config's section `validation:` draws from the data set."""
    validation = prepared.config.validation
    assert validation.kind is not None
    return draw(
        prepared.dataset,
        kind=validation.kind,
        folds=validation.folds,
        fraction=validation.fraction,
        seed=validation.seed,
        task=prepared.task,
    )


def run(prepared: ResolvedRun, folder: Path, report: Report | None = None, *, ranks: RankContext = SINGLE_RANK) -> None:
    """Trains a run to its end and writes `model/` and `history.jsonl` into its folder.

    Resumes from the newest checkpoint in the folder, if there is one. All ranks must call it; rank 0 writes the files
    and reports.

    Args:
        prepared: the config and its data set.
        folder: the folder of the run.
        report: called after each epoch with its record, the number of epochs, and `folder`.
        ranks: this process among the ranks of the training; default: the only one.

    Raises:
        TrainingFailed: a loss or the watched metric is not finite.
    """
    config, dataset = prepared.config, prepared.dataset
    samples = pool(dataset, config.validation.kind or "none")
    job = TrainingJob(
        pool=samples, folds=folds_of(prepared), features=dataset.features, task=prepared.task,
        pretrain=dataset.pretrain,
    )  # fmt: skip
    training = LockstepTrainer(config, job, ranks)
    torch.set_num_threads(config.resources.threads)
    newest = ranks.broadcast(checkpoint.newest_training(folder) if ranks.is_rank_zero else None)
    if newest is not None:
        checkpoint.restore_training(newest, training)
    else:
        initial_weights.load(training)
    keeper = checkpoint.Keeper(folder / "state", config.checkpoint.every_s)
    if ranks.is_rank_zero:
        atomic_files.write_text(folder / HISTORY, _lines(training.history))

    def after_epoch(record: Record) -> None:
        if not ranks.is_rank_zero:
            return
        with (folder / HISTORY).open("a", encoding="utf-8") as stream:
            stream.write(_lines([record]))
        _warn_of_failure(keeper.check, folder, keeper.epoch)
        if keeper.due() and not training.done:
            _warn_of_failure(partial(keeper.write, training), folder, training.epoch)
        if report is not None:
            report(record, config.train.epochs, folder)

    try:
        with exit_hooks.before_exit(keeper.wait):
            training.advance(config.train.epochs, after_epoch=after_epoch)
    finally:
        _warn_of_failure(keeper.wait, folder, keeper.epoch)
    choices = training.chosen_task().choices()
    if ranks.is_rank_zero:
        checkpoint.write_model(
            folder / "model", training.trainers, config=config.to_dict(), classes=dataset.classes,
            features=dataset.features, choices=choices,
        )  # fmt: skip


def _warn_of_failure(write: Callable[[], None], folder: Path, epoch: int) -> None:
    """Writes the checkpoint of an epoch. A full disk gives a warning: the training continues without it."""
    try:
        write()
    except OSError as error:
        newest = checkpoint.newest_training(folder)
        stays = "there is none before it" if newest is None else f"{newest.name} stays"
        notices.warn(f"{folder}: no checkpoint at epoch {epoch} ({error}); {stays}")


def _lines(records: Sequence[Record]) -> str:
    return "".join(json.dumps(record.to_dict()) + "\n" for record in records)


def records_of(folder: Path) -> list[Record]:
    """The records of the finished epochs of the run in `folder`. A last line that is incomplete is left out."""
    path = folder / HISTORY
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [Record(**json.loads(line)) for line in whole]
