"""Reads text files strictly. Each fault is a line with file and row."""

import csv
import gzip
import re
import zlib
from collections import Counter
from pathlib import Path

from m3col.data.formats.missing_marks import MARKS
from m3col.errors import nearest

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")  # of tables; the separator is detected from the content

_GZIP = b"\x1f\x8b"

# First bytes of common files that are not text.
_BINARY = (
    (b"PK\x03\x04", "is an Excel workbook or another zip archive, not text; save the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook (.xls), not text; save the table as CSV"),
    (b"PAR1", "is a Parquet file, not text; save the table as CSV"),
    (b"ARROW1", "is an Arrow file, not text; save the table as CSV"),
    (b"\x89HDF", "is an HDF5 file, not text; save the table as CSV"),
    (b"\x93NUMPY", "is a NumPy file, not text; save the table as CSV"),
    (b"%PDF", "is a PDF file, not text; save the table as CSV"),
    (b"BZh", "is compressed with bzip2; unpack it, or compress it with gzip"),
    (b"\xfd7zXZ", "is compressed with xz; unpack it, or compress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it, or compress it with gzip"),
    (b"\xff\xfe", "is UTF-16 (Excel calls it 'Unicode text'); save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 (Excel calls it 'Unicode text'); save it as UTF-8"),
)

_HTML = ("<!doctype html", "<html", "<head", "<body")

_LFS = "version https://git-lfs"


def find(folder: Path, stem: str, faults: list[str] | None = None) -> Path:
    """The file of the table `stem` in a folder, with the first suffix of `SUFFIXES` that exists, else `.csv`.

    Two files with the same stem are a fault, because it is unclear which one is meant.
    """
    existing = [path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").exists()]
    if len(existing) > 1 and faults is not None:
        names = " and ".join(path.name for path in existing)
        faults.append(f"{folder}: {names} hold the same table; keep one of them")
    return existing[0] if existing else folder / f"{stem}.csv"


def read_lines(path: Path, faults: list[str]) -> list[str] | None:
    """Reads the lines of a UTF-8 file, which may be gzip-compressed, without trailing blank lines.

    Returns None and adds a fault if the file is missing, empty, unreadable or not UTF-8.
    """
    raw = _read_bytes(path, faults)
    if raw is None:
        return None
    if not raw.strip():
        faults.append(f"{path}: the file is empty")
        return None
    binary_fault = next((text for start, text in _BINARY if raw.startswith(start)), None)
    if binary_fault is not None:
        faults.append(f"{path}: {binary_fault}")
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw.count(b"\n", 0, error.start) + 1
        faults.append(f"{path}: row {row}: byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8")
        return None
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        faults.append(f"{path}: row {row}: holds a zero byte, so it is not UTF-8 text; save the file as UTF-8")
        return None
    start = text.lstrip()[: len(_LFS)].lower()
    if start.startswith(_HTML):
        faults.append(f"{path}: is an HTML page, not a table; download the file itself")
        return None
    if start == _LFS:
        faults.append(f"{path}: is a pointer of Git LFS, not the file itself; get it with `git lfs pull`")
        return None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:  # a byte order mark alone
        faults.append(f"{path}: the file is empty")
        return None
    return lines


def _read_bytes(path: Path, faults: list[str]) -> bytes | None:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        present = [p.name for p in path.parent.iterdir() if p.name.endswith(SUFFIXES)] if path.parent.is_dir() else []
        near = nearest(path.name, present)
        faults.append(f"{path}: the file is missing{near if near.startswith('; did') else ''}")
        return None
    except OSError as error:
        faults.append(f"{path}: cannot be read ({error.strerror or error})")
        return None
    if not raw.startswith(_GZIP):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        faults.append(f"{path}: is compressed with gzip, and cannot be unpacked ({error}); the file may be incomplete")
        return None


def separator_line(lines: list[str]) -> str | None:
    """The separator in a first line such as `sep=;`, which Excel writes; None if there is no such line."""
    match = re.fullmatch(r'"?sep=(.)"?[\s,;]*', lines[0], re.IGNORECASE)
    return match[1] if match else "\t" if re.fullmatch(r'"?sep=\t"?', lines[0], re.IGNORECASE) else None


def short(text: str) -> str:
    """A cell for a message, shortened to 30 characters."""
    return repr(text if len(text) <= 30 else text[:27] + "...")


def read_names(path: Path, faults: list[str]) -> tuple[str, ...] | None:
    """Reads one name per line; None if there is a fault."""
    lines = read_lines(path, faults)
    if lines is None:
        return None
    if separator_line(lines) is not None:
        lines = lines[1:]
    blank = [row for row, line in enumerate(lines, start=1) if not line.strip()]
    if blank:
        faults.append(f"{path}: row {blank[0]}: the name is blank")
        return None
    fault = _fields_fault(lines)
    if fault:
        faults.append(f"{path}: {fault}")
        return None
    return tuple(line.strip().strip('"') for line in lines)


def _fields_fault(lines: list[str]) -> str:
    """The fault of a file of names with a second column, or ""; a separator may also be part of a name."""
    for mark in (",", ";", "\t"):
        fields = [line.split(mark) for line in lines]
        if len(lines) < 2 or any(len(row) != 2 for row in fields):
            continue
        if not any(row[-1].strip() for row in fields):
            return f"must hold one name per line, but each line ends with {mark!r}; delete it"
        first = [row[0].strip('" ') for row in fields]
        if first in ([str(n) for n in range(len(lines))], [str(n) for n in range(1, len(lines) + 1)]):
            return "must hold one name per line, but has 2 columns, and column 1 is the row number; keep the names"
    return ""


def read_classes(path: Path, faults: list[str]) -> tuple[str, ...] | None:
    """Reads class names from a file with the header `index,name` and indices 0..C-1; None if there are faults."""
    lines = read_lines(path, faults)
    if lines is None:
        return None
    named = separator_line(lines)
    lines = lines if named is None else lines[1:]
    mark = named or next((mark for mark in (",", ";", "\t") if lines and mark in lines[0]), ",")
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=mark)] or [[]]
    if rows[0] != ["index", "name"]:
        faults.append(f"{path}: row 1: must be the header `index,name`, but is {short(lines[0] if lines else '')}")
        return None
    count = len(faults)
    for number, row in enumerate(rows[1:]):
        if len(row) != 2 or row[0] != str(number) or row[1] in MARKS:
            faults.append(f"{path}: row {number + 2}: must be `{number},<name>`, but is {short(lines[number + 1])}")
    names = tuple(row[-1] for row in rows[1:] if row)
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    faults += [f"{path}: the name {name!r} occurs more than once" for name in repeated]
    return names if len(faults) == count else None
