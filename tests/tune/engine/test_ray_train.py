"""Trials of several DDP workers on a real cluster: the values of one process, also when a worker is killed, and nothing
left behind by a trial that is pruned."""

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

import m3col
import tune
from m3col.errors import InputError
from m3col.storage.retry import StorageUnavailable
from tests.support.driving import coordinator, drive, prepare_study, small, trial_rows, trials_alone
from tests.support.sockets import LOOPBACK, listening
from tune import checks
from tune.engine import trials
from tune.scheduling.coordinator import Event
from tune.study.record import StudyFolder

pytestmark = pytest.mark.slow
WORKER, PARTS = "ray::RayTrainWorker", ("ray::TrainController", "ray::PlacementGroupCleaner", "ray::_QueueActor")
FREED_S = 10.0
EPOCHS = 60


def config() -> dict[str, Any]:
    """The default, which is never pruned, a trial that learns too slowly to survive its first rung, and one whose loss
    is not finite."""
    config = small(search__sampler="grid", search__replicates=0, search__confirm=None, search__trials=3)
    config["space"] = {"train.learning_rate": {"choices": [0.01, 1e-7, 1e300]}}
    config["overrides"] |= {"train.epochs": EPOCHS, "train.shards": 2, "train.precision": "float64"}
    config["overrides"] |= {"checkpoint.every_s": 0.2}
    config["resources"] = {"workers_per_trial": 2}
    return config


def processes(*titles: str) -> dict[int, str]:
    found = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())  # empty for one that has just ended
            if title.startswith(titles):
                found[process.pid] = title
    return found


def groups() -> set[bytes]:
    from tune.engine import ray_train

    return {group.placement_group_id for group in ray_train._groups()}


@dataclass
class Ended:
    """A trial that has just ended: its workers and placement groups, and how long it took until they were gone."""

    at: float
    workers: set[int]
    groups: set[bytes]
    freed_s: float = float("inf")

    def look(self) -> None:
        if self.freed_s == float("inf") and not self.groups & groups() and not self.workers & set(processes(WORKER)):
            self.freed_s = time.monotonic() - self.at


@dataclass
class Watcher:
    """Kills a worker of the first trial, and notes what the pruned and the failed one have when they end."""

    killed: list[int] = field(default_factory=list)
    ended: dict[str, "Ended"] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        if event.what == "progress" and event.name == "trials/0" and not self.killed:
            victim = max(processes(WORKER))
            psutil.Process(victim).kill()
            self.killed.append(victim)
        if event.what in ("pruned", "failed"):
            self.ended[event.what] = Ended(time.monotonic(), set(processes(WORKER)), groups())


@dataclass
class Searched:
    folder: StudyFolder
    ready: checks.CheckedStudy
    watcher: Watcher
    left: dict[int, str]
    cpus: float


@dataclass
class Trained:
    """`told`: epochs in the order of their reports; `sockets`: addresses on which our processes listened meanwhile;
    `handlers`: of Ctrl-C, before and after the training."""

    two: m3col.TrainResult
    one: m3col.TrainResult
    told: list[int]
    sockets: dict[str, set[str]]
    handlers: tuple[Any, Any]


@pytest.fixture(scope="module")
def searched(cluster, tmp_path_factory) -> Searched:
    import ray

    folder, ready = prepare_study(tmp_path_factory.mktemp("workers"), config())
    watcher, over = Watcher(), threading.Event()

    def measure() -> None:
        while not over.wait(0.1):
            for ended in list(watcher.ended.values()):
                ended.look()

    threading.Thread(target=measure, daemon=True).start()
    cluster.check(ready.config.request)
    cluster.run(trials_alone(coordinator(folder, ready, observe=watcher)), ready.dataset, ready.config.request)
    until = time.monotonic() + 6 * FREED_S  # a controller takes its time to exit on a busy machine
    while (processes(WORKER, *PARTS) or ray.available_resources().get("CPU") != 2) and time.monotonic() < until:
        time.sleep(0.2)
    left, cpus = processes(WORKER, *PARTS), ray.available_resources().get("CPU", 0.0)
    over.set()
    return Searched(folder, ready, watcher, left, cpus)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory) -> list[tuple[Any, ...]]:
    folder, ready = prepare_study(tmp_path_factory.mktemp("by_hand"), config())
    drive(trials_alone(coordinator(folder, ready)), ready.dataset)
    return trial_rows(folder, ready)


