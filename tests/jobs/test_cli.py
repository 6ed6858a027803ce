"""The `m3col` command: help, every sub-command on real files, and what its exit code says."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

import m3col
from jobs import cli
from jobs.commands import dispatch
from jobs.terminal import interrupt
from m3col.data import catalog, loading
from m3col.evaluation import test_ledger
from m3col.storage import atomic_files
from m3col.training import checkpoint
from tests.data.builders import edit, write_folder
from tests.support import fake_study
from tune import checks
from tune.engine import ray_cluster

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def m3(tmp_path, capsys, monkeypatch):
    """Runs a command; returns its exit code, standard output and standard error."""
    monkeypatch.setenv("M3COL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(interrupt, "on_interrupt", lambda message: None)  # this process keeps its signals
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    return m3col.train("digits", overrides={"train.epochs": 20}, runs=runs, tracking_uri="none").checkpoint


def ended(*words: str, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(words))
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_lists_the_commands_and_each_shows_an_example(capsys):
    text = ended("--help", capsys=capsys)
    assert "Example: m3col search digits" in text
    for name in ("train", "search", "report", "evaluate", "predict", "data", "ui", "sync", "runs"):
        assert name in text and name in dispatch.COMMANDS
        assert f"Example: m3col {name}" in ended(name, "--help", capsys=capsys)
    assert "Example: m3col data fetch" in ended("data", "fetch", "--help", capsys=capsys)
    assert set(dispatch.COMMANDS) == set(cli._EXAMPLES) == set(cli._HELP)


def test_train_prints_progress_metrics_and_where_the_checkpoint_is(m3, tmp_path):
    code, out, err = m3("train", "digits", "train.epochs=2", "objective.beta=0.2")
    assert code == 0 and err == ""
    assert out.startswith("epoch 1/2  loss ") and "test/accuracy" in out
    folder = tmp_path / "runs" / "train" / "digits-m3col-1"
    assert f"checkpoint {folder / 'model'}" in out
    assert m3col.load(folder / "model").config["objective"]["beta"] == 0.2


def test_train_goes_on_where_it_was_cut_off(m3, tmp_path, monkeypatch):
    class Cut(Exception):
        pass

    def report(record, epochs, folder):
        if record.epoch == 3:
            raise Cut

    monkeypatch.setattr(checkpoint, "_WRITING_SHARE", 1e9)
    with pytest.raises(Cut):
        m3col.train("digits", overrides={"train.epochs": 4, "checkpoint.every_s": 0}, runs=tmp_path / "elsewhere",
                    tracking_uri="none", report=report)  # fmt: skip
    folder = tmp_path / "elsewhere" / "train" / "digits-m3col-1"
    code, out, _ = m3("train", "--resume", folder)
    assert code == 0 and out.startswith("epoch 4/4") and (folder / "metrics.json").exists()
    # The ledger of the runs folder that it began in, not of the default one.
    assert len(test_ledger.entries(tmp_path / "elsewhere")) == 1 and not (tmp_path / "runs").exists()


def test_evaluate_scores_the_test_split_and_notes_it(m3, tmp_path, model):
    code, out, _ = m3("evaluate", model, "--runs-dir", tmp_path / "mine")
    test = loading.load("digits").test
    expected = m3col.load(model).predict_proba(test.inputs).argmax(1) == test.labels
    assert code == 0 and f"{expected.mean():.4f}" in out and "test/macro_f1" in out
    assert m3("evaluate", model, model, "--data", "digits", "--runs-dir", tmp_path / "mine")[0] == 0
    assert [entry["dataset"] for entry in test_ledger.entries(tmp_path / "mine")] == ["digits", "digits"]
    assert not (tmp_path / "runs").exists()


def test_predict_writes_label_probabilities_and_votes(m3, tmp_path, model):
    inputs = {name: x[:7] for name, x in loading.load("digits").test.inputs.items()}
    for name, x in inputs.items():
        np.savetxt(tmp_path / f"{name}.csv", x, delimiter=",", fmt="%.17g")
    words = [f"{name}={tmp_path}/{name}.csv" for name in inputs]
    code, out, _ = m3("predict", model, *words)
    rows = list(csv.DictReader(out.splitlines()))
    predictor = m3col.load(model)
    assert code == 0 and [row["label"] for row in rows] == predictor.predict(inputs).tolist()
    probabilities = np.array([[float(row[f"p({name})"]) for name in predictor.classes] for row in rows])
    assert np.allclose(probabilities, predictor.predict_proba(inputs), atol=1e-6)
    assert [row["vote(pixels)"] for row in rows] == [str(k) for k in predictor.votes(inputs)["pixels"].argmax(1)]
    code, printed, _ = m3("predict", model, *words, "--out", tmp_path / "out.csv")
    assert code == 0 and (tmp_path / "out.csv").read_text() == out and "7 predictions" in printed


def test_data_list_says_what_is_here(m3, shared_data):
    code, out, _ = m3("data", "list", "--data-dir", shared_data)
    rows = [[cell.strip() for cell in line.split("│")] for line in out.splitlines() if line.startswith("│")]
    here = {row[1]: row[2] for row in rows if row[1]}
    assert code == 0 and tuple(here) == catalog.names()
    assert here["digits"] == "embedded" and here["omics"] == "-" and here["rosmap"].startswith(str(shared_data)[:10])
    assert "pixels, fourier, gradients" in " ".join(row[3] for row in rows)


def test_data_check_prints_shapes_and_faults(m3, tmp_path):
    folder = write_folder(tmp_path / "mine")
    code, out, err = m3("data", "check", folder)
    assert code == 0 and "ok: this folder can be used" in out and "1_tr.csv" in out and err == ""
    edit(folder / "1_tr.csv", row=2, column=1, to="x")
    code, out, err = m3("data", "check", folder)
    assert code == 2 and "2_tr.csv" in out and err.startswith("error: ") and "row 2, column 1: 'x'" in err


def test_runs_are_listed_and_removed(m3, tmp_path):
    assert m3("runs", "list")[1] == f"no runs in {tmp_path / 'runs'}\n"
    fake_study.make(tmp_path / "runs", "digits-1")
    broken = fake_study.make(tmp_path / "runs", "newer")
    (broken.path / "study.json").write_text('{"format": 99}')
    m3("train", "digits", "train.epochs=1")
    (tmp_path / "runs" / "train" / "odd").mkdir()
    (tmp_path / "runs" / "train" / "odd" / "config.yaml").write_text("a: [")
    code, out, _ = m3("runs", "list")
    rows = [[cell.strip() for cell in line.split("│")[1:6]] for line in out.splitlines() if line.startswith("│")]
    assert code == 0 and sorted(rows) == [
        ["digits-1", "study", "unfinished", "digits", "m3col"],
        ["newer", "study", "unreadable", "", ""],
        ["train/digits-m3col-1", "training", "finished", "digits", "m3col"],
        ["train/odd", "training", "unreadable", "", ""],
    ]
    code, out, _ = m3("runs", "rm", "newer", "train/digits-m3col-1", "--yes")
    assert code == 0 and out.count("removed") == 2 and not broken.path.exists()
    assert (tmp_path / "runs" / "digits-1" / "study.json").exists()


def test_a_folder_may_have_brackets_in_its_name(m3, tmp_path):
    runs = tmp_path / "[/old] :x:"
    assert m3("runs", "list", "--runs-dir", runs)[1] == f"no runs in {runs}\n"


def test_a_study_in_use_is_not_removed_and_nothing_else_either(m3, tmp_path):
    locked, other = (fake_study.make(tmp_path / "runs", name) for name in ("digits-1", "digits-2"))
    locked.lock()
    code, out, err = m3("runs", "rm", "digits-2", "digits-1", "--yes")
    assert code == 2 and out == "" and f"{locked.path}: in use by process {os.getpid()}" in err
    assert locked.path.exists() and other.path.exists()
    locked.unlock()


def test_removing_asks_and_takes_no_for_an_answer(m3, tmp_path, monkeypatch):
    folder = fake_study.make(tmp_path / "runs", "digits-1")
    monkeypatch.setattr("builtins.input", lambda question: "n" if "remove" in question else "y")
    assert m3("runs", "rm", "digits-1")[0] == 0 and folder.path.exists()

    def no_terminal(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", no_terminal)
    code, _, err = m3("runs", "rm", "digits-1")
    assert code == 1 and "--yes" in err and folder.path.exists()
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert m3("runs", "rm", "digits-1")[0] == 0 and not folder.path.exists()


def raising(error: BaseException):
    def command(arguments):
        raise error

    return command


def chained() -> Exception:
    error = ValueError("no more room")
    error.__cause__ = sqlite3.OperationalError("database or disk is full")
    return error


@pytest.mark.parametrize(
    ("error", "code", "err"),
    [
        (RuntimeError("diverged"), 1, "failed: diverged\n"),
        (OSError(28, "No space left on device"), 1, "failed: [Errno 28] No space left on device\n"),
        (chained(), 1, "failed: no more room\n"),
        (BrokenPipeError(), 1, ""),
        (KeyboardInterrupt(), 130, ""),
        (m3col.InputError(["a", "b"]), 2, "error: a\nerror: b\n"),
    ],
)
def test_exit_codes(m3, monkeypatch, error, code, err):
    monkeypatch.setitem(dispatch.COMMANDS, "report", raising(error))
    assert m3("report", "x") == (code, "", err)


def test_a_bug_is_shown_with_its_traceback(m3, monkeypatch):
    monkeypatch.setitem(dispatch.COMMANDS, "report", raising(TypeError("a bug")))
    code, out, err = m3("report", "x")
    assert code == 1 and out == "" and err.startswith("Traceback") and err.endswith("TypeError: a bug\n")
    assert "in command" in err and Path(__file__).name in err


@pytest.mark.parametrize("kind", [m3col.InputError, RuntimeError, TypeError, UserWarning])
def test_no_password_is_shown_whatever_fails(m3, monkeypatch, kind):
    monkeypatch.setenv("PGPASSWORD", "h0rse-staple")
    text = "cannot reach http://ann:batt3ry@mlflow with h0rse-staple"
    error = kind([text] if kind is m3col.InputError else text)

    def command(arguments):
        if isinstance(error, Warning):
            warnings.warn(error, stacklevel=1)
            return 0
        raise error

    monkeypatch.setitem(dispatch.COMMANDS, "report", command)
    _, out, err = m3("report", "x")
    assert out == "" and "cannot reach http://***@mlflow with ***" in err
    assert "batt3ry" not in err and "h0rse-staple" not in err


def test_a_search_that_its_storage_stops_at_the_start_prints_how_to_resume(m3, monkeypatch, tmp_path):
    from m3col.storage.retry import StorageUnavailable
    from tune.engine import ray_tune
    from tune.study import remote_copy

    def refuse(self):
        raise StorageUnavailable("the storage refused a write for 3 s")

    monkeypatch.setattr(ray_cluster, "start_ray", lambda **named: False)
    monkeypatch.setattr(ray_tune, "check", lambda request, **named: None)
    monkeypatch.setattr(remote_copy.StorageCopy, "begin", refuse)
    code, out, err = m3("search", "digits", f"storage.uri={tmp_path}/store", "--name", "mine")
    assert code == 1 and out == ""
    assert err == (
        "failed: the storage refused a write for 3 s\nNothing that was finished is lost; resume with:\n"
        "  m3col search --resume mine\n"
    )


def test_warnings_are_lines_without_a_place_in_the_code(m3, monkeypatch):
    def command(arguments):
        warnings.warn("look here", stacklevel=1)
        warnings.warn("not for users", DeprecationWarning, stacklevel=1)
        return 0

    monkeypatch.setitem(dispatch.COMMANDS, "report", command)
    assert m3("report", "x") == (0, "", "warning: look here\n")


def test_resume_takes_an_override_as_an_override(m3, monkeypatch):
    seen = []

    def validate(config, *, overrides, options, **named):
        seen.append((config, options.resume, overrides))
        raise m3col.InputError(["stop"])

    monkeypatch.setattr(checks, "validate", validate)
    for words in (["digits", "--resume", "trials=80"], ["--resume", "digits-1", "trials=80"], ["digits", "--resume"]):
        assert m3("search", *words)[0] == 2
    assert seen == [("digits", True, {"trials": 80}), (None, "digits-1", {"trials": 80}), ("digits", True, {})]


@pytest.mark.parametrize(
    ("options", "cpus", "gpus"),
    [([], None, None), (["--cpus-per-worker", "0.5", "--gpus-per-worker", "0"], 0.5, 0.0)],
)
def test_what_workers_take_is_passed_on_and_repeated_in_the_resume_command(
    m3, monkeypatch, tmp_path, options, cpus, gpus
):
    import tune
    from m3col.training.history import Record

    calls, farewells = [], []

    def train(config, *, report, **named):
        calls.append((named["workers"], named["cpus_per_worker"], named["gpus_per_worker"]))
        record = Record(1, 0.0, None, {"train/loss": 1.0})
        (tmp_path / "run").mkdir()
        atomic_files.write_text(tmp_path / "run" / "history.jsonl", f"{json.dumps(record.to_dict())}\n")
        named["started"](tmp_path / "run")
        return SimpleNamespace(metrics={}, checkpoint="", dropped={})

    monkeypatch.setattr(tune, "train", train, raising=False)
    monkeypatch.setattr(interrupt, "claim", lambda: None)
    monkeypatch.setattr(interrupt, "on_interrupt", farewells.append)
    assert m3("train", "digits", "--workers", "2", *options)[0] == 0
    assert calls == [(2, cpus, gpus)]
    again = " ".join(["--resume", str(tmp_path / "run"), "--workers", "2", *options])
    assert farewells[0]() == f"Interrupted. Resume with: m3col train {again}"


def test_help_does_not_wait_for_torch():
    heavy = "('torch', 'numpy', 'pandas', 'ray', 'optuna', 'mlflow')"
    code = (
        "import sys; from jobs.cli import parser\ntry: parser().parse_args(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


TWO_WORKERS = pytest.mark.dear(reason="half a minute; test_ray_train.py has Ctrl-C given back by two workers")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "more"),
    [(signal.SIGTERM, 143, []), pytest.param(signal.SIGINT, 130, ["--workers", "2"], marks=TWO_WORKERS)],
)
def test_a_signal_ends_a_training_and_prints_how_to_resume(tmp_path, number, code, more):
    words = ["train", "digits", "train.epochs=1000000", "checkpoint.every_s=0", "--runs-dir", "runs"]
    words += ["--tracking-uri", "none", *more]
    process = subprocess.Popen([sys.executable, "-m", "jobs.cli", *words], cwd=tmp_path, env=ENVIRONMENT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    folder = tmp_path / "runs" / "train" / "digits-m3col-1"
    deadline = time.monotonic() + 240
    while not list(folder.glob("state/epoch-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == code and err == ""
    assert out == f"\nInterrupted. Resume with: m3col train {' '.join(['--resume', str(folder), *more])}\n"
    assert checkpoint.newest_training(folder) is not None
    assert len(below) >= 5 * len(more) and not psutil.wait_procs(below, timeout=10)[1]


_INTERRUPTED = """
import subprocess, sys, time
from jobs.terminal.interrupt import on_interrupt
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
def farewell():
    if len(sys.argv) > 1:
        print("hanging", flush=True)
        time.sleep(60)
    return "farewell"
