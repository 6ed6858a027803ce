"""The page of a study: each section as HTML, without a browser."""

import dataclasses
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jobs import cli
from tests.support.driving import prepare_study, small
from tune.config.schema import ConfirmConfig
from tune.page import axes, forest, markup, methods_text, model_charts, search_charts, study_page, tables
from tune.page.axes import Axis
from tune.page.forest import Difference
from tune.results import report, summary, test_table
from tune.results.study_results import StudyResults
from tune.study.record import StudyFolder

EVIL = "<script>alert('x')</script>\"&"

VOID = {"br", "input", "link", "meta"}


class Balanced(HTMLParser):
    """Fails at an element that is not closed in order, and collects ids, links and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [str(value) for name, value in attrs if name == "id"]
        self.links += [str(value) for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)


@pytest.fixture(scope="module")
def results(finished_study: StudyFolder) -> StudyResults:
    return StudyResults.read(finished_study)


@pytest.fixture(scope="module")
def metrics(results: StudyResults) -> pd.DataFrame:
    return test_table.all_metrics(results)


@pytest.fixture(scope="module")
def page(results: StudyResults, metrics: pd.DataFrame) -> str:
    return study_page.page(results, metrics, report.trials_table(results))


def test_text_and_attributes_are_escaped_and_markup_is_not() -> None:
    cell = markup.tag("td", EVIL, markup.tag("b", "x"), data_v=EVIL, hidden=False, open=True)
    assert "<script" not in cell and cell.endswith("<b>x</b></td>") and " open>" in cell and "hidden" not in cell
    assert markup.inline(f"**a** `{EVIL}` **{EVIL}**").count("&lt;script&gt;") == 2
    assert markup.inline("**a** `b*`") == "<strong>a</strong> <code>b*</code>"


def test_the_page_is_well_formed_and_has_every_section(page: str) -> None:
    found = Balanced(page)
    sections = ["leaderboard", "differences", "history", "importance", "curves", "trials", "predictions", "modalities",
                "settings", "remarks", "methods", "provenance"]  # fmt: skip
    assert [name for name in found.ids if name in sections] == sections
    assert [link for link in found.links if link.startswith("#")] == [f"#{name}" for name in sections]
    assert len(set(found.ids)) == len(found.ids)
    text = " ".join(found.texts)
    for part in ("digits-1: m3col on digits", "won", "best free baseline", "standard deviation over 3 seeds",
                 "no contrast", "Loss of the winner", "Votes of the winner", "Each modality alone",
                 "Confusion of classes",
                 "Known issues of the data", "bootstrap draws of test samples within class",
                 "Digest of train"):  # fmt: skip
        assert part in text, part


def test_the_page_asks_for_nothing_and_names_neither_machine_nor_user(page: str, results: StudyResults) -> None:
    found = Balanced(page)
    assert all(link.startswith(("#", "data:")) for link in found.links)
    assert not re.search(r"https?://|url\(|@import|\bfetch\(|XMLHttpRequest|WebSocket", page)
    policy = page.partition('http-equiv="Content-Security-Policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src 'none'") and "sha256-" in policy and "script-src 'unsafe" not in policy
    text = " ".join(found.texts)
    assert results.described["host"] not in re.split(r"[^\w.-]+", text)


def test_the_leaderboard_has_each_row_of_each_metric_with_a_value_to_sort_by(
    results: StudyResults, metrics: pd.DataFrame
) -> None:
    board = study_page.leaderboard(results, metrics)
    Balanced(board)
    names = metrics["metric"].unique()
    assert board.count('data-panel="metric"') == len(names) and board.count(" hidden>") == len(names) - 1
    rows = len(metrics) // len(names)
    assert board.count("<tr") == len(names) * (rows + 1)
    first = metrics.iloc[0]
    assert f'data-v="{float(first["test"])!r}">{100 * first["test"]:.2f}<' in board
    kinds = re.findall(r'data-kind="([^"]+)"', board)[:rows]
    assert kinds[:5] == ["searched", "searched", "fixed row", "fixed row", "ensemble"] and "free baseline" in kinds


def test_differences_are_against_the_default_and_the_best_baseline(
    results: StudyResults, metrics: pd.DataFrame
) -> None:
    declared = test_table.declared_table(metrics)
    body = study_page.differences(results, declared)
    Balanced(body)
    assert f"Against the best free baseline, {results.best_baseline}" in body
    assert body.count('class="frow"') == declared["difference"].notna().sum() - 1 + 5  # without majority


def test_a_forest_plot_places_ends_on_its_axis_and_says_which_side_is_better() -> None:
    lines = [Difference("a", 0.02, 0.01, 0.03), Difference("b", -0.02, -0.05, 0.01), Difference("gone", math.nan, 0, 0)]
    drawn = forest.forest(lines, metric="accuracy", samples=100, reference="c")
    assert drawn.count('class="frow"') == 2 and "gone" not in drawn
    axis = Axis.around([0.0, 0.01, 0.03, -0.05], margin=0.04)
    assert f'x1="{axis.at(0.01)}%" x2="{axis.at(0.03)}%"' in drawn
    assert "+2.0 (+1.0 to +3.0)" in drawn and "minus that of c (points)" in drawn
    assert [line.verdict("accuracy") for line in lines[:2]] == ["better", "same"]
    assert lines[0].verdict("log_loss") == "worse"
    assert forest.forest(lines[2:], metric="accuracy", reference="c") == ""


def test_a_row_far_away_is_an_arrow_at_the_edge() -> None:
    near = [Difference(str(at), 0.01, 0.0, 0.02) for at in range(4)]
    drawn = forest.forest([*near, Difference("far", -0.9, -0.91, -0.89)], metric="accuracy", reference="c")
    assert drawn.count("M-7 0L2-6L2 6Z") == 1 and "−90.0" in drawn
    strong = Difference("far", -0.9, -0.91, -0.89, strong=True)
    assert "M-7 0L2-6L2 6Z" not in forest.forest([*near, strong], metric="accuracy", reference="c")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-3.0, 7.0, [-2, 0, 2, 4, 6]), (0.9, 0.94, [0.9, 0.91, 0.92, 0.93, 0.94])],
)  # fmt: skip
def test_ticks_are_round_and_on_the_axis(low: float, high: float, ticks: list[float]) -> None:
    assert Axis(low, high).ticks() == pytest.approx(ticks)
    assert all(tick == round(tick) for tick in Axis(0, 3).ticks(whole=True))


def test_texts_of_ticks_have_the_decimals_that_tell_them_apart() -> None:
    assert axes.tick_text([0.9, 0.95, 1.0], 100) == ["90", "95", "100"]
    assert axes.tick_text([-0.005, 0.0, 0.005], 100) == ["−0.5", "0.0", "0.5"]
    assert axes.tick_text([0.0, 250_000.0]) == ["0", "2.5e+05"]


def test_an_axis_of_one_value_or_none_has_a_length() -> None:
    for axis in (Axis.around([0.0]), Axis.around([5.0, 5.0]), Axis.around([math.nan])):
        assert axis.high > axis.low and axis.ticks()


def test_reliability_is_that_of_plain_loops() -> None:
    draw = np.random.default_rng(0)
    p, right = draw.random(400), draw.random(400) < 0.6
    found = model_charts.reliability(p, right)
    error = 0.0
    for number in range(10):
        inside = [i for i in range(400) if min(9, int(p[i] * 10)) == number]
        mean = sum(float(p[i]) for i in inside) / len(inside)
        rate = sum(float(right[i]) for i in inside) / len(inside)
        assert found.confidence[number] == pytest.approx(mean, abs=1e-9)
        assert found.rate[number] == pytest.approx(rate, abs=1e-9)
        error += len(inside) / 400 * abs(mean - rate)
    assert found.error == pytest.approx(error, abs=1e-9)
    assert found.count.sum() == 400


def test_a_confusion_matrix_counts_and_many_classes_are_listed() -> None:
    drawn = model_charts.confusion([0, 0, 1, 1], [0, 1, 1, 1], ["a", EVIL])
    Balanced(drawn)
    cells = re.findall(r"--s:([\d.]+)[^>]*>(\d+)<", drawn)
    assert cells == [("0.500", "1"), ("0.500", "1"), ("0.000", "0"), ("1.000", "2")]
    assert "<script" not in drawn
    names = [f"class {number}" for number in range(30)]
    listed = model_charts.confusion([3, 3, 5], [4, 4, 5], names)
    assert "<td>class 3</td>" in listed and ">2<" in listed and "100 %" in listed
    assert "No sample was confused" in model_charts.confusion([3, 5], [3, 5], names)


def test_f1_of_a_label_and_points_of_a_target() -> None:
    drawn = model_charts.label_scores([[1, 0], [1, 1], [0, 1], [0, 1]], [[1, 0], [0, 1], [1, 1], [0, 1]], ["a", EVIL])
    assert (
        re.findall(r"\((\d)\)", drawn) == ["3", "2"] and "100 %" in drawn and "50 %" in drawn and "<script" not in drawn
    )
    points = model_charts.predicted_against_true(np.arange(2000.0)[:, None], np.arange(2000.0)[:, None], [EVIL])
    assert points.count("<circle") == 800 and "<script" not in points
    Balanced(points)


def test_missing_numbers_sort_last_and_are_a_dash() -> None:
    assert tables.number("0.5", 0.5).value == "0.5"
    assert (tables.number("nan", math.nan).content, tables.number("nan", None).value) == ("–", "")


def test_history_marks_default_and_winner_inside_of_the_noise(results: StudyResults) -> None:
    drawn = search_charts.history(results)
    Balanced(drawn)
    band = search_charts.noise_band(results)
    assert band is not None and results.noise is not None
    assert band[1] - band[0] == pytest.approx(4 * results.noise.sd)
    assert 'class="band"' in drawn and 'class="default"' in drawn and 'class="best"' in drawn
    numbers = {int(text) for text in re.findall(r'data-tip="trial (\d+):', drawn)}
    assert numbers == {trial.number for trial in results.trials}


def test_a_config_is_shown_without_folders() -> None:
    assert study_page.without_paths({"data": {"dir": "/home/me", "name": "x"}, "dir": None}) == {
        "data": {"name": "x"}, "dir": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("weights: /home/alice/w.safetensors", "weights: …/w.safetensors"),
        ("FileNotFoundError: no '/home/alice/secret project/x.csv'", None),
        ("init: ~/runs/a/model", "init: …/model"),
        ("C:\\Users\\alice\\bert", "…/bert"),
        ("val/accuracy of https://host/a/b is 3/4 and/or more", "val/accuracy of https://host/a/b is 3/4 and/or more"),
    ],
)
def test_of_a_path_only_the_last_part_is_left(text: str, shown: str | None) -> None:
    cleaned = markup.without_folders(text)
    assert "alice" not in cleaned
    if shown is not None:
        assert cleaned == shown


def test_the_methods_paragraph_says_only_what_happened(results: StudyResults) -> None:
    run, search = results.config.run, results.config.settings.search
    search = search.model_copy(update={"confirm": ConfirmConfig(top=2, seeds=1), "replicates": 3})
    config = dataclasses.replace(
        results.config,
        run=run.model_copy(update={"validation": run.validation.model_copy(update={"kind": "given"})}),
        settings=results.config.settings.model_copy(update={"search": search}),
    )
    assert "new partition" not in methods_text.search(config, trials=5)
    assert "chose the winner" in methods_text.search(config, trials=5)
    assert "chose the winner" not in methods_text.search(config, trials=5, confirmed=False)
    assert "1 repetition of it" in methods_text.search(config, trials=5, replicates=1)
    assert "noise" not in methods_text.search(config, trials=5, replicates=0)
    text = " ".join(methods_text.paragraphs(results))
    assert summary.ledger(results) in text
    assert "No test label was used before" not in text


def test_without_an_interval_nothing_is_said_of_a_difference() -> None:
    line = Difference("a", -0.5, math.nan, math.nan)
    assert line.verdict("accuracy") == "unknown"
    drawn = forest.forest([line], metric="accuracy", reference="b")
    assert "no interval" in drawn
    assert "not distinguishable" not in drawn


def test_the_style_sheet_and_the_script_are_in_the_page(page: str) -> None:
    folder = Path(study_page.__file__).parent
    for name in ("style.css", "page.js"):
        assert (folder / name).read_text(encoding="utf-8") in page


def test_names_of_users_are_text(results: StudyResults, metrics: pd.DataFrame) -> None:
    dataset = {**results.described["dataset"], "classes": [EVIL, *results.described["dataset"]["classes"][1:]]}
    dataset |= {"modalities": [EVIL], "features": {EVIL: 3}, "warnings": [EVIL]}
    named = dataclasses.replace(results, described={**results.described, "name": EVIL, "dataset": dataset})
    table = metrics.assign(label=EVIL)
    page = study_page.page(named, table, report.trials_table(named).assign(failure=EVIL, state=EVIL))
    Balanced(page)
    assert page.count("<script") == 1 and page.count("&lt;script&gt;") > 10


def test_a_study_without_test_labels_has_its_page(results: StudyResults) -> None:
    """Charts are then those of the out-of-fold predictions."""
    rows = results.predictions
    bare = dataclasses.replace(results, predictions=rows[rows["kind"] == "oof"])
    page = study_page.page(bare, test_table.all_metrics(bare), report.trials_table(bare))
    text = " ".join(Balanced(page).texts)
    assert "Out-of-fold predictions" in text and "No labelled test split was available" in text


@pytest.fixture
def ended_early(study_copy: Callable[[], StudyFolder]) -> StudyFolder:
    """A study that was stopped before its predictions were collected."""
    folder = study_copy()
    (folder.path / "predictions.parquet").unlink()
    return folder


def test_a_stopped_study_has_a_page_of_what_is_there(
    ended_early: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", ended_early.name, "--runs-dir", str(ended_early.path.parent)]
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert "the study is not finished" in said.err and "report.html" in said.out
    found = Balanced((ended_early.results / "report.html").read_text(encoding="utf-8"))
    text = " ".join(found.texts)
    assert "This study has not ended." in text and f"m3col search --resume {ended_early.name}" in text
    assert "6 of 6" in text and "There is no winner and no test score yet" in text
    assert {"history", "trials", "settings"} <= set(found.ids) and "leaderboard" not in found.ids


def test_a_running_study_has_a_page_that_says_so(ended_early: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    ended_early.lock()
    try:
        assert cli.main(["report", ended_early.name, "--runs-dir", str(ended_early.path.parent)]) == 0
    finally:
        ended_early.unlock()
    assert f"{ended_early.name} is still running" in capsys.readouterr().out
    page = (ended_early.results / "report.html").read_text(encoding="utf-8")
    assert "<strong>This study is still running.</strong>" in page


def test_a_study_that_never_began_has_a_page_that_says_so(tmp_path: Path) -> None:
    folder, _ = prepare_study(tmp_path, small())
    page = report.write_unfinished(folder, running=False).read_text(encoding="utf-8")
    assert "no trial has begun" in page and not (folder.path / "study.db").exists()
    Balanced(page)


def test_the_page_of_a_study_or_tree_that_has_ended_meanwhile_stays(tmp_path: Path) -> None:
    for is_finished, expected in ((False, "unfinished"), (True, "final")):
        (tmp_path / study_page.FILE).write_text("final")
        folder = SimpleNamespace(results=tmp_path, finished=lambda answer=is_finished: answer)
        report.put_unfinished(folder, "unfinished")  # type: ignore[arg-type]
        assert (tmp_path / study_page.FILE).read_text() == expected
