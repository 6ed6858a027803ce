"""A local Ray cluster starts while data are checked, and ends with whatever ends the search."""

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest

import m3col
import tune
from tune import checks
from tune.engine import early_start, ray_cluster
from tune.engine.early_start import EarlyStart


def study(*, workers=1, trials=8, concurrency=None, cpus=1.0):
    return SimpleNamespace(
        request=SimpleNamespace(workers=workers, cpus=cpus),
        run=SimpleNamespace(resources=SimpleNamespace(threads=3)),
        settings=SimpleNamespace(search=SimpleNamespace(trials=trials, concurrency=concurrency)),
    )


@pytest.fixture
def calls(monkeypatch):
    """What would be done to a cluster: the arguments of each start with its thread, and "stop"."""
    made: list = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(early_start, "_DELAY_S", 0.0)
    monkeypatch.setattr(early_start, "_has_gpu", lambda: False)
    monkeypatch.setattr(
        ray_cluster, "start_ray", lambda **named: made.append((named, threading.current_thread())) or True
    )
    monkeypatch.setattr(ray_cluster, "stop_ray", lambda: made.append("stop"))
    return made


def test_a_thread_starts_it_and_lives_until_the_end_of_the_block(calls):
    with EarlyStart(None, 2) as cluster:
        cluster.begin([study()])
        assert cluster.started()
        ((named, thread),) = calls
        assert named["threads"] == 3 and named["num_cpus"] == 2 and named["preloaded"]
        # Linux sends a signal to the processes of a thread that ends.
        assert thread is not threading.current_thread() and thread.is_alive()
    assert calls[1:] == ["stop"] and not thread.is_alive()


@pytest.mark.parametrize(
    ("address", "made"), [("127.0.0.1:6379", study()), (None, study(workers=2)), (None, None)], ids=["join", "ddp", "-"]
)
def test_otherwise_it_starts_when_the_checks_have_passed(calls, address, made):
    with EarlyStart(address, None) as cluster:
        if made is not None:
            cluster.begin([made])
        assert not cluster.started()
    assert calls == []


def test_few_trials_at_a_time_on_many_cpus_import_nothing_ahead(calls):
    with EarlyStart(None, 64) as cluster:
        cluster.begin([study(concurrency=2)])
        cluster.started()
    assert calls[0][0]["preloaded"] == ()


def test_few_trials_of_many_cpus_each_import_nothing_ahead(calls):
    with EarlyStart(None, 64) as cluster:
        cluster.begin([study(concurrency=2, cpus=32.0), study(trials=30, cpus=8.0)])
        cluster.started()
    assert calls[0][0]["preloaded"] == ()


def test_a_start_that_ends_in_any_way_is_not_waited_for_for_ever(calls, monkeypatch):
    def leave(**named):
        raise SystemExit(1)

    monkeypatch.setattr(ray_cluster, "start_ray", leave)
    with EarlyStart(None, 2) as cluster:
        cluster.begin([study()])
        waiting = threading.Thread(target=cluster.started, daemon=True)
        waiting.start()
        waiting.join(20)
        assert not waiting.is_alive()


def test_where_the_start_fails_the_search_starts_the_cluster_itself(calls, monkeypatch):
    def refuse(**named):
        raise RuntimeError("The current node timed out during startup")

    monkeypatch.setattr(ray_cluster, "start_ray", refuse)
    with EarlyStart(None, None) as cluster:
        cluster.begin([study()])
        assert not cluster.started()
        assert cluster._thread is not None
        cluster._thread.join(20)  # so that Linux ends the processes that it has left
        assert not cluster._thread.is_alive()
    assert calls == ["stop"]


def test_a_fault_of_the_data_ends_what_has_started_and_one_of_the_config_starts_nothing(calls, monkeypatch, tmp_path):
    def unreadable(*given, **named):
        time.sleep(0.5)
        return None, ["the data cannot be read"]

    monkeypatch.setattr(checks, "check_against_data", unreadable)
    for overrides, made in (({}, 2), ({"train.epochs": -1}, 0)):
        calls.clear()
        with pytest.raises(m3col.InputError):
            tune.search("digits", overrides=overrides, runs=tmp_path / "runs")
        assert len(calls) == made and calls[1:] == ["stop"] * (made // 2)


def test_a_fault_that_is_found_at_once_starts_nothing(calls, monkeypatch):
    monkeypatch.setattr(early_start, "_DELAY_S", 60.0)
    began = time.monotonic()
    with EarlyStart(None, None) as cluster:
        cluster.begin([study()])
    assert calls == [] and time.monotonic() - began < 30


_FAULT = """
import os
from types import SimpleNamespace as of
import psutil, ray
from tune.engine import early_start, ready_workers
early_start._DELAY_S, ready_workers.PRELOADED = 0.0, ()
settings = of(search=of(trials=8, concurrency=None))
study = of(request=of(workers=1, cpus=1.0), run=of(resources=of(threads=1)), settings=settings)
with early_start.EarlyStart(None, 1) as cluster:
    cluster.begin([study])
    assert cluster.started() and ray.is_initialized()
    print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
    worker = ray.remote(num_cpus=1)(lambda: (os.environ["OMP_NUM_THREADS"], os.environ["TQDM_DISABLE"]))
    print(ray.get(worker.remote()))
    raise SystemExit(2)
"""


@pytest.mark.slow
def test_no_process_of_a_real_cluster_outlives_the_block(tmp_path):
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "2"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", _FAULT], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 2, done.stderr[-2000:]
    pids, worker = done.stdout.splitlines()
    assert worker == "('1', '1')"
    until = time.monotonic() + 20
    while left := [pid for pid in map(int, pids.split()) if psutil.pid_exists(pid)]:
        assert time.monotonic() < until, left
        time.sleep(0.2)