def test_the_search_finds_what_one_process_finds(searched, by_hand):
    found = trial_rows(searched.folder, searched.ready)
    assert [row[:2] for row in found] == [row[:2] for row in by_hand]
    assert [row[0] for row in found] == ["COMPLETE", "PRUNED", "FAIL"]
    for ours, theirs in zip(found[:2], by_hand[:2], strict=True):
        assert ours[3] == pytest.approx(theirs[3], rel=1e-9)
        assert ours[2] == pytest.approx(theirs[2], rel=1e-9)


def test_a_killed_worker_costs_at_most_the_time_since_the_last_checkpoint(searched):
    assert searched.watcher.killed
    run = searched.folder.run("trials/0")
    assert "resumes from epoch" in (run.path / "log.txt").read_text()
    epochs = [record["epoch"] for record in run.history()]
    assert epochs == list(range(1, EPOCHS + 1))
    assert sorted(path.name for path in run.path.glob("attempt-*")) == ["attempt-1", "attempt-2"]


@pytest.mark.parametrize("how", ["pruned", "failed"])
def test_a_trial_that_ends_early_frees_its_workers_and_their_place(searched, how):
    ended = searched.watcher.ended[how]
    assert ended.workers and ended.groups
    assert ended.freed_s <= FREED_S


def test_nothing_is_left_when_the_search_is_over(searched):
    assert searched.left == {}
    assert searched.cpus == 2


def test_what_a_dead_controller_has_reserved_is_freed_without_rays_own_cleaner(cluster):
    """A controller that dies while its workers are still starting: nobody but us knows its placement group."""
    import ray
    from ray.util.placement_group import placement_group

    from tune.engine import ray_train

    @ray.remote(num_cpus=0)
    class Controller:
        def reserve(self) -> None:
            ray.get(placement_group([{"CPU": 1}, {"CPU": 1}]).ready())

    controller = Controller.remote()
    ray.get(controller.reserve.remote())
    assert ray_train.free_orphans() == 1  # alive: left alone
    ray.kill(controller)
    until = time.monotonic() + FREED_S
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < until:
        ray_train.free_orphans()
        time.sleep(0.1)
    assert ray.available_resources().get("CPU") == 2


def test_no_two_trainings_share_a_name_or_a_place(cluster, monkeypatch):
    """Ray Train would resume the first one, see the test below."""
    import ray.train.torch

    from tune.config.resources import Request
    from tune.engine import ray_train

    started: list[tuple[str, str]] = []

    class Trainer:
        def __init__(self, *args: Any, run_config: Any, **named: Any) -> None:
            started.append((run_config.name, run_config.storage_path))

        def fit(self) -> Any:
            return type("Result", (), {"return_value": None})

    monkeypatch.setattr(ray.train.torch, "TorchTrainer", Trainer)
    for _ in range(2):
        ray_train.fit(lambda given: None, {}, Request(1), device="cpu", name="a/same", reached=lambda: None)
    first, second = started
    assert first[0] != second[0] and first[1] != second[1]
    assert all(name.startswith("a-same-") for name, _ in started)


@pytest.mark.dear(reason="two starts of Ray Train for what the test above shows by names; this one shows what Ray does")
def test_a_training_never_resumes_another_one_of_its_name(cluster):
    def loop(given: dict[str, Any]) -> bool:
        import tempfile

        import ray.train

        begun_anew = ray.train.get_checkpoint() is None
        with tempfile.TemporaryDirectory() as folder:
            ray.train.report({"epoch": 1}, checkpoint=ray.train.Checkpoint.from_directory(folder))
        return begun_anew

    from tune.config.resources import Request
    from tune.engine import ray_train

    for _ in range(2):
        assert ray_train.fit(loop, {}, Request(1), device="cpu", name="same", reached=lambda: None)