on_interrupt(farewell)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_says_farewell_and_ends_children_the_second_ends_at_once(number, code):
    for words in ([], ["hang"]):
        process = subprocess.Popen([sys.executable, "-c", _INTERRUPTED, *words], env=ENVIRONMENT, text=True,
                                   stdout=subprocess.PIPE)  # fmt: skip
        child = int(process.stdout.readline())
        process.send_signal(number)
        if words:
            assert process.stdout.readline() == "hanging\n"
            process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=5)
        assert process.returncode == (130 if words else code) and out == ("" if words else "\nfarewell\n")
        deadline = time.monotonic() + 5
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_words_after_an_option_still_belong_to_the_command():
    from jobs.cli import _parse

    arguments = _parse(["search", "digits", "--name", "x", "trials=5", "--resume", "trials=80", "concurrency=1"])
    assert arguments.overrides == ["trials=5", "concurrency=1"] and arguments.resume == "trials=80"
    assert _parse(["train", "digits", "--runs-dir", "r", "objective.beta=0.2"]).overrides == ["objective.beta=0.2"]
    assert _parse(["predict", "m", "a=1.csv", "--out", "o", "b=2.csv"]).inputs == ["a=1.csv", "b=2.csv"]
    with pytest.raises(SystemExit):
        _parse(["search", "digits", "--name", "x", "trials"])
