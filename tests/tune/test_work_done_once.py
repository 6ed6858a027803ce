"""What is dear is done once: data is loaded and checked once per search, a run's config validated once per trial."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import cli
from m3col.config import loading, rules
from m3col.data import loading as data_loading
from tests.support.driving import coordinator, prepare_study, small, work
from tune import api, checks
from tune.search_result import SearchResult


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[str]:
    """Grows by one entry with each call of a function."""
    calls: list[str] = []
    function: Callable[..., Any] = getattr(owner, name)

    def count(*args: Any, **named: Any) -> Any:
        calls.append(name)
        return function(*args, **named)

    monkeypatch.setattr(owner, name, count)
    return calls


def test_a_search_from_the_command_line_loads_and_checks_its_data_once(monkeypatch, tmp_path):
    loads = counted(monkeypatch, data_loading, "load")
    validations = counted(monkeypatch, checks, "validate")
    monkeypatch.setattr(api, "validate", checks.validate)
    handed: list[Any] = []

    def run(ready: list[checks.CheckedStudy], options: checks.Options, cluster: Any) -> SearchResult:
        handed.extend(ready)
        raise RuntimeError("the search would begin here")

    monkeypatch.setattr(api, "run_checked", run)
    config = tmp_path / "search.yaml"
    config.write_text("base: digits\nspace: {objective.beta: {low: 0.01, high: 1.0}}\n")
    cli.main(["search", str(config), "--runs-dir", str(tmp_path), "--tracking-uri", "none"])
    assert [study.dataset.name for study in handed] == ["digits"]
    assert len(validations) == 1 and len(loads) == 1


def test_the_config_of_a_trial_is_validated_once(monkeypatch, tmp_path: Path):
    folder, ready = prepare_study(tmp_path, small())
    driver = coordinator(folder, ready)
    driver.next()  # the default
    driver.concurrency = 2
    checks_of_rules = counted(monkeypatch, rules, "faults")
    spec = driver.next()
    work(folder, spec, ready.dataset.without_test())
    assert len(checks_of_rules) == 1


def test_a_trusted_config_is_the_same_as_one_that_is_validated():
    config = loading.load("digits")
    assert loading.trusted(config.to_dict()) == config
