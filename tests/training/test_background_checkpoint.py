"""Large checkpoints are written by a thread while the training continues; nothing that crashes rely on changes."""

import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

import m3col
from m3col.errors import TrainingFailed
from m3col.runtime import exit_hooks
from m3col.training import checkpoint
from m3col.training.checkpoint import Keeper
from m3col.training.training_state import TrainingState
from tests.support.helpers import TINY, tiny_data
from tests.training.test_checkpoint import trained

WAIT_S = 30.0


class Writer:
    """Stands in for a slow disk: each write of a checkpoint waits until `go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.begun, self.done = threading.Event(), threading.Event(), list[int]()
        self.threads: list[str] = []
        self.error: Exception | None = None
        self._real = checkpoint.write_training
        monkeypatch.setattr(checkpoint, "write_training", self)

    def __call__(self, folder, training) -> None:
        self.threads.append(threading.current_thread().name)
        self.begun.set()
        assert self.go.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        self._real(folder, training)
        self.done.append(training.epoch)

    def release_later(self) -> None:
        """Lets the write end once this thread waits for it."""
        threading.Timer(0.2, self.go.set).start()


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setattr(checkpoint, "_LARGE", 0)
    monkeypatch.setattr(checkpoint, "_WRITING_SHARE", float("inf"))
    slow = Writer(monkeypatch)
    yield slow
    slow.go.set()


def states(training) -> list[dict[str, torch.Tensor]]:
    return [{name: value.clone() for name, value in trainer.state().items()} for trainer in training.trainers]


def test_a_slow_write_delays_no_epoch_and_contains_the_epoch_at_which_it_began(tmp_path, writer):
    training = trained(epochs=2, keep_best=True)
    keeper = Keeper(tmp_path, every_s=0)
    expected, history = states(training), list(training.history)
    keeper.write(training)
    assert writer.begun.wait(WAIT_S) and not keeper.due()
    training.advance(6)
    assert training.epoch == 6 and not writer.done, "the training went on while the write was under way"
    writer.go.set()
    keeper.wait()
    assert writer.done == [2] and writer.threads == ["checkpoint"] and keeper.due()
    restored = trained(epochs=0, keep_best=True)
    checkpoint.restore_training(tmp_path / "epoch-000002", restored)
    assert restored.history == history and restored.best.epoch <= 2
    for own, other in zip(states(restored), expected, strict=True):
        assert own.keys() == other.keys()
        assert all(torch.equal(own[name], other[name]) for name in own)


def test_a_checkpoint_of_a_thread_has_the_bytes_of_one_that_is_written_at_once(tmp_path, monkeypatch):
    training = trained(epochs=3, keep_best=True)
    for name, large in (("at-once", 10**9), ("thread", 0)):
        monkeypatch.setattr(checkpoint, "_LARGE", large)
        keeper = Keeper(tmp_path / name, every_s=0)
        keeper.write(training)
        keeper.wait()
    one, other = ({path.name: path.read_bytes() for path in (tmp_path / name / "epoch-000003").iterdir()}
                  for name in ("at-once", "thread"))  # fmt: skip
    assert one == other and len(one) == 6


def test_at_most_one_write_is_under_way(tmp_path, writer):
    training = trained(epochs=1)
    keeper = Keeper(tmp_path, every_s=0)
    keeper.write(training)
    training.advance(2)
    writer.release_later()
    keeper.write(training)  # waits for the first one
    assert writer.done[:1] == [1]
    keeper.wait()
    assert writer.done == [1, 2]


def test_small_states_and_those_without_room_for_a_copy_are_written_at_once(tmp_path, writer, monkeypatch):
    training = trained(epochs=1)
    writer.go.set()
    monkeypatch.setattr(TrainingState, "fits_twice", lambda self: False)
    Keeper(tmp_path, every_s=0).write(training)
    monkeypatch.undo()
    size = TrainingState.of(training).size
    assert size == sum(value.nbytes for state in states(training) for value in state.values()) < checkpoint._LARGE
    again = Writer(monkeypatch)
    again.go.set()
    Keeper(tmp_path, every_s=0).write(training)
    assert writer.threads + again.threads == ["MainThread"] * 2


def test_an_error_of_the_thread_is_raised_once_by_the_next_call_that_may_raise_it(tmp_path, writer):
    training = trained(epochs=1)
    keeper = Keeper(tmp_path, every_s=0)
    keeper.write(training)
    keeper.check()  # the write is under way: nothing to raise
    writer.error = OSError(28, "No space left on device")
    writer.go.set()
    with pytest.raises(OSError, match="No space left"):
        keeper.wait()
    keeper.check()
    keeper.wait()
    keeper.write(training)
    while keeper._background.is_running:
        time.sleep(0.01)
    with pytest.raises(OSError, match="No space left"):
        keeper.check()
    assert keeper.due()


def test_the_share_of_writing_counts_what_the_training_waits_for(tmp_path, writer, monkeypatch):
    training, clock = trained(epochs=1), [100.0]
    copied = TrainingState.copied

    def slow(state):
        clock[0] += 2.0
        return copied(state)

    keeper = Keeper(tmp_path, every_s=0)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoint, "_WRITING_SHARE", 0.05)
    monkeypatch.setattr(TrainingState, "copied", slow)
    keeper.write(training)
    clock[0] += 39.0
    writer.go.set()
    keeper.wait()
    assert keeper.cost_s == 2.0 and not keeper.due()
    clock[0] += 1.0
    assert keeper.due()


def train(runs, report=None, **overrides) -> m3col.TrainResult:
    return m3col.train(TINY, data=tiny_data(), overrides={"checkpoint.every_s": 0, **overrides}, runs=runs,
                       tracking_uri="none", report=report)  # fmt: skip


def idle() -> bool:
    return all(thread.name != "checkpoint" for thread in threading.enumerate())


def until_idle(*_) -> None:
    end = time.monotonic() + WAIT_S
    while not idle() and time.monotonic() < end:
        time.sleep(0.005)


def test_a_full_disk_is_a_warning_that_names_the_epoch_of_the_checkpoint(tmp_path, writer, monkeypatch):
    real = writer._real

    def full_from_three(folder, training):
        if training.epoch >= 3:
            raise OSError(28, "No space left on device")
        real(folder, training)

    monkeypatch.setattr(checkpoint, "write_training", full_from_three)
    with pytest.warns(UserWarning) as caught:
        result = train(tmp_path, until_idle)
    told = [str(item.message) for item in caught if "no checkpoint" in str(item.message)]
    assert [line.partition("epoch ")[2][0] for line in told] == ["3", "4", "5"]
    assert all("No space left" in line and "epoch-000002 stays" in line for line in told)
    assert len(result.history) == 6 and result.checkpoint.exists()


def test_the_end_of_a_training_waits_for_the_write(tmp_path, writer):
    result = train(tmp_path, lambda record, *_: writer.release_later() if record.epoch == 6 else None)
    assert writer.done == [1] and idle() and not (result.folder / "state").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TrainingFailed("nan")])
def test_an_interrupt_or_a_failure_waits_for_the_write(tmp_path, writer, error):
    def report(record, *_):
        if record.epoch == 3:
            writer.release_later()
            raise error

    with pytest.raises(type(error)):
        train(tmp_path, report)
    assert writer.done == [1] and idle()
    (folder,) = (tmp_path / "train").iterdir()
    assert checkpoint.newest_training(folder).name == "epoch-000001"


def test_the_end_of_the_process_by_a_signal_waits_for_the_write(tmp_path, writer):
    seen = []

    def report(record, _, folder):
        if record.epoch == 3:
            writer.release_later()
            exit_hooks.run(WAIT_S)  # what the command line does before it ends the process
            seen.append(checkpoint.newest_training(folder).name)

    train(tmp_path, report)
    assert seen == ["epoch-000001"] == [f"epoch-{writer.done[0]:06d}"]


_KILLED = """
import sys, time
from pathlib import Path
from m3col.training import checkpoint
from tests.training.test_checkpoint import trained
checkpoint._LARGE = 0
training, keeper = trained(epochs=2), checkpoint.Keeper(Path(sys.argv[1]), every_s=0)
keeper.write(training)
keeper.wait()
real = checkpoint._save
def slow(tensors, path):
    real(tensors, path)
    print(path.name, flush=True)
    time.sleep(60)
checkpoint._save = slow
training.advance(4)
keeper.write(training)
training.advance(6)
"""


def test_a_kill_during_the_write_leaves_the_older_checkpoint_whole(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "fold-0.safetensors"
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT_S)
    assert [path.name[:13] for path in tmp_path.glob(".epoch-*")] == [".epoch-000004"]
    training = trained(epochs=0)
    checkpoint.restore_training(checkpoint.newest_training(tmp_path), training)
    assert training.epoch == 2
    keeper = Keeper(tmp_path, every_s=0)
    training.advance(3)
    keeper.write(training)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-000002", "epoch-000003"]
