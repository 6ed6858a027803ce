"""Small folders of images and texts, written for tests."""

import csv
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from m3col.data.formats.entry import Entry
from m3col.data.formats.n24news import read_n24news

ENTRY = Entry("pairs", "made for a test", read_n24news)
EVERY = ("train", "validation", "test")
COUNTS = {"train": 6, "validation": 3, "test": 3}
LABELS = ("cat", "dog", "emu")


def image_file(path: Path, number: int, size: tuple[int, int] = (12, 9)) -> Path:
    """An image of one color, which is different for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number * 37 % 256, number % 256, 90)).save(path)
    return path


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def change(path: Path, row: int, column: str, to: str) -> None:
    """Replaces one field of a CSV file; row 0 is the header."""
    rows = read_csv(path)
    rows[row][rows[0].index(column)] = to
    write_csv(path, rows)


def write_image_text(folder: Path) -> Path:
    """A correct folder of plain CSV files: 6 + 3 + 3 pairs of 3 classes."""
    number = 0
    for split, name in (("train", "train.csv"), ("validation", "val.csv"), ("test", "test.csv")):
        rows = [["image", "text", "label"]]
        for at in range(COUNTS[split]):
            number += 1
            image_file(folder / "imgs" / f"{number}.png", number)
            rows.append([f"imgs/{number}.png", f" text number {number}\n", LABELS[at % 3]])
        write_csv(folder / name, rows)
    return folder


def write_n24news(folder: Path) -> Path:
    """A correct folder: 6 + 3 + 3 articles of 3 sections."""
    number = 0
    for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        records = []
        for at in range(COUNTS[split]):
            number += 1
            image_file(folder / "imgs" / f"n{number}.jpg", number)
            texts = {key: f"{key} {number}" for key in ("headline", "caption", "abstract", "article")}
            section = ("Sports", "Art & Design", "Food")[at % 3]
            records.append({"image_id": f"n{number}", **texts, "section": section})
        write_json(folder, name, records)
    return folder


def news_file(folder: Path, name: str) -> Path:
    return folder / "news" / f"nytimes_{name}.json"


def write_json(folder: Path, name: str, records: object) -> None:
    news_file(folder, name).parent.mkdir(parents=True, exist_ok=True)
    news_file(folder, name).write_text(json.dumps(records), encoding="utf-8")


def read_json(folder: Path, name: str) -> list[dict]:
    return json.loads(news_file(folder, name).read_text(encoding="utf-8"))


def write_food101(folder: Path, *, train: int = 10, test: int = 2) -> Path:
    """A correct folder: `train` and `test` pairs of each of 3 classes."""
    number = 0
    for split, count in (("train", train), ("test", test)):
        rows = [["id", "text", "annotation", "label"]]
        for label, name in enumerate(LABELS):
            for at in range(count):
                number += 1
                stem = f"{name}_{split}_{at}"
                image_file(folder / "images" / split / name / f"{stem}.jpg", number)
                text = folder / "texts_txt" / name / f"{stem}.txt"
                text.parent.mkdir(parents=True, exist_ok=True)
                text.write_text(f"file {number}\n", encoding="utf-8")
                rows.append([f"{stem}.jpg", f"list {number}", name, str(label)])
        write_csv(folder / f"{split}.csv", rows)
    return folder


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header states that size but that has almost no pixel data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks
