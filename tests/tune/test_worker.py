"""A run goes on from checkpoints that others may remove, and waits for a storage without counting that as work."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from m3col.errors import InputError
from m3col.storage.retry import RetryPolicy
from m3col.training import checkpoint
from tests.support.driving import SMALL, coordinator, prepare_study, small, work
from tune.engine.run_executor import RunExecutor
from tune.study.attempts import Attempts


@pytest.fixture(params=["s3", "path"])
def begin(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], RunExecutor]:
    """Starts a worker for a run that another one has trained for a few epochs, with a checkpoint of each."""
    monkeypatch.setattr(checkpoint, "_WRITING_SHARE", float("inf"))
    uri = f"{request.getfixturevalue('s3')}/study" if request.param == "s3" else None
    folder, ready = prepare_study(tmp_path, small())
    spec = coordinator(folder, ready).next()
    start = lambda: work(folder, spec, ready.dataset.without_test(), uri=uri)  # noqa: E731
    first = start()
    while first.training.epoch < 3:
        first.step()
    return start


def vanishing(monkeypatch: pytest.MonkeyPatch, times: int) -> list[str]:
    """Checkpoints that another process removes just when they are asked for."""
    gone: list[str] = []
    fetch = Attempts.fetch

    def lose(attempts: Attempts, name: str) -> Path:
        if len(gone) < times:
            gone.append(name)
            attempts.drop([name])
        return fetch(attempts, name)

    monkeypatch.setattr(Attempts, "fetch", lose)
    return gone


def test_a_checkpoint_that_vanishes_makes_way_for_the_one_before(begin, monkeypatch):
    gone, before = vanishing(monkeypatch, 1), time.monotonic()
    executor = begin()
    epoch = int(gone[0][-6:])
    assert executor.training.epoch == epoch - 1 and len(executor.training.history) == epoch - 1
    assert time.monotonic() - before < 4, "the patience of 5 s is not for what is gone"


def test_where_all_vanish_the_run_begins_at_the_start(begin, monkeypatch):
    gone = vanishing(monkeypatch, 2)
    assert begin().training.epoch == 0 and len(gone) == 2


class Rank1:
    """The second of two workers, and what it hears: the names that the first one found, and how many lack each."""

    rank, size, is_rank_zero = 1, 2, False

    def __init__(self, names: list[str | None], others: list[float]) -> None:
        self.names, self.others, self.told = names, others, []  # type: ignore[var-annotated]

    def broadcast(self, value: Any) -> Any:
        assert value is None, "only the first one looks"
        return self.names.pop(0)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        self.told.append(values["missing"])
        return {"missing": (values["missing"] + self.others.pop(0)) / 2}


def test_of_several_workers_none_moves_before_all_have_the_same_checkpoint(begin):
    executor = begin()
    newest = executor.attempts.newest()
    assert newest is not None
    attempt, _, last = newest.partition("/")
    older = f"{attempt}/epoch-{int(last[-6:]) - 1:06d}"

    def again(names: list[str | None], others: list[float]) -> tuple[bool, list[float]]:
        executor.ranks = place = Rank1(names, others)
        return executor._resume(), place.told

    stood = executor.training.epoch
    assert again([older, None], [1.0]) == (False, [0.0]) and executor.training.epoch == stood
    assert again([f"{attempt}/epoch-000999", older], [0.0, 0.0]) == (True, [1.0, 0.0])
    assert executor.training.epoch == stood - 1
    with pytest.raises(InputError, match="no checkpoint can be read"):
        again([newest] * 5, [1.0] * 5)


def test_the_wait_for_a_storage_counts_as_no_work(begin, monkeypatch):
    executor, refused = begin(), []
    publish = Attempts.publish

    def refuse(attempts: Attempts, path: Path) -> None:
        if not refused:
            refused.append(path)
            time.sleep(1.0)
            raise OSError("away")
        publish(attempts, path)

    monkeypatch.setattr(Attempts, "publish", refuse)
    executor._retry_policy = RetryPolicy(5, warn=lambda line: None)
    executor.step()
    executor.step()
    assert refused and executor._keeper.cost_s < 0.9


class OfTwo:
    """The first of two workers, of which the other one is only thought."""

    size, is_rank_zero = 2, True

    def broadcast(self, value: Any) -> Any:
        return value


def test_several_workers_report_now_and_then_and_train_on_meanwhile(tmp_path):
    """A report passes through other processes, and an epoch may be shorter than that takes."""
    folder, ready = prepare_study(tmp_path, small(overrides={**SMALL["overrides"], "train.epochs": 20000}))
    alone = work(folder, coordinator(folder, ready).next(), ready.dataset.without_test())
    first = alone.step()
    assert len(first.records) == 20000 // 50  # a single one at each report step
    alone.ranks = OfTwo()  # type: ignore[assignment]
    started = time.monotonic()
    alone._reports = {epoch: 1 for epoch in range(1, 20001)}
    found = alone.step()
    assert time.monotonic() - started >= 1 and len(found.records) > 1
