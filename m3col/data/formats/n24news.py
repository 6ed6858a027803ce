"""Published sets of images and texts, read from the folders as their authors lay them out.

N24News: `news/nytimes_{train,dev,test}.json`, each a list of objects with `image_id`, `headline`, `caption`,
`abstract`, `article` and `section`; `imgs/<image_id>.jpg`. UPMC Food-101: `train.csv` and `test.csv` with the columns
`id,text,annotation,label`; `images/<split>/<annotation>/<id>`; `texts_txt/<annotation>/<id>.txt`.
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
from m3col.data.formats.pair_dataset import build, close, joined, judge, judge_labels
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

MANY_FAULTS = 0.05  # the share of pairs without image or text from which on it is worth a warning


def looks_like_n24news(folder: Path) -> bool:
    """Whether `folder` holds a file of the layout."""
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
    """The data set of `folder`; its texts are captions, or the fields of `layout.text`, one or more of `NEWS_TEXTS`
    (`body` is the field `article`). Files of splits that are not asked for are not opened. `images`: decode them all
    to judge them; otherwise they must only be there.

    Raises InputError with every fault.
    """
    return build(scan_n24news(folder, splits, layout), entry, select, layout, judge_images=images)


def scan_n24news(folder: Path, splits: Sequence[str], layout: Layout) -> Pairs:
    """Read what can be read of `folder` and collect the faults."""
    pairs = Pairs(folder, layout.text if layout.text else ("caption",))
    if not os.path.isdir(folder):
        pairs.found.add(folder, "folder", "is not a folder")
        return pairs
    if layout.text == ():
        pairs.found.add(folder, "text", "data.text.columns must name at least one field, but the list is empty")
    for name in pairs.columns:
        if name not in NEWS_TEXTS:
            pairs.found.add(folder, "text", f"data.text.columns: {name!r} is unknown{nearest(name, NEWS_TEXTS)}")
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
                    pairs.found.add(path, "no object", f"must be an object, but is {_kind(record)}", number)
    judge_labels(pairs)
    return pairs


def _read_json(path: Path, pairs: Pairs) -> list[Any] | None:
    lines = read_lines(path, pairs.found)
    if lines is None:
        return None
    try:
        # No field is a number; int() refuses those of more than 4,300 digits.
        records = json.loads("\n".join(lines), parse_int=float)
    except json.JSONDecodeError as error:
        fault = f"line {error.lineno}, column {error.colno}: is not JSON ({error.msg})"
        pairs.found.add(path, "json", fault)
        return None
    except RecursionError:
        pairs.found.add(path, "json", "is not JSON of this layout (lists within lists without end)")
        return None
    if not isinstance(records, list):
        pairs.found.add(path, "json", f"must be a list of objects, but is {_kind(records)}")
        return None
    if not records:
        pairs.found.add(path, "rows", "has no rows: the list is empty")
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
        pairs.found.add(path, "the section is unknown", fault, number)
    there = [text for text in fields.values() if text is not None]
    pair = judge(
        pairs,
        path,
        number,
        # joined as a path, so that an absolute image_id stays one
        image=os.path.join("imgs", f"{image}.jpg") if image else image,
        text=joined(there) if texts and len(there) == len(texts) else None,
        label=section,
    )
    # An unknown section is one fault, not a second one for being absent from training.
    return pair if section in SECTIONS else Pair(path, number, pair.image, pair.path, pair.text, "")


def _field(pairs: Pairs, path: Path, number: int, record: dict[str, Any], name: str) -> str | None:
    """The field without blanks around it; null is an empty text, None is a fault that was told."""
    value = record.get(name)
    if name not in record:
        fault = f"field {name!r} is missing{close(name, record)}"
        pairs.found.add(path, f"field {name!r} is missing", fault, number)
        return None
    if value is not None and not isinstance(value, str):
        fault = f"field {name!r} must be a text, but is {_kind(value)}"
        pairs.found.add(path, f"field {name!r} is no text", fault, number)
        return None
    return (value or "").strip()
