"""What `help` and a notebook show: every keyword in the signature and in the docstring, examples that run, tables."""

import doctest
import importlib
import inspect

import pytest

import m3col
import tune
from m3col.methods.base import Method
from m3col.tasks.base import Task
from tests.support.helpers import tiny_data

FUNCTIONS = (m3col.train, m3col.load, tune.search, tune.train)
EXAMPLES = (
    "m3col.api", "m3col.predictor", "m3col.losses.m3co", "m3col.losses.multi_softclip", "m3col.tasks.registry",
    "m3col.errors", "m3col.train_result",
)  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: f"{function.__module__}.{function.__name__}")
def test_every_keyword_is_typed_and_explained(function):
    signature, text = inspect.signature(function), inspect.getdoc(function)
    assert text is not None
    for name, parameter in signature.parameters.items():
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), name
        assert parameter.annotation is not parameter.empty and f"\n    {name}: " in text, name
    assert all(f"\n{section}:\n" in text for section in ("Args", "Returns", "Raises", "Example"))


@pytest.mark.parametrize("public", [m3col.Predictor, m3col.TrainResult, tune.SearchResult, Method, Task])
def test_public_classes_explain_their_attributes(public):
    assert "\nAttributes:\n" in (inspect.getdoc(public) or "")
    for name, member in inspect.getmembers(public, inspect.isfunction):
        if not name.startswith("_") and name in vars(public):
            assert inspect.getdoc(member), name


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_run(module, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    outcome = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted and outcome.failed == 0


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> m3col.TrainResult:
    data = tiny_data()
    parts = {"train": (data.train.inputs, data.train.labels), "test": (data.test.inputs, data.test.labels)}
    overrides = {"train.epochs": 1, "model.embedding_dim": 4, "model.classifier_dim": 4}
    runs = tmp_path_factory.mktemp("runs")
    return m3col.train("digits", data=parts, overrides=overrides, runs=runs, tracking_uri="none")


def test_results_show_themselves_in_a_notebook(result):
    page = result._repr_html_()
    assert "<table" in page and "test/accuracy" in page and "<script" not in page
    assert repr(result).startswith("TrainResult(m3col on arrays, 1 epochs: test/")
    model = result.predictor
    assert "view_0" in model._repr_html_() and repr(model).startswith("Predictor(m3col, 1 models: view_0 [N, 5]")


def test_a_search_shows_its_sentences_and_its_table(result):
    search_result = tune.SearchResult(
        best_config={}, best_metrics={"test/auroc": 0.9}, trials=result.history, test_table=result.history,
        summary="# Study <b>\n\nTrial 3 won.\n\n## More", studies=(result.folder,), leaderboard=None,
    )  # fmt: skip
    page = search_result._repr_html_()
    assert "Trial 3 won." in page and "&lt;b&gt;" in page and "More" not in page and "<table" in page
    assert "test/auroc 0.9000" in repr(search_result)