def test_what_one_worker_alone_runs_into_is_told_at_once(cluster):
    """The others wait for it in a collective."""

    def loop(given: dict[str, Any]) -> None:
        import ray.train
        import torch

        from m3col.errors import InputError

        if ray.train.get_context().get_world_rank() == 1:
            raise InputError(["this node does not see the images"])
        torch.distributed.barrier()

    from tune.config.resources import Request
    from tune.engine import ray_train

    started = time.monotonic()
    with pytest.raises(InputError, match="does not see the images"):
        ray_train.fit(loop, {}, Request(2), device="cpu", name="one", reached=lambda: None)
    assert time.monotonic() - started < 120


@pytest.mark.parametrize(
    "error, refused, failure",
    [(StorageUnavailable("full"), "full", None), (ValueError("what went wrong"), None, "ValueError: what went wrong")],
)
def test_a_trial_whose_workers_raise_says_so_as_a_result(monkeypatch, tmp_path, error, refused, failure):
    """A storage that refuses stops the search, any other error fails the trial."""
    import ray.tune

    from tune.config.resources import Request
    from tune.engine import ray_train
    from tune.study.run_spec import RunSpec

    told: list[dict[str, Any]] = []

    def fit(*args: Any, **named: Any) -> None:
        raise error from RuntimeError("line 3, at s3://key:hidden@bucket")

    monkeypatch.setattr(ray_train, "fit", fit)
    monkeypatch.setattr(ray.tune, "report", told.append)
    monkeypatch.setattr(trials, "TuneReportCallback", lambda: None)
    run = RunSpec("trials/0", "trial", {}, "fold_0").to_dict()
    trials.trial_of_workers({"run": run}, place=(str(tmp_path), None), request=Request(2), patience_s=1.0)
    assert told[0]["log"] == ["line 3, at s3://key:***@bucket"]
    assert [(item["refused"], item["failure"], item["done"]) for item in told] == [(refused, failure, True)]


@pytest.fixture(scope="module")
def trained(cluster, tmp_path_factory) -> Trained:
    """One training with two workers, looked at while it runs, and the same with one."""
    import ray

    @ray.remote
    class Actor:
        def answer(self) -> int:
            return 1

    actor = Actor.remote()
    assert ray.get(actor.answer.remote()) == 1
    overrides = {"train.epochs": 60, "train.precision": "float64", "train.shards": 2, "train.batch_size": 100}
    common: dict[str, Any] = {"overrides": overrides, "tracking_uri": "none"}
    told: list[int] = []
    sockets: dict[str, set[str]] = {}

    def look(record: Any, *more: object) -> None:
        told.append(record.epoch)
        if not any("RayTrainW" in name for name in sockets):
            for name, addresses in listening(os.getpid()).items():
                sockets.setdefault(name, set()).update(addresses)

    before = signal.getsignal(signal.SIGINT)
    two = tune.train("digits", workers=2, report=look, runs=tmp_path_factory.mktemp("two"), **common)
    one = m3col.train("digits", runs=tmp_path_factory.mktemp("one"), **common)
    return Trained(two, one, told, sockets, (before, signal.getsignal(signal.SIGINT)))


def test_one_training_with_two_workers_equals_one_with_one(trained):
    two, one = trained.two, trained.one
    assert trained.told == list(range(1, 61))
    assert two.config == one.config
    assert list(two.history.columns) == list(one.history.columns)
    assert two.metrics == pytest.approx(one.metrics, rel=1e-9)
    test = m3col.data.load("digits").test
    assert (two.predict_proba(test.inputs).argmax(1) == one.predict_proba(test.inputs).argmax(1)).all()


def test_a_local_cluster_its_dashboard_and_ddp_workers_listen_on_the_loopback_address_alone(trained):
    sockets = trained.sockets
    assert {"gcs_server", "raylet", "itself"} <= set(sockets)
    assert len(sockets) >= 5, "dashboard, agents and actor"
    assert any("RayTrainW" in name for name in sockets), f"DDP workers, which listen for each other: {[*sockets]}"
    assert set().union(*sockets.values()) <= LOOPBACK, sockets


def test_a_training_leaves_no_process_and_no_handler_of_ctrl_c_behind(trained):
    """Ray Train's handler would stay, and with it the process of its controller."""
    before, after = trained.handlers
    assert after is before
    until = time.monotonic() + 6 * FREED_S
    while processes(WORKER, *PARTS) and time.monotonic() < until:
        time.sleep(0.2)
    assert processes(WORKER, *PARTS) == {}
