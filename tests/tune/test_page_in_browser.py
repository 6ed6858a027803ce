"""The page of a study with 1,000 trials in a real browser: it opens quickly, sorts, filters and asks for nothing."""

import dataclasses
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.support import browser
from tune.page import study_page
from tune.results import report, test_table
from tune.results.study_results import StudyResults
from tune.study.record import StudyFolder

pytestmark = pytest.mark.skipif(browser.executable() is None, reason="there is no Chromium on this machine")

COUNT = 1000


def drawn(results: StudyResults) -> tuple[FrozenTrial, ...]:
    """The study's own trials, and invented ones up to 1,000."""
    draw = np.random.default_rng(0)
    trials = list(results.trials)
    for number in range(len(trials), COUNT):
        params = {path: float(draw.uniform(d.low, d.high)) for path, d in results.config.space.items()}
        steps = {step: float(0.5 + 0.3 * draw.random()) for step in range(2, 101, 2)}
        trial = optuna.create_trial(
            state=TrialState.COMPLETE if number % 3 else TrialState.PRUNED,
            value=float(draw.random()) if number % 3 else None,
            params=params, distributions=dict(results.config.space), intermediate_values=steps,
        )  # fmt: skip
        trial.number = number
        trials.append(trial)
    return tuple(trials)


@pytest.fixture(scope="module")
def path(finished_study: StudyFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = StudyResults.read(finished_study)
    results = dataclasses.replace(own, trials=drawn(own))
    page = study_page.page(results, test_table.all_metrics(results), report.trials_table(results))
    target = tmp_path_factory.mktemp("page") / "report.html"
    target.write_text(page, encoding="utf-8")
    return target


FIRST = "document.querySelector('#trials tbody tr:not([hidden])').cells[0].textContent"
VALUES = "[...document.querySelectorAll('#trials tbody tr')].map(row => row.cells[2].dataset.v)"
SHOWN = "[...document.querySelectorAll('#trials tbody tr')].filter(row => !row.hidden).length"


def test_a_thousand_trials_open_sort_and_filter_without_a_request(path: Path, tmp_path: Path) -> None:
    with browser.started(tmp_path) as page:
        page.open(path)
        assert page.cpu_seconds() < 3
        assert page.run(SHOWN) == COUNT and page.run(FIRST).startswith("0 (")
        head = "document.querySelectorAll('#trials th button')[2]"
        page.run(f"{head}.click()")
        values = [float(text) for text in page.run(VALUES) if text]
        assert values == sorted(values, reverse=True) and len(values) < COUNT
        assert page.run(VALUES)[-1] == ""  # trials without a value stay last
        assert page.run(f"{head}.closest('th').getAttribute('aria-sort')") == "descending"
        page.run(f"{head}.click()")
        assert [float(text) for text in page.run(VALUES) if text] == values[::-1]
        field = "document.querySelector('#trials .filter')"
        page.run(f"{field}.value = 'pruned'; {field}.dispatchEvent(new Event('input'))")
        pruned = page.run(SHOWN)
        assert 300 < pruned < 350
        assert page.run("document.querySelector('#trials .count').textContent") == f"{pruned} of {COUNT} rows"
        page.run("document.querySelector('#theme').click()")
        assert page.run("document.documentElement.dataset.theme") == "dark"
        choice = "document.querySelector('.choose')"
        page.run(f"{choice}.selectedIndex = 1; {choice}.dispatchEvent(new Event('change'))")
        assert page.run("[...document.querySelectorAll('[data-panel=metric]')].map(p => p.hidden)")[:2] == [True, False]
        for width in (360, 800, 1400):
            page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            assert page.run("document.documentElement.scrollWidth") <= width
        assert page.requests() == [path.as_uri()] or page.requests() == [path.as_uri(), "data:,"]
        assert page.complaints() == []


def test_the_policy_stops_scripts_and_requests_that_are_not_its_own(path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    added = "<script>window.ran = true</script><img src='file:///etc/hostname'></body>"
    bad.write_text(path.read_text(encoding="utf-8").replace("</body>", added), encoding="utf-8")
    with browser.started(tmp_path / "profile") as page:
        page.open(bad)
        assert page.run("window.ran === undefined") is True
        assert len(page.complaints()) >= 2
