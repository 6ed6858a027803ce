"""Whole searches as a person starts them: each test has processes of its own, and shares nothing with another one."""

import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.support.driving import BRIEF, coordinator, drive, prepare_study, small, trial_rows, values
from tests.support.search_process import config_file, start_search, wait_for
from tune.study.record import StudyFolder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.dear("another search; SIGINT takes the same way")),
    ],
)
def test_an_interrupt_ends_everything_within_two_seconds_and_says_how_to_go_on(tmp_path, number, code):
    process = start_search(tmp_path, str(config_file(tmp_path)), "train.epochs=2000", "--name", "study")
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


@pytest.mark.dear(
    reason="waits for a silent server for a minute and a half; test_storage_search.py has one that is away for a while,"
    " and test_sync.py the command that is named when the store stays away"
)
def test_an_s3_server_that_stays_away_stops_the_search_with_the_command_to_go_on(s3, s3_server, tmp_path):
    path = config_file(tmp_path, small(**BRIEF, storage__uri=s3))
    process = start_search(tmp_path / "a", str(path), "--name", "gone", "storage.patience_s=3")
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(r"trials/1 +started", line):
            s3_server.pause()
    s3_server.go_on()
    text = "".join(lines)
    assert process.wait(60) == 1, text
    assert "failed: the storage refused a write for 3 s" in text and "Traceback" not in text
    assert "resume with:\n  m3col search --resume gone --runs-dir" in text, text
    folder = StudyFolder(tmp_path / "a" / "gone")
    calm, ready = prepare_study(tmp_path / "calm", small(**BRIEF))
    states = [row[0] for row in trial_rows(folder, ready)]
    assert "RUNNING" in states and "FAIL" not in states
    again = start_search(tmp_path / "a", "--resume", "gone")
    assert again.communicate(timeout=200) and again.returncode == 0
    drive(coordinator(calm, ready), ready.dataset)
    assert trial_rows(folder, ready) == trial_rows(calm, ready) and values(folder) == values(calm)


_WITHOUT_DASHBOARD = """
from m3col.errors import InputError
from tune.config.resources import Request
from tune.engine import ray_cluster, ray_train, ray_tune
ray_train._DASHBOARD_S = 2.0
ray_cluster.start_ray(address=None, threads=1, num_cpus=2)
try:
    ray_tune.check(Request(2, 1.0))
except InputError as error:
    print(*error.faults)
ray_cluster.stop_ray()
"""


@pytest.mark.dear(
    reason="needs a machine without another Ray cluster: Ray then takes the dashboard of that one for its own"
)
def test_several_workers_without_a_dashboard_are_refused_instead_of_hanging():
    command = [sys.executable, "-c", _WITHOUT_DASHBOARD]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    assert re.search(r"need the dashboard of the Ray cluster.*include_dashboard=True", done.stdout), done.stdout
