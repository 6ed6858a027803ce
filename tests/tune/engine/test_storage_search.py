"""Whole searches through Ray with a storage, a database and writes that are refused for a while."""

import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

import tune
from tests.support.driving import BRIEF, coordinator, drive, prepare_study, small, trial_rows, values
from tests.support.servers import Postgres
from tune.study.record import StudyFolder

pytestmark = pytest.mark.slow


def brief(**changes: Any) -> dict[str, Any]:
    return small(**{**BRIEF, **changes})


def test_a_search_in_s3_is_complete_for_a_machine_that_has_nothing(cluster, s3, tmp_path):
    config = brief(storage__uri=s3)
    first = tune.search(config, name="mine", resume="auto", runs=tmp_path / "a")
    here = StudyFolder(tmp_path / "a" / "mine")
    attempts = [path.name for path in here.path.glob("trials/0/attempt-*/*")]
    assert sorted(attempts) == ["attempt.json", "outcome.json", "predictions.safetensors"]
    second = tune.search(config, name="mine", resume="auto", runs=tmp_path / "b")
    assert second.summary == first.summary and second.studies == (tmp_path / "b" / "mine",)
    histories = [(tmp_path / side / "mine/trials/0/history.jsonl").read_text() for side in "ab"]
    assert histories[0] == histories[1]
    # MLflow keeps what it shows below the storage as well, under our own store.
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/a/mlflow.db")
    [experiment] = [found for found in client.search_experiments() if found.experiment_id != "0"]
    assert experiment.artifact_location.startswith(f"{s3}/mlartifacts/")
    runs = client.search_runs([experiment.experiment_id])
    parent = next(run.info.run_id for run in runs if run.data.tags["m3col.kind"] == "study")
    assert client.list_artifacts(parent)
    assert not [
        path for path in (tmp_path / "a").rglob("*")
        if path.is_file() and b"secret-of-a-test" in path.read_bytes()
    ]  # fmt: skip


def test_an_s3_server_that_is_away_for_a_while_only_costs_time(cluster, s3, s3_server, tmp_path):
    told: list[str] = []

    def outage(event: Any) -> None:
        if event.what == "complete" and event.name == "trials/0":
            s3_server.pause()
            threading.Timer(3.0, s3_server.go_on).start()

    config = brief(storage__uri=s3)
    tune.search(config, name="away", runs=tmp_path / "a", observe=outage, warn=told.append, tracking_uri="none")
    calm, ready = prepare_study(tmp_path / "calm", brief())
    drive(coordinator(calm, ready), ready.dataset)
    folder = StudyFolder(tmp_path / "a" / "away")
    assert trial_rows(folder, ready) == trial_rows(calm, ready) and values(folder) == values(calm)


_DRIVER = """
import sys
from pathlib import Path
from m3col.storage.retry import RetryPolicy
from tests.support.driving import SMALL, coordinator, drive, prepare_study, small
runs, patience = Path(sys.argv[1]), float(sys.argv[2])
from tests.support import driving
from tests.tune.engine import test_storage_search
folder, ready = prepare_study(runs, test_storage_search.brief())
folder.retry_policy = RetryPolicy(patience, warn=lambda line: print("waiting", flush=True))
found = coordinator(folder, ready, observe=lambda event: print(event.what, event.name, flush=True))
found.trials.retry_policy = folder.retry_policy.also(*found.trials.retry_policy.errors)
drive(found, ready.dataset)
print("done", flush=True)
"""


def test_a_disk_that_refuses_every_write_for_seconds_changes_nothing(tmp_path):
    """The limit of file sizes hits history, log, result, checkpoint and database alike."""
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _DRIVER, str(tmp_path / "full"), "60"], stdout=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    lines: list[str] = []
    outages = 0
    for line in child.stdout:
        lines.append(line.strip())
        if re.match("progress trials/[01]", line) and outages < 2 and len(lines) % 3 == 0:
            outages += 1
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
            limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            threading.Timer(2.0, resource.prlimit, (child.pid, resource.RLIMIT_FSIZE, limit)).start()
    assert child.wait(60) == 0 and lines[-1] == "done" and outages == 2 and "waiting" in lines
    calm, ready = prepare_study(tmp_path / "calm", brief())
    drive(coordinator(calm, ready), ready.dataset)
    folder = StudyFolder(tmp_path / "full" / "study")
    assert trial_rows(folder, ready) == trial_rows(calm, ready) and values(folder) == values(calm)
    for name, run in folder.runs():
        epochs = [record["epoch"] for record in run.history()]
        assert epochs == list(range(1, len(epochs) + 1)), name


@pytest.fixture(scope="module")
def postgres():
    # Not below pytest's folder, which only its owner may enter: as root the server is somebody else.
    with tempfile.TemporaryDirectory(prefix="m3col-postgres-", ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            "sqlite", marks=pytest.mark.dear(reason="as PostgreSQL; SQLite is the store of all other studies")
        ),
        "postgresql",
    ],
)
def test_a_search_in_a_database_elsewhere_and_two_studies_in_it(cluster, postgres, tmp_path, kind):
    url = f"sqlite:////{tmp_path}/all.db" if kind == "sqlite" else postgres.url
    config = brief(storage__database=url)
    tune.search(config, name="same", runs=tmp_path / "a", tracking_uri="none")
    tune.search(config, name="same", runs=tmp_path / "b", tracking_uri="none")
    import optuna

    found = optuna.get_all_study_summaries(url)
    assert [item.n_trials for item in found] == [2, 2] and len({item.study_name for item in found}) == 2
    assert not (tmp_path / "a/same/study.db").exists()
    again = tune.search(config, resume="same", runs=tmp_path / "a", tracking_uri="none")
    assert len(again.trials) == 2


def test_a_database_server_that_dies_and_comes_back_costs_time_alone(cluster, postgres, tmp_path):
    """Once while two trials run, and once while the last one does, which began when the server was back."""
    waiting = ["trials/0 trials/1", "trials/2"]

    def outage(event: Any) -> None:
        if event.what == "progress" and waiting and event.name in waiting[0].split():
            waiting.pop(0)
            postgres.kill()
            threading.Timer(3.0, postgres.start).start()

    told: list[str] = []
    tune.search(
        brief(search__trials=3, storage__database=postgres.url),
        name="away",
        runs=tmp_path / "a",
        observe=outage,
        warn=told.append,
        tracking_uri="none",
    )
    assert not waiting and "refuses a write" in " ".join(told)
    calm, ready = prepare_study(tmp_path / "calm", brief(search__trials=3))
    drive(coordinator(calm, ready), ready.dataset)
    folder = StudyFolder(tmp_path / "a" / "away")
    assert trial_rows(folder, ready) == trial_rows(calm, ready) and values(folder) == values(calm)
