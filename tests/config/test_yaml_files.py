"""YAML as people write it, and a line with file and place for all that is none."""

import pytest

from m3col.config import yaml_files
from m3col.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("5E3", 5e3), ("-2.5e+1", -25.0), (".5", 0.5), ("3", 3), ("1.0", 1.0), ("true", True), ("", None)],
)
def test_numbers_are_numbers(text, value):
    found = yaml_files.parse(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["e5", "1e", "v1e-4", "1e-4x", "'1e-4'"])
def test_text_stays_text(text):
    assert isinstance(yaml_files.parse(text), str)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: 1\nb: 2\na: 3\n", (":3:", "'a'", "twice")),
        (b"a:\n  b: 1\n  b: 2\n", (":3:", "'b'", "twice")),
        (b"a: [1, 2\n", ("not valid YAML",)),
        (b"a: b: c\n", (":1:", "not valid YAML")),
        (b"- a\n", ("mapping", "list")),
        (b"just text\n", ("mapping", "str")),
        (b"a: \xff\xfe\n", ("UTF-8", "byte 3")),
        (b"a: \x00\n", ("not valid YAML",)),
        (b"a: !!python/object/apply:os.system ['true']\n", (":1:", "not valid YAML")),
        (b"a: 2020-13-45\n", ("not valid YAML", "month")),
        (b"a: " + b"9" * 5000, ("not valid YAML",)),
        (b"a: &x {b: *x}\n", ("not valid YAML", "recursive")),
        (b"a: " + b"[" * 1500, ("not valid YAML",)),
        (b"? [a, b]\n: 1\n", ("a key must be text",)),
    ],
)
def test_one_line_that_names_the_file_for_what_is_no_config(tmp_path, content, words):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        yaml_files.read(path)
    (line,) = caught.value.faults
    assert line.startswith(str(path)) and "\n" not in line
    assert all(word in line for word in words), line


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path):
    for path in (tmp_path / "no.yaml", tmp_path, tmp_path / "no.yaml" / "x.yaml"):
        with pytest.raises(InputError, match="cannot be read") as caught:
            yaml_files.read(path)
        assert str(path) in caught.value.faults[0]


def test_an_empty_file_is_an_empty_mapping(tmp_path):
    (tmp_path / "x.yaml").write_text("# nothing\n")
    assert yaml_files.read(tmp_path / "x.yaml") == {}


def test_dump_and_parse_are_inverse():
    value = {"a": {"b": [1, 1e-7, "1e-4", None, True, "Ünï"]}, "c": "no: text"}
    assert yaml_files.parse(yaml_files.dump(value)) == value


@pytest.mark.parametrize("value", [True, None, "1", float("nan"), float("inf"), [1]])
def test_what_is_no_finite_number(value):
    assert (
        not yaml_files.is_finite_number(value) and yaml_files.is_finite_number(3) and yaml_files.is_finite_number(0.5)
    )
