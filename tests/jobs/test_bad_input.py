"""Bad input on the command line: exit code 2, every fault at once in one line each, no traceback, nothing written.

Ray never starts here: every fault is detected before.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cli
from jobs.terminal import interrupt
from m3col.data import catalog
from m3col.data.checks.check_folder import check
from m3col.tracking import mlflow_store
from tests.data.builders import edit, write_folder
from tests.jobs.bad_folders import BAD_FOLDERS

SPACE = "space: {objective.beta: {low: 0.01, high: 1.0}}\n"


@pytest.fixture
def refuse(tmp_path, capsys, monkeypatch):
    """Runs a command that must be refused; returns its lines."""
    monkeypatch.setenv("M3COL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    monkeypatch.setattr(interrupt, "on_interrupt", lambda message: None)  # this process keeps its signals
    monkeypatch.chdir(tmp_path)
    connect = mlflow_store.connect

    def only_named(uri, runs, **named):
        # What comes after judging: bad input that is let through must not start a search here.
        return connect(uri, runs, **named) if uri else pytest.fail("accepted as valid input")

    monkeypatch.setattr(mlflow_store, "connect", only_named)

    def run(*words: object, writes: bool = False) -> list[str]:
        before = sorted(tmp_path.rglob("*"))
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert code == 2 and out == "" and err.endswith("\n"), (code, out, err)
        lines = err.splitlines()
        assert all(line.startswith("error: ") for line in lines), err
        assert len(set(lines)) == len(lines) and "Traceback" not in err, err
        assert writes or sorted(tmp_path.rglob("*")) == before
        assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
        return [line.removeprefix("error: ") for line in lines]

    return run


@pytest.fixture
def yaml(tmp_path):
    def write(text: str, name: str = "x.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_a_misspelt_key_on_the_command_line(refuse):
    assert refuse("train", "digits", "objective.temprature=1") == [
        "overrides: unknown key 'objective.temprature'; did you mean 'objective.temperature'?"
    ]
    assert refuse("search", "digits", "objective.temprature=1") == [
        "overrides: unknown key 'objective.temprature'; did you mean 'objective.temperature'?"
    ]


def test_a_name_that_does_not_exist(refuse):
    near_search, near_train = (
        "brca_table2, digit_sums, digits, emoji, food101_table3",
        "brca, digit_sums, digits, emoji, food101",
    )
    for command, near in (("search", near_search), ("train", near_train)):
        (line,) = refuse(command, "nosuch")
        assert line.startswith(f"config 'nosuch': no such file, and no shipped {command} config; choose from {near}")


def test_all_faults_of_file_space_rows_words_and_data_at_once(refuse, yaml, tmp_path):
    folder = write_folder(tmp_path / "mine")
    edit(folder / "1_tr.csv", row=3, column=2, to="abc")
    edit(folder / "labels_te.csv", row=2, to="7")
    path = yaml(f"""
base: omics
serch: 1
overrides: {{train.epochs: -3, objective.alpha: .nan, train.learning_rate: .inf, model.dropout: a, data.dir: {folder}}}
search: {{trials: 0, sampler: tpee, replicates: true}}
space:
  objective.betaa: {{low: 0, high: 1}}
  objective.beta: {{low: 0.5, high: 1.0}}
  objective.temperature: {{low: .nan, high: 1}}
  data.name: [a]
