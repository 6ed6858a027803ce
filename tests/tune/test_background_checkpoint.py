"""A run whose checkpoints are written by a thread: its end, a stop and a failure wait for the write."""

import threading
from collections.abc import Callable, Iterator

import pytest

from m3col.errors import TrainingFailed
from m3col.storage.retry import RetryPolicy
from m3col.training import checkpoint
from tests.support.driving import coordinator, prepare_study, small, work
from tests.support.table_training import training_of
from tune.config.resources import Request
from tune.engine.run_executor import RunExecutor
from tune.engine.trials import TrialActor
from tune.scheduling.coordinator import Coordinator
from tune.study.attempts import Attempts

WAIT_S = 30.0


class Disk:
    """A disk on which a write of a checkpoint waits until `go` is set, and then raises `error` if there is one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.begun, self.error = threading.Event(), threading.Event(), None
        self._real = checkpoint.write_training
        monkeypatch.setattr(checkpoint, "write_training", self)

    def __call__(self, folder, training) -> None:
        self.begun.set()
        assert self.go.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        self._real(folder, training)

    def release_later(self) -> None:
        threading.Timer(0.2, self.go.set).start()


@pytest.fixture
def disk(monkeypatch) -> Iterator[Disk]:
    monkeypatch.setattr(checkpoint, "_LARGE", 0)
    monkeypatch.setattr(checkpoint, "_WRITING_SHARE", float("inf"))
    slow = Disk(monkeypatch)
    with training_of("table"):
        yield slow
    slow.go.set()


Begin = Callable[[], tuple[Coordinator, RunExecutor]]


@pytest.fixture
def begin(tmp_path, disk) -> Begin:
    """Starts the first trial of a study."""

    def started() -> tuple[Coordinator, RunExecutor]:
        folder, ready = prepare_study(tmp_path, small())
        driver = coordinator(folder, ready)
        return driver, work(folder, driver.next(), ready.dataset.without_test())

    return started


def checkpoints(executor: RunExecutor) -> list[str]:
    return sorted(path.name for path in executor.attempt.iterdir() if "epoch-" in path.name)


def test_reports_do_not_wait_for_the_write_but_the_end_of_the_run_does(begin, disk):
    _, executor = begin()
    reports = [executor.step() for _ in range(9)]
    assert [report.epoch for report in reports] == [*range(1, 10)] and not checkpoints(executor)
    disk.release_later()
    last = executor.step()
    assert last.done and last.failure is None and (executor.attempt / "outcome.json").exists()
    assert disk.go.is_set() and not checkpoints(executor), "removed after they were written, not while"


def test_a_storage_that_refuses_the_thread_is_told_by_a_later_report(begin, disk):
    _, executor = begin()
    executor._retry_policy = RetryPolicy(0, warn=lambda line: None)
    executor.step()
    disk.error = OSError(28, "No space left on device")
    disk.go.set()
    executor._keeper.every_s = 1000.0  # no further checkpoint, which would raise it too
    while executor._keeper._background.is_running:
        pass
    report = executor.step()
    assert report.done and report.failure is None and "No space left on device" in report.refused


def test_a_failure_waits_and_the_checkpoint_serves_the_next_attempt(begin, disk, monkeypatch):
    _, executor = begin()
    executor.step()

    def fail(*args, **named):
        disk.release_later()
        raise TrainingFailed("the training loss became nan")

    monkeypatch.setattr(executor.training.trainers[0], "train_epoch", fail)
    report = executor.step()
    assert report.failure == "the training loss became nan" and checkpoints(executor) == ["epoch-000001"]


def test_a_failure_reports_the_error_of_the_write_in_the_log(begin, disk, monkeypatch):
    _, executor = begin()
    executor._retry_policy = RetryPolicy(0, warn=lambda line: None)
    executor.step()

    def fail(*args, **named):
        disk.error = OSError(28, "No space left on device")
        disk.release_later()
        raise RuntimeError("bad shapes")

    monkeypatch.setattr(executor.training.trainers[0], "train_epoch", fail)
    report = executor.step()
    assert report.failure == "RuntimeError: bad shapes" and not checkpoints(executor)
    assert any("no checkpoint at epoch 1" in line and "No space left" in line for line in report.log)


def test_a_stopped_run_removes_what_its_thread_was_writing(begin, disk, monkeypatch):
    driver, executor = begin()
    monkeypatch.setattr(driver.trials, "should_prune", lambda number: True)
    report = executor.step()
    assert disk.begun.wait(WAIT_S)
    (executor.attempt / ".epoch-000001.partial").mkdir()
    assert driver.on_report(report), "the driver stops the run"
    assert checkpoints(executor) == [".epoch-000001.partial"], "a write that is under way is not disturbed"
    disk.release_later()
    executor.close()
    assert disk.go.is_set() and not checkpoints(executor)


def test_an_actor_waits_before_its_next_run_and_before_its_end(monkeypatch):
    closed: list[str] = []

    class Executor:
        def __init__(self, spec, shared, **named) -> None:
            self.name = spec["name"]

        def close(self) -> None:
            closed.append(self.name)

    monkeypatch.setattr("tune.engine.trials.RunExecutor", Executor)
    monkeypatch.setattr("tune.engine.trials.RunSpec.from_dict", lambda run: run)
    monkeypatch.setattr("tune.engine.trials.ray.get", lambda reference: None)
    monkeypatch.setattr("tune.engine.trials.alone", lambda request, spec: None)
    actor = TrialActor.__new__(TrialActor)
    actor.setup({"run": {"name": "first"}}, shared_data=[None], request=Request(cpus=1.0))
    assert actor.reset_config({"run": {"name": "second"}}) and closed == ["first"]
    actor.cleanup()
    assert closed == ["first", "second"]


def test_uploads_belong_to_the_write(begin, disk, monkeypatch):
    published: list[tuple[str, str]] = []
    monkeypatch.setattr(
        Attempts, "publish", lambda self, path: published.append((path.name, threading.current_thread().name))
    )
    _, executor = begin()
    disk.go.set()
    published.clear()
    executor.step()
    executor.close()
    assert published == [("epoch-000001", "checkpoint")]
