"""What the figures of several labels and of numbers show, read from their axes."""

import numpy as np
import pytest

from m3col import tasks
from m3col.plots import label_plots


def test_each_target_has_a_panel_with_its_values():
    truth = np.random.default_rng(0).normal(size=(20, 8))
    figure = label_plots.predicted_against_true(truth, truth + 1, [f"t{k}" for k in range(8)])
    assert [axes.get_title("left") for axes in figure.axes] == [f"t{k}" for k in range(6)]
    points = figure.axes[2].collections[0].get_offsets()
    assert np.allclose(points, np.column_stack([truth[:, 2], truth[:, 2] + 1]))


def test_bars_are_the_f1_of_the_labels_the_most_frequent_first():
    labels = np.array([[1, 0], [1, 1], [1, 0], [0, 0]])
    decided = np.array([[1, 1], [1, 1], [0, 0], [1, 0]])
    figure = label_plots.label_scores(labels, decided, ["many", "few"])
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["many (3)", "few (1)"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([100 * 4 / 6, 100 * 2 / 3])


def test_the_figures_of_the_tasks():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, (9, 2)), rng.random((9, 2))
    assert [*tasks.build("multi_label", ["$a", "b"]).figures(labels, predictions)] == ["label_scores"]
    assert [*tasks.build("regression", ["a", "b"]).figures(labels, predictions)] == ["predicted_against_true"]
