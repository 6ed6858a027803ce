"""The record of a study on disk: formats, lock, names, what may change on resume, and what a crash leaves."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from m3col.data import loading, splits
from m3col.data.arrays import from_arrays
from m3col.errors import InputError
from m3col.storage import atomic_files
from tests.support import fake_study
from tests.support.driving import coordinator, drive, trial_rows
from tune import checks
from tune.study import attempts, compatibility, directory, partitions, provenance
from tune.study import record as study_record
from tune.study.record import StudyFolder
from tune.study.run_folder import RunFolder
from tune.study.run_messages import FinishedAttempt


@pytest.fixture
def folder(tmp_path) -> StudyFolder:
    return fake_study.make(tmp_path, "digits-1", trials=4)


def refusal(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert all("\n" not in line for line in caught.value.faults)
    return "\n".join(caught.value.faults)


def test_study_json_says_what_was_asked_of_what_by_which_code(folder):
    found = json.loads((folder.path / "study.json").read_text())
    assert found["format"] == 2 and found["name"] == "digits-1" and found["threads"] == 1
    assert set(found["digests"]) == {"config", "train", "test", "splits"}
    assert found["dataset"]["features"] == {"pixels": 64, "fourier": 40, "gradients": 32}
    assert set(found["versions"]) >= {"python", "m3col", "torch", "ray", "optuna", "mlflow"}
    assert set(found["git"]) == {"commit", "dirty"}
    assert folder.config() == directory.find(folder.path.parent, "digits-1").config()


def rewrite(folder, **changes) -> None:
    path = folder.path / "study.json"
    found = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not ...}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 3}, ("study format 3 is newer", "(2)", "update m3col")),
        ({"format": "1"}, ("damaged", "'format'")),
        ({"format": ...}, ("no study of m3col",)),
        ({"config": ...}, ("damaged", "config")),
        ({"digests": [], "versions": 3}, ("damaged", "digests, versions")),
    ],
)
def test_newer_and_damaged_studies_are_refused_by_name(folder, changes, words):
    rewrite(folder, **changes)
    line = refusal(folder.described)
    assert str(folder.path / "study.json") in line and all(word in line for word in words), line
    assert list(directory.all_studies(folder.path.parent)) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null"])
def test_what_is_no_study_is_refused(folder, content):
    (folder.path / "study.json").write_text(content)
    assert "no study of m3col" in refusal(folder.described)
    assert "not a study" in refusal(StudyFolder(folder.path.parent / "nothing").described)


_HOLD = """
import sys, time
from pathlib import Path
from tune.study.record import StudyFolder
folder = StudyFolder(Path(sys.argv[1]))
folder.lock()
print("held", flush=True)
time.sleep(60)
"""


def test_one_process_at_a_time_even_after_a_kill(folder):
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert f"in use by process {holder.pid}" in refusal(folder.lock)
    finally:
        holder.kill()
        holder.wait()
    folder.lock()
    assert f"process {os.getpid()}" in (folder.path / "lock").read_text()
    assert "in use" in refusal(StudyFolder(folder.path).lock)
    folder.unlock()
    StudyFolder(folder.path).lock()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES])
def test_a_file_system_without_locks_is_told_from_a_study_in_use(folder, monkeypatch, number):
    def refuse(*given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(study_record.fcntl, "flock", refuse)
    line = refusal(folder.lock)
    if number == errno.EACCES:  # what some systems say of a lock that somebody has
        assert "in use by process" in line
    else:
        assert "files cannot be locked here" in line and os.strerror(number) in line and "in use" not in line
        assert "a local disk" in line


def test_names_are_free_counted_and_usable_as_folders(folder):
    runs, config = folder.path.parent, folder.config()
    assert directory.new_name(runs, None, config) == f"{config.name}-1"
    (runs / f"{config.name}-1").mkdir()  # by one that is just beginning
    assert directory.new_name(runs, None, config) == f"{config.name}-1"
    (runs / f"{config.name}-1" / "notes").mkdir()
    assert directory.new_name(runs, None, config) == f"{config.name}-2"
    assert directory.new_name(runs, "a.b-c_1", config) == "a.b-c_1"
    line = refusal(lambda: directory.new_name(runs, "digits-1", config))
    assert "exists" in line and "--resume digits-1" in line and "choose another name" in line
    usable = {"a/b": "a-b", "../x": "x", "": "search-1", " a": "a", ".": "search-1", "a#1": "a-1"}
    for name, near in usable.items():
        assert f"nearest valid: {near!r}" in refusal(lambda name=name: directory.new_name(runs, name, config))
    assert "reserved" in refusal(lambda: directory.new_name(runs, "train", config))


def test_find_by_name_or_path_and_the_nearest(folder):
    runs = folder.path.parent
    assert directory.find(runs, "digits-1").path == folder.path == directory.find(runs / "x", str(folder.path)).path
    assert "did you mean 'digits-1'" in refusal(lambda: directory.find(runs, "digts-1"))
    assert "holds no study" in refusal(lambda: directory.find(runs / "x", "digits-1"))


def test_resume_without_a_name_takes_the_newest_unfinished_study_of_that_config(folder):
    runs, config = folder.path.parent, folder.config()
    second = fake_study.make(runs, "digits-2", trials=4)
    os.utime(folder.path / "study.json", (1, 1))
    assert directory.newest(runs, config).name == "digits-2"
    second.results.mkdir()
    (second.results / "summary.md").write_text("")
    assert second.finished() and directory.newest(runs, config).name == "digits-1"
    folder.results.mkdir()
    (folder.results / "summary.md").write_text("")
    assert directory.newest(runs, config).name == "digits-2"
    assert directory.newest(runs / "x", config) is None


def test_what_it_costs_may_change_and_what_it_computes_may_not(folder):
    stored = folder.config().to_dict()
    free = {"search": {**stored["search"], "trials": 99, "time_budget_s": 5.0, "concurrency": 3, "replicates": 0}}
    free |= {"tracking": {"uri": "none"}, "resources": {}, "final": {**stored["final"], "remarks": ["New."]}}
    assert compatibility.differences(stored, {**stored, **free}) == []
    wanted = {**stored, "search": {**stored["search"], "seed": 1}, "run": {**stored["run"], "method": "concat"}}
    lines = compatibility.differences(stored, wanted)
    assert lines == [
        "run.method was 'm3col' and is now 'concat'; a resumed study keeps it",
        "search.seed was 0 and is now 1; a resumed study keeps it",
    ]


def test_other_data_or_splits_are_noticed(folder):
    stored, digits = folder.described()["digests"], loading.load("digits")
    assert compatibility.digest_differences(stored, digits, stored["splits"]) == []
    assert "splits" in compatibility.digest_differences(stored, digits, "1" * 64)[0]
    other = from_arrays({m: x + 1 for m, x in digits.train.inputs.items()}, digits.train.labels)
    assert [line.split(":")[0] for line in compatibility.digest_differences(stored, other, stored["splits"])] == [
        "train"
    ]


def test_other_versions_are_a_warning():
    now = provenance.versions()
    assert provenance.version_warnings(now) == []
    assert provenance.version_warnings({**now, "torch": "0.1", "gone": "1"}) == [
        f"torch was 0.1 when the study began and is now {now['torch']}"
    ]


def test_reopening_takes_new_settings_and_asks_for_a_new_report(folder):
    folder.results.mkdir()
    (folder.results / "summary.md").write_text("")
    config = folder.config()
    settings = config.settings.model_copy(update={"search": config.settings.search.model_copy(update={"trials": 77})})
    folder.reopen(type(config)(**{**vars(config), "settings": settings}))
    assert folder.config().settings.search.trials == 77 and not folder.finished()


def test_a_torn_line_of_history_is_left_out(tmp_path):
    run = RunFolder(tmp_path / "trials" / "0")
    run.create({"method": "m3col"})
    assert run.history() == [] and run.outcome() is None and run.config() == {"method": "m3col"}
    run.append([{"epoch": 1}, {"epoch": 2}], restart=False)
    with (run.path / "history.jsonl").open("a") as stream:
        stream.write('{"epoch": 3, "ti')
    assert [record["epoch"] for record in run.history()] == [1, 2]
    run.append([{"epoch": 1}], restart=True)
    assert run.history() == [{"epoch": 1}]


def test_runs_come_in_the_order_of_their_numbers(folder):
    for name in ("trials/10", "trials/9", "replicates/0", "refits/default/1", "confirm/3-1000"):
        folder.run(name).create({})
    assert [name for name, _ in folder.runs()] == [
        "trials/9", "trials/10", "replicates/0", "confirm/3-1000", "refits/default/1",
    ]  # fmt: skip


def test_checkpoints_of_a_run_that_ended_are_dropped_with_what_a_kill_tore(tmp_path):
    run = RunFolder(tmp_path)
    for name in ("attempt-1/epoch-000001", "attempt-1/.epoch-000002.x", "attempt-2/epoch-000003", "attempt-2/model"):
        (tmp_path / name).mkdir(parents=True)
    finished = FinishedAttempt(0.5, None, {}, 3, 1.0, "attempt-1", [])
    atomic_files.write_json(tmp_path / "attempt-1" / "outcome.json", finished.to_dict())
    run.create({})
    run.drop_checkpoints()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == [
        "attempt-1/outcome.json", "attempt-2/model",
    ]  # fmt: skip
    assert run.finished_attempt() == finished
    run.clear()
    assert not tmp_path.exists()


def test_the_outcome_is_the_newest_of_this_config(tmp_path):
    run, config = RunFolder(tmp_path / "refits" / "winner" / "0"), {"train": {"seed": 0}, "data": {"dir": "/a"}}
    run.create(config)
    other = attempts.training_config_digest({"train": {"seed": 1}})
    mine = attempts.training_config_digest({**config, "data": {"dir": "/b"}})  # the data may have moved meanwhile
    assert run.finished_attempt() is None
    for number, digest in ((1, other), (2, None), (9, mine), (10, mine), (11, other)):
        path = run.path / f"attempt-{number}"
        path.mkdir()
        atomic_files.write_json(path / "attempt.json", {"config": digest})
        finished = FinishedAttempt(0.5, None, {}, 3, 1.0, path.name, [])
        atomic_files.write_json(path / "outcome.json", finished.to_dict())
        newest = run.finished_attempt()
        assert (newest and newest.attempt) == {1: None, 11: "attempt-10"}.get(number, path.name)


def test_a_study_of_format_1_is_read_and_gone_on_with(tmp_path):
    (tmp_path / "old").mkdir()
    shutil.copyfile(Path(__file__).parent / "formats" / "study-1.json", tmp_path / "old" / "study.json")
    found = directory.find(tmp_path, "old")
    assert json.loads((found.path / "study.json").read_text())["format"] == 1
    resources = found.config().settings.resources
    assert (resources.workers_per_trial, resources.cpus_per_worker, resources.gpus_per_worker) == (1, 2.0, 0.0)
    options = checks.Options(runs=tmp_path, resume="old")
    ready = checks.validate(None, data=None, overrides={}, options=options)[0]
    assert ready.folder is not None and ready.folder.path == found.path
    samples = splits.pool(ready.dataset, "kfold")
    splits.write_csv(found.path / "splits.csv", samples.ids, partitions.partitions(ready.config, ready.dataset))
    drive(coordinator(found, ready), ready.dataset)
    assert [row[0] for row in trial_rows(found, ready)] == ["COMPLETE", "COMPLETE"]


def test_a_name_whose_lock_cannot_be_opened_is_taken_all_the_same(folder: StudyFolder) -> None:
    folder.unlock()
    (folder.path / "lock").unlink(missing_ok=True)
    (folder.path / "lock").mkdir()
    with pytest.raises(InputError, match="lock: cannot be written"):
        folder.lock()
    line = refusal(lambda: directory.new_name(folder.path.parent, folder.name, folder.config()))
    assert "a study of this name exists" in line
