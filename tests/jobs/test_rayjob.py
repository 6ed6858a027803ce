"""The manifest that `m3col submit --print-rayjob` prints, against a schema of KubeRay's fields."""

import json
import shlex
import socket
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

from jobs import cli

SCHEMA = json.loads(Path(__file__).with_name("rayjob_schema.json").read_text())


@pytest.fixture
def printed(capsys, monkeypatch, tmp_path):
    """Runs the command without a network; returns its documents."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(socket, "create_connection", lambda *given, **named: pytest.fail("it opened a connection"))

    def run(*words: object) -> list[dict]:
        code = cli.main(["submit", *map(str, words), "--print-rayjob"])
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        assert "&id" not in out
        return list(yaml.safe_load_all(out))

    return run


def pods(job: dict) -> list[dict]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"]["spec"], cluster["workerGroupSpecs"][0]["template"]["spec"]]


def test_a_shipped_search_on_a_shared_volume(printed):
    (job,) = printed("rosmap", "search.trials=4", "--shared", "--data-dir", "/data", "--name", "first")
    jsonschema.validate(job, SCHEMA)
    assert shlex.split(job["spec"]["entrypoint"]) == [
        "python", "-m", "jobs.cli", "search", "rosmap", "search.trials=4", "--name", "first", "--resume", "auto",
        "--address", "auto", "--plain", "--runs-dir", "/m3col/runs", "--data-dir", "/data",
    ]  # fmt: skip
    # A retry begins on a new cluster; it has to find the study of the one before.
    assert job["spec"]["backoffLimit"] > 0
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__
    for pod in pods(job):
        assert f"-ray{ray.__version__}-" in pod["containers"][0]["image"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {"runs": "/m3col/runs", "shared-memory": "/dev/shm", "data": "/data"}
        claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "emptyDir" not in v}
        assert claims == {"runs": "m3col-runs", "data": "m3col-data"}


def test_own_configs_travel_in_a_config_map_and_are_found_where_it_is_mounted(printed, tmp_path):
    (tmp_path / "my run.yaml").write_text("data: {name: digits}\n")
    (tmp_path / "mine.yaml").write_text(
        "base: my run.yaml\nspace: {objective.beta: {low: 0.01, high: 1.0}}\n"
        "storage: {uri: s3://bucket/studies}\nresources: {workers_per_trial: 2, gpus_per_worker: 1}\n"
    )
    files, job = printed("mine.yaml", "--nodes", "3", "--image", "registry/m3col:7")
    jsonschema.validate(job, SCHEMA)
    assert files["kind"] == "ConfigMap" and files["metadata"]["name"] == "m3col-mine"
    head, worker = pods(job)
    volume = next(item for item in worker["volumes"] if item["name"] == "files")["configMap"]
    mount = next(item for item in worker["containers"][0]["volumeMounts"] if item["name"] == "files")["mountPath"]
    assert volume["name"] == "m3col-mine"
    placed = {f"{mount}/{item['path']}": files["data"][item["key"]] for item in volume["items"]}
    config = shlex.split(job["spec"]["entrypoint"])[4]
    assert placed[yaml.safe_load(placed[config])["base"]] == "data: {name: digits}\n"
    assert {"name": "runs", "emptyDir": {}} in head["volumes"]  # scratch: the record is in the bucket
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 3
    limits = worker["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "2" and limits["cpu"] == "2"
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
    assert worker["containers"][0]["image"] == "registry/m3col:7"


@pytest.mark.parametrize(
    ("word", "gpus"), [("train.device=auto", None), ("train.device=cuda", "1"), ("resources.gpus_per_worker=2", "2")]
)
def test_gpus_are_requested_if_the_config_names_them(printed, word, gpus):
    (job,) = printed("digits", word, "--shared")
    assert pods(job)[1]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") == gpus


def test_no_secret_is_inline(printed, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "s3cret-value")
    (job,) = printed("digits", "--shared")
    assert "s3cret-value" not in json.dumps(job)
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    for pod in pods(job):
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "m3col", "optional": True}}]
        assert "env" not in pod["containers"][0]


def test_the_schema_refuses_what_kuberay_does_not_know(printed):
    (job,) = printed("digits", "--shared")
    for path, value in (
        (("spec", "backofLimit"), 3),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("metadata", "name"), "Has_Capitals"),
    ):
        wrong = json.loads(json.dumps(job))
        place = wrong
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)


def test_missing_options_are_reported_all_at_once(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = cli.main(["submit", "digits", "nonsense=1", "--print-rayjob", "--nodes", "0", "--runs-dir", "runs"])
    out, err = capsys.readouterr()
    assert code == 2 and out == ""
    assert "--runs-dir runs: is a folder of the cluster" in err and "unknown key 'nonsense'" in err
    assert "--nodes 0: must be >= 1; nearest valid: 1" in err and "give --shared" in err
    assert cli.main(["submit", "digits", "--image", "x", "--nodes", "2"]) == 2
    assert capsys.readouterr().err.count("belongs to --print-rayjob") == 2
