"""A search over a method without labels: only some epochs have a score, and everything else is as for any method."""

import numpy as np
import pytest

import m3col
from m3col.analysis import linear_subsets
from m3col.analysis.context import AnalysisContext, Options
from m3col.evaluation import published_probes
from m3col.evaluation.published_probes import Samples
from tests.support.driving import coordinator, drive, prepare_study, small, trial_rows, values, work
from tune.results import collect, report, test_table
from tune.results.study_results import StudyResults
from tune.scheduling.plan import NextRun

CONFIG = {
    "search__trials": 4, "search__replicates": 1, "search__confirm": None, "search__pruner": "median",
    "final__seeds": 1, "final__baselines": True, "final__optimistic": True,
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


def load_refit(study) -> m3col.Predictor:
    run = study.run("refits/winner/0")
    return m3col.load(run.path / str(run.outcome().attempt) / "model")


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
    written = report.write(study)
    table = written.test_table.set_index("row")
    assert {"winner", "majority", "logistic"} <= {*table.index}
    columns = ["optimistic", "optimistic_grid", "optimistic_notebook"]
    assert table.loc["winner", columns].notna().all() and table.loc["majority", columns].isna().all()
    summary = (study.results / "summary.md").read_text()
    assert "optimistic (grid probe)" in summary and "`optimistic_notebook`: the linear evaluation of the" in summary
    assert summary.count("Not honest, for comparison with published values alone.") == 2
    assert "is what the tables of CoMM call accuracy" in summary


def test_a_refit_is_not_validated_by_samples_that_it_was_trained_on(unbroken):
    """The config of the search divides the training split, and a refit is trained on all of it."""
    study, ready = unbroken
    model, (train, held_out) = load_refit(study), (ready.dataset.train, ready.dataset.validation)
    assert ready.config.run.validation.kind == "kfold" and held_out is None and model.members[0].samples == len(train)
    case = AnalysisContext(model, ready.dataset, Options(training_samples=len(train)))
    assert linear_subsets.obstacle(case) is None
    table, fitted = linear_subsets.evaluations(case)
    assert fitted == len(train) and {*table["split"]} == {"test"}


def test_published_evaluations_are_those_of_the_stored_embeddings_and_only_a_refit_has_them(unbroken):
    """Again from the model of the refit; a search without the column is the same but for it."""
    study, ready = unbroken
    run, model = study.run("refits/winner/0"), load_refit(study)
    member, dataset = model.members[0], ready.dataset
    train, test = (
        member.subset_features(member.sources(split.inputs), [model.modalities])[0]
        for split in (dataset.train, dataset.test)
    )
    samples = Samples(train, dataset.train.labels)
    fit, choose = published_probes.divided(samples, None, dataset.train.labels)
    expected = {
        "grid": published_probes.grid(fit, choose, num_classes=10),
        "notebook": published_probes.notebook(samples, num_classes=10),
    }
    table = test_table.all_metrics(StudyResults.read(study))
    line = table[(table["row"] == "winner") & (table["metric"] == "accuracy")]
    for name, probe in expected.items():
        stored = collect.arrays_of(run)[f"probe.{name}.0"]
        assert stored.shape == (len(dataset.test), 10)
        right = probe.outputs(test).argmax(axis=1) == dataset.test.labels
        agree = np.mean(stored.argmax(axis=1) == probe.outputs(test).argmax(axis=1))
        assert agree > 0.99  # a loaded model computes in batches of another size
        assert line[f"optimistic_{name}"].item() == pytest.approx(right.mean(), abs=0.01)
    others = [name for name, run in study.runs() if not name.startswith("refits")]
    assert others
    for name in others:
        assert not [key for key in collect.arrays_of(study.run(name)) or {} if key.startswith("probe")]


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
