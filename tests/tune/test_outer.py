"""Trees of studies: their folder, what a kill leaves, what a resumed one runs, and the table over the splits."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t

from jobs import cli
from m3col.errors import InputError
from m3col.evaluation import test_ledger
from m3col.storage import atomic_files
from m3col.tracking import mlflow_store
from tests.support import tree_driving
from tests.support.table_training import training_of
from tests.support.tree_driving import TREE
from tune import checks
from tune.outer import summary as summaries
from tune.outer import table as tables
from tune.outer import tree_report, tree_run
from tune.outer.table import SplitResult
from tune.outer.tree_folder import FORMAT, TreeFolder
from tune.study.record import StudyFolder


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    tree_driving.without_ray(monkeypatch)
    with training_of("table"):
        yield


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched, training_of("table"):
        tree_driving.without_ray(patched)
        yield tree_driving.run(tmp_path_factory.mktemp("unbroken"))


def test_each_split_is_an_ordinary_study_whose_test_samples_count_apart(unbroken):
    folder, report = unbroken
    assert folder.finished()
    assert sorted(path.name for path in folder.path.iterdir() if path.is_dir()) == ["results", "split_00", "split_01"]
    studies = list(folder.studies())
    divisions = [study.described()["config"]["run"]["data"]["resplit"] for study in studies]
    assert [(d["kind"], d["index"]) for d in divisions] == [("kfold", 0), ("kfold", 1)]
    for study in studies:
        rows = study.described()["config"]["rows"]
        assert rows["no contrast"]["data"]["resplit"] == study.described()["config"]["run"]["data"]["resplit"]
        assert (study.results / "model").is_dir() and study.name == f"tree/{study.path.name}"
        assert study.resume_name == "tree"
        split = study.path.name[-1]
        assert f"Outer split {split} (kfold, seed 0)" in (study.results / "summary.md").read_text()
    entries = test_ledger.entries(folder.path.parent)  # beside the tree, as for every study
    assert len(entries) == 2 and entries[0]["digest"] != entries[1]["digest"]
    assert "m3col.data.resplits" not in report.summary and "belong to the procedure" in report.summary
    assert set(report.scores["split"]) == {"split_00", "split_01"}
    written = pd.read_csv(folder.results / "outer.csv")
    pd.testing.assert_frame_equal(written, report.table, check_dtype=False)


# Writes of text files: the first study.json; a result of the first study; before it is noted as ended; the table.
LIMITS = (2, 21, 42, 85)


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def test_a_tree_that_is_killed_anywhere_ends_as_an_unbroken_one(tmp_path, monkeypatch, unbroken):
    _, whole = unbroken
    write = atomic_files.write_text
    count = {"now": 0, "limit": 0}

    def guarded(path, text):
        count["now"] += 1
        if count["now"] == count["limit"]:
            if count["now"] % 2:  # before the write, or after it
                write(path, text)
            raise Killed
        write(path, text)

    monkeypatch.setattr(atomic_files, "write_text", guarded)
    kills = 0
    for limit in LIMITS:
        count |= {"now": 0, "limit": limit}
        runs = tmp_path / str(limit)
        resumed = False
        while True:
            try:
                folder, report = tree_driving.run(runs, TREE, resume="auto" if resumed else False)
                break
            except Killed:
                kills, resumed = kills + 1, True
        assert report.table.equals(whole.table) and report.summary == whole.summary, limit
        assert folder.finished()
    assert kills == len(LIMITS)


def test_a_resumed_tree_runs_what_is_missing_and_no_more(tmp_path, monkeypatch):
    started = []
    original = tree_run.run_tracked
    monkeypatch.setattr(
        tree_run,
        "run_tracked",
        lambda item, folder, *rest: started.append(folder.name) or original(item, folder, *rest),
    )
    folder, first = tree_driving.run(tmp_path)
    assert started == ["tree/split_00", "tree/split_01"]
    _, again = tree_driving.run(tmp_path, None, resume="tree")
    assert started[2:] == [] and again.table.equals(first.table)
    _, more = tree_driving.run(tmp_path, None, resume="tree", outer__repeats=2)
    assert started[2:] == ["tree/split_02", "tree/split_03"]
    assert set(more.scores["split"]) == {f"split_0{j}" for j in range(4)}
    kept = more.scores[more.scores["split"].isin(["split_00", "split_01"])].reset_index(drop=True)
    assert kept.equals(first.scores)  # more splits change no earlier one
    _, delivered = tree_driving.run(tmp_path, None, resume="tree", outer__repeats=1, outer__deliver=True)
    assert started[4:] == ["tree/delivered"]
    described = StudyFolder(folder.path / "delivered").described()
    assert (described["dataset"]["train"], described["dataset"]["test"]) == (48, 0)
    assert "delivered/results/model" in delivered.summary and delivered.table.equals(first.table)
    tree_driving.run(tmp_path, None, resume="tree", search__trials=3)
    assert started[5:] == ["tree/split_00", "tree/split_01", "tree/delivered"]


def test_a_tree_keeps_what_its_splits_depend_on(tmp_path):
    tree_driving.run(tmp_path)
    for changes, words in [
        ({"outer__seed": 1}, "outer.seed: a resumed tree keeps it"),
        ({"train__epochs": 9}, "train.epochs: a resumed study keeps its config"),
        (
            {"outer__reference": "wimner"},
            "must be one of the rows, but is 'wimner'; did you mean 'winner'",
        ),
    ]:
        with pytest.raises(InputError, match=words.replace(".", r"\.")):
            tree_driving.run(tmp_path, None, resume="tree", **changes)
    with pytest.raises(InputError, match=r"outer\.seed was 0 and is now 5"):
        tree_driving.run(tmp_path, TREE, resume="tree", outer__seed=5)
    with pytest.raises(InputError, match="a study of this name exists; resume it with --resume tree"):
        options = checks.Options(runs=tmp_path, name="tree")
        checks.validate(TREE, data=tree_driving.samples(), overrides={}, options=options)


def test_where_nothing_is_searched_a_split_costs_one_trial_and_the_refits(tmp_path):
    fixed = {**{key: value for key, value in TREE.items() if key != "space"}, "search": {"trials": 1}}
    folder, report = tree_driving.run(tmp_path, fixed)
    for study in folder.studies():
        assert [name for name, _ in study.runs()] == ["trials/0", "refits/no_contrast/0", "refits/winner/0"]
    assert "(preprocessing and refits)" in report.summary


def test_one_failed_study_ends_the_tree_and_the_others_are_kept(tmp_path, monkeypatch):
    original = tree_run._run_study

    def failing(run, name):
        if name == "split_01":
            raise InputError(["no room"])
        original(run, name)

    with monkeypatch.context() as patched:
        patched.setattr(tree_run, "_run_study", failing)
        with pytest.raises(InputError, match="no room"):
            tree_driving.run(tmp_path)
    report = tree_report.write(TreeFolder(tmp_path / "tree"))
    assert "**1 of 2 outer splits have ended**" in report.summary and report.table["p"].isna().all()
    assert not TreeFolder(tmp_path / "tree").finished()
    assert cli.main(["runs", "list", "--runs-dir", str(tmp_path)]) == 0


def test_every_fault_of_a_tree_is_reported_at_once(tmp_path):
    def faults(outer, **changes):
        config = {**TREE, "outer": outer, **changes}
        with pytest.raises(InputError) as raised:
            checks.validate(config, data=tree_driving.samples(), overrides={}, options=checks.Options(runs=tmp_path))
        return str(raised.value)

    text = faults({"kind": "kfoldy", "folds": 1, "repeats": 0, "seed": -1, "turns": 3})
    for words in ("outer.kind must be one of resplit, kfold, given", "did you mean 'kfold'", "outer.folds must be >= 2",
                  "outer.repeats must be >= 1", "outer.seed must be >= 0", "unknown key 'outer.turns'"):  # fmt: skip
        assert words in text, text
    text = faults({"kind": "given", "folds": 5, "seed": 1, "reference": "best"})
    assert "outer.kind 'given' is the data set's own test split" in text and "leave outer.folds, outer.seed out" in text
    assert "outer.reference must be one of the rows, but is 'best'" in text
    text = faults({"kind": "kfold", "folds": 40}, validation={"kind": "kfold", "folds": 3})
    assert "outer.folds: 40 folds, but class 0 (0) has only 24 samples; at most 24 folds are possible" in text
    text = faults({"kind": "kfold", "folds": 24}, validation={"kind": "kfold", "folds": 24})
    assert "validation.folds: 24 folds, but class 0 (0) has only 23 training samples" in text
    text = faults({"kind": "resplit"}, validation={"kind": "given"})
    assert "validation.kind 'given' is the data set's own validation split, but outer pools all samples" in text
    text = faults({"kind": "kfold"}, overrides={**TREE["overrides"], "data.resplit": {"index": 3}})
    assert "leave data.resplit out, or outer" in text
    text = faults({"kind": "kfold"}, final={"rows": {"other": {"data.resplit.index": 3}}})
    assert "final.rows.other: data.resplit must be that of the other rows" in text
    assert not list(tmp_path.iterdir())


def test_a_tree_in_mlflow_has_its_studies_below_it_and_its_table(tmp_path):
    store = mlflow_store.connect(None, tmp_path)
    assert store is not None
    folder, report = tree_driving.run(tmp_path, tracker=store)
    experiment = store.experiment("arrays")
    (tree,) = store.find(experiment, {mlflow_store.KIND: "tree"})
    studies = store.find(experiment, {mlflow_store.KIND: "study"})
    assert [study.tags[mlflow_store.PARENT] for study in studies] == [tree.id, tree.id]
    assert tree.status == mlflow_store.FINISHED and "belong to the procedure" in tree.tags[mlflow_store.NOTE]
    winner = report.declared[report.declared["row"] == "winner"].iloc[0]
    assert tree.metrics[f"test/{winner['metric']}"] == pytest.approx(winner["mean"])
    before = store.client.get_run(tree.id).to_dictionary()
    assert cli.main(["sync", "tree", "--runs-dir", str(tmp_path)]) == 0  # sending again adds nothing
    assert store.client.get_run(tree.id).to_dictionary() == before
    names = {item.path for item in store.client.list_artifacts(tree.id)}
    assert names == {"tree.json", "outer.csv", "report.html", "scores.csv", "summary.md"}
    assert cli.main(["report", "tree", "--runs-dir", str(tmp_path)]) == 0
    page = (folder.results / "report.html").read_text(encoding="utf-8")
    for words in ('id="leaderboard"', "Scores of the splits", "Nadeau and Bengio (2003)", "The splits", 'class="mean"'):
        assert words in page, words
    assert "has not ended" not in page
    assert cli.main(["runs", "rm", "tree", "--yes", "--runs-dir", str(tmp_path)]) == 0 and not folder.path.exists()


def results(scores: dict[str, list[float]], *, metric: str = "accuracy", train: int = 30, test: int = 10):
    """Studies with these scores; NaN: the study has no such row."""
    count = len(next(iter(scores.values())))
    for number in range(count):
        rows = [(row, values[number]) for row, values in scores.items() if not np.isnan(values[number])]
        lines = [{"row": row, "label": row, "metric": metric, "cv": 0.5, "test": value} for row, value in rows]
        yield SplitResult(f"split_{number:02d}", train, test, pd.DataFrame(lines))


@pytest.mark.parametrize(("metric", "better"), [("accuracy", 1), ("log_loss", -1)])
def test_the_table_equals_plain_loops(metric, better):
    draw = np.random.default_rng(1)
    scores = {row: (0.7 + 0.1 * draw.random(6)).tolist() for row in ("winner", "default", "forest", "majority")}
    scores["forest"][2] = float("nan")
    lines = tables.table(list(results(scores, metric=metric)), reference="winner").set_index("row")
    p_values = []
    for row, values in scores.items():
        there = [value for value in values if not np.isnan(value)]
        mean = sum(there) / len(there)
        assert lines.loc[row, "mean"] == pytest.approx(mean, abs=1e-9)
        spread = (sum((value - mean) ** 2 for value in there) / (len(there) - 1)) ** 0.5
        assert lines.loc[row, "sd"] == pytest.approx(spread, abs=1e-9)
        if row == "winner":
            assert np.isnan(lines.loc[row, "p"])
            continue
        d = [a - b for a, b in zip(values, scores["winner"], strict=True) if not np.isnan(a)]
        middle = sum(d) / len(d)
        error = (sum((x - middle) ** 2 for x in d) / (len(d) - 1) * (1 / len(d) + 10 / 30)) ** 0.5
        half = student_t.ppf(0.975, len(d) - 1) * error
        assert lines.loc[row, "difference"] == pytest.approx(middle, abs=1e-9)
        assert lines.loc[row, "difference_low"] == pytest.approx(middle - half, abs=1e-9)
        assert lines.loc[row, "difference_high"] == pytest.approx(middle + half, abs=1e-9)
        p_values.append((2 * student_t.sf(abs(middle) / error, len(d) - 1), row))
        assert lines.loc[row, "p"] == pytest.approx(p_values[-1][0], abs=1e-9)
        assert lines.loc[row, "won"] == pytest.approx(sum(better * x > 0 for x in d) / len(d))
    largest = 0.0
    for number, (p, row) in enumerate(sorted(p_values)):
        largest = max(largest, min(1.0, p * (len(p_values) - number)))
        assert lines.loc[row, "p_holm"] == pytest.approx(largest, abs=1e-9)
    assert lines.loc["forest", "splits"] == 5


def test_where_the_default_won_a_split_its_row_has_the_winners_scores():
    scores = {"winner": [0.9, 0.8, 0.7], "default": [0.6, float("nan"), 0.6], "majority": [0.5, 0.5, 0.5]}
    lines = tables.table(list(results(scores)), reference="default").set_index("row")
    assert lines.loc["default", "mean"] == pytest.approx((0.6 + 0.8 + 0.6) / 3)
    assert lines.loc["winner", "difference"] == pytest.approx((0.3 + 0.0 + 0.1) / 3)
    always = {"winner": [0.9, 0.8], "majority": [0.5, 0.5]}
    lines = tables.table(list(results(always)), reference="default")
    assert set(lines["row"]) == {"winner", "majority"} and set(lines["reference"]) == {"winner"}


def test_a_damaged_tree_is_refused_with_its_path(tmp_path, capsys):
    (tmp_path / "tree").mkdir()
    path: Path = tmp_path / "tree" / "tree.json"
    unknown = {"format": FORMAT, "config": {}, "outer": {"kind": "kfold", "parallel": 1}}
    for content in ("{", json.dumps({"format": 99, "config": {}, "outer": {}}), json.dumps(unknown)):
        path.write_text(content)
        assert cli.main(["report", "tree", "--runs-dir", str(tmp_path)]) == 2
        assert str(path) in capsys.readouterr().err


def test_the_summary_says_what_is_better_and_compares_with_the_best_free_row():
    scores = {
        "winner": [0.80, 0.82, 0.81, 0.83], "no contrast": [0.70, 0.71, 0.72, 0.72], "forest": [0.81, 0.78, 0.82, 0.83],
        "majority": [0.5, 0.5, 0.5, 0.5],
    }  # fmt: skip
    splits = list(results(scores))
    options = checks.Options(runs=Path("nowhere"))
    (item,) = checks.validate(TREE, data=tree_driving.samples(), overrides={"outer.repeats": 2}, options=options)
    described = {"name": "tree", "dataset": {"name": "arrays", "known_issues": ""}}
    text = summaries.write(summaries.Facts(described, item.config, splits, tables.table(splits)))
    assert "**`winner` reaches accuracy 81.5 %**, the mean over 4 outer splits (standard deviation over" in text
    assert "The free row with the best cross-validation is `forest` with 81.0 %: a difference of −0.5 points" in text
    assert "**not distinguishable**" in text
    assert "Distinguishably worse than `winner`, each for itself: `no contrast`, `majority`." in text
    assert (
        "2-fold cross-validation, 2 times with new folds, seed 0" in text and "(1/4 + 0.33), t with 3 degrees" in text
    )
    cells = summaries.columns(tables.table(splits))
    assert cells["splits won"] == ["–", "0 %", "62 %", "0 %"] and cells["splits"] == ["4"] * 4
