"""What `m3col submit` judges and sends, as far as no cluster is needed for it."""

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
from m3col.checks.resolve import layout
from m3col.config.loading import load
from m3col.data import loading
from m3col.errors import InputError
from tests.support import pairs
from tune import checks
from tune.engine import auth, capacity
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
    found = refused(
        capsys, "submit", "x.yaml", "objective.temprature=1", "--address", "http://me:s3cret@head:8265", "--runs-dir",
        "runs", "--data-dir", "data", "--tracking-uri", "http://me:s3cret@mlflow", "--name", "a b", "--resume", "c",
    )  # fmt: skip
    text = "\n".join(found)
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
    assert "s3cret" not in text and len(found) == len(set(found)) == 8


def test_no_config_and_local_tracking_files(capsys):
    found = submit.faults(Submission(None, tracking_uri="sqlite:///mlflow.db"))
    assert "submit: name a config" in found[0] and "nearest valid: 'sqlite:////shared/runs/mlflow.db'" in found[1]
    assert submit.faults(Submission("digits", tracking_uri="sqlite:////shared/mlflow.db")) == []
    (line,) = submit.faults(Submission("digits", ("tracking.uri=sqlite:///mlflow.db",)))
    assert line.startswith("tracking.uri sqlite:///mlflow.db: the file would lie in the job's temporary folder")
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


def test_a_tracking_server_of_the_environment_is_meant_for_the_job_too(monkeypatch):
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
    assert kinds <= {".py", ".typed", ".yaml", ".json"} and not any("__pycache__" in name for name in names)
    assert {
        "m3col/configs/train/digits.yaml",
        "m3col/losses/m3co.py",
        "given/x.yaml",
        "more/part/a.py",
    } <= set(names)
    assert (tmp_path / "package.zip").stat().st_size < 1.5e6


def test_a_copy_that_is_sent_knows_the_commit_that_it_was_made_of(monkeypatch):
    state = {"commit": "a1b2c3", "dirty": True}
    monkeypatch.setattr(provenance, "git_state", lambda: state)
    with staged("digits", []) as stage:
        code = "import json; from tune.study import provenance; print(json.dumps(provenance.git_state()))"
        said = subprocess.run([sys.executable, "-c", code], cwd=stage.folder, capture_output=True, check=True).stdout
    assert json.loads(said) == state


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


def test_what_is_too_large_is_said_before_it_is_sent(tmp_path, monkeypatch):
    (tmp_path / "x.yaml").write_text(SPACE + "# " + "x" * 300_000)
    monkeypatch.setattr(staging, "_LIMIT_BYTES", 200_000)
    largest = r"the largest files: given/x\.yaml \(0\.3 MB\)"
    with pytest.raises(InputError, match=rf"must be at most 0 MB; {largest}"), staged("x.yaml", []):
        pass


def test_the_job_can_be_started_again():
    wanted = Submission("x.yaml", tracking_uri="none", data_dir="/data")
    words = submit.search_words(wanted, config="given/x.yaml", words=["trials=3"], name="x-1", runs="/r")
    assert words[2:] == [
        "jobs.cli", "search", "given/x.yaml", "trials=3", "--name", "x-1", "--resume", "auto", "--address", "auto",
        "--plain", "--runs-dir", "/r", "--tracking-uri", "none", "--data-dir", "/data",
    ]  # fmt: skip
    cli.parser().parse_args(words[3:])
    words = submit.search_words(Submission(None, resume="x-1"), config=None, words=[], name="x-1", runs="/r")
    assert words[3:6] == ["search", "--resume", "x-1"] and "auto" not in words[:6]
    wanted = Submission("x.yaml", ("a=1",), "n", None, "/r", "none", "/d", True)
    assert Submission.from_json(wanted.to_json()) == wanted


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
    known = {client.REQUEST: text, client.VERSION: "9.1", client.STUDY: "rosmap-1"}
    job = SimpleNamespace(
        submission_id="a-1", metadata=known, status=SimpleNamespace(value="FAILED"), start_time=None, end_time=None,
        message=None, entrypoint="python -m jobs.cli search",
    )  # fmt: skip
    there = SimpleNamespace(address="http://head:8265", job=lambda id: job)
    monkeypatch.setattr(client, "connect", lambda address: there)
    assert cli.main(["jobs", "status", "a-1", "--address", there.address]) == 0
    assert capsys.readouterr().out.splitlines()[1:4] == ["state    FAILED", "study    rosmap-1", "m3col    9.1"]
    (line,) = refused(capsys, "jobs", "resume", "a-1", "--address", there.address)
    assert line.startswith("job 'a-1': its request") and words in line and "submitted by m3col 9.1" in line


