"""Names of every script and with every sign in figures: literal where a font has them, else told apart by number."""

import unicodedata
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from m3col.plots import fonts, model_plots

# Private use: no font here has it, whatever is installed on the machine.
NOWHERE = chr(0xF8A0)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(fonts, "_warned", set())


@pytest.fixture
def no_fallback(monkeypatch):
    """Only matplotlib's own fonts, as on a server."""
    own = Path(matplotlib.get_data_path())
    found = tuple((name, path) for name, path in fonts._installed() if own in Path(path).parents)
    monkeypatch.setattr(fonts, "_installed", lambda: found)
    fonts._font_with.cache_clear()
    yield
    fonts._font_with.cache_clear()


def matrix(classes: list[str]) -> Figure:
    count = len(classes)
    return model_plots.confusion_matrix(np.arange(count), np.eye(count), classes)


def texts(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


@pytest.mark.parametrize(
    "name",
    [
        "a$b$c", "$\\alpha$", "$x", "x_1", "a^2", "\\frac", "50%", "a & b", "#1", "{x}", "~", "<b>", "\\$1$", "$$",
        "a\\", "ünï", "Ελλάδα", "Кот", "العربية", "עברית",
    ],
)  # fmt: skip
def test_a_name_is_drawn_as_it_is(name):
    """matplotlib's own parser says what would be drawn."""
    figure = Figure()
    FigureCanvasAgg(figure)
    text = figure.text(0.5, 0.5, fonts.literal(name))
    assert text._preprocess_math(text.get_text()) == (name, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fonts.settle(figure)
        figure.draw_without_rendering()


@pytest.mark.parametrize("name", ["_", "_background", "__init__", "_$x$"])
def test_a_name_that_begins_with_a_line_stands_in_a_legend(name):
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], label=fonts.literal(name))
    legend = axes.legend()
    (text,) = legend.get_texts()
    assert text._preprocess_math(text.get_text())[0].strip("\u200b") == name


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\r\nb", "a\x00b", "a\u2028b"])
def test_a_name_takes_one_line(name):
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in fonts.literal(name))


def test_names_that_no_font_has_are_numbers_and_that_is_said_once(no_fallback, tmp_path):
    classes = ["日本", "red", "中国 (A)", "한국어", "🦜", f"x{NOWHERE}", "\udc80", "ไทย"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            figure = matrix(classes)
            model_plots.save(figure, tmp_path / "matrix.png")
    shown = texts(figure)
    assert shown == ["class 0", "red", "class 2: (A)", "class 3", "class 4", "class 5: x", "class 6", "class 7"]
    (line,) = [str(item.message) for item in told]
    assert "日本 as 'class 0'" in line and "fonts-noto-cjk" in line


def test_names_that_look_alike_without_their_signs_are_told_apart(no_fallback):
    with pytest.warns(UserWarning, match="no installed font"):
        shown = fonts.names(["日 cat", "本 cat", "cat"])
    assert len(set(shown)) == 3


def test_an_installed_font_is_used(monkeypatch, tmp_path):
    """A font of mathematics stands for one of another script."""
    sign = chr(0x1D400)  # STIX has it, and the default of this test has not
    other = next((name, path) for name, path in fonts._installed() if ord(sign) in fonts._characters(path))
    real = fonts._characters
    default = matplotlib.font_manager.findfont(matplotlib.font_manager.FontProperties())
    monkeypatch.setattr(fonts, "_characters", lambda path: real(path) - ({ord(sign)} if path == default else set()))
    monkeypatch.setattr(fonts, "_installed", lambda: (other,))
    fonts._font_with.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = matrix([f"{sign}1", "b"])
            model_plots.save(figure, tmp_path / "matrix.png")
    finally:
        fonts._font_with.cache_clear()
    assert texts(figure) == [f"{sign}1", "b"]
    label = figure.axes[0].get_yticklabels()[0]
    assert label.get_fontfamily() == ["sans-serif", other[0]]
    assert figure.axes[0].get_yticklabels()[1].get_fontfamily() == ["sans-serif"]


@pytest.mark.parametrize("where", ["title", "label", "tick", "text", "legend"])
def test_no_warning_of_matplotlib_spills_wherever_a_text_stands(no_fallback, tmp_path, where):
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    name = f"study {NOWHERE}日本"
    axes.plot([0, 1], label=name if where == "legend" else "x")
    if where == "legend":
        axes.legend()
    elif where == "title":
        axes.set_title(name, fontweight="bold")
    elif where == "label":
        axes.set_xlabel(name)
    elif where == "tick":
        axes.set_xticks([0, 1], [name, "b"])
    else:
        axes.text(0, 0, name)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model_plots.save(figure, tmp_path / "figure.png")
    (line,) = [str(item.message) for item in told]
    assert "show boxes in study" in line and "Glyph" not in line
