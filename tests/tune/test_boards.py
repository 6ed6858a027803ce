"""`m3col leaderboard`: trees of one data set, paired by split; studies of several data sets by their ranks."""

import pandas as pd
import pytest

from jobs import cli
from m3col.errors import InputError
from tests.support import tree_driving
from tests.support.table_training import training_of
from tests.support.tree_driving import TREE
from tune.outer import tree_board, tree_report, tree_result
from tune.outer.tree_folder import TreeFolder
from tune.outer.tree_result import TreeResult
from tune.results import rank_board

FIXED = {**{key: value for key, value in TREE.items() if key != "space"}, "search": {"trials": 1}}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Two trees with the same splits, and one with other splits, in one runs folder."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched, training_of("table"):
        tree_driving.without_ray(patched)
        return [
            tree_driving.run(runs, FIXED, name=name, train__learning_rate=rate, outer__seed=seed)[0]
            for name, rate, seed in (("plain", 1e-9, 0), ("strong", 0.05, 0), ("other", 0.05, 7))
        ]


def winners(tree: TreeFolder, metric: str) -> list[float]:
    table = pd.read_csv(tree.results / "scores.csv")
    return table[(table["row"] == "winner") & (table["metric"] == metric)].sort_values("split")["test"].tolist()


def test_winners_of_trees_are_compared_split_by_split(trees):
    first, second, other = trees
    names = tree_board.row_names([first, second])
    assert names[0].endswith(" (plain)") and names[1].endswith(" (strong)")
    lines = tree_board.compare([first, second])
    metric = lines["metric"].iloc[0]
    own = lines[lines["metric"] == metric].set_index("row")
    assert list(own.index) == [*names, "no contrast"]  # and what the first tree compares beside its winner
    differences = [b - a for a, b in zip(winners(first, metric), winners(second, metric), strict=True)]
    assert own.loc[names[1], "difference"] == pytest.approx(sum(differences) / 2) != 0
    assert pd.isna(own.loc[names[0], "difference"])
    turned = tree_board.compare([first, second], reference="strong").set_index(["metric", "row"])
    assert turned.loc[(metric, names[0]), "difference"] == pytest.approx(-sum(differences) / 2)
    with pytest.raises(InputError) as raised:
        tree_board.compare([first, other], reference="third")
    assert len(raised.value.faults) == 2
    assert "its splits are not those of plain" in str(raised.value) and "must be one of the trees" in str(raised.value)


def test_a_search_with_several_trees_ends_with_their_leaderboard(trees):
    first, second, _ = trees
    result = tree_result.of([TreeResult(tree, tree_report.write(tree)) for tree in (first, second)])
    assert result.trees == (first.path, second.path) and len(result.studies) == 4
    assert list(result.leaderboard["row"])[:2] == tree_board.row_names([first, second])
    assert set(result.leaderboard["dataset"]) == {"arrays"} and result.leaderboard["metric"].nunique() == 1
    assert list(first.path.parent.glob("leaderboard-*.csv"))


def test_the_command_and_its_faults(trees, tmp_path, capsys):
    runs = ["--runs-dir", str(trees[0].path.parent)]
    assert cli.main(["leaderboard", "plain", "strong", "--out", str(tmp_path / "board"), *runs]) == 0
    shown = capsys.readouterr().out
    assert "Winners on arrays, paired by split" in shown and "(strong)" in shown
    assert (tmp_path / "board" / "leaderboard.md").read_text() in shown
    for words, fault in [
        (["plain"], "name two or more"),
        (["plain", "plane"], "study 'plane': not found"),
        (["plain", "other"], "its splits are not those of plain"),
        (["plain", "plain/split_01"], "these are studies: plain/split_01"),
        (["plain/split_00", "plain/split_01"], "its train samples are not those of plain/split_00"),
        (["plain/split_00", "strong/split_00", "--reference", "plain"], "--reference: is for trees"),
    ]:
        assert cli.main(["leaderboard", *words, *runs]) == 2
        assert fault in capsys.readouterr().err


def test_studies_of_the_same_data_are_joined_in_one_table_with_a_page(trees, tmp_path, capsys):
    words = ["leaderboard", "plain/split_00", "strong/split_00", "--out", str(tmp_path), "--runs-dir"]
    assert cli.main([*words, str(trees[0].path.parent)]) == 0
    shown = capsys.readouterr().out
    assert "# Winners on arrays" in shown and "`plain/split_00`" in shown and "`strong/split_00`" in shown
    board = pd.read_csv(tmp_path / "leaderboard.csv")
    assert board["cv"].is_monotonic_decreasing and set(board["study"]) == {"plain/split_00", "strong/split_00"}
    page = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert page.count("<tr") == 3 and f'data-v="{float(board["test"].iloc[0])!r}"' in page


def lines(metric: str, **scores: float) -> pd.DataFrame:
    return pd.DataFrame([{"row": row, "metric": metric, "score": score} for row, score in scores.items()])


def test_rows_are_ranked_within_each_data_set_in_its_own_metric(tmp_path):
    tables = {
        "one": lines("accuracy", tree=0.9, forest=0.8, majority=0.5),
        "two": lines("log_loss", tree=0.2, forest=0.1, majority=0.9, extra=0.3),
        "three": lines("auroc", tree=0.9, forest=0.7, majority=0.5),
    }
    board = rank_board.board(tables)
    assert dict(zip(board.comparison.methods, board.comparison.mean_ranks, strict=True)) == pytest.approx(
        {"tree": 4 / 3, "forest": 5 / 3, "majority": 3.0}
    )
    assert board.left_out == ("extra",)
    text = rank_board.markdown(board, figure="figure.png")
    assert text.index("| tree |") < text.index("| forest |") < text.index("| majority |")
    assert "Not distinguishable from each other: `tree`, `forest`" in text and "![" in text
    assert "Left out, because a data set lacks them: extra." in text
    with pytest.raises(InputError, match="two or more data sets"):
        rank_board.board({"one": tables["one"]})
    with pytest.raises(InputError, match="fewer than two rows are in every data set"):
        rank_board.board({"one": tables["one"], "two": lines("auroc", other=0.3)})


def test_studies_of_several_data_sets_get_a_figure(trees, tmp_path, monkeypatch):
    from jobs.commands import boards

    describe = TreeFolder.described

    def described(folder: TreeFolder):
        values = describe(folder)
        return {**values, "dataset": {**values["dataset"], "name": f"data of {folder.name}"}}

    monkeypatch.setattr(TreeFolder, "described", described)
    runs = ["--runs-dir", str(trees[0].path.parent)]
    assert cli.main(["leaderboard", "plain", "strong", "other", "--out", str(tmp_path), *runs]) == 0
    assert (tmp_path / boards.FIGURE).stat().st_size > 1000
    table = pd.read_csv(tmp_path / "leaderboard.csv").set_index("row")
    assert list(table.columns) == ["data of plain", "data of strong", "data of other"]
    own = tree_report.write(trees[0]).declared.set_index("row")
    assert table.loc["winner", "data of plain"] == pytest.approx(own.loc["winner", "mean"])
