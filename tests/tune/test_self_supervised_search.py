"""A search over a method without labels: only some epochs have a score, and everything else is as for any method."""

import pytest

from tests.support.driving import coordinator, drive, prepare_study, small, trial_rows, values, work
from tune.results import collect, report
from tune.scheduling.plan import NextRun

CONFIG = {
    "search__trials": 4, "search__replicates": 1, "search__confirm": None, "search__pruner": "median",
    "final__seeds": 1, "final__baselines": True,
}  # fmt: skip


def config() -> dict:
    given = small(**CONFIG)
    given["overrides"] |= {
        "method": "comm", "objective.fusion_heads": 2, "objective.projector_hidden": 8, "objective.projector_dim": 4,
        "objective.evaluations": 5, "train.epochs": 10, "train.optimizer": "adamw",
    }  # fmt: skip
    given["space"] = {
        "objective.temperature": {"low": 0.05, "high": 0.5, "log": True},
        "train.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
    }
    return given


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    study, ready = prepare_study(tmp_path_factory.mktemp("unbroken"), config())
    drive(coordinator(study, ready), ready.dataset)
    return study, ready


def test_trials_report_where_they_were_evaluated_and_nowhere_else(unbroken):
    study, ready = unbroken
    trials = coordinator(study, ready).trials.all()
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"} and len(trials) >= 4
    complete = next(trial for trial in trials if trial.state.name == "COMPLETE")
    assert [*complete.intermediate_values] == [20, 40, 60, 80, 100]
    history = study.run(f"trials/{complete.number}").history()
    assert [record["value"] is not None for record in history] == [False, True] * 5
    assert complete.value == history[-1]["value"]


def test_its_results_have_the_winner_beside_the_free_rows(unbroken):
    study, ready = unbroken
    collect.collect(study, ready.config, ready.dataset)
    table = report.write(study).test_table
    assert {"winner", "majority", "logistic"} <= {str(row) for row in table["row"]}


def test_a_search_that_was_cut_anywhere_and_resumed_equals_the_unbroken_one(unbroken, tmp_path):
    study, ready = unbroken
    broken, again = prepare_study(tmp_path, config())
    first = coordinator(broken, again)
    for steps in (3, 1, 4):  # leave a run in the middle, as a driver that is killed does
        spec = first.next()
        if isinstance(spec, NextRun):
            break
        running = work(broken, spec, again.dataset.without_test())
        for _ in range(steps):
            if first.on_report(running.step()):
                break
        first = coordinator(broken, again)
    drive(first, again.dataset)
    assert trial_rows(broken, again) == trial_rows(study, ready)
    assert values(broken) == values(study)
