"""Reads Hateful Memes from a folder in the layout of its authors: images with the text on them, hateful or not.

Files: `train.jsonl`, `dev.jsonl` and `test.jsonl`, an object with `id`, `img`, `text` and `label` (0 or 1) per line;
`img/`. The labels of `test.jsonl` were never published, so the test split is `dev.jsonl`, as in published tables.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from m3col.data.dataset import Dataset
from m3col.data.formats import json_pairs
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.data.formats.image_text_csv import read_lines
from m3col.data.formats.pair_dataset import build, read_pair, validate_labels
from m3col.data.formats.pairs import Pair, Pairs

FILES = {"train": "train.jsonl", "test": "dev.jsonl"}

CLASSES = ("benign", "hateful")


def looks_like(folder: Path) -> bool:
    """Whether `folder` has the layout."""
    return (folder / FILES["train"]).is_file() and (folder / "img").is_dir()


def read(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    images: bool = False,
) -> Dataset:
    """Reads the data set of `folder`. Files of splits that are not requested are not opened.

    Raises:
        InputError: with all faults.
    """
    return build(scan(folder, splits, layout), entry, select, layout, decode_images=images)


def scan(folder: Path, splits: Sequence[str], layout: Layout) -> Pairs:
    """Reads `folder` and collects the faults."""
    pairs = Pairs(folder, ("text",))
    if not os.path.isdir(folder):
        pairs.faults.add(folder, "folder", "is not a folder")
        return pairs
    if layout.text not in (None, ("text",)):
        fault = f"data.text.columns: there is one text per image, 'text', but got {list(layout.text or ())}"
        pairs.faults.add(folder, "text", fault)
    seen: dict[str, str] = {}
    for split in (s for s in FILES if s in splits):
        path = folder / FILES[split]
        lines = read_lines(path, pairs.faults)
        if lines is None:
            continue
        rows = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        if not rows:
            pairs.faults.add(path, "rows", "has no rows")
        read_rows = [_pair(pairs, path, number, line, seen) for number, line in rows]
        pairs.splits[split] = [pair for pair in read_rows if pair is not None]
    validate_labels(pairs)
    if (folder / "test.jsonl").is_file():
        pairs.warnings.append(
            f"{folder / 'test.jsonl'}: is not read, because it has no labels; the test split is dev.jsonl, as published"
        )
    return pairs


def _pair(pairs: Pairs, path: Path, number: int, line: str, seen: dict[str, str]) -> Pair | None:
    """One line; None, with a fault, if it is no object of this layout. `seen`: where each id is, which is extended."""
    record = json_pairs.parse(line, path, pairs.faults, number)
    if record is json_pairs.FAULT:
        return None
    if not isinstance(record, dict):
        fault = f"must be an object, but is {json_pairs.described(record)}"
        pairs.faults.add(path, "no object", fault, number)
        return None
    name, label = record.get("id"), record.get("label")
    if not isinstance(name, int | str) or isinstance(name, bool):
        fault = f"'id' must be a number or a text, but is {json_pairs.described(name)}"
        pairs.faults.add(path, "the id", fault, number)
    elif str(name) in seen:
        fault = f"id {str(name)!r:.40} is in {seen[str(name)]} as well; each meme has one id"
        pairs.faults.add(path, "repeated ids", fault, number)
    else:
        seen[str(name)] = path.name
    wrong = [key for key in ("img", "text") if not isinstance(record.get(key), str)]
    for key in wrong:
        fault = f"{key!r} must be a text, but is {json_pairs.described(record.get(key))}"
        pairs.faults.add(path, f"{key} is no text", fault, number)
    if label not in (0, 1) or isinstance(label, bool):
        fault = f"'label' must be 0 or 1, but is {label!r:.40}"
        pairs.faults.add(path, "the label", fault, number)
        return None
    if wrong:
        return None
    return read_pair(pairs, path, number, image=record["img"], text=record["text"], label=CLASSES[int(label)])
