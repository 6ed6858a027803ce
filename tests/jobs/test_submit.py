"""What `m3col submit` validates and sends, as far as no cluster is needed for it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package

from jobs import cli
from jobs.cluster import client, preflight, staging, submit
from jobs.cluster.staging import staged
from jobs.cluster.submission import Submission
from m3col.errors import InputError
from tests.conftest import REPOSITORY
from tune.engine import auth
from tune.study import provenance

SPACE = "space: {objective.beta: {low: 0.01, high: 1.0}}\n"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No address, token or tracking server from outside, and no cluster."""
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "MLFLOW_TRACKING_URI", auth.TOKEN, auth.TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def refused(capsys, *words: object) -> list[str]:
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and "Traceback" not in err, (code, out, err)
    return [line.removeprefix("error: ") for line in err.splitlines()]


@pytest.mark.parametrize(
    ("address", "valid"),
    [
        ("auto", "'http://HEAD:8265'"),
        ("10.0.0.7:6379", "'http://10.0.0.7:8265'"),
        ("ray://head:10001", "'http://head:8265'"),
        ("http://head:port", "'http://head:8265'"),
        ("http://", "'http://HEAD:8265'"),
    ],
)
def test_an_address_that_is_no_dashboard(capsys, address, valid):
    (line,) = refused(capsys, "jobs", "list", "--address", address)
    assert line == f"--address {address!r}: must be the http address of the cluster's dashboard; nearest valid: {valid}"


def test_the_address_comes_from_the_environment_where_it_is_a_dashboard(capsys, monkeypatch):
    assert refused(capsys, "jobs", "list") == ["--address: name the cluster's dashboard, such as http://HEAD:8265"]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")  # for `search`, not for jobs
    assert "name the cluster's dashboard" in refused(capsys, "jobs", "list")[0]
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265/")
    assert client.address_of(None) == "http://head:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://other")
    assert client.address_of(None) == "https://other" and client.address_of("http://given:1") == "http://given:1"


def test_all_faults_of_options_address_and_config_at_once(capsys, tmp_path):
    (tmp_path / "x.yaml").write_text(f"base: digits\n{SPACE}search: {{trials: none}}\n")
    faults = refused(
        capsys, "submit", "x.yaml", "objective.temprature=1", "--address", "http://me:s3cret@head:8265", "--runs-dir",
        "runs", "--data-dir", "data", "--tracking-uri", "http://me:s3cret@mlflow", "--name", "a b", "--resume", "c",
    )  # fmt: skip
    text = "\n".join(faults)
    for part in (
        "--address http://***@head:8265: must not hold a password",
        "--runs-dir runs: is a folder of the cluster; give its absolute path",
        "--data-dir data: is a folder of the cluster",
        "--tracking-uri http://***@mlflow: must not hold a password",
        "--name a b: a resumed study keeps its name",
        "did you mean 'objective.temperature'?",
        "x.yaml: search.trials",
        "--name 'a b': must be letters and digits",
    ):
        assert part in text, (part, text)
    assert "s3cret" not in text and len(faults) == len(set(faults)) == 8


