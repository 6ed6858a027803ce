"""The searches in configs/search: no faults, rows with the published settings, and what limits the figures."""

import pytest

from m3col.data.multibench.convert import convert
from tests.conftest import REPOSITORY
from tests.data import multibench_files
from tune import checks
from tune.config import loading

NAMES = sorted(path.stem for path in (REPOSITORY / "configs" / "search").glob("*.yaml"))

MULTIBENCH = ("mosi", "ur_funny", "mustard", "mimic")

# Batch size and epochs of FactorCL, and epochs of SupCon, as its authors' code has them (Adam without decay).
FACTORCL = {"mosi": (32, 100, 10), "ur_funny": (128, 100, 100), "mustard": (128, 100, 20), "mimic": (40, 30, 5)}


def study(name: str):
    (partial,), faults = loading.parse(name, overrides={}, in_memory=False)
    assert faults == []
    return partial.study


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_search_has_no_faults_and_says_what_its_published_values_are(name):
    partials, faults = loading.parse(name, overrides={}, in_memory=False)
    assert faults == []
    final = partials[0].study.settings.final
    assert bool(final.remarks) == bool(final.published)
    assert all(text.endswith(".") and text.isprintable() for text in final.remarks)
    assert not {*final.rows} & {"default", "winner"}


@pytest.mark.parametrize("name", MULTIBENCH)
def test_rows_of_factorcl_have_its_published_settings(name):
    rows, (batch, epochs, of_supcon) = study(name).rows, FACTORCL[name]
    for row, rate, length in (("factorcl", 1e-4, epochs), ("factorcl_sup", 1e-4, epochs), ("supcon", 1e-3, of_supcon)):
        train = rows[row].train
        assert (train.optimizer, train.learning_rate, train.weight_decay) == ("adam", rate, 0.0)
        assert (train.batch_size, train.epochs, train.schedule.kind) == (batch, length, "none")
    assert rows["factorcl"].data.sequence.augment == "one_of"


@pytest.mark.parametrize("name", MULTIBENCH)
def test_every_supervised_value_of_the_papers_table_has_a_row(name):
    found = study(name)
    accuracy = found.settings.final.published["accuracy"]
    assert {*accuracy} == {"cross", "cross_self", "factorcl", "supcon", "factorcl_sup"} <= {*found.rows}
    assert {*found.settings.final.published["balanced_accuracy"]} == {"default", "comm_supcon"}
    text = " ".join(found.settings.final.remarks)
    assert "cross SimCLR, and cross_self Cross+Self+Fact" in text and "plain accuracy" in text
    assert ("no test scores" in text) == (name == "mimic")


@pytest.mark.parametrize("name", ["mosi", "mimic"])
def test_a_search_of_multibench_passes_every_check_with_its_data(tmp_path, name):
    value = multibench_files.mimic() if name == "mimic" else multibench_files.affect(name)
    convert(multibench_files.write(value, tmp_path / "file"), tmp_path / name)
    overrides = {"data.dir": str(tmp_path)}
    (ready,) = checks.validate(name, data=None, overrides=overrides, options=checks.Options(runs=tmp_path / "runs"))
    assert {*ready.config.rows} == {*study(name).rows}


def test_the_second_image_of_trifeatures_is_not_cropped_for_factorcl():
    config = study("trifeatures").rows["factorcl"]
    augment = config.data.image.augment
    assert augment["image_1"] == study("trifeatures").run.data.image.augment
    assert augment["image_2"] == augment["image_1"][1:] and "resized_crop" in augment["image_1"][0]
