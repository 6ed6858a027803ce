"""Within an epoch the host never waits for the GPU: it reads no value, and copies nothing in a way that waits."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from m3col.training.fold_trainer import FoldTrainer
from tests.gpu.work import pair_config, trainer_of
from tests.support import pairs
from tests.support.helpers import tiny_config, tiny_data

_SIGN = "called a synchronizing CUDA operation"  # of the warning that torch gives, in whichever thread


@contextlib.contextmanager
def waits_recorded(device: torch.device) -> Iterator[list[str]]:
    """The places where a call waited for the GPU, as they come."""
    places: list[str] = []

    def note(message: Any, category: Any, filename: str, lineno: int, *more: Any) -> None:
        if _SIGN in str(message):
            places.append(f"{filename}:{lineno}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


def waits_of_an_epoch(trainer: FoldTrainer) -> tuple[list[list[str]], list[str]]:
    """Where the second epoch waits: in each of its optimizer steps, and after the last one. The first epoch chooses
    kernels and allocates memory."""
    trainer.train_epoch(1, learning_rate=1e-4)
    ends: list[int] = []
    with waits_recorded(trainer.device) as places:
        hook = trainer.optimizer.register_step_post_hook(lambda *given: ends.append(len(places)))
        trainer.train_epoch(2, learning_rate=1e-4)
    hook.remove()
    starts = [0, *ends]
    return [places[start:end] for start, end in zip(starts, ends, strict=False)], places[ends[-1] :]


def check(trainer: FoldTrainer, report: Any, name: str) -> None:
    steps, after = waits_of_an_epoch(trainer)
    report(f"waits of {name}: in the first step, in the {len(steps) - 1} others, at the end of the epoch",
           (len(steps[0]), sum(map(len, steps[1:])), len(after)))  # fmt: skip
    assert len(steps) >= 5
    assert steps[1:] == [[]] * (len(steps) - 1)
    assert len(after) <= 1, after  # the sums of the losses


PAIRS = {
    "pairs": {},
    "pairs, second phase": {"objective__switch_point": 0.0},
    "pairs with class weights": {"train__accumulate": 2, "objective__class_weight": [1.0, 8.0, 0.2]},
    "pairs, augmented, three shards": {"data__image__augment": "crop_flip", "train__shards": 3},
}


@pytest.mark.parametrize("name", PAIRS)
def test_an_epoch_of_images_and_texts_waits_at_its_end_alone(name, device, report, tmp_path: Path):
    """With the thread that prepares batches."""
    place = pairs.folder(tmp_path / "data")
    changes = {"train__epochs": 10, "train__precision": "bfloat16", **PAIRS[name]}
    run = pair_config(place, device, train__batch_size=2 if "train__accumulate" in changes else 4, **changes)
    check(trainer_of(run, device), report, name)


@pytest.mark.parametrize("method", ["m3col", "mixup", "concat"])
def test_an_epoch_of_tables_waits_at_its_end_alone(method, device, report):
    run = tiny_config(method=method, train__batch_size=8, train__epochs=10, validation__kind="none")
    check(trainer_of(run, device, data=tiny_data(samples=48)), report, f"tables, {method}")


@pytest.mark.filterwarnings("ignore:called a synchronizing")
def test_waits_are_counted_in_the_steps_where_they_are(monkeypatch):
    """A wait in each batch of the trainer, as torch would report it."""
    data = tiny_data(samples=48)
    trainer = trainer_of(
        tiny_config(train__batch_size=8, validation__kind="none"), torch.device("cpu"), data=data
    )  # fmt: skip
    losses = trainer.method.losses

    def waiting(*given: Any) -> Any:
        warnings.warn(_SIGN, stacklevel=1)
        return losses(*given)

    monkeypatch.setattr(trainer.method, "losses", waiting)
    steps, after = waits_of_an_epoch(trainer)
    assert [len(step) for step in steps] == [1] * 6 and after == []
    with pytest.raises(AssertionError):
        check(trainer, lambda *given: None, "waits")


def test_torch_reports_a_value_that_is_read(card):
    """Without this the tests above would pass whatever happens."""
    value = torch.ones(3, device=card).sum()
    with waits_recorded(card) as places:
        float(value)
    assert len(places) == 1 and places[0].partition(":")[0].endswith("test_waiting.py")
