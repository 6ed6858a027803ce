"""Studies of permuted labels beside a search: what they run, and what the summary says of chance."""

import numpy as np
import pandas as pd
import pytest

from m3col.errors import InputError
from tests.support import tree_driving
from tests.support.driving import prepare_study, small
from tests.support.table_training import training_of
from tests.support.tree_driving import TREE
from tune import checks
from tune.outer import chance
from tune.outer.table import SplitResult


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    tree_driving.without_ray(monkeypatch)
    with training_of("table"):
        yield


def test_a_search_with_permuted_labels_is_a_tree_of_its_own_split_and_of_them(tmp_path):
    config = {key: value for key, value in TREE.items() if key != "outer"}
    folder, report = tree_driving.run(tmp_path, config, search__null=2)
    assert [study.path.name for study in folder.studies()] == ["split_00", "null_00", "null_01"]
    configs = [study.described()["config"] for study in folder.studies()]
    assert [c["run"]["data"].get("permuted_labels") for c in configs] == [None, 0, 1]
    assert configs[1]["rows"]["no contrast"]["data"]["permuted_labels"] == 0
    assert [c["search"]["null"] for c in configs] == [0, 0, 0]
    digests = {study.described()["digests"]["test"] for study in folder.studies()}
    assert len(digests) == 3
    assert "## What chance reaches" in report.summary and "of 2 studies" in report.summary
    lines = pd.read_csv(folder.results / "chance.csv")
    assert {"winner", "ensemble", "no contrast"} <= set(lines["row"])
    assert set(lines.loc[lines["row"] != "default", "studies"]) == {2}  # the default has no row where it won
    assert list(report.scores["split"].unique()) == ["split_00"]  # chance has no part in the other tables


def test_more_of_them_can_be_added_to_a_tree(tmp_path):
    folder, report = tree_driving.run(tmp_path, search__null=1)
    names = [study.path.name for study in folder.studies()]
    assert names == ["split_00", "split_01", "null_00"]
    before = (folder.path / "null_00" / "results" / "test_metrics.csv").read_bytes()
    folder, report = tree_driving.run(tmp_path, None, resume="tree", search__null=3)
    studies = {study.path.name: study.described()["config"]["run"]["data"] for study in folder.studies()}
    assert {"null_01", "null_02"} <= set(studies)
    assert [studies[f"null_0{k}"]["resplit"]["index"] for k in range(3)] == [0, 1, 0]
    assert (folder.path / "null_00" / "results" / "test_metrics.csv").read_bytes() == before
    assert "of 3 studies" in report.summary


def test_a_study_without_a_tree_cannot_be_given_them_later(tmp_path):
    prepare_study(tmp_path, small(), name="plain")
    with pytest.raises(InputError, match=r"search\.null: a study of its own cannot get studies of permuted labels"):
        checks.validate(
            None, data=None, overrides={"search.null": 5}, options=checks.Options(runs=tmp_path, resume="plain")
        )


def made(name: str, **scores: tuple[float, float]) -> SplitResult:
    lines = [
        {"row": row, "label": f"{row} (trial 3)", "metric": "accuracy", "cv": cv, "test": test}
        for row, (cv, test) in scores.items()
    ]
    return SplitResult(name, 40, 20, pd.DataFrame(lines))


def test_how_often_chance_reaches_the_score():
    real = [made("split_00", winner=(0.8, 0.7), svm=(0.8, np.nan)), made("split_01", winner=(0.8, 0.8), svm=(0.8, 0.6))]
    tests = [0.5, 0.76, 0.75, 0.4]
    nulls = [made(f"null_{k}", winner=(0.6 + 0.01 * k, value), svm=(0.5, 0.5)) for k, value in enumerate(tests)]
    lines = chance.table(real, nulls, metric="accuracy").set_index("row")
    winner = lines.loc["winner"]
    assert (winner["studies"], winner["reached"], winner["p"]) == (4, 2, 3 / 5)
    assert winner["test"] == pytest.approx(np.mean(tests)) and winner["test_best"] == 0.76
    assert winner["cv_best"] == 0.63 and winner["label"] == "winner"
    assert (lines.loc["svm", "reached"], lines.loc["svm", "p"]) == (0, 1 / 5)
    # The default won the real study: its row has the winner's score there.
    nulls = [made("null_0", winner=(0.6, 0.5), default=(0.6, 0.9)), made("null_1", winner=(0.6, 0.5), other=(0.5, 0.5))]
    chances = chance.table([made("split_00", winner=(0.8, 0.7))], nulls, metric="accuracy").set_index("row")
    assert chances.loc["default", "reached"] == 1 and chances.loc["default", "studies"] == 2
    assert np.isnan(chances.loc["other", ["reached", "p"]].astype(float)).all()
    (section,) = chance.sections(chances.reset_index(), metric="accuracy", asked=5)
    assert "2 of 5 studies of permuted labels have ended." in section.paragraphs
    assert section.table["reached the real score"][-1] == "–"
    (section,) = chance.sections(lines.reset_index(), metric="accuracy", asked=4)
    assert (
        "**The winner's test score was reached by chance in 2 of 4 studies** (p = 0.6; no p can be below 0.2)"
        in (section.paragraphs[1])
    )


def test_where_low_is_good_chance_reaches_a_score_from_below():
    real = [made("split_00", winner=(0.4, 0.5))]
    for each in real:
        each.metrics["metric"] = "log_loss"
    nulls = [made(f"null_{k}", winner=(0.7, value)) for k, value in enumerate([0.6, 0.45])]
    for each in nulls:
        each.metrics["metric"] = "log_loss"
    line = chance.table(real, nulls, metric="log_loss").iloc[0]
    assert (line["reached"], line["test_best"], line["cv_best"]) == (1, 0.45, 0.7)


def test_without_them_there_is_no_such_section(tmp_path):
    folder, report = tree_driving.run(tmp_path)
    assert "chance" not in report.summary and not (folder.results / "chance.csv").exists()
    assert chance.sections(chance.table([], [], metric="accuracy"), metric="accuracy", asked=0) == []
    (section,) = chance.sections(chance.table([], [], metric="accuracy"), metric="accuracy", asked=2)
    assert section.paragraphs == ["No study of permuted labels has ended yet."]
