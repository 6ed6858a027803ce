"""`m3col submit` and `m3col jobs` against a real Ray cluster in token mode. It begins with one node, where a search is
stopped half-way, and gets a second one: in whatever order the tests come, the fixtures do it in this one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ray_nodes import Nodes
from tests.support.servers import free_port
from tune.study import provenance
from tune.study.record import StudyFolder

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

# In the environment of the process that submits.
SECRETS = {"AWS_SECRET_ACCESS_KEY": "aws-h0rse-staple", "MLFLOW_TRACKING_PASSWORD": "mlflow-h0rse-staple"}

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = """
base: digits
overrides: {train.epochs: 10}
space: {objective.beta: {low: 0.01, high: 1.0}}
search: {trials: 60, replicates: 0, confirm: null, pruner: none, sampler: random}
final: {seeds: 1, baselines: false}
"""


@pytest.fixture(scope="module")
def nodes():
    started = Nodes()
    try:
        started.start_head(cpus=1)
        yield started
    finally:
        started.end()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "tiny.yaml").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def begin(nodes, place):
    """Starts a command as a process of its own: Ray reads what it needs to know of tokens once per process."""

    def start(*words: object, **environment: str) -> "subprocess.Popen[str]":
        base = {**nodes.environment(), "PYTHONPATH": str(REPOSITORY), "HOME": str(place), "COLUMNS": "200"}
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *map(str, words)], cwd=place, env={**base, **environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


@pytest.fixture(scope="module")
def m3(begin):
    def run(*words: object, **environment: str) -> tuple[int, str, str]:
        process = begin(*words, **environment)
        try:
            out, err = process.communicate(timeout=240)
        finally:
            process.kill()
        assert "Traceback" not in err, err
        return process.returncode, out, err

    return run


def test_an_invalid_address_or_token_is_reported_with_all_other_faults(begin, nodes, place):
    nowhere = free_port()
    environments = {
        "the cluster asks for a token; set RAY_AUTH_TOKEN": {"RAY_AUTH_TOKEN_PATH": ""},
        "does not accept the token of RAY_AUTH_TOKEN": {"RAY_AUTH_TOKEN": "wrong"},
        "RAY_AUTH_MODE is 'disabled'; set RAY_AUTH_MODE=token": {"RAY_AUTH_MODE": "disabled"},
        "no Ray cluster that answers": {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{nowhere}"},
    }
    processes = {}
    for fault, environment in environments.items():
        words = [] if "RAY_API_SERVER_ADDRESS" in environment else ["--address", nodes.address]
        processes[fault] = begin("submit", "tiny.yaml", "nonsense=1", "--runs-dir", "runs", *words, **environment)
    for fault, process in processes.items():
        out, err = process.communicate(timeout=240)
        first, second, third = err.splitlines()
        assert process.returncode == 2 and out == "" and fault in first, err
        assert "--runs-dir runs: is a folder of the cluster" in second and "unknown key 'nonsense'" in third


@dataclass
class Stopped:
    """A search that was sent to one node, followed for a while, and stopped.

    `answers`: exit code, standard output and standard error of each `m3col jobs` command, by a name of the command.
    """

    id: str
    followed: tuple[int, str, str]
    answers: dict[str, tuple[int, str, str]]
    stop: tuple[int, str, str]
    log: str


@pytest.fixture(scope="module")
def stopped(begin, m3, nodes, place) -> Stopped:
    runs = place / "runs"
    process = begin(
        "submit", "tiny.yaml", "--address", nodes.address, "--runs-dir", runs, "--tracking-uri", "none", "--follow",
        RAY_AUTH_TOKEN=nodes.token.read_text(), **SECRETS,
    )  # fmt: skip
    wait_for(lambda: list(runs.glob("tiny-1/trials/*/result.json")), process)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    (id,) = re.findall(r"m3col jobs stop (\S+)", out)
    commands = {
        "list": ("list",), "list all": ("list", "--all"), "status": ("status", id), "unknown": ("status", id[:-1]),
        "resume": ("resume", id),
    }  # fmt: skip
    processes = {name: begin("jobs", *words, RAY_ADDRESS=nodes.address) for name, words in commands.items()}
    outputs = {name: other.communicate(timeout=240) for name, other in processes.items()}
    answers = {name: (processes[name].returncode, *outputs[name]) for name in commands}
    stop = m3("jobs", "stop", id, "--address", nodes.address)
    log = m3("jobs", "logs", id, "--address", nodes.address)[1]
    return Stopped(id, (process.returncode, out, err), answers, stop, log)


@pytest.fixture(scope="module")
def second_node(nodes, stopped) -> None:
    nodes.add(cpus=1)


def test_a_search_is_validated_and_run_on_the_cluster_and_ctrl_c_only_stops_following(stopped, nodes, place):
    runs, id = place / "runs", stopped.id
    code, out, err = stopped.followed
    assert code == 130 and "the job continues" in out, out + err
    assert f"checked on {nodes.address}: " in out and "1 node" in out and f"study {runs / 'tiny-1'}" in out
    assert err == (
        f"warning: {runs} is on the only node's own disk: a node that joins later and does not see it takes a trial, "
        "and the search then stops, with the command to resume; --shared says that it is mounted everywhere\n"
    )
    assert [code for code, _, _ in stopped.answers.values()] == [0, 0, 0, 2, 2]
    printed = {name: output for name, (_, output, _) in stopped.answers.items()}
    assert re.search(rf"{id}.*tiny-1.*RUNNING", printed["list"]) and "preflight" not in printed["list"]
    assert "preflight-" in printed["list all"]
    assert (
        re.search(r"^state +RUNNING$", printed["status"], re.MULTILINE)
        and "search given/tiny.yaml" in printed["status"]
    )
    assert stopped.answers["unknown"][2].strip().endswith(f"did you mean {id!r}?")
    assert "is still RUNNING; stop it first" in stopped.answers["resume"][2]
    code, out, err = stopped.stop
    assert code == 0 and f"job {id}: STOPPED" in out and f"m3col jobs resume {id}" in out, out + err
    assert "Interrupted. Nothing that was finished is lost" in stopped.log


def test_nothing_secret_is_in_what_all_see_of_a_job(stopped, nodes):
    """The listing as the dashboard gives it: command, runtime environment and metadata; and the logs."""
    listed = dashboard_answer(nodes, "/api/jobs/")
    ids = [job["submission_id"] for job in json.loads(listed)]
    assert stopped.id in ids and any(id.startswith("preflight-") for id in ids)
    logs = {id: dashboard_answer(nodes, f"/api/jobs/{id}/logs") for id in ids}
    texts = [listed, *logs.values()]
    assert "m3col.request" in listed and "trials/0" in logs[stopped.id]
    for secret in (nodes.token.read_text(), *SECRETS.values()):
        assert not any(secret in text for text in texts)


def test_with_two_nodes_every_fault_is_reported_at_once(m3, second_node, nodes, place):
    dead = f"http://127.0.0.1:{free_port()}"
    code, out, err = m3(
        "submit", "rosmap", "resources.workers_per_trial=7", "--address", nodes.address, "--tracking-uri", dead,
        "--data-dir", place / "nosuch", "--runs-dir", place / "runs",
    )  # fmt: skip
    assert code == 2 and out == "", out + err
    assert str(place / "nosuch") in err and "a training asks for 7 workers" in err
    assert "the cluster has 2 nodes, and this is a folder of one of them; give --shared" in err
    assert f"tracking.uri {dead}: the MLflow store cannot be reached" in err and "(asked from the cluster)" in err


def test_a_stopped_search_is_resumed_on_both_nodes(m3, stopped, second_node, nodes, place):
    study, id = StudyFolder(place / "runs" / "tiny-1"), stopped.id
    before = {path: path.read_bytes() for path in study.path.glob("trials/*/result.json")}
    count = len(list((study.path / "trials").iterdir()))
    assert before and count < 60 and not study.finished()
    code, out, err = m3("jobs", "resume", id, f"trials={count + 2}", "--address", nodes.address, "--shared", "--follow")
    assert code == 0 and err == "" and "2 nodes" in out and "--resume tiny-1" in out, out + err
    assert f"results {study.results}" in out and re.search(r"^job \S+: SUCCEEDED$", out, re.MULTILINE)
    # The code ran from a copy that is no checkout.
    assert study.described()["git"]["commit"] == provenance.git_state()["commit"] is not None
    assert study.finished() and len(list((study.path / "trials").iterdir())) == count + 2
    assert all(path.read_bytes() == text for path, text in before.items())  # nothing ran twice
    assert not list((place / "runs").glob(".m3col-probe*"))


def dashboard_answer(nodes, path: str) -> str:
    request = urllib.request.Request(
        f"{nodes.address}{path}", headers={"Authorization": f"Bearer {nodes.token.read_text()}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def wait_for(condition, process):
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and process.poll() is None:
        if result := condition():
            return result
        time.sleep(0.1)
    process.kill()
    pytest.fail("".join(process.communicate()))