final: {{rows: {{a: {{methd: x}}}}, refit: bla}}
""")
    lines = refuse("search", path, "nokey", "train.seed=1.5", "--name", "a/b")
    text = "\n".join(lines)
    for words in (
        "override 'nokey': must have the form key.path=value",
        f"{path}: unknown key 'serch'; did you mean 'search'?",
        f"{path}: search.trials must be >= 1, but got 0; the nearest valid value is 1",
        f"{path}: search.sampler must be one of tpe, random, gp, grid, cmaes, nsga2, nsga3, but got 'tpee'; "
        "did you mean 'tpe'?",
        f"{path}: search.replicates must be a whole number, but got True",
        f"{path}: final.refit must be one of full, given, but got 'bla'",
        f"{path}, overrides: train.epochs must be >= 1, but got -3; the nearest valid value is 1",
        f"{path}, overrides: objective.alpha must be a finite number, but got NaN",
        f"{path}, overrides: train.learning_rate must be a finite number, but got inf",
        f"{path}, overrides: model.dropout must be a number, but got 'a'",
        "overrides: train.seed must be a whole number, but got 1.5; the nearest valid value is 2",
        f"{path}: space.objective.betaa: no such config key; did you mean 'objective.beta'?",
        f"{path}: space.objective.beta: the default 0.1 is outside 0.5..1; the range 0.1..1 would contain it",
        f"{path}: space.objective.temperature.low must be a finite number, but got nan",
        f"{path}: space.data.name: cannot be searched",
        f"{path}: final.rows.a: unknown key 'methd'; did you mean 'method'?",
        f"{folder}/1_tr.csv: row 3, column 2: 'abc' is not a number",
    ):
        assert words in text, words
    assert len(lines) >= 17


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("space: 3", "space must be a mapping, but got 3"),
        ("base: digits", "space must name at least one config path"),
        ("", "space must name at least one config path"),
        (SPACE + "final: {rows: [a]}", "final.rows must be a mapping, but got ['a']"),
        (SPACE + "overrides: text", "overrides must be a mapping, but got 'text'"),
        (SPACE + "overrides: {metric: val/macro_f2}", "'val/macro_f2' is never reported; did you mean 'val/macro_f1'?"),
        (SPACE + "overrides: {metric: train/loss}", "metric 'train/loss' is of the training samples"),
        (SPACE + "overrides: {metric: val/auroc}", "metric 'val/auroc' is for two classes, but the data has 10"),
        (SPACE + "overrides: {method: concat}", "space.objective.beta: method 'concat' ignores this key"),
        (SPACE + "validation: {folds: 99}", "validation.folds: 99 folds, but class"),
        (SPACE + "final: {refit: given}", "final.refit 'given' needs a validation split"),
        (
            SPACE + "final: {published: {acuracy: {default: 1}}}",
            "'acuracy' is never reported; did you mean 'accuracy'?",
        ),
        (SPACE + "base: digits\nbase: rosmap", "x.yaml:3: not valid YAML (key 'base' stands twice)"),
        (SPACE + "methods: [single, m3col]", "method 'single' needs data.modalities"),
        (
            SPACE + "overrides: {data.modalities: [pixels, pixel]}",
            "modality 'pixel' is unknown; did you mean 'pixels'?",
        ),
        (SPACE + "overrides: {objective.class_weight: [1, 1]}", "one weight for each of the 10 classes, but has 2"),
        (SPACE + "final: {rows: {a: {metric: val/x}}}", "final.rows.a: metric 'val/x' is never reported"),
    ],
)
def test_a_search_that_cannot_be(refuse, yaml, text, words):
    lines = refuse("search", yaml(text + "\n"))
    assert len(lines) == 1 and words in lines[0] and "x.yaml" in lines[0], lines


def test_a_file_that_is_no_config(refuse, yaml, tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"method: \xff\n")
    assert "must be UTF-8" in refuse("train", tmp_path / "latin.yaml")[0]
    assert "no such file; did you mean" in refuse("train", tmp_path / "latim.yaml")[0]
    assert "not valid YAML" in refuse("search", yaml("a: [\n"))[0]
    assert "use `m3col search`" in refuse("train", yaml(SPACE))[0]
    assert "stand below 'overrides'" in refuse("search", yaml("train: {epochs: 3}\n" + SPACE))[0]


@pytest.mark.parametrize("fault", BAD_FOLDERS)
def test_data_that_cannot_be_used(refuse, tmp_path, fault):
    spoil, words = BAD_FOLDERS[fault]
    folder = write_folder(tmp_path / "mine")
    spoil(folder)
    for command in ("train", "search"):
        config = "omics" if command == "train" else tmp_path / "x.yaml"
        (tmp_path / "x.yaml").write_text("base: omics\nvalidation: {folds: 2}\n" + SPACE)
        text = "\n".join(refuse(command, config, "--data-dir", folder))
        assert all(word in text for word in words), text
    if fault != "nan":  # which data check cannot call a fault: it depends on data.preprocess
        text = "\n".join(check(folder).faults)
        assert all(word in text for word in words), text


def test_folds_and_classes_of_the_data(refuse, tmp_path):
    folder = write_folder(tmp_path / "mine", classes=3)
    (line,) = refuse("train", "omics", "validation.kind=kfold", "validation.folds=5", "--data-dir", folder)
    assert line.startswith("overrides: validation.folds: 5 folds, but class 0") and "at most 4 folds" in line


def test_data_that_is_not_there(refuse, tmp_path, monkeypatch):
    monkeypatch.delenv("M3COL_DATA", raising=False)
    (line,) = refuse("train", "rosmap")
    assert "looked in" in line and str(tmp_path / "data") in line and "m3col data fetch rosmap" in line
    assert "is not a folder" in refuse("train", "digits", "--data-dir", tmp_path / "no")[0]
    assert "is not a folder" in refuse("search", "digits", "--data-dir", tmp_path / "no")[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    import m3col

    runs = tmp_path_factory.mktemp("runs")
    return m3col.train("digits", overrides={"train.epochs": 1}, runs=runs, tracking_uri="none").checkpoint


def test_checkpoints_that_cannot_be_read(refuse, tmp_path, model):
    described = json.loads((model / "checkpoint.json").read_text())
    member = (model / "member-0.safetensors").read_bytes()
    spoiled = {
        "newer": ({**described, "format": 9}, member, "checkpoint format 9 is newer than this version reads (1)"),
        "foreign": ({**described, "made_by": "x"}, member, "foreign"),
        "cut": (described, member[:-4], "member-0.safetensors: cannot be read as safetensors"),
        "state": ({**described, "kind": "training"}, member, "must be a model checkpoint"),
    }
    for name, (description, content, words) in spoiled.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "checkpoint.json").write_text(json.dumps(description))
        (folder / "member-0.safetensors").write_bytes(content)
        for command in (("evaluate", folder), ("predict", folder, "pixels=x.csv")):
            (line,) = refuse(*command)
            assert words in line and str(folder) in line
    assert "not a checkpoint" in refuse("evaluate", tmp_path / "nothing")[0]
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "checkpoint.json").write_text("{")
    assert "not readable as JSON" in refuse("predict", tmp_path / "y", "pixels=x.csv")[0]


def test_predict_reports_all_faults_of_its_files_at_once(refuse, tmp_path, model):
    (tmp_path / "p.csv").write_text("1,2\n3,x\n")
    lines = refuse("predict", model, f"pixels={tmp_path}/p.csv", "fourierr=f.csv", f"fourier={tmp_path}/no.csv",
                   "pixels=p.csv", "--out", tmp_path / "no" / "out.csv")  # fmt: skip
    text = "\n".join(lines)
    for words in (
        "p.csv: row 2, column 2: 'x' is not a number",
        "'fourierr=f.csv': must have the form modality=file.csv; did you mean 'fourier'?",
        "no.csv: the file is missing",
        "modality 'pixels' is given twice",
        "modality 'gradients' is missing; add gradients=file.csv",
        "is not a folder",
    ):
        assert words in text, text
    (tmp_path / "p.csv").write_text("1,2\n3,4\n")
    files = [f"{name}={tmp_path}/p.csv" for name in ("pixels", "fourier", "gradients")]
    assert len(refuse("predict", model, *files)) == 3  # widths
    assert "is a folder" in refuse("predict", model, *files, "--out", tmp_path)[0]


def test_evaluate_refuses_other_data(refuse, tmp_path, model):
    assert "'digts' is unknown; did you mean 'digits'?" in refuse("evaluate", model, "--data", "digts")[0]
    folder = write_folder(tmp_path / "mine")
    assert "modality 'pixels' is unknown" in refuse("evaluate", model, "--data", "omics", "--data-dir", folder)[0]
    description = json.loads((model / "checkpoint.json").read_text())
    for name, changes, words in (
        ("memory", {"config": {**description["config"], "data": {"name": "arrays"}}}, "--data"),
        ("classes", {"classes": [f"c{k}" for k in range(10)]}, "has the classes"),
    ):
        copy = shutil.copytree(model, tmp_path / name)
        (copy / "checkpoint.json").write_text(json.dumps({**description, **changes}))
        assert words in refuse("evaluate", copy)[0]


@pytest.mark.parametrize("runs", ["file", "file/below/it"])
def test_a_runs_folder_that_cannot_be_written(refuse, tmp_path, model, runs):
    (tmp_path / "file").write_text("")
    for command in (("train", "digits"), ("search", "digits"), ("evaluate", model)):
        (line,) = refuse(*command, "--runs-dir", tmp_path / runs)
        assert f"{tmp_path / runs}: cannot be written, because {tmp_path / 'file'} is a file" in line


def test_too_little_disk(refuse, monkeypatch, tmp_path):
    usage = type(shutil.disk_usage(tmp_path))(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    for command, what in (("train", "a training run"), ("search", "a search")):
        (line,) = refuse(command, "digits")
        assert what in line and "needs about" in line and "MB are free" in line


def test_names_that_cannot_be_or_are_not_there(refuse, tmp_path):
    (tmp_path / "runs" / "mine" / "trials").mkdir(parents=True)
    assert "nearest valid: 'a-b'" in refuse("search", "digits", "--name", "a/b")[0]
    assert "exists; resume it with --resume mine" in refuse("search", "digits", "--name", "mine")[0]
    assert "leave --name or --resume out" in "\n".join(refuse("search", "digits", "--name", "b", "--resume"))
    assert "no study of 'digits'" in refuse("search", "digits", "--resume")[0]
    for command in (("search", "--resume", "no"), ("report", "no"), ("sync", "no")):
        assert "study 'no': not found" in refuse(*command)[0]
    assert "there is no study 'no'" in refuse("train", "no#3")[0]
    assert "not the folder of a training run" in refuse("train", "--resume", tmp_path)[0]
    for command in ("train", "search"):
        assert f"{command}: name a config" in refuse(command)[0]
    assert "is not a study or training run" in refuse("runs", "rm", "no", "../..")[1]
    assert "name what to remove" in refuse("runs", "rm")[0]
    assert "did you mean 'rosmap'" in refuse("data", "fetch", "rosmapp", "--to", tmp_path / "d")[0]
    assert "is not a folder" in refuse("data", "check", tmp_path / "no")[0]


def test_a_tracking_server_that_cannot_be_reached(refuse):
    for command in ("train", "search"):
        (line,) = refuse(command, "digits", "--tracking-uri", "http://127.0.0.1:9")
        assert line.startswith("tracking.uri http://127.0.0.1:9: the MLflow store cannot be reached")


def test_a_file_of_mlflow_that_cannot_be_made(refuse, tmp_path):
    (tmp_path / "file").write_text("")
    uri = f"sqlite:///{tmp_path}/file/mlflow.db"
    (line,) = refuse("search", "digits", "--tracking-uri", uri, writes=True)
    assert line.startswith(f"tracking.uri {uri}: the MLflow store cannot be reached")


@pytest.mark.parametrize("words", [["serch"], [], ["search", "digits", "--nme", "x"], ["runs", "lst"], ["data"]])
def test_unknown_words_end_with_2_as_well(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2 and "usage: m3col" in capsys.readouterr().err


def test_in_a_process_of_its_own_there_is_no_traceback_either(tmp_path):
    done = subprocess.run([sys.executable, "-m", "jobs.cli", "search", "digits", "trials=0", "objective.beta=.nan"],
                          cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})  # fmt: skip
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 2, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_named_data_sets_is_what_is_offered(refuse):
    (line,) = refuse("train", "digits", "data.name=zzz")
    assert all(name in line for name in catalog.names())


def test_workers_and_resume_auto(refuse):
    assert refuse("train", "digits", "nonsense=1", "--workers", "0") == [
        "--workers 0: must be >= 1; nearest valid: 1",
        *refuse("train", "digits", "nonsense=1"),
    ]
    (line,) = refuse("train", "digits", "--address", "auto")
    assert line.startswith("--address: a single worker trains in this process; give --workers 2 or more")
    options = ["--cpus-per-worker", "0", "--gpus-per-worker", "-1"]
    assert refuse("train", "digits", "--workers", "2", *options) == [
        "--cpus-per-worker 0: must be > 0; nearest valid: 1",
        "--gpus-per-worker -1: must be >= 0; nearest valid: 0",
    ]
    assert refuse("train", "digits", "--cpus-per-worker", "0.5", "--gpus-per-worker", "1") == [
        "--cpus-per-worker 0.5: is for several workers; set resources.threads, or leave it out",
        "--gpus-per-worker 1: is for several workers; nearest valid: 0",
    ]
    (line,) = refuse("search", "--resume", "auto")
    assert line.startswith("search: name a config")


def test_addresses_that_are_none(refuse):
    lines = refuse("search", "digits", "storage.database=postgresql://h:port/db", "storage.uri=s3://[x")
    assert [line.partition(", but got")[0] for line in lines] == [
        "overrides: storage.uri must be s3://bucket/prefix or an absolute path",
        "overrides: storage.database must be an SQLAlchemy URL",
    ]
