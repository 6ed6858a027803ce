"""One training run in its folder: trains, writes the history line by line, saves the models."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from m3col.checks.resolve import ResolvedRun
from m3col.data.splits import Fold, draw, pool
from m3col.distributed import SINGLE_RANK, RankContext
from m3col.runtime import notices
from m3col.storage import atomic_files
from m3col.training import checkpoint
from m3col.training.history import Record, TrainingJob
from m3col.training.loop import LockstepTrainer

Report = Callable[[Record, int, Path], None]

Execute = Callable[[ResolvedRun, Path, "Report | None"], None]

HISTORY = "history.jsonl"


def folds_of(prepared: ResolvedRun) -> list[Fold]:
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
    """Trains in `folder` from its newest checkpoint on, and leaves `model` and `history.jsonl` there.

    Of several `ranks` each calls it; the first one writes and reports. Raises TrainingFailed.
    """
    config, dataset = prepared.config, prepared.dataset
    samples = pool(dataset, config.validation.kind or "none")
    job = TrainingJob(pool=samples, folds=folds_of(prepared), features=dataset.features, task=prepared.task)
    training = LockstepTrainer(config, job, ranks)
    torch.set_num_threads(config.resources.threads)
    newest = ranks.broadcast(checkpoint.newest_training(folder) if ranks.is_rank_zero else None)
    if newest is not None:
        checkpoint.restore_training(newest, training)
    keeper = checkpoint.Keeper(folder / "state", config.checkpoint.every_s)
    if ranks.is_rank_zero:
        atomic_files.write_text(folder / HISTORY, _lines(training.history))

    def after_epoch(record: Record) -> None:
        if not ranks.is_rank_zero:
            return
        with (folder / HISTORY).open("a", encoding="utf-8") as stream:
            stream.write(_lines([record]))
        if keeper.due() and not training.done:
            _save(keeper, training, folder)
        if report is not None:
            report(record, config.train.epochs, folder)

    training.advance(config.train.epochs, after_epoch=after_epoch)
    if ranks.is_rank_zero:
        checkpoint.write_model(
            folder / "model", training.trainers, config=config.to_dict(), classes=dataset.classes,
            features=dataset.features,
        )  # fmt: skip


def _save(keeper: checkpoint.Keeper, training: LockstepTrainer, folder: Path) -> None:
    try:
        keeper.write(training)
    except OSError as error:
        kept = checkpoint.newest_training(folder)
        stays = "there is none before it" if kept is None else f"{kept.name} stays"
        notices.warn(f"{folder}: no checkpoint at epoch {training.epoch} ({error}); {stays}")


def _lines(records: Sequence[Record]) -> str:
    return "".join(json.dumps(record.to_dict()) + "\n" for record in records)


def records_of(folder: Path) -> list[Record]:
    """The finished epochs of the run in `folder`, as far as they are written."""
    path = folder / HISTORY
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [Record(**json.loads(line)) for line in whole]