def answer() -> dict:
    return {"faults": [], "warnings": [], "notes": []}


def test_versions_are_compared():
    ours = {**preflight.here(), "requires": ["numpy", "no-such-package"]}
    there = {"python": "3.9", "ray": "2.9.0", "torch": "2.0.0", "m3col": "0.0.1"}
    told = answer()
    faults = preflight.version_faults(ours, there, told)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"Python on the cluster is 3.9, here it is {python}" in faults[0] and "Ray on the cluster" in faults[1]
    assert faults[2].startswith("on the cluster these packages are missing: no-such-package;") and len(faults) == 3
    assert "torch on the cluster is 2.0.0" in told["warnings"][0]
    assert "m3col 0.0.1 is installed there; the job uses" in told["notes"][0]
    assert preflight.version_faults({**ours, "requires": ["numpy"]}, preflight.here(), told) == []
    assert {"numpy", "ray", "torch", "optuna", "mlflow"} <= set(submit._required())
    assert not {"pytest", "ruff"} & set(submit._required())


NODES = [{"NodeID": name, "NodeManagerAddress": f"10.0.0.{n}"} for n, name in enumerate("ab", 1)]


@pytest.mark.parametrize(
    ("uris", "options", "fault"),
    [
        (set(), {}, "the cluster has 2 nodes, and this is a folder of one of them; say --shared"),
        (set(), {"database": True}, "storage.database alone moves the Optuna study only"),
        ({"/mnt/studies"}, {}, "the cluster has 2 nodes"),
    ],
)
def test_a_folder_of_one_node_is_refused_on_several(uris, options, fault):
    given = {"shared": False, "database": False, **options}
    (line,) = preflight._folder_faults("/r", NODES, uris, answer=answer(), **given)
    assert fault in line


@pytest.mark.parametrize("database", [False, True])
def test_on_one_node_its_own_disk_is_a_warning(database):
    told = answer()
    assert preflight._folder_faults("/r", NODES[:1], set(), shared=False, database=database, answer=told) == []
    (line,) = told["warnings"]
    assert line.startswith(
        "/r is on the only node's own disk: a node that joins later and does not see it takes a trial"
    )
    assert "the search then stops, with the command to go on" in line


def test_files_of_images_and_encoders_that_a_node_does_not_see(tmp_path, monkeypatch):
    """Told beside a runs folder that is on one node only; on the driver's own node they have been judged already."""
    there, gone = tmp_path / "there.png", tmp_path / "gone.png"
    there.write_text("")

    def ask(nodes, probes, remote, needed):
        assert probes == {} and remote == []
        return [preflight.look_from_node("a", "10.0.0.1", {}, [], [str(there)]),
                preflight.look_from_node("b", "10.0.0.2", {}, [], needed)]  # fmt: skip

    monkeypatch.setattr(preflight, "_ask_nodes", ask)
    given = {"shared": False, "database": False, "needed": [str(gone), str(there)]}
    first, second = preflight._folder_faults("/r", NODES, set(), answer=answer(), **given)
    assert "say --shared" in first and second.startswith(f"{gone}: node 10.0.0.2 cannot read it")
    assert len(preflight._folder_faults(None, NODES, set(), answer=answer(), **given)) == 1
    assert preflight._folder_faults("/r", NODES[:1], set(), answer=answer(), **given) == []


def test_each_node_needs_some_images_and_the_local_files_of_encoders(tmp_path):
    place, encoder = pairs.folder(tmp_path / "pairs"), tmp_path / "encoder"
    encoder.mkdir()
    run = pairs.config(place)
    other = pairs.config(place, model__text__name=str(encoder), data__text__tokenizer=f"{encoder}/no")
    dataset = loading.load("image_text", data_dir=place, layout=layout(run))
    ready = SimpleNamespace(dataset=dataset, config=SimpleNamespace(run=run, rows={"other": other}))
    source = dataset.train.inputs["image"].source
    assert len(source) == sum(pairs.COUNTS.values())
    assert preflight.needed_files(ready) == {*source[[0, 22, 44]], str(encoder)}
    tables = SimpleNamespace(dataset=loading.load("digits"), config=SimpleNamespace(run=load("digits"), rows={}))
    assert preflight.needed_files(tables) == set()


