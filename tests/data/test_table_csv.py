"""Numeric tables as exporters write them: read to the same numbers, or refused with the cause."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m3col.data import labels, loading
from m3col.data.checks.check_folder import check
from m3col.data.formats import table_csv, text_files
from m3col.errors import InputError

from .builders import TRAIN, write_folder

X = np.array([[0.5, -1.25, 3e-5], [2.0, 0.0, 1e6], [-7.5, 4.0, 0.125], [1.0, 2.0, 2.5], [9.0, 0.25, -1.0]])


def text(separator: str, *, quote: str = "", decimal: str = ".") -> str:
    lines = (separator.join(f"{quote}{value!r}{quote}".replace(".", decimal) for value in row) for row in X.tolist())
    return "\n".join(lines) + "\n"


def by_numpy(path: Path, **given) -> str:
    np.savetxt(path, X, **given)
    return path.read_text()


READ = {
    "commas": text(","),
    "blanks after commas": text(", "),
    "semicolons": text(";"),
    "tabs": text("\t"),
    "blanks": text(" "),
    "several blanks": "  " + text("   ").replace("\n", "\n  ").rstrip(" "),
    "quotes": text(",", quote='"'),
    "quotes and semicolons": text(";", quote='"'),
    "sep= with its own separator": "sep=;\n" + text(";"),
    "sep= with a comma": "sep=,\n" + text(","),
    "sep= in quotes": '"sep=;"\n' + text(";"),
    "sep= with a tab": "sep=\t\n" + text("\t"),
    "Windows": text(",").replace("\n", "\r\n"),
    "old Mac": text(",").replace("\n", "\r"),
    "byte order mark": "\ufeff" + text(","),
    "exponents": "\n".join(",".join(f"{value:.6E}" for value in row) for row in X),
    "blank last lines": text(",") + "\n \n\n",
    "plus signs": text(",").replace("2.0", "+2.0"),
}


@pytest.mark.parametrize("name", READ)
def test_forms_that_are_read(tmp_path, name):
    path, faults = tmp_path / "t.csv", list[str]()
    path.write_bytes(READ[name].encode())
    matrix = table_csv.read_matrix(path, faults)
    assert faults == []
    np.testing.assert_allclose(matrix, X, rtol=1e-15)


def test_what_numpy_and_pandas_write_is_read(tmp_path):
    path = tmp_path / "t.csv"
    for write in (
        lambda: np.savetxt(path, X),
        lambda: np.savetxt(path, X, delimiter=","),
        lambda: pd.DataFrame(X).to_csv(path, index=False, header=False),
        lambda: pd.DataFrame(X).to_csv(path, index=False, header=False, sep="\t"),
        lambda: pd.DataFrame(X).to_csv(path, index=False, header=False, quoting=1),
        lambda: pd.DataFrame(X).to_csv(path, index=False, header=False, compression="gzip"),
    ):
        write()
        faults: list[str] = []
        np.testing.assert_allclose(table_csv.read_matrix(path, faults), X, rtol=1e-15)
        assert faults == []


@pytest.mark.parametrize(
    "mark", ["", "NA", "N/A", "nan", "NaN", "null", "None", "NULL", "#N/A", "n/a", "<NA>", " NA ", "-nan"]
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_every_mark_of_a_missing_number(tmp_path, mark, quote):
    path, faults = tmp_path / "t.csv", list[str]()
    path.write_text(f"1.5,{quote}{mark}{quote},2\n0.5,3,4\n")
    np.testing.assert_array_equal(table_csv.read_matrix(path, faults), [[1.5, np.nan, 2], [0.5, 3, 4]])
    assert faults == []


NUMBERED = "\n".join(f"{n},{line}" for n, line in enumerate(text(",").splitlines()))
REFUSED = {
    "row numbers from 0": (NUMBERED, "column 1: is the row number 0, 1, ... 4 in every row"),
    "row numbers from 1": (
        "\n".join(f'"{n}",{line}' for n, line in enumerate(text(",").splitlines(), start=1)),
        "column 1: is the row number 1, 2, ... 5",
    ),
    "column numbers from 0": ("0,1,2\n" + text(","), "row 1: holds the column numbers 0, 1, ... 2"),
    "column numbers from 1": ("1,2,3\n" + text(","), "row 1: holds the column numbers 1, 2, ... 3"),
    "row numbers and column numbers, as pandas does": (",0,1,2\n" + NUMBERED, "row 1: holds the column numbers 0, 1"),
    "row numbers below column numbers": (",0,1,2\n" + NUMBERED, "column 1: is the row number"),
    "row numbers below a header": (",g0,g1,g2\n" + NUMBERED, "column 1: is the row number"),
    "empty last column": (
        text(",").replace("\n", ",\n"),
        "column 4 is empty in every row, because each row ends with ','",
    ),
    "empty last column, semicolons": (text(";").replace("\n", ";\n"), "column 4 is empty in every row"),
    "empty last column, quotes": (text(",", quote='"').replace("\n", ',""\n'), "column 4 is empty in every row"),
    "some of the column numbers": ("3,17,45,99\n" + "0.5,1.5,2.5,3.5\n" * 4, "holds the column numbers 3, 17, ... 99"),
    "many column numbers above whole ones": (
        "\n".join(",".join(str(k + n) for k in range(9)) for n in (0, 5, 2)),
        "row 1: holds the column numbers 0, 1, ... 8",
    ),
    "empty first column": (
        text(",").replace("\n", "\n,").join(",x")[:-2],
        "column 1 is empty in every row, because each row begins",
    ),
    "thousands alone": ('"1,234","2,345"\n"3,456","4,567"\n', "a separator of thousands or a decimal comma"),
    "decimal commas": (text(";", decimal=","), "row 1, column 1: '0,5' has a decimal comma"),
    "decimal commas and tabs": (text("\t", decimal=","), "has a decimal comma"),
    "decimal commas and blanks": (text(" ", decimal=","), "has a decimal comma"),
    "decimal commas in quotes": (text(",", quote='"', decimal=","), "has a decimal comma"),
    "header": ("g1,g2,g3\n" + text(","), "row 1: holds text, such as 'g1'; if it is a header line, delete it"),
    "header and units": (
        "g1,g2,g3\nmg/l,%,kg\n" + text(","),
        "row 2: holds text, such as 'mg/l'; if it is a line of units",
    ),
    "units alone": ("mg/l,%,kg\n" + text(","), "row 1: holds text, such as 'mg/l'"),
    "names of samples": (
        "\n".join(f"P{n},{line}" for n, line in enumerate(text(",").splitlines())),
        "column 1: holds text in every row, such as 'P1'; if these are names of samples",
    ),
    "names and header": (
        "id,g1,g2,g3\n" + "\n".join(f"P{n},{line}" for n, line in enumerate(text(",").splitlines())),
        "column 1: holds text in every row",
    ),
    "header of R": (
        '"g1","g2","g3"\n' + "\n".join(f'"P{n}",{line}' for n, line in enumerate(text(",").splitlines())),
        "row 1: has 3 fields, but most rows have 4; a header line that is one field shorter is what R writes",
    ),
    "labels in place of numbers": ("Basal\nHer2\nLumA\n", "holds no number: row 1, column 1 is 'Basal'"),
    "thousands": ('1,"1,234.5"\n2,"3"\n', "separator of thousands"),
    "dates": ("1,2\n1-Mar,3\n4,5\n", "row 2, column 1: '1-Mar' is not a number: it is a date"),
    "error of Excel": ("1,2\n#DIV/0!,3\n4,5\n", "it is an error value of Excel"),
    "bound": ("1,2\n<0.05,3\n4,5\n", "it is a bound"),
    "percent": ("1,2\n5 %,3\n4,5\n", "percent sign"),
    "unit": ("1,2\n5 mg,3\n4,5\n", "it has a unit"),
    "dash": ("1,2\n\u22125,3\n4,5\n", "its minus is a dash"),
    "other mark of missing": ("1,2\nND,3\n4,5\n", "write NA, or leave it empty"),
    "quote": ('1,"2\n3,4\n', "row 1: is not CSV"),
    "ragged": ("1,2\n3\n4,5\n", "row 2: has 1 fields, but most rows have 2"),
    "nothing below sep=": ("sep=;\n", "has no rows below its first line"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_forms_that_are_refused_with_the_cause(tmp_path, name):
    content, words = REFUSED[name]
    path, faults = tmp_path / "t.csv", list[str]()
    path.write_bytes(content.encode())
    assert table_csv.read_matrix(path, faults) is None
    assert words in "\n".join(faults), faults
    assert all(line.startswith(f"{path}: ") for line in faults)
    assert not any("delete it" in line and "header" not in line for line in faults)


BYTES = {
    "xlsx": (b"PK\x03\x04 xl/workbook.xml", "is an Excel workbook"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Excel workbook"),
    "parquet": (b"PAR1\x00\x01", "is a Parquet file"),
    "html": (b"<!DOCTYPE html>\n<html>", "is an HTML page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
    "utf-16": ("1,2\n".encode("utf-16"), "is UTF-16"),
    "bzip2": (b"BZh91AY&SY", "is compressed with bzip2"),
    "torn gzip": (gzip.compress(b"1,2\n3,4\n" * 50)[:-6], "is compressed with gzip, and cannot be unpacked"),
    "empty": (b"\n \n", "the file is empty"),
    "byte order mark alone": (b"\xef\xbb\xbf\n", "the file is empty"),
}


@pytest.mark.parametrize("name", BYTES)
def test_files_that_are_no_text(tmp_path, name):
    content, words = BYTES[name]
    path, faults = tmp_path / "t.csv", list[str]()
    path.write_bytes(content)
    assert text_files.read_lines(path, faults) is None
    assert len(faults) == 1 and faults[0].startswith(f"{path}: ") and words in faults[0]


def test_the_row_of_a_fault_is_that_of_the_file(tmp_path):
    path, faults = tmp_path / "t.csv", list[str]()
    path.write_text("sep=;\n1;2\n3;x\n")
    table_csv.read_matrix(path, faults)
    assert "row 3, column 2: 'x'" in faults[0]


@pytest.mark.parametrize("suffix", text_files.SUFFIXES)
def test_a_folder_may_hold_any_suffix(tmp_path, suffix):
    write_folder(tmp_path)
    before = loading.load("omics", data_dir=tmp_path).digests()
    for path in list(tmp_path.iterdir()):
        content = path.read_bytes()
        path.unlink()
        if ".tsv" in suffix:
            content = content.replace(b",", b"\t")
        (tmp_path / f"{path.stem}{suffix}").write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert loading.load("omics", data_dir=tmp_path).digests() == before
    assert check(tmp_path).ok


def test_two_files_of_one_table_are_a_fault(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "1_tr.tsv").write_text("1\t2\n")
    with pytest.raises(InputError, match=r"1_tr\.csv and 1_tr\.tsv hold the same table"):
        loading.load("omics", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["0", "1", "0"], ["0", "1", "0"]),
        (["Luminal A", "HER2", "Luminal A"], ["Luminal A", "HER2", "Luminal A"]),
        (['"a"', '"b, c"', "'d'"], ["a", "b, c", "'d'"]),
        (["sep=,", "a", "b"], ["a", "b"]),
        ([" a ", "b"], [" a ", "b"]),  # the parser of labels strips and warns
    ],
)
def test_labels_of_a_file(tmp_path, lines, expected):
    path, faults = tmp_path / "l.csv", list[str]()
    path.write_text("\n".join(lines) + "\n")
    assert table_csv.read_labels(path, faults) == expected and faults == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["0,a", "1,b", "2,a"], "must hold one label per line, but has 2 columns, and column 1 is the row number"),
        (["x;a", "y;b"], "must hold one label per line, but has 2 columns; keep the one with the labels"),
        (
            ["a", "b, c", "d"],
            "row 2: must hold one label, but has 2 fields; put a label that holds the separator in quotes",
        ),
        (["a", '"b', "c"], "row 2: is not CSV"),
        (["0 a", "1 b", "2 a", "3 b", "4 a"], "has 2 columns, and column 1 is the row number"),
        (["a,", "b,", "a,"], "each line ends with a separator; delete it"),
    ],
)
def test_labels_that_are_more_than_labels(tmp_path, lines, words):
    path, faults = tmp_path / "l.csv", list[str]()
    path.write_text("\n".join(lines) + "\n")
    assert table_csv.read_labels(path, faults) is None and words in faults[0]


def test_a_header_above_the_labels_is_pointed_out(tmp_path):
    write_folder(tmp_path)
    path = tmp_path / "labels_tr.csv"
    path.write_text("subtype\n" + path.read_text().replace("0.000", "a").replace("1.000", "b"))
    with pytest.raises(InputError, match=r"is the first line of labels_tr.csv, 'subtype', a header\?"):
        loading.load("omics", data_dir=tmp_path)
    path.write_text("subtype\n" + "\n".join("01"[n % 2] for n in range(TRAIN)) + "\n")
    with pytest.raises(InputError, match="row 1: 'subtype' is a header"):
        loading.load("omics", data_dir=tmp_path)


# What labels mean


@pytest.mark.parametrize(
    ("given", "integers", "classes"),
    [
        ([0, 1, 1], [0, 1, 1], None),
        (["0", "1.0", "1"], [0, 1, 1], None),
        ([0.0, 1.0, 1.0], [0, 1, 1], None),
        ([False, True, True], [0, 1, 1], None),
        (["LumA", "Basal", "Her2"], [2, 0, 1], ("Basal", "Her2", "LumA")),
        (["b", " a", "a "], [1, 0, 0], ("a", "b")),
        (np.array(["y", "x"]), [1, 0], ("x", "y")),
        (pd.Series(["u", "v"], dtype="category"), [0, 1], ("u", "v")),
        (pd.array([1, 0], dtype="Int64"), [1, 0], None),
    ],
)
def test_labels_that_are_taken(given, integers, classes):
    faults: list[str] = []
    parsed = labels.parse(given, "here", faults)
    assert faults == [] and parsed.values.tolist() == integers and parsed.classes == classes


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([0, None, 1], "row 2: the label is missing"),
        (["a", "NA", "b"], "row 2: the label is missing ('NA')"),
        (["a", "", "b", "#N/A"], "row 4: the label is missing"),
        ([0, 1, float("nan")], "row 3: the label is missing (NaN)"),
        (["a", pd.NA], "row 2: the label is missing"),
        (
            [0, "Basal", 1],
            "labels must be integers 0..C-1 in all rows, or names of classes in all rows, but this one is 'Basal'",
        ),
        ([0, 1.5], "row 2: a label must be one of the integers 0..C-1, but is 1.5"),
        ([0, -1], "row 2: a label must be one of the integers"),
        (["a", ["b"]], "row 2: a label must be an integer or the name of a class, but is ['b']"),
    ],
)
def test_labels_that_are_refused(given, words):
    faults: list[str] = []
    assert labels.parse(given, "here", faults) is None
    assert words in "\n".join(faults) and all(line.startswith("here: ") for line in faults)


def test_names_of_another_split_are_those_of_training():
    faults: list[str] = []
    training = labels.parse(["dog", "cat"], "train", faults)
    assert labels.parse(["cat"], "test", faults, training=training).values.tolist() == [0]
    assert labels.parse(["cta"], "test", faults, training=training) is None
    assert labels.parse(["1"], "test", faults, training=training) is None
    integers = labels.parse([0, 1], "train", faults)
    assert labels.parse(["cat"], "test", faults, training=integers) is None
    assert faults == [
        "test: row 1: label 'cta' is none of the classes; did you mean 'cat'?",
        "test: row 1: label '1' is none of the classes; choose from cat, dog",
        "test: labels must be integers, as in training, but row 1 is 'cat'",
    ]


def test_names_in_files_keep_the_known_order_of_classes(tmp_path):
    write_folder(tmp_path)
    for part, count in (("tr", TRAIN), ("te", 6)):
        (tmp_path / f"labels_{part}.csv").write_text("".join(["sick", "healthy"][n % 2] + "\n" for n in range(count)))
    dataset = loading.load("omics", data_dir=tmp_path)
    assert dataset.classes == ("healthy", "sick") and dataset.train.labels[:2].tolist() == [1, 0]
    (tmp_path / "classes.csv").write_text("index,name\n0,sick\n1,healthy\n")
    dataset = loading.load("omics", data_dir=tmp_path)
    assert dataset.classes == ("sick", "healthy") and dataset.train.labels[:2].tolist() == [0, 1]
    assert check(tmp_path).ok


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a\nb\nc\nd\n", tuple("abcd")),
        ("sep=,\na\nb\nc\nd\n", tuple("abcd")),
        ('"a"\n"b"\n"c"\n"d"\n', tuple("abcd")),
        ("1,2-diol\nb\nc\nd\n", ("1,2-diol", "b", "c", "d")),
        ("1,2-diol\n3,4-diol\nc,x\nd,y\n", ("1,2-diol", "3,4-diol", "c,x", "d,y")),
        ("0,a\n1,b\n2,c\n3,d\n", "must hold one name per line, but has 2 columns, and column 1 is the row number"),
        ("1;a\n2;b\n3;c\n4;d\n", "column 1 is the row number"),
        ("a;\nb;\nc;\nd;\n", "each line ends with ';'; delete it"),
        ("a\n\nc\nd\n", "row 2: the name is blank"),
    ],
)
def test_names_of_features(tmp_path, content, expected):
    path, faults = tmp_path / "1_featname.csv", list[str]()
    path.write_text(content)
    names = text_files.read_names(path, faults)
    if isinstance(expected, tuple):
        assert names == expected and faults == []
    else:
        assert names is None and expected in faults[0]


@pytest.mark.parametrize(
    "content", ["index,name\n0,u\n1,v\n", "index;name\n0;u\n1;v\n", "sep=\t\nindex\tname\n0\tu\n1\tv\n"]
)
def test_names_of_classes(tmp_path, content):
    path, faults = tmp_path / "classes.csv", list[str]()
    path.write_text(content)
    assert text_files.read_classes(path, faults) == ("u", "v") and faults == []


def test_a_large_table_with_decimal_commas_is_refused_at_once(tmp_path):
    import time

    path, faults = tmp_path / "t.csv", list[str]()
    path.write_text("\n".join(";".join(["0,5"] * 4000) for _ in range(200)))
    start = time.process_time()
    assert table_csv.read_matrix(path, faults) is None and "has a decimal comma" in faults[0]
    assert time.process_time() - start < 5  # 800,000 fields; it took five times as long when each was looked at
