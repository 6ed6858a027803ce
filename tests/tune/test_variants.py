"""Samplers, pruners, validations and refits that the default search does not use, each through a whole small study."""

import numpy as np
import pytest

from m3col.data.arrays import from_arrays
from m3col.data.splits import read_csv
from m3col.errors import InputError
from tests.support.driving import coordinator, drive, prepare_study, small, trial_rows, values
from tests.support.helpers import tiny_data
from tune import checks
from tune.scheduling.optuna_study import sampler
from tune.study import partitions


@pytest.mark.parametrize("kind", ["tpe", "random", "gp"])
def test_every_sampler_finishes_and_is_a_function_of_the_seed(tmp_path, kind):
    config = small(search__sampler=kind, search__trials=12, search__replicates=0, search__confirm=None)
    config["overrides"] = {**config["overrides"], "train.epochs": 2}
    rows = []
    for place in ("a", "b"):
        folder, ready = prepare_study(tmp_path / place, config)
        drive(coordinator(folder, ready), ready.dataset)
        rows.append(trial_rows(folder, ready))
    assert rows[0] == rows[1] and len(rows[0]) == 12
    points = {tuple(sorted(row[1].items())) for row in rows[0]}
    assert len(points) == 12


def test_sampler_seeds_differ_from_trial_to_trial():
    from optuna.distributions import FloatDistribution

    drawn = []
    for number in range(3):
        found = sampler("random", 0, number)
        drawn.append(found.sample_independent(None, None, "x", FloatDistribution(0, 1)))  # type: ignore[arg-type]
    assert len(set(drawn)) == 3


def test_the_median_pruner_prunes_after_the_first_rung_and_spares_the_default(tmp_path):
    folder, ready = prepare_study(tmp_path, small(search__pruner="median", search__trials=14, search__sampler="random"))
    drive(coordinator(folder, ready), ready.dataset)
    rows = trial_rows(folder, ready)
    pruned = [row for row in rows if row[0] == "PRUNED"]
    assert pruned and all(max(row[3]) >= 40 for row in pruned)
    assert rows[0][0] == "COMPLETE"


def test_a_default_that_is_worst_is_still_never_pruned(tmp_path):
    """Its learning rate hardly moves the weights, so that every rung would turn it down."""
    config = small(search__trials=6, search__sampler="random")
    config["overrides"] = {**config["overrides"], "train.learning_rate": 1e-6}
    config["space"] = {"train.learning_rate": {"low": 1e-6, "high": 0.1, "log": True}}
    folder, ready = prepare_study(tmp_path, config)
    drive(coordinator(folder, ready), ready.dataset)
    assert trial_rows(folder, ready)[0][0] == "COMPLETE"


def test_holdout_has_one_fold_and_the_confirmation_another_partition(tmp_path):
    folder, ready = prepare_study(tmp_path, small(validation={"kind": "holdout", "fraction": 0.3}))
    drive(coordinator(folder, ready), ready.dataset)
    found = read_csv(folder.path / "splits.csv")
    assert [len(found[name]) for name in ("search", "confirm")] == [1, 1]
    assert len(found["search"][0].validation) == 60
    assert not np.array_equal(found["search"][0].validation, found["confirm"][0].validation)
    assert any(name.startswith("confirm/") for name in values(folder))


def with_validation():
    whole = tiny_data(samples=60)
    views = whole.train.inputs
    return from_arrays(
        {name: x[:40] for name, x in views.items()},
        whole.train.labels[:40],
        validation=({name: x[40:] for name, x in views.items()}, whole.train.labels[40:]),
        test=(whole.test.inputs, whole.test.labels),
    )


def test_a_given_split_is_used_for_trials_and_for_the_best_epoch_of_a_given_refit(tmp_path):
    config = small(final__refit="given", final__seeds=1)
    config.pop("validation")
    folder, ready = prepare_study(tmp_path, config, data=with_validation())
    assert ready.config.run.validation.kind == "given"
    drive(coordinator(folder, ready), ready.dataset)
    refit = folder.run("refits/winner/0")
    assert refit.outcome().state == "complete"
    assert all(record["value"] is not None for record in refit.history())


def test_a_given_refit_without_a_validation_split_is_refused():
    with pytest.raises(InputError, match=r"final\.refit 'given' needs a validation split"):
        checks.validate(small(final__refit="given"), data=None, overrides={}, options=checks.Options())


