"""Folders of tables with one fault each: how to make them, and words that the message must hold."""

from pathlib import Path

from tests.data.builders import edit


def numbers(folder: Path, file: str, value: str) -> None:
    lines = (folder / file).read_text().splitlines()
    (folder / file).write_text("\n".join([value] * len(lines)) + "\n")


def rewrite(path: Path, change) -> None:
    lines = path.read_text().splitlines()
    path.write_text("".join(change(number, line) + "\n" for number, line in enumerate(lines)))


BAD_FOLDERS = {
    "missing file": (lambda f: (f / "2_tr.csv").unlink(), ["2_tr.csv", "missing"]),
    "row counts": (
        lambda f: edit(f / "1_tr.csv", row=1, to=None),
        ["same number of rows", "1_tr.csv 11", "2_tr.csv 12"],
    ),
    "ragged rows": (lambda f: edit(f / "1_tr.csv", row=5, column=2, to=None), ["1_tr.csv: row 5: has 3 fields", "4"]),
    "text": (lambda f: edit(f / "2_te.csv", row=2, column=1, to="low"), ["2_te.csv: row 2, column 1: 'low'"]),
    "nan": (lambda f: edit(f / "1_tr.csv", row=2, column=3, to=""), ["train: row 2, column 3", "nan", "`impute`"]),
    "infinity": (
        lambda f: edit(f / "1_te.csv", row=2, column=3, to="inf"),
        ["test: row 2, column 3", "inf is infinite; leave it empty"],
    ),
    "label 1.5": (
        lambda f: edit(f / "labels_tr.csv", row=4, to="1.5"),
        ["labels_tr.csv: row 4", "integers", "1.5", "2"],
    ),
    "label -1": (lambda f: edit(f / "labels_tr.csv", row=4, to="-1"), ["labels_tr.csv: row 4", "-1", "nearest 0"]),
    "label gap": (lambda f: edit(f / "labels_tr.csv", row=4, to="3"), ["0..C-1", "2 never occurs"]),
    "label text": (
        lambda f: edit(f / "labels_tr.csv", row=4, to="AD"),
        ["labels_tr.csv: row 4: labels must be integers 0..C-1 in all rows", "'AD'"],
    ),
    "one class": (lambda f: numbers(f, "labels_tr.csv", "0"), ["two classes", "every training label is 0"]),
    "unseen": (
        lambda f: edit(f / "labels_te.csv", row=3, to="2"),
        ["labels_te.csv: row 3: label 2", "never occurs in"],
    ),
    "empty file": (lambda f: (f / "1_tr.csv").write_text(""), ["1_tr.csv: the file is empty"]),
    "encoding": (lambda f: (f / "1_tr.csv").write_bytes(b"1,2\n\xff,3\n"), ["1_tr.csv: row 2: byte 0xff is not UTF-8"]),
    "utf-16": (
        lambda f: (f / "1_te.csv").write_text("1,2,3,4\n", encoding="utf-16"),
        ["1_te.csv: is UTF-16", "save it as UTF-8"],
    ),
    "columns": (lambda f: (f / "1_te.csv").write_text("1,2\n" * 6), ["1_te.csv: has 2 columns", "1_tr.csv has 4"]),
    "one modality": (lambda f: [(f / f"2_{x}.csv").unlink() for x in ("tr", "te")], ["at least two modalities"]),
    "nothing": (lambda f: [path.unlink() for path in f.iterdir()], ["holds no 1_tr.csv"]),
    "row numbers": (lambda f: rewrite(f / "1_tr.csv", lambda n, line: f"{n},{line}"), ["column 1: is the row number"]),
    "column numbers": (
        lambda f: edit(f / "1_tr.csv", row=1, to="0,1,2,3"),
        ["1_tr.csv: row 1: holds the column numbers"],
    ),
    "trailing commas": (
        lambda f: rewrite(f / "2_te.csv", lambda n, line: line + ","),
        ["column 6 is empty in every row"],
    ),
    "decimal commas": (
        lambda f: rewrite(f / "2_tr.csv", lambda n, line: line.replace(",", ";").replace(".", ",")),
        ["2_tr.csv: row 1, column 1", "has a decimal comma"],
    ),
    "workbook": (lambda f: (f / "1_tr.csv").write_bytes(b"PK\x03\x04xl/"), ["1_tr.csv: is an Excel workbook"]),
    "huge": (
        lambda f: edit(f / "1_tr.csv", row=2, column=3, to="1e40"),
        ["row 2, column 3", "does not fit into float32"],
    ),
    "missing label": (
        lambda f: edit(f / "labels_te.csv", row=3, to="NA"),
        ["labels_te.csv: row 3: the label is missing"],
    ),
    "equal names": (
        lambda f: (f / "1_featname.csv").write_text("1-Mar\n1-Mar\na\nb\n"),
        ["'1-Mar' (2 times)", "Excel turns gene names"],
    ),
    "two files": (lambda f: (f / "1_tr.tsv").write_text("1\t2\n"), ["1_tr.csv and 1_tr.tsv hold the same table"]),
}