def test_a_missing_token_is_reported_with_the_other_faults(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(auth.MODE, "token")
    monkeypatch.setenv(auth.TOKEN_PATH, str(tmp_path / "nosuch"))
    first, second = refused(capsys, "submit", "digits", "nonsense=1", "--address", "http://127.0.0.1:9")
    assert first.startswith(f"{auth.TOKEN_PATH}: there is no token in {tmp_path / 'nosuch'}")
    assert "unknown key 'nonsense'" in second


def test_no_config_and_local_tracking_files(capsys):
    faults = submit.faults(Submission(None, tracking_uri="sqlite:///mlflow.db"))
    assert "submit: name a config" in faults[0] and "nearest valid: 'sqlite:////shared/runs/mlflow.db'" in faults[1]
    assert submit.faults(Submission("digits", tracking_uri="sqlite:////shared/mlflow.db")) == []
    (line,) = submit.faults(Submission("digits", ("tracking.uri=sqlite:///mlflow.db",)))
    assert line.startswith("tracking.uri sqlite:///mlflow.db: the file would be in the job's temporary folder")
    assert "several studies" in submit.faults(Submission("digits", ("datasets=[digits, rosmap]",), name="x"))[0]


@pytest.mark.parametrize("config", ["digits", None])
@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("storage.database", "storage.database=postgresql://u:s3cret@h/db"),
        ("storage.database", "storage={database: 'postgresql://u:s3cret@h/db'}"),
        ("tracking.uri", "tracking.uri=http://u:s3cret@h"),
        ("data.dir", "data.dir=https://u:s3cret@h/data"),
    ],
)
def test_no_password_in_an_override_is_sent(config, key, word):
    resumed = None if config else "digits-1"
    (line,) = submit.faults(Submission(config, ("search.trials=3", word), resume=resumed))
    assert line.startswith(f"overrides: {key} must hold no password") and "s3cret" not in line and "***" in line


