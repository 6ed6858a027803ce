"""What is checked on the cluster before a search is submitted to it, as far as no cluster is needed for it."""

import sys
from types import SimpleNamespace

import pytest

from jobs import cli
from jobs.cluster import preflight, submit
from m3col.checks.resolve import layout
from m3col.config.loading import load
from m3col.data import loading
from tests.jobs.test_submit import alone  # noqa: F401 - a fixture that every test here uses
from tests.support import pairs
from tune import checks
from tune.engine import capacity


def answer() -> dict:
    return {"faults": [], "warnings": [], "notes": []}


def test_versions_are_compared():
    local = {**preflight.here(), "requires": ["numpy", "no-such-package"]}
    remote = {"python": "3.9", "ray": "2.9.0", "torch": "2.0.0", "m3col": "0.0.1"}
    result = answer()
    faults = preflight.version_faults(local, remote, result)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"Python on the cluster is 3.9, here it is {python}" in faults[0] and "Ray on the cluster" in faults[1]
    assert faults[2].startswith("on the cluster these packages are missing: no-such-package;") and len(faults) == 3
    assert "torch on the cluster is 2.0.0" in result["warnings"][0]
    assert "m3col 0.0.1 is installed there; the job uses" in result["notes"][0]
    assert preflight.version_faults({**local, "requires": ["numpy"]}, preflight.here(), result) == []
    assert {"numpy", "ray", "torch", "optuna", "mlflow"} <= set(submit._required())
    assert not {"pytest", "ruff"} & set(submit._required())


NODES = [{"NodeID": name, "NodeManagerAddress": f"10.0.0.{n}"} for n, name in enumerate("ab", 1)]


@pytest.mark.parametrize(
    ("uris", "options", "fault"),
    [
        (set(), {}, "the cluster has 2 nodes, and this is a folder of one of them; give --shared"),
        (set(), {"database": True}, "storage.database alone moves the Optuna study only"),
        ({"/mnt/studies"}, {}, "the cluster has 2 nodes"),
    ],
)
def test_a_folder_of_one_node_is_refused_on_several(uris, options, fault):
    keywords = {"shared": False, "database": False, **options}
    (line,) = preflight._folder_faults("/r", NODES, uris, answer=answer(), **keywords)
    assert fault in line


@pytest.mark.parametrize("database", [False, True])
def test_on_one_node_its_own_disk_is_a_warning(database):
    result = answer()
    assert preflight._folder_faults("/r", NODES[:1], set(), shared=False, database=database, answer=result) == []
    (line,) = result["warnings"]
    assert line.startswith(
        "/r is on the only node's own disk: a node that joins later and does not see it takes a trial"
    )
    assert "the search then stops, with the command to resume" in line


def test_files_of_images_and_encoders_that_a_node_does_not_see(tmp_path, monkeypatch):
    """Reported together with an unshared runs folder. On the driver's node the files have been checked before."""
    existing, gone = tmp_path / "there.png", tmp_path / "gone.png"
    existing.write_text("")

    def ask(nodes, probes, remote, needed):
        assert probes == {} and remote == []
        return [preflight.node_faults("a", "10.0.0.1", {}, [], [str(existing)]),
                preflight.node_faults("b", "10.0.0.2", {}, [], needed)]  # fmt: skip

    monkeypatch.setattr(preflight, "_ask_nodes", ask)
    keywords = {"shared": False, "database": False, "needed": [str(gone), str(existing)]}
    first, second = preflight._folder_faults("/r", NODES, set(), answer=answer(), **keywords)
    assert "give --shared" in first and second.startswith(f"{gone}: node 10.0.0.2 cannot read it")
    assert len(preflight._folder_faults(None, NODES, set(), answer=answer(), **keywords)) == 1
    assert preflight._folder_faults("/r", NODES[:1], set(), answer=answer(), **keywords) == []


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
    result = answer()
    submitted = {"tracking_uri": uri, "shared": False}
    (line,) = preflight._tracking_faults(submitted, [], tmp_path, several=True, answer=result)
    assert line.startswith(f"tracking.uri {uri}: the MLflow store") and line.endswith("(asked from the cluster)")
    assert "will be on the disk of the driver's node" in result["warnings"][0]


def test_gpus_that_are_left_open_are_those_of_the_cluster(monkeypatch):
    (study,) = preflight._parsed(request())
    (without,) = preflight._parsed(request("resources.gpus_per_worker=0"))
    monkeypatch.setattr(capacity, "_alive", lambda: [{"CPU": 1.0}])
    assert preflight._capacity_faults([study, without]) == []
    monkeypatch.setattr(capacity, "_alive", lambda: [{"CPU": 1.0}, {"GPU": 1.0}])  # apart, so that no worker has both
    assert preflight._capacity_faults([study, without]) == [], "on CPUs, where no GPU can be had"
    (with_gpu,) = preflight._parsed(request("resources.gpus_per_worker=1"))
    (line,) = preflight._capacity_faults([study, with_gpu])
    assert "1 CPUs and 1 GPUs on one node" in line


def test_a_folder_that_is_not_the_same_everywhere_is_detected(tmp_path, monkeypatch):
    """Node b has a folder of its own at the place."""
    monkeypatch.setattr(preflight, "_SEEN_WITHIN_S", 0.1)

    def ask(nodes, probes, remote, needed):
        other = {str(tmp_path / "other"): probe for probe in probes.values()}
        return [
            preflight.node_faults(
                node["NodeID"], node["NodeManagerAddress"], probes if node is NODES[0] else other, [], []
            )
            for node in nodes
        ]

    monkeypatch.setattr(preflight, "_ask_nodes", ask)
    runs = tmp_path / "runs"
    (line,) = preflight._folder_faults(str(runs), NODES, set(), shared=True, database=False, answer=answer())
    assert "node 10.0.0.2 does not see what the driver's node writes there, so the folder is not shared" in line
    monkeypatch.setattr(preflight, "node_faults", lambda *given: [])  # nobody writes an answer
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
    result = answer()
    submitted = request(f"storage.uri={tmp_path / 'store'}")
    preflight._validated(submitted, str(tmp_path / "runs"), result, several=False)
    assert result["name"] == "digits-2"


def test_several_studies_are_validated_as_the_job_will_resume_them(tmp_path, monkeypatch):
    """Their job is called without names, so it resumes unfinished studies."""
    calls = []
    monkeypatch.setattr(checks, "validate", lambda *given, options, **named: calls.append(options) or [])
    several = request("datasets=[digits, rosmap]")
    assert len(preflight._parsed(several)) == 2
    preflight._validated(several, str(tmp_path), answer(), several=True)
    preflight._validated(request(), str(tmp_path), answer(), several=False)
    preflight._validated({**several, "resume": "digits-1"}, str(tmp_path), answer(), several=True)
    assert [(options.resume, options.name) for options in calls] == [("auto", None), (False, None), ("digits-1", None)]


def test_a_bucket_that_a_node_does_not_reach(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    (line,) = preflight.node_faults("a", "10.0.0.1", {}, ["s3://bucket/studies"], [])
    assert line.startswith("storage.uri s3://bucket/studies: node 10.0.0.1 does not reach it")


def test_jobs_without_an_action_or_an_id_are_refused_by_the_parser(capsys):
    for words in (["jobs"], ["jobs", "stop"], ["jobs", "start", "x"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == 2 and "usage: m3col jobs" in capsys.readouterr().err
