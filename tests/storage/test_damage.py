"""What the fault table says of a row follows from the study's folder: work that was lost cannot be missed."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from benchmarks import damage, demo_cluster
from m3col.config import yaml_files
from m3col.storage import atomic_files

EPOCHS, EVERY_S = 200, 1.0
STRUCK = 1_000.0
BEGAN = STRUCK - 10.0  # ten epochs a second, since


def record(epoch: int, time: float) -> dict[str, object]:
    return {"epoch": epoch, "time": time, "value": 0.5, "metrics": {"val/loss": 0.1}}


def before_fault(epochs: int) -> list[dict[str, object]]:
    return [record(epoch, BEGAN + epoch / 10) for epoch in range(1, epochs + 1)]


@pytest.fixture
def study(tmp_path) -> Path:
    """Trial 0 has ended; trial 1 is at epoch 99 when the fault comes, with a checkpoint of epoch 95."""
    for number in (0, 1):
        path = tmp_path / "trials" / str(number)
        attempt(path, 1)
        (path / "config.yaml").write_text(yaml_files.dump({"train": {"epochs": EPOCHS}}))
        (path / "log.txt").write_text("2026-01-01 00:00:00 started\n")
    write_history(tmp_path, 0, before_fault(EPOCHS))
    end(tmp_path, 0, attempt_number=1)
    write_history(tmp_path, 1, before_fault(99))
    return tmp_path


def attempt(path: Path, number: int) -> None:
    folder = path / f"attempt-{number}"
    folder.mkdir(parents=True)
    atomic_files.write_json(folder / "attempt.json", {"config": None, "process": 4711})


def write_history(study: Path, trial: int, records: list[dict[str, object]]) -> None:
    text = "".join(json.dumps(found) + "\n" for found in records)
    (study / "trials" / str(trial) / "history.jsonl").write_text(text)


def end(study: Path, trial: int, *, attempt_number: int) -> None:
    path = study / "trials" / str(trial)
    (path / f"attempt-{attempt_number}" / "outcome.json").write_text("{}")
    atomic_files.write_json(path / "result.json", {"state": "complete", "value": 0.5 + trial})


def saved(study: Path, epoch: int) -> None:
    folder = study / "trials" / "1" / "attempt-1" / f"epoch-{epoch:06d}"
    folder.mkdir()
    for name in ("fold-0", "probes"):
        safetensors.torch.save_file({"w": torch.zeros(1)}, folder / f"{name}.safetensors")
    head = {"made_by": "m3col", "format": 1, "kind": "training", "epoch": epoch, "best": None}
    atomic_files.write_json(folder / "checkpoint.json", {**head, "history": before_fault(epoch)})


def seen(study: Path) -> damage.Before:
    """The study at the fault, as if all of it had happened at the times of its records."""
    found = damage.inspect_study(study)
    was = found.running["1"]
    running = damage.Running(**{**vars(was), "began": BEGAN, "writing_s": 0.01})
    return damage.Before({"1": running}, found.ended)


def goes_on(study: Path, *, start: int, told: bool = True) -> None:
    """A second attempt, five seconds after the fault, that trains to the end."""
    path = study / "trials" / "1"
    attempt(path, 2)
    again = [record(epoch, STRUCK + 5.0 + (epoch - start) / 10) for epoch in range(start + 1, EPOCHS + 1)]
    write_history(study, 1, [*before_fault(start), *again])
    if told:
        with (path / "log.txt").open("a") as log:
            log.write(f"2026-01-01 00:00:05 resumes from epoch {start} (attempt-1)\n")
    end(study, 1, attempt_number=2)


def judged(study: Path, before: damage.Before) -> damage.Damage:
    return damage.damage(study, before, struck=STRUCK, healed=STRUCK, every_s=EVERY_S)


def test_a_trial_that_goes_on_from_its_checkpoint_loses_the_time_since(study):
    saved(study, 95)
    before = seen(study)
    assert before.running["1"].can_go_on() and before.running["1"].process == 4711
    goes_on(study, start=95)
    found = judged(study, before)
    assert (found.cut, found.faults) == (["1"], [])
    assert found.lost_work_s == pytest.approx(0.5) and found.recovery_s == pytest.approx(5.1)
    assert damage.values(study) == {0: 0.5, 1: 1.5}
    assert damage.twice(study, before) == 0


def test_a_trial_that_no_process_had_begun_at_the_fault_was_not_cut_off(study):
    path = study / "trials" / "1"
    (path / "history.jsonl").unlink()
    shutil.rmtree(path / "attempt-1")
    before = damage.inspect_study(study)
    attempt(path, 1)
    write_history(study, 1, [record(epoch, STRUCK + 2.0 + epoch) for epoch in range(1, EPOCHS + 1)])
    end(study, 1, attempt_number=1)
    found = judged(study, before)
    assert (found.cut, found.faults, found.recovery_s) == ([], [], pytest.approx(3.0))


def test_a_trial_that_begins_again_at_the_first_epoch_misses_the_bar(study):
    saved(study, 95)
    before = seen(study)
    goes_on(study, start=0, told=False)
    found = judged(study, before)
    assert found.lost_work_s == pytest.approx(10.0)
    assert "trial 1: began again at epoch 0; a checkpoint had 95" in found.faults
    assert "trial 1: 10.0 s of work lost, 1.1 s are allowed" in found.faults


def test_an_older_checkpoint_than_the_newest_misses_the_bar(study):
    saved(study, 90)
    saved(study, 95)
    before = seen(study)
    goes_on(study, start=90)
    assert judged(study, before).faults == ["trial 1: began again at epoch 90; a checkpoint had 95"]


def test_checkpoints_that_come_too_seldom_miss_the_bar(study):
    saved(study, 40)
    before = seen(study)
    goes_on(study, start=40)
    assert judged(study, before).faults == ["trial 1: 6.0 s of work lost, 1.1 s are allowed"]


def test_where_writing_is_slow_a_checkpoint_may_be_older(study):
    saved(study, 40)
    before = seen(study)
    slow = damage.Running(**{**vars(before.running["1"]), "writing_s": 0.4})
    goes_on(study, start=40)
    assert judged(study, damage.Before({"1": slow}, before.ended)).faults == []


def test_a_history_that_lacks_epochs_misses_the_bar(study):
    saved(study, 95)
    before = seen(study)
    goes_on(study, start=95)
    write_history(study, 1, [found for found in before_fault(EPOCHS) if found["epoch"] != 7])
    assert "trial 1: its history does not have every epoch once" in judged(study, before).faults


def test_a_trial_that_had_ended_and_ran_again_counts_as_run_twice(study):
    before = seen(study)
    attempt(study / "trials" / "0", 2)
    assert damage.twice(study, before) == 1
    goes_on(study, start=95)
    (study / "trials" / "1" / "attempt-1" / "outcome.json").write_text("{}")
    assert damage.twice(study, before) == 2


def test_trials_that_train_at_the_same_time_are_counted(study):
    assert damage.overlap(study) == 2
    write_history(study, 1, [record(epoch, STRUCK + 60 + epoch) for epoch in range(1, 4)])
    assert damage.overlap(study) == 1


class Stage(SimpleNamespace):
    """What the demonstration knows at its end."""

    def __init__(self, study: Path, before: damage.Before | None) -> None:
        super().__init__(study=study, before=before, struck=STRUCK, healed=STRUCK)


def with_table(folder: Path, study: Path, *, value: float = 1.5) -> Path:
    (folder / "results").mkdir(parents=True)
    (folder / "results" / "summary.md").write_text("# demo\n\n| winner | 76.2 |\n\nThe footer differs.\n")
    for number, found in ((0, 0.5), (1, value)):
        path = folder / "trials" / str(number)
        if folder != study:
            path.mkdir(parents=True)
            (path / "config.yaml").write_text("")
            atomic_files.write_json(path / "result.json", {"state": "complete", "value": found})
    return folder


@pytest.mark.parametrize(
    ("start", "value", "code", "verdict"),
    [
        (95, 1.5, 0, "values and tables are those of the undisturbed search"),
        (0, 1.5, 0, "FAILED: trial 1: began again at epoch 0; a checkpoint had 95"),
        (95, 1.5001, 0, "FAILED: trial 1: 1.5, undisturbed 1.5001"),
        (95, 1.5, 1, "FAILED: the job ended with exit code 1"),
    ],
)
def test_the_demonstration_fails_unless_a_trial_went_on_and_nothing_differs(
    study, tmp_path, capsys, start, value, code, verdict
):
    saved(study, 95)
    before = seen(study)
    goes_on(study, start=start, told=bool(start))
    with_table(study, study)
    calm = with_table(tmp_path / "calm", study, value=value)
    assert demo_cluster.judge(Stage(study, before), calm, 2, code, every_s=EVERY_S) == int(verdict.startswith("FAILED"))
    assert verdict in capsys.readouterr().out


def test_the_demonstration_fails_where_no_trial_was_cut_off_or_the_table_differs(study, tmp_path, capsys):
    saved(study, 95)
    before = seen(study)
    end(study, 1, attempt_number=1)
    with_table(study, study)
    calm = with_table(tmp_path / "calm", study)
    (calm / "results" / "summary.md").write_text("| winner | 76.3 |\n")
    assert demo_cluster.judge(Stage(study, before), calm, 2, 0, every_s=EVERY_S) == 1
    assert demo_cluster.judge(Stage(study, None), calm, 2, 0, every_s=EVERY_S) == 1
    out = capsys.readouterr().out
    assert "no trial was cut off" in out and "the tables are not those of the undisturbed search" in out
    assert "FAILED: the job ended before the second node ran a trial with a checkpoint" in out
