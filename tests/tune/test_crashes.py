"""Whatever is killed, wherever: the study goes on, nothing finished is lost or run again, and it ends the same."""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from m3col.data import loading
from m3col.storage import atomic_files
from m3col.training import checkpoint
from tests.support.driving import coordinator, drive, prepare_study, small, trial_rows, values, work
from tests.support.table_training import training_of
from tune.engine.run_executor import RunExecutor
from tune.study.run_folder import RunFolder
from tune.study.run_messages import RunOutcome


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Fuse:
    """Burns through at the `limit`-th write to disk or database: just before it, or just after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.limit, self.after = 0, -1, False
        writers = [
            (atomic_files, "write_text"),
            (RunFolder, "append"),
            (RunFolder, "write_outcome"),
            (RunExecutor, "step"),
        ]
        writers += [
            (RDBStorage, name)
            for name in (
                "create_new_trial", "set_trial_param", "set_trial_state_values", "set_trial_intermediate_value",
                "set_trial_user_attr", "set_trial_system_attr", "set_study_user_attr",
            )
        ]  # fmt: skip
        for owner, name in writers:
            monkeypatch.setattr(owner, name, self._wrap(getattr(owner, name)))

    def _wrap(self, write):
        def guarded(*args, **kwargs):
            self.count += 1
            burns = self.count == self.limit
            if burns and not self.after:
                raise Killed
            answer = write(*args, **kwargs)
            if burns:
                raise Killed
            return answer

        return guarded

    def set(self, limit: int, *, after: bool) -> None:
        self.count, self.limit, self.after = 0, limit, after


@pytest.fixture(autouse=True)
def checkpoints_at_every_epoch(monkeypatch):
    """These epochs are so short that checkpoints would be held back to a twentieth of the time."""
    monkeypatch.setattr(checkpoint, "_WRITING_SHARE", float("inf"))


@pytest.fixture(autouse=True)
def kind(request):
    """Tables in place of models, but for those tests that ask for "real" ones."""
    kind = getattr(request, "param", "table")
    with training_of(kind):
        yield kind


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """What a study finds that nothing disturbs, with models or with tables in their place."""

    @cache
    def found(kind: str):
        folder, ready = prepare_study(tmp_path_factory.mktemp(kind), small())
        drive(coordinator(folder, ready), ready.dataset)
        return trial_rows(folder, ready), values(folder)

    return found


@pytest.mark.parametrize("kind", ["table", "real"], indirect=True)
def test_the_unbroken_study_prunes_and_finishes(unbroken, kind):
    rows, others = unbroken(kind)
    states = Counter(row[0] for row in rows)
    assert states["PRUNED"] and states["COMPLETE"] and sum(states.values()) == 6
    assert {name.partition("/")[0] for name in others} == {"replicates", "confirm", "refits"}


FIRST = (3, 17, 31, 44, 58, 73, 92, 111, 134, 166)
# Every write once: just before the first one, just after the second one, and so on.
KILLED = [(first, bool(place % 2)) for place, first in enumerate(FIRST)]
OTHERS = [(first, not after) for first, after in KILLED]
DEAR = pytest.mark.dear("the same writes from their other side: 3 s each, ten times")


@pytest.mark.parametrize(
    "first, after, kind",
    [*((*point, "table") for point in KILLED), (31, True, "real"), (92, False, "real"),
     *(pytest.param(*point, "table", marks=DEAR) for point in OTHERS)],
    indirect=["kind"],
)  # fmt: skip
def test_killed_at_any_write_it_ends_like_the_unbroken_one(tmp_path, monkeypatch, unbroken, first, after, kind):
    expected, fuse = unbroken(kind), Fuse(monkeypatch)
    folder, ready = prepare_study(tmp_path, small())
    completed = drive_with_kills(folder, ready, fuse, first, after=after)
    assert trial_rows(folder, ready) == expected[0]
    assert values(folder) == expected[1]
    assert max(completed.values()) == 1, "a finished run was run again"
    for name, run in folder.runs():
        epochs = [record["epoch"] for record in run.history()]
        assert epochs == list(range(1, len(epochs) + 1)), name


def drive_with_kills(folder, ready, fuse, first, *, after):
    """Drives a study to its end although it is killed again and again; how often each run was completed."""
    trained: Counter[str] = Counter()
    observe = lambda event: trained.update([event.name] if event.what == "complete" else [])  # noqa: E731
    kills = 0
    fuse.set(first, after=after)
    for _ in range(60):
        try:
            drive(coordinator(folder, ready, observe=observe), ready.dataset)
            break
        except Killed:
            kills += 1
            # The second kill comes soon, and the later ones further apart, so that the study gets somewhere.
            fuse.set(7 if kills == 1 else first + 13 * kills, after=after)
    fuse.set(-1, after=False)
    assert kills >= 1
    return trained


@pytest.mark.parametrize("kind", ["real"], indirect=True)
def test_a_lost_step_is_computed_again_from_the_last_checkpoint(tmp_path):
    """A worker that dies between two reports: its successor starts where the checkpoint stood, not at the beginning."""
    folder, ready = prepare_study(tmp_path, small())
    spec = coordinator(folder, ready).next()
    inputs = ready.dataset.test.inputs
    first = work(folder, spec, ready.dataset, test_inputs=inputs)
    for _ in range(4):
        first.step()
    second = work(folder, spec, ready.dataset, test_inputs=inputs)
    assert second.training.epoch == first.training.epoch == 4
    told = second.step()
    assert told.restart and [record["epoch"] for record in told.records] == [1, 2, 3, 4]
    assert second.attempt != first.attempt


@pytest.mark.parametrize("kind", ["real"], indirect=True)
def test_a_broken_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    folder, ready = prepare_study(tmp_path, small())
    spec = coordinator(folder, ready).next()
    first = work(folder, spec, ready.dataset)
    for _ in range(4):
        first.step()
    newest = sorted(first.attempt.glob("epoch-*"))[-1]
    (newest / "checkpoint.json").write_text("{")
    assert work(folder, spec, ready.dataset).training.epoch == 3


def test_an_unfinished_study_is_extended_by_more_trials(tmp_path):
    folder, ready = prepare_study(tmp_path, small(search__trials=3))
    drive(coordinator(folder, ready), ready.dataset)
    before = trial_rows(folder, ready)
    longer = prepare_study(tmp_path, small(search__trials=5))[1]
    drive(coordinator(folder, longer), longer.dataset)
    after = trial_rows(folder, longer)
    assert len(after) == 5 and after[:3] == before


def test_what_a_run_writes_after_its_verdict_is_dropped_at_the_end(tmp_path, monkeypatch):
    folder, ready = prepare_study(tmp_path, small())
    found = coordinator(folder, ready)
    written = write_after_the_verdict(found, folder, ready, monkeypatch)
    running = found.next()
    other = work(folder, running, ready.dataset.without_test())
    assert not found.on_report(other.step())
    found.tidy()
    assert not written() and list(other.attempt.glob("epoch-*")), "what still runs keeps its own"


def write_after_the_verdict(found, folder, ready, monkeypatch, *, uri=None):
    """A trial is turned down and another run given up; both train on for an epoch, and are killed in the next write.
    Returns what then says which checkpoints lie on this machine."""
    paths = []
    for verdict in ("pruned", "failed"):
        spec = found.next()
        executor = work(folder, spec, ready.dataset.without_test(), uri=uri)
        if verdict == "pruned":
            with monkeypatch.context() as patched:
                patched.setattr(found.trials, "should_prune", lambda number: True)
                assert found.on_report(executor.step())
        else:
            found.failed(spec.name, "its process died")
        assert folder.run(spec.name).outcome().state == verdict
        executor.step()
        if uri is None:
            (executor.attempt / ".epoch-000003.torn").mkdir()
        paths.append(folder.run(spec.name).path)

    def written():
        return [
            path for run in paths for pattern in ("epoch-*", ".epoch-*") for path in run.glob(f"attempt-*/{pattern}")
        ]

    assert uri is not None or len(written()) >= 4
    return written


def test_checkpoints_that_a_killed_driver_left_of_an_ended_run_go_at_the_next_start(tmp_path, monkeypatch):
    folder, ready = prepare_study(tmp_path, small())
    spec = coordinator(folder, ready).next()
    executor = work(folder, spec, ready.dataset.without_test())
    executor.step()
    folder.run(spec.name).write_outcome(RunOutcome("failed", failure="no more"))
    assert list(executor.attempt.glob("epoch-*"))
    coordinator(folder, ready)
    assert not list(executor.attempt.glob("epoch-*")) and executor.attempt.exists()


def test_a_failed_trial_is_recorded_and_the_search_goes_on(tmp_path):
    class Moody(RunExecutor):
        def _step(self):
            if self.spec.name == "trials/1":
                raise ValueError("out of cheese")
            return super()._step()

    folder, ready = prepare_study(tmp_path, small(search__trials=4))
    drive(coordinator(folder, ready), ready.dataset, executor=Moody)
    rows = trial_rows(folder, ready)
    assert [row[0] for row in rows].count("FAIL") == 1 and len(rows) == 4
    result = folder.run("trials/1").outcome()
    assert result.state == "failed" and "out of cheese" in result.failure
    assert "Traceback" in (folder.path / "trials/1/log.txt").read_text()


def test_a_time_budget_ends_the_search_and_goes_on_to_the_refits(tmp_path):
    folder, ready = prepare_study(tmp_path, small(search__trials=50, search__time_budget_s=600.0))
    found = coordinator(folder, ready)
    found.trials.add_seconds(0.0)
    spec = found.next()
    executor = work(folder, spec, ready.dataset.without_test())
    while not found.on_report(executor.step()):
        pass
    found.trials.add_seconds(600.0)
    drive(found, ready.dataset)
    assert len(trial_rows(folder, ready)) == 1
    assert any(name.startswith("refits/winner") for name in values(folder))


def test_grid_points_are_queued_once_and_nothing_else_is_tried(tmp_path):
    config = small(search__sampler="grid", search__pruner="none", search__trials=100, search__grid_points=2)
    folder, ready = prepare_study(tmp_path, config)
    coordinator(folder, ready)  # a second start must not queue the points again
    drive(coordinator(folder, ready), ready.dataset)
    points = [tuple(sorted(row[1].items())) for row in trial_rows(folder, ready)]
    assert len(points) == len(set(points)) == 5  # the default and 2 x 2
    assert points[0] == (("objective.beta", 0.1), ("train.learning_rate", 0.01))


def test_trials_differ_although_every_process_begins_with_the_same_seed(tmp_path):
    folder, ready = prepare_study(tmp_path, small(search__sampler="random"))
    for _ in range(4):  # a new driver for each trial
        found = coordinator(folder, ready)
        spec = found.next()
        found.failed(spec.name, "stopped here")
    points = [tuple(sorted(row[1].items())) for row in trial_rows(folder, ready)]
    assert len(set(points)) == 4


@pytest.mark.parametrize("kind", ["real"], indirect=True)
def test_all_arrays_and_labels_of_the_test_split_replaced_by_noise_change_nothing(tmp_path):
    """Nothing before the test table can have seen the test split."""
    import numpy as np

    from m3col.data.arrays import from_arrays

    digits = loading.load("digits")
    rng = np.random.default_rng(7)

    def study(runs: Path, *, noise: bool):
        test = digits.test
        inputs = {m: rng.normal(size=x.shape) if noise else x for m, x in test.inputs.items()}
        labels = rng.integers(0, 10, len(test)) if noise else test.labels
        dataset = from_arrays(digits.train.inputs, digits.train.labels, test=(inputs, labels))
        folder, ready = prepare_study(runs, small(), data=dataset)
        found = coordinator(folder, ready)
        drive(found, ready.dataset)
        return folder, ready, found.plan.decide().winner

    true_folder, true_ready, true_winner = study(tmp_path / "true", noise=False)
    noise_folder, noise_ready, noise_winner = study(tmp_path / "noise", noise=True)
    splits = [(folder.path / "splits.csv").read_bytes() for folder in (true_folder, noise_folder)]
    assert splits[0] == splits[1]
    assert trial_rows(true_folder, true_ready) == trial_rows(noise_folder, noise_ready)
    assert true_winner == noise_winner


def test_runs_of_one_stage_go_side_by_side_and_stages_wait_for_each_other(tmp_path):
    from tune.scheduling.plan import NextRun

    folder, ready = prepare_study(tmp_path, small(search__trials=1, search__replicates=2, final__seeds=3))
    found = coordinator(folder, ready, concurrency=3)
    together = [found.next() for _ in range(3)]
    assert [spec.name for spec in together] == ["trials/0", "replicates/0", "replicates/1"]
    assert found.next() is NextRun.WAIT
    for spec in together[1:]:
        found.failed(spec.name, "not needed here")
    assert found.next() is NextRun.WAIT, "the trial still runs"
    executor = work(folder, together[0], ready.dataset.without_test())
    while not found.on_report(executor.step()):
        pass
    assert [found.next().name for _ in range(3)] == [f"refits/winner/{index}" for index in range(3)]