def test_an_sqlite_file_of_mlflow_is_tried_as_well(tmp_path):
    (tmp_path / "file").write_text("")
    uri = f"sqlite:///{tmp_path}/file/x.db"
    told = answer()
    asked = {"tracking_uri": uri, "shared": False}
    (line,) = preflight._tracking_faults(asked, [], tmp_path, several=True, answer=told)
    assert line.startswith(f"tracking.uri {uri}: the MLflow store") and line.endswith("(asked from the cluster)")
    assert "will be on the disk of the driver's node" in told["warnings"][0]


def test_gpus_that_are_left_open_are_those_of_the_cluster(monkeypatch):
    (study,) = preflight._drafted(request())
    (without,) = preflight._drafted(request("resources.gpus_per_worker=0"))
    monkeypatch.setattr(capacity, "_alive", lambda: [{"CPU": 1.0}])
    assert preflight._places_faults([study, without]) == []
    monkeypatch.setattr(capacity, "_alive", lambda: [{"CPU": 1.0}, {"GPU": 1.0}])  # apart, so that no worker has both
    assert preflight._places_faults([study, without]) == [], "on CPUs, where no GPU can be had"
    (asked,) = preflight._drafted(request("resources.gpus_per_worker=1"))
    (line,) = preflight._places_faults([study, asked])
    assert "1 CPUs and 1 GPUs on one node" in line


def test_a_folder_that_is_not_the_same_everywhere_is_found_out(tmp_path, monkeypatch):
    """Node b has a folder of its own at the place."""
    monkeypatch.setattr(preflight, "_SEEN_WITHIN_S", 0.1)

    def ask(nodes, probes, remote, needed):
        other = {str(tmp_path / "other"): probe for probe in probes.values()}
        return [
            preflight.look_from_node(
                node["NodeID"], node["NodeManagerAddress"], probes if node is NODES[0] else other, [], []
            )
            for node in nodes
        ]

    monkeypatch.setattr(preflight, "_ask_nodes", ask)
    runs = tmp_path / "runs"
    (line,) = preflight._folder_faults(str(runs), NODES, set(), shared=True, database=False, answer=answer())
    assert "node 10.0.0.2 does not see what the driver's node writes there, so it is not shared" in line
    monkeypatch.setattr(preflight, "look_from_node", lambda *given: [])  # nobody writes an answer
    faults = preflight._folder_faults(str(runs), NODES, set(), shared=True, database=False, answer=answer())
    assert [f"node 10.0.0.{n}" in line for n, line in enumerate(faults, 1)] == [True, True]
    assert list(runs.iterdir()) == []


def test_a_folder_that_the_drivers_node_cannot_write_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "_ask_nodes", lambda nodes, *asked: [[] for node in nodes])
    (tmp_path / "file").write_text("")
    runs = tmp_path / "file" / "runs"
    (line,) = preflight._folder_faults(str(runs), NODES, set(), shared=True, database=False, answer=answer())
    assert line.startswith(f"{runs}: the driver's node cannot write there (Not a directory); name a folder")


def request(*words: str) -> dict:
    return {"config": "digits", "words": words, "data_dir": None, "name": None, "resume": None}


def test_a_name_that_the_storage_has_is_not_given_again(tmp_path):
    other = tmp_path / "store" / "digits-1"
    other.mkdir(parents=True)
    (other / "study.json").write_text("{}")
    told = answer()
    asked = request(f"storage.uri={tmp_path / 'store'}")
    preflight._judged(asked, str(tmp_path / "runs"), told, several=False)
    assert told["name"] == "digits-2"


def test_several_studies_are_judged_as_the_job_will_go_on_with_them(tmp_path, monkeypatch):
    """Their job is called without names, so it takes up what is unfinished."""
    asked = []
    monkeypatch.setattr(checks, "validate", lambda *given, options, **named: asked.append(options) or [])
    several = request("datasets=[digits, rosmap]")
    assert len(preflight._drafted(several)) == 2
    preflight._judged(several, str(tmp_path), answer(), several=True)
    preflight._judged(request(), str(tmp_path), answer(), several=False)
    preflight._judged({**several, "resume": "digits-1"}, str(tmp_path), answer(), several=True)
    assert [(options.resume, options.name) for options in asked] == [("auto", None), (False, None), ("digits-1", None)]


def test_a_bucket_that_a_node_does_not_reach(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    (line,) = preflight.look_from_node("a", "10.0.0.1", {}, ["s3://bucket/studies"], [])
    assert line.startswith("storage.uri s3://bucket/studies: node 10.0.0.1 does not reach it")


def test_jobs_without_an_action_or_an_id_are_told_by_the_parser(capsys):
    for words in (["jobs"], ["jobs", "stop"], ["jobs", "start", "x"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == 2 and "usage: m3col jobs" in capsys.readouterr().err