def test_a_plateau_refit_replays_the_drops_of_its_trial(tmp_path):
    config = small(search__trials=2, final__seeds=1, search__pruner="none")
    config["overrides"] = {
        **config["overrides"],
        "train.schedule.kind": "plateau",
        "train.schedule.patience": 0,
        "train.schedule.gamma": 0.5,
    }
    folder, ready = prepare_study(tmp_path, config)
    found = coordinator(folder, ready)
    drive(found, ready.dataset)

    def rates(name):
        return [record["metrics"]["train/learning_rate"] for record in folder.run(name).history()]

    winner = found.plan.decide().winner
    assert rates("refits/winner/0") == rates(f"trials/{winner}")
    assert len(set(rates("refits/winner/0"))) > 1


def test_datasets_and_methods_make_one_study_per_pair_with_the_same_folds():
    config = small(methods=["m3col", "concat", "single:pixels"])
    found = checks.validate(config, data=None, overrides={}, options=checks.Options())
    assert [item.config.run.method for item in found] == ["m3col", "concat", "single"]
    assert [sorted(item.config.space) for item in found] == [
        ["objective.beta", "train.learning_rate"], ["train.learning_rate"], ["train.learning_rate"]
    ]  # fmt: skip
    drawn = [partitions.partitions(item.config, item.dataset)["search"] for item in found]
    for other in drawn[1:]:
        assert all(np.array_equal(a.validation, b.validation) for a, b in zip(drawn[0], other, strict=True))


def test_a_metric_that_is_to_be_small_is_minimised(tmp_path):
    config = small(overrides={**small()["overrides"], "metric": "val/log_loss"}, search__trials=4)
    folder, ready = prepare_study(tmp_path, config)
    found = coordinator(folder, ready)
    drive(found, ready.dataset)
    finished = {t.number: t.value for t in found.plan.scored()}
    assert found.trials.maximize is False
    assert found.plan.decide().best in finished


def test_the_study_opens_in_optuna_dashboard(tmp_path):
    import io
    import json

    import optuna_dashboard

    folder, ready = prepare_study(tmp_path, small(search__trials=2))
    drive(coordinator(folder, ready), ready.dataset)
    application = optuna_dashboard.wsgi(folder.storage())
    status: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies", "SERVER_NAME": "localhost", "SERVER_PORT": "80",
               "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(), "wsgi.url_scheme": "http"}  # fmt: skip
    body = b"".join(application(environ, lambda line, headers, *rest: status.append(line)))
    assert status[0].startswith("200")
    assert json.loads(body)["study_summaries"][0]["study_name"] == "study"


def test_a_grid_of_which_only_a_corner_would_be_tried_is_refused():
    with pytest.raises(InputError, match=r"search\.trials must be >= 25 for this grid .* got 6"):
        checks.validate(small(search__sampler="grid"), data=None, overrides={}, options=checks.Options())


def test_the_first_rung_follows_the_defaults_switch_point():
    from tune.scheduling.optuna_study import first_rung

    assert [first_rung(point) for point in (0.0, 0.33, 0.4, 0.5, 0.51, 1.0)] == [40, 40, 42, 52, 52, 98]


def test_points_that_are_bad_only_together_fail_and_the_search_goes_on(tmp_path):
    config = small(search__trials=5, search__sampler="random", search__replicates=0, search__confirm=None)
    config["overrides"] = {**config["overrides"], "train.batch_size": 32, "train.shards": 1}
    config["space"] = {"train.shards": {"low": 1, "high": 16}, "train.batch_size": [4, 32]}
    folder, ready = prepare_study(tmp_path, config)
    drive(coordinator(folder, ready), ready.dataset)
    states = [row[0] for row in trial_rows(folder, ready)]
    assert "FAIL" in states and "COMPLETE" in states and len(states) == 5


def test_fewer_seeds_after_a_resume_leave_the_others_out_of_the_delivered_model(tmp_path):
    from m3col.predictor import load
    from tune.results import collect

    config = small(search__trials=1, search__replicates=0, final__seeds=3, final__baselines=False)
    folder, ready = prepare_study(tmp_path, config)
    drive(coordinator(folder, ready), ready.dataset)
    fewer = prepare_study(tmp_path, {**config, "final": {**config["final"], "seeds": 2}})[1]
    collect.collect(folder, fewer.config, fewer.dataset)
    assert len(load(folder.results / "model")) == 2