def test_a_tracking_server_of_the_environment_is_sent_with_the_job(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert submit.with_environment(Submission("digits")).tracking_uri == "http://mlflow:5000"
    assert submit.with_environment(Submission("digits", tracking_uri="none")).tracking_uri == "none"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////home/me/mlflow.db")  # a file of this machine
    assert submit.with_environment(Submission("digits")).tracking_uri is None


def test_packages_and_configs_are_sent_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "x.yaml").write_text(SPACE)
    package = SimpleNamespace(__file__=str(tmp_path / "more" / "__init__.py"))
    monkeypatch.setattr(staging, "_PACKAGES", (*staging._PACKAGES, package))
    for name in (
        "more/__init__.py",
        "more/weights.bin",
        "more/part/a.py",
        "more/__pycache__/a.py",
        "data/big.csv",
        "runs/digits-1/study.json",
        ".git/config",
        ".venv/bin/python",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not to be sent")
    with staged("x.yaml", ["search.trials=3"]) as stage:
        stage.ask("an-id", {"name": "n"})
        create_package(str(stage.folder), tmp_path / "package.zip", include_gitignore=True)
        assert stage.config == "given/x.yaml" and list(stage.words) == ["search.trials=3"]
    assert not stage.folder.exists()
    names = zipfile.ZipFile(tmp_path / "package.zip").namelist()
    assert {name.partition("/")[0] for name in names} == {"m3col", "tune", "jobs", "more", "given", "request.json"}
    kinds = {Path(name).suffix for name in names if not name.endswith("/")}
    assert kinds <= {".py", ".typed", ".yaml", ".json", ".css", ".js"} and not any(
        "__pycache__" in name for name in names
    )
    assert {
        "m3col/configs/train/digits.yaml",
        "m3col/losses/m3co.py",
        "given/x.yaml",
        "more/part/a.py",
    } <= set(names)
    assert (tmp_path / "package.zip").stat().st_size < 3e6


def test_a_copy_that_is_sent_knows_the_commit_that_it_was_made_of(monkeypatch):
    state = {"commit": "a1b2c3", "dirty": True}
    monkeypatch.setattr(provenance, "git_state", lambda: state)
    with staged("digits", []) as stage:
        code = "import json; from tune.study import provenance; print(json.dumps(provenance.git_state()))"
        printed = subprocess.run([sys.executable, "-c", code], cwd=stage.folder, capture_output=True, check=True).stdout
    assert json.loads(printed) == state


def test_no_two_uploads_are_the_same():
    with staged("digits", []) as stage:
        stage.ask("one", {})
        first = (stage.folder / preflight.REQUEST).read_text()
        stage.ask("two", {})
        assert (stage.folder / preflight.REQUEST).read_text() != first


def test_shipped_configs_keep_their_names_and_files_that_runs_come_from_travel_too(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/run.yaml").write_text("data: {name: digits}\n")
    (tmp_path / "run.yaml").write_text("data: {name: rosmap}\n")
    (tmp_path / "x.yaml").write_text(f"base: {tmp_path / 'a/run.yaml'}\n{SPACE}")
    with staged("configs/search/rosmap.yaml", []) as stage:
        assert stage.config == "rosmap" and not (stage.folder / staging.GIVEN).exists()
    with staged("x.yaml", ["datasets=[run.yaml, digits]", "trials=3"]) as stage:
        assert stage.words == ("trials=3",)
        sent = yaml.safe_load((stage.folder / str(stage.config)).read_text())
        assert sent["datasets"][1] == "digits" and "objective.beta" in sent["space"]
        assert (stage.folder / sent["base"]).read_text() == "data: {name: digits}\n"
        assert (stage.folder / sent["datasets"][0]).read_text() == "data: {name: rosmap}\n"


def test_an_upload_that_is_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x.yaml").write_text(SPACE + "# " + "x" * 300_000)
    monkeypatch.setattr(staging, "_LIMIT_BYTES", 200_000)
    largest = r"the largest files: given/x\.yaml \(0\.3 MB\)"
    with pytest.raises(InputError, match=rf"must be at most 0 MB; {largest}"), staged("x.yaml", []):
        pass


def test_the_job_can_be_started_again():
    submission = Submission("x.yaml", tracking_uri="none", data_dir="/data")
    words = submit.search_words(submission, config="given/x.yaml", words=["trials=3"], name="x-1", runs="/r")
    assert words[2:] == [
        "jobs.cli", "search", "given/x.yaml", "trials=3", "--name", "x-1", "--resume", "auto", "--address", "auto",
        "--plain", "--runs-dir", "/r", "--tracking-uri", "none", "--data-dir", "/data",
    ]  # fmt: skip
    cli.parser().parse_args(words[3:])
    words = submit.search_words(Submission(None, resume="x-1"), config=None, words=[], name="x-1", runs="/r")
    assert words[3:6] == ["search", "--resume", "x-1"] and "auto" not in words[:6]
    submission = Submission("x.yaml", ("a=1",), "n", None, "/r", "none", "/d", True)
    assert Submission.from_json(submission.to_json()) == submission


def test_a_request_without_what_is_newer_is_read():
    assert Submission.from_json('{"config": null}') == Submission(None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"config": "x", "priority": 3, "pool": "a"}', "options that this version does not know: pool, priority"),
        ('{"config": 3, "shared": "yes", "words": ["a", 1]}', "damaged: config, shared, words"),
        ('{"words": []}', "damaged: config"),
        ("[1]", "cannot be read"),
        ("{", "cannot be read"),
    ],
)
def test_a_job_of_another_version_is_shown_and_not_resumed(capsys, monkeypatch, text, words):
    tags = {client.REQUEST: text, client.VERSION: "9.1", client.STUDY: "rosmap-1"}
    job = SimpleNamespace(
        submission_id="a-1", metadata=tags, status=SimpleNamespace(value="FAILED"), start_time=None, end_time=None,
        message=None, entrypoint="python -m jobs.cli search",
    )  # fmt: skip
    cluster = SimpleNamespace(address="http://head:8265", job=lambda id: job)
    monkeypatch.setattr(client, "connect", lambda address: cluster)
    assert cli.main(["jobs", "status", "a-1", "--address", cluster.address]) == 0
    assert capsys.readouterr().out.splitlines()[1:4] == ["state    FAILED", "study    rosmap-1", "m3col    9.1"]
    (line,) = refused(capsys, "jobs", "resume", "a-1", "--address", cluster.address)
    assert line.startswith("job 'a-1': its request") and words in line and "submitted by m3col 9.1" in line


def test_every_file_of_the_packages_is_sent():
    with staged("digits", []) as stage:
        for package in ("m3col", "tune", "jobs"):
            own = [path for path in (REPOSITORY / package).rglob("*") if path.is_file()]
            missing = [
                str(path.relative_to(REPOSITORY))
                for path in own
                if "__pycache__" not in path.parts and not (stage.folder / path.relative_to(REPOSITORY)).exists()
            ]
            assert missing == []
