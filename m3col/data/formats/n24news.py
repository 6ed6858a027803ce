"""Reads N24News from a folder in the layout of its authors.

Files: `news/nytimes_{train,dev,test}.json`, each a list of objects with `image_id`, `headline`, `caption`,
`abstract`, `article` and `section`; `imgs/<image_id>.jpg`.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m3col.data.dataset import SPLITS, Dataset
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.data.formats.image_text_csv import read_lines
from m3col.data.formats.pair_dataset import build, close, joined, read_pair, validate_labels
from m3col.data.formats.pairs import Pair, Pairs
from m3col.errors import nearest

SECTIONS = (
    "Health", "Books", "Science", "Art & Design", "Style", "Travel", "Movies", "Television", "Technology", "Dance",
    "Media", "Music", "Opinion", "Economy", "Theater", "Sports", "Real Estate", "Fashion & Style", "Food", "Well",
    "Automobiles", "Your Money", "Education", "Global Business",
)  # fmt: skip

NEWS_FILES = {"train": "nytimes_train.json", "validation": "nytimes_dev.json", "test": "nytimes_test.json"}

NEWS_TEXTS = ("headline", "caption", "abstract", "body", "article")

NO_IMAGE = "no image"

MANY_FAULTS = 0.05  # share of pairs without image or text above which a warning is issued


def looks_like_n24news(folder: Path) -> bool:
    """Whether `folder` has a file of the layout."""
    return any((folder / "news" / name).is_file() for name in NEWS_FILES.values())


def read_n24news(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    images: bool = False,
) -> Dataset:
    """Reads the data set of `folder`. Files of splits that are not requested are not opened.

    The texts are captions, or the fields of `layout.text`, a subset of `NEWS_TEXTS` (`body` is the field `article`).
    `images`: whether to decode all images to validate them; otherwise the files must only exist.

    Raises:
        InputError: with all faults.
    """
    return build(scan_n24news(folder, splits, layout), entry, select, layout, decode_images=images)


def scan_n24news(folder: Path, splits: Sequence[str], layout: Layout) -> Pairs:
    """Reads `folder` and collects the faults."""
    pairs = Pairs(folder, layout.text if layout.text else ("caption",))
    if not os.path.isdir(folder):
        pairs.faults.add(folder, "folder", "is not a folder")
        return pairs
    if layout.text == ():
        pairs.faults.add(folder, "text", "data.text.columns must name at least one field, but the list is empty")
    for name in pairs.columns:
        if name not in NEWS_TEXTS:
            pairs.faults.add(folder, "text", f"data.text.columns: {name!r} is unknown{nearest(name, NEWS_TEXTS)}")
    texts = tuple("article" if name == "body" else name for name in pairs.columns if name in NEWS_TEXTS)
    for split in (s for s in SPLITS if s in splits):
        path = folder / "news" / NEWS_FILES[split]
        records = _read_json(path, pairs)
        if records is not None:
            pairs.splits[split] = []
            for number, record in enumerate(records, start=1):
                if isinstance(record, dict):
                    pairs.splits[split].append(_news_pair(pairs, path, number, record, texts))
                else:
                    pairs.faults.add(path, "no object", f"must be an object, but is {_kind(record)}", number)
    validate_labels(pairs)
    return pairs


def _read_json(path: Path, pairs: Pairs) -> list[Any] | None:
    lines = read_lines(path, pairs.faults)
    if lines is None:
        return None
    try:
        # No field is a number. Floats, because int() raises for more than 4,300 digits.
        records = json.loads("\n".join(lines), parse_int=float)
    except json.JSONDecodeError as error:
        fault = f"line {error.lineno}, column {error.colno}: is not JSON ({error.msg})"
        pairs.faults.add(path, "json", fault)
        return None
    except RecursionError:
        pairs.faults.add(path, "json", "is not JSON of this layout (lists within lists without end)")
        return None
    if not isinstance(records, list):
        pairs.faults.add(path, "json", f"must be a list of objects, but is {_kind(records)}")
        return None
    if not records:
        pairs.faults.add(path, "rows", "has no rows: the list is empty")
    return records


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )


def _news_pair(pairs: Pairs, path: Path, number: int, record: dict[str, Any], texts: tuple[str, ...]) -> Pair:
    fields = {name: _field(pairs, path, number, record, name) for name in ("image_id", "section", *texts)}
    image, section = fields.pop("image_id"), fields.pop("section")
    if section and section not in SECTIONS:
        fault = f"section {section!r} is unknown{nearest(section, SECTIONS)}"
        pairs.faults.add(path, "the section is unknown", fault, number)
    values = [text for text in fields.values() if text is not None]
    pair = read_pair(
        pairs,
        path,
        number,
        # os.path.join keeps an absolute image_id absolute, so that it is refused
        image=os.path.join("imgs", f"{image}.jpg") if image else image,
        text=joined(values) if texts and len(values) == len(texts) else None,
        label=section,
    )
    # Without its label, so that an unknown section is not reported again as absent from training.
    return pair if section in SECTIONS else Pair(path, number, pair.image, pair.path, pair.text, "")


def _field(pairs: Pairs, path: Path, number: int, record: dict[str, Any], name: str) -> str | None:
    """The field without surrounding blanks. null becomes an empty text; None means that a fault was added."""
    value = record.get(name)
    if name not in record:
        fault = f"field {name!r} is missing{close(name, record)}"
        pairs.faults.add(path, f"field {name!r} is missing", fault, number)
        return None
    if value is not None and not isinstance(value, str):
        fault = f"field {name!r} must be a text, but is {_kind(value)}"
        pairs.faults.add(path, f"field {name!r} is no text", fault, number)
        return None
    return (value or "").strip()
