"""The real engine: Ray Tune with reused actors, against the same study driven by hand, and under real kills."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from m3col.config import yaml_files
from tests.support.driving import coordinator, drive, prepare_study, small, trial_rows, values
from tune.config.resources import Request
from tune.engine import ray_cluster, trials
from tune.study.record import StudyFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    import ray

    from tune.engine import ray_tune

    assert ray_cluster.start_ray(address=None, threads=1, num_cpus=2)
    yield ray_tune
    ray.shutdown()


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
    config = small(search__trials=2, search__replicates=0, search__confirm=None, search__pruner="none")
    config["overrides"] = {**config["overrides"], "train.epochs": 300, "checkpoint.every_s": 0.1}
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
    went_on = re.search(r"goes on from epoch (\d+)", (folder.path / "trials/1/log.txt").read_text())
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


def test_several_workers_without_a_dashboard_are_refused_instead_of_hanging(cluster):
    from m3col.errors import InputError

    started = time.monotonic()
    with pytest.raises(InputError, match=r"need the dashboard of the Ray cluster.*include_dashboard=True"):
        cluster.check(Request(2, 1.0))
    assert time.monotonic() - started < 40


# From here on: whole processes, as a person starts and kills them.

SEARCH = small(search__trials=5, final__seeds=1, final__draws=100)


def start(runs: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "RAY_ADDRESS": ""}
    command = [sys.executable, "-m", "jobs.cli", "search", *words, "--plain"]
    return subprocess.Popen(
        [*command, "--runs-dir", str(runs), "--tracking-uri", "none"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[str], text: str, *, seconds: float = 120) -> str:
    seen = ""
    deadline = time.monotonic() + seconds
    assert process.stdout is not None
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        seen += line
        if text in line:
            return seen
        if not line and process.poll() is not None:
            break
    raise AssertionError(f"{text!r} did not appear in:\n{seen}")


@pytest.fixture
def config_file(tmp_path) -> Path:
    path = tmp_path / "little.yaml"
    path.write_text(yaml_files.dump(SEARCH))
    return path


def test_driver_killed_with_signal_9_and_resumed_equals_the_unbroken_search(tmp_path, config_file):
    calm = start(tmp_path / "calm", str(config_file), "concurrency=1")
    out, _ = calm.communicate(timeout=240)
    assert calm.returncode == 0, out
    process = start(tmp_path / "killed", str(config_file), "concurrency=1", "--name", "study")
    wait_for(process, "trials/2")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = start(tmp_path / "killed", "--resume", "study")
    out, _ = again.communicate(timeout=240)
    assert again.returncode == 0, out

    def table(folder: Path) -> str:
        return (folder / "results/trials.csv").read_text()

    def scores(folder: Path) -> str:
        return (folder / "results/test_table.csv").read_text()

    first, second = tmp_path / "calm/little-1", tmp_path / "killed/study"
    assert scores(first) == scores(second)
    winners = [yaml_files.read(folder / "results/best_config.yaml") for folder in (first, second)]
    assert winners[0] == winners[1]
    values_of = [re.findall(r"^\d+,[^,]*,[^,]*", table(folder), flags=re.M) for folder in (first, second)]
    assert values_of[0] == values_of[1] and len(values_of[0]) == 5
    longer = start(tmp_path / "killed", "--resume", "study", "trials=7")
    out, _ = longer.communicate(timeout=240)
    assert longer.returncode == 0, out
    assert len(re.findall(r"^\d+,", table(second), flags=re.M)) == 7
    assert StudyFolder(second).config().settings.search.trials == 7


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_everything_within_two_seconds_and_says_how_to_go_on(tmp_path, config_file, number, code):
    process = start(tmp_path, str(config_file), "train.epochs=2000", "--name", "study")
    wait_for(process, "started")
    time.sleep(3)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    began = time.monotonic()
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert time.monotonic() - began < 2
    assert process.returncode == code
    assert "m3col search --resume study" in out
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(("gpus", "device", "place"), [(0.0, "auto", "cpu"), (1.0, "auto", None), (0.0, "cpu", None)])
def test_a_trial_without_a_gpu_of_its_own_computes_on_the_cpu(gpus, device, place):
    from tune.config.resources import Request
    from tune.study.run_spec import RunSpec

    spec = RunSpec("trials/0", "trial", {"train": {"device": device}}, "search")
    found = trials.alone(Request(1, 1.0, gpus), spec).device
    assert (None if found is None else found.type) == place
