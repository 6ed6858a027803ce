"""The real engine: Ray Tune with reused actors, against the same study driven by hand, and under real kills."""

import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

import tune
from m3col.config import yaml_files
from tests.support.driving import coordinator, drive, prepare_study, small, trial_rows, values
from tests.support.search_process import SEARCH, config_file, start_search, wait_for
from tune.config.resources import Request
from tune.engine import trials
from tune.study.record import StudyFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    folder, ready = prepare_study(tmp_path_factory.mktemp("by_hand"), small())
    drive(coordinator(folder, ready), ready.dataset)
    return trial_rows(folder, ready), values(folder)


def test_ray_with_one_trial_at_a_time_gives_what_the_plain_loop_gives(cluster, tmp_path, by_hand):
    folder, ready = prepare_study(tmp_path, small(search__concurrency=1))
    cluster.run(coordinator(folder, ready), ready.dataset, ready.config.request)
    assert trial_rows(folder, ready) == by_hand[0]
    assert values(folder) == by_hand[1]


def test_actors_are_reused_and_a_failed_trial_does_not_spoil_the_next_one(cluster, tmp_path):
    """A learning rate of 1e30 makes every loss NaN; the actor goes on with the next run."""
    config = small(
        space={"train.learning_rate": {"choices": [0.01, 1e30]}}, search__sampler="grid", search__confirm=None
    )
    folder, ready = prepare_study(tmp_path, config)
    cluster.run(coordinator(folder, ready), ready.dataset, ready.config.request)
    rows = trial_rows(folder, ready)
    assert Counter(row[0] for row in rows) == {"COMPLETE": 1, "FAIL": 1}
    assert "nan in epoch 1" in folder.run("trials/1").outcome().failure
    assert all(state == "complete" for state, _, _ in values(folder).values())


def _is_actor(process: psutil.Process) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    return title.startswith(("ray::TrialActor", "ray::ResourceTrainable"))  # idle, or in a step


def test_an_actor_killed_in_the_middle_of_a_trial_loses_nothing(cluster, tmp_path):
    config = small(
        search__trials=2, search__replicates=0, search__confirm=None, search__pruner="none", final__seeds=1
    )  # fmt: skip
    config["overrides"] = {**config["overrides"], "train.epochs": 150, "checkpoint.every_s": 0.1}
    calm, ready = prepare_study(tmp_path / "calm", config)
    drive(coordinator(calm, ready), ready.dataset)
    folder, ready = prepare_study(tmp_path / "killed", config)
    killed: list[int] = []

    def kill_once(event):
        there = any((folder.path / "trials/1/attempt-1").glob("epoch-*"))
        if event.what == "progress" and event.name == "trials/1" and there and not killed:
            actors = [p for p in psutil.Process().children(recursive=True) if _is_actor(p)]
            killed.extend(p.pid for p in actors)
            for process in actors:
                process.kill()

    cluster.run(coordinator(folder, ready, observe=kill_once), ready.dataset, ready.config.request)
    assert killed
    assert trial_rows(folder, ready) == trial_rows(calm, ready)
    attempts = sorted(path.name for path in (folder.path / "trials/1").glob("attempt-*"))
    assert attempts == ["attempt-1", "attempt-2"]
    went_on = re.search(r"resumes from epoch (\d+)", (folder.path / "trials/1/log.txt").read_text())
    assert went_on and int(went_on.group(1)) > 0


def test_a_trial_that_fits_no_node_is_refused_with_both_numbers(cluster):
    from m3col.errors import InputError

    started = time.monotonic()
    with pytest.raises(InputError, match=r"asks for 64 CPUs and 0 GPUs on one node, .* has 2 CPUs and 0 GPUs"):
        cluster.check(Request(1, 64.0))
    with pytest.raises(InputError, match=r"asks for 3 workers with 1 CPUs and 0 GPUs on one node each"):
        cluster.check(Request(3, 1.0))
    with pytest.raises(InputError, match=r"1 CPUs and 0\.5 GPUs"):
        cluster.check(Request(1, 1.0, 0.5))
    assert time.monotonic() - started < 30


_WITHOUT_LABELS = {
    "method": "comm", "objective.fusion_heads": 2, "objective.projector_hidden": 8, "objective.projector_dim": 4,
    "objective.evaluations": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({}, id="with labels"),
        pytest.param(
            _WITHOUT_LABELS,
            id="without labels",
            marks=pytest.mark.dear("another search; tests/tune/test_self_supervised_search.py cuts one by hand"),
        ),
    ],
)
def test_driver_killed_with_signal_9_and_resumed_equals_the_unbroken_search(cluster, tmp_path, overrides):
    """Whole processes, as a person starts and kills them."""
    space = {"train.learning_rate": {"low": 0.001, "high": 0.1, "log": True}} if overrides else SEARCH["space"]
    given = {**SEARCH, "overrides": {**SEARCH["overrides"], **overrides}, "space": space}
    config = {**given, "search": {**given["search"], "concurrency": 1}}
    tune.search(config, name="calm", runs=tmp_path, tracking_uri="none")
    path = config_file(tmp_path, given)
    process = start_search(tmp_path, str(path), "concurrency=1", "--name", "study")
    wait_for(process, "trials/2")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = start_search(tmp_path, "--resume", "study")
    out, _ = again.communicate(timeout=240)
    assert again.returncode == 0, out

    def table(folder: Path) -> str:
        return (folder / "results/trials.csv").read_text()

    def scores(folder: Path) -> str:
        return (folder / "results/test_table.csv").read_text()

    first, second = tmp_path / "calm", tmp_path / "study"
    assert scores(first) == scores(second)
    winners = [yaml_files.read(folder / "results/best_config.yaml") for folder in (first, second)]
    assert winners[0] == winners[1]
    values_of = [re.findall(r"^\d+,[^,]*,[^,]*", table(folder), flags=re.M) for folder in (first, second)]
    assert values_of[0] == values_of[1] and len(values_of[0]) == 5
    longer = {**config, "search": {**config["search"], "trials": 7}}
    tune.search(config_file(tmp_path, longer), resume="study", runs=tmp_path, tracking_uri="none")
    assert len(re.findall(r"^\d+,", table(second), flags=re.M)) == 7
    assert StudyFolder(second).config().settings.search.trials == 7


@pytest.mark.parametrize(("gpus", "device", "place"), [(0.0, "auto", "cpu"), (1.0, "auto", None), (0.0, "cpu", None)])
def test_a_trial_without_a_gpu_of_its_own_computes_on_the_cpu(gpus, device, place):
    from tune.config.resources import Request
    from tune.study.run_spec import RunSpec

    spec = RunSpec("trials/0", "trial", {"train": {"device": device}}, "search")
    found = trials.alone(Request(1, 1.0, gpus), spec).device
    assert (None if found is None else found.type) == place
