"""Names of runs and messages about them: what is written reads back, also what an older version wrote."""

import json

import pytest

from tune.study.record import StudyFolder
from tune.study.run_messages import FinishedAttempt, RunOutcome, RunReport
from tune.study.run_name import RunName

RECORDS = [{"epoch": 1, "time": 5.0, "value": 0.5, "metrics": {"val/loss": 2.0}}]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("trials/13", RunName("trials", "", 13)),
        ("replicates/0", RunName("replicates", "", 0)),
        ("confirm/13-1", RunName("confirm", "13", 1)),
        ("refits/winner/2", RunName("refits", "winner", 2)),
        ("refits/a-1.b/10", RunName("refits", "a-1.b", 10)),
    ],
)
def test_a_name_reads_back(text, name):
    assert RunName.parse(text) == name and str(name) == text


@pytest.mark.parametrize(
    "text",
    ["", "trials", "trials/", "trials/x", "trials/-1", "trials/1/2", "confirm/3", "confirm/-1", "refits/0", "refits//0",
     "aside/3", "trials/1.5"],
)  # fmt: skip
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ValueError, match="not the name of a run"):
        RunName.parse(text)


def test_a_folder_of_another_name_is_no_run(tmp_path):
    for name in ("trials/0", "trials/copy of 0", "confirm/3"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("{}")
    assert [name for name, _ in StudyFolder(tmp_path).runs()] == ["trials/0"]


def test_a_report_passes_through_tune_which_adds_keys_of_its_own():
    report = RunReport("trials/0", 1, RECORDS, restart=True, log=["resumed"], done=True)
    sent = json.loads(json.dumps(report.to_dict()))
    assert RunReport.from_dict({**sent, "trial_id": "x", "time_this_iter_s": 1.0}) == report


def test_a_result_file_keeps_its_keys_and_an_older_one_is_read():
    attempt = FinishedAttempt(0.5, 2.0, {"val/loss": 2.0}, 1, 3.0, "attempt-1", RECORDS)
    assert FinishedAttempt.from_dict(json.loads(json.dumps(attempt.to_dict()))) == attempt
    complete = RunOutcome.of_finished(attempt, started=1.0, ended=9.0)
    keys = ["state", "value", "loss", "metrics", "epochs", "seconds", "attempt", "failure", "started", "ended"]
    assert list(complete.to_dict()) == keys and RunOutcome.from_dict(complete.to_dict()) == complete
    pruned = RunOutcome.of_cut_off("pruned", RECORDS, started=1.0, ended=9.0, failure=None)
    assert list(pruned.to_dict()) == [key for key in keys if key != "attempt"]
    assert (pruned.value, pruned.loss, pruned.epochs, pruned.seconds) == (0.5, 2.0, 1, 4.0)
    older = {"state": "failed", "value": None, "failure": "disk full", "a key of then": 1}
    assert RunOutcome.from_dict(older) == RunOutcome("failed", failure="disk full")


def test_a_run_that_failed_before_its_first_epoch_has_an_outcome():
    failed = RunOutcome.of_cut_off("failed", [], started=None, ended=9.0, failure="no memory")
    assert (failed.value, failed.epochs, failed.seconds, failed.started) == (None, 0, 0.0, 9.0)
