"""Ambiguous names are refused before training, each with the reason; all other names work."""

import numpy as np
import pandas as pd
import pytest

from m3col.checks.resolve import check_against_data
from m3col.config.loading import load
from m3col.data.arrays import from_arrays
from m3col.data.checks.naming import FUSED, apart, faults, is_printable, repeats
from m3col.methods import supervised

NUMERIC = {"a": "numeric", "b": "numeric"}
FEATURES = {"a": ("x", "y"), "b": ("x", "z")}


def of_modalities(*names: str) -> list[str]:
    return faults(
        names, {name: (f"{at}",) for at, name in enumerate(names)}, ("0", "1"), dict.fromkeys(names, "numeric")
    )


GOOD = [
    "rna.seq",
    "keys",
    "training",
    "CpG (450k)",
    "训练",
    "a/b",
    "..",
    "-1",
    "none",
    "all",
    "Fused 2",
    "p(x)",
    "a b",
    "'",
    "|",
]


@pytest.mark.parametrize("name", GOOD)
def test_any_other_name_of_a_modality_is_fine(name):
    assert of_modalities(name, "mir") == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("fused", "mir"), ["'fused'", "taken by the prediction from all modalities", "'fused_input'"]),
        (("Fused", "mir"), ["'Fused'", "taken"]),
        ((" fused ", "mir"), ["taken"]),
        (("", "mir"), ["''", "must not be empty"]),
        (("  ", "mir"), ["must not be empty"]),
        (("a\nb", "mir"), [r"'a\nb'", "must be printable"]),
        (("a\x00", "mir"), ["must be printable"]),
        (("\ud800", "mir"), ["must be printable"]),
        (("a\u2028b", "mir"), ["must be printable"]),
        (("RNA", "rna"), ["'RNA' and 'rna'", "differ only in case or blanks"]),
        (("rna", "rna "), ["'rna' and 'rna '", "differ only"]),
        (("STRASSE", "straße"), ["differ only"]),
        (("é", "e\u0301"), ["differ only"]),
    ],
)
def test_a_modality_that_would_be_mixed_up_is_one_line(names, words):
    (line,) = of_modalities(*names)
    assert all(word in line for word in words) and line.isprintable(), line


def test_the_reserved_name_is_that_of_the_fused_head():
    assert FUSED == supervised.FUSED


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (("1-Mar", "1-Mar", "g"), ["'1-Mar' (2 times)", "Excel turns gene names such as MARCH1 and MAR1 into 1-Mar"]),
        (("Sep-02", "Sep-02"), ["'Sep-02' (2 times)", "Excel"]),
        (("2021-03-01 00:00:00",) * 3, ["(3 times)", "Excel"]),
        (("TP53", "TP53"), ["'TP53' (2 times)", "rename or drop"]),
        (("a", "b", "a", "b", "a"), ["'a' (3 times), 'b' (2 times)"]),
        (tuple("abcdefg") * 2, ["'e' (2 times) and 2 more"]),
        (("x", ""), ["feature names must not be empty, but column 2 has none"]),
        (("", "x", " "), ["columns 1, 3 have none"]),
    ],
)
def test_feature_names_that_are_repeated_or_empty_are_listed(columns, words):
    (line,) = faults(["a", "b"], {"a": columns, "b": ("x",)}, ("0", "1"), NUMERIC)
    assert line.startswith("modality 'a': ") and all(word in line for word in words), line


def test_the_same_feature_in_two_modalities_is_fine():
    assert faults(["a", "b"], FEATURES, ("0", "1"), NUMERIC) == []


@pytest.mark.parametrize(
    ("features", "kinds", "words"),
    [
        (
            {"a": ("b.c",), "a.b": ("c",)},
            "numeric",
            ["'a.b.c'", "feature 'b.c' of modality 'a'", "'c' of modality 'a.b'"],
        ),
        ({"a": ("b.c.d",), "a.b.c": ("d",)}, "numeric", ["'a.b.c.d'"]),
        ({"a": ("b",), "a.b": ("text",)}, "text", ["'a.b'", "feature 'b' of modality 'a' and modality 'a.b'"]),
    ],
)
def test_two_columns_of_one_name_across_modalities(features, kinds, words):
    first, second = features
    (line,) = faults([first, second], features, ("0", "1"), {first: "numeric", second: kinds})
    assert all(word in line for word in words) and "rename one" in line, line


def test_many_columns_of_one_name_are_counted():
    features = {"a": tuple(f"b.{at}" for at in range(9)), "a.b": tuple(map(str, range(9)))}
    lines = faults([*features], features, ("0", "1"), dict.fromkeys(features, "numeric"))
    assert len(lines) == 6 and lines[-1] == "4 more columns that would mean two features"


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("x", "x"), ["'x' stands for 2 classes (0, 1)"]),
        (("a", "b", "a"), ["'a' stands for 2 classes (0, 2)"]),
        (("a", ""), ["class 1", "must not be empty"]),
        (("a", " "), ["class 1", "must not be empty"]),
        (("a", "b\tc"), ["class 1", r"'b\tc'", "control character"]),
    ],
)
def test_class_names_that_would_be_mixed_up(classes, words):
    (line,) = faults(["a", "b"], FEATURES, classes, NUMERIC)
    assert all(word in line for word in words), line


def test_classes_in_any_script_are_fine():
    assert faults(["a", "b"], FEATURES, ("对照", "Lupus\u00a0x", "👩\u200d🔬"), NUMERIC) == []
    assert is_printable("Lupus\u00a0x") and not is_printable("\x7f")


def test_keys_of_a_mapping_that_are_the_same_text():
    assert repeats(["a", "b", 1]) == []
    assert repeats([1, "1", "a"]) == ["modality '1' is given 2 times, as 1 and '1'; rename one"]


def test_a_modality_stands_apart_from_the_words_of_a_table():
    assert apart("all", ["all", "none"]) == "all (modality)" and apart("rna", ["all"]) == "rna"


def test_all_of_them_are_told_at_once_before_a_training():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 3)), columns=["1-Mar", "1-Mar", ""])
    data = from_arrays({"fused": table, "b": table}, np.arange(12) % 2, classes=["x", "x"])
    prepared, lines = check_against_data(load({}), data=data)
    assert prepared is None and len(lines) == 6 and all(line.startswith("arrays: ") for line in lines), lines
