"""Published sets of pictures and texts, read from the folders as their authors lay them out.

N24News: `news/nytimes_{train,dev,test}.json`, each a list of objects with `image_id`, `headline`, `caption`,
`abstract`, `article` and `section`; `imgs/<image_id>.jpg`. UPMC Food-101: `train.csv` and `test.csv` with the columns
`id,text,annotation,label`; `images/<split>/<annotation>/<id>`; `texts_txt/<annotation>/<id>.txt`.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m3col.data import looks
from m3col.data import pictures as picture_files
from m3col.data.dataset import SPLITS, Dataset
from m3col.data.entry import Entry
from m3col.data.image_text import (
    Pair,
    Pairs,
    build,
    close,
    joined,
    judge,
    judge_labels,
    read_lines,
    read_table,
    require,
)
from m3col.data.layout import Layout
from m3col.faults import nearest

SECTIONS = (
    "Health", "Books", "Science", "Art & Design", "Style", "Travel", "Movies", "Television", "Technology", "Dance",
    "Media", "Music", "Opinion", "Economy", "Theater", "Sports", "Real Estate", "Fashion & Style", "Food", "Well",
    "Automobiles", "Your Money", "Education", "Global Business",
)  # fmt: skip
NEWS_FILES = {"train": "nytimes_train.json", "validation": "nytimes_dev.json", "test": "nytimes_test.json"}
NEWS_TEXTS = ("headline", "caption", "abstract", "body", "article")
FOOD_FILES = {"train": "train.csv", "test": "test.csv"}
FOOD_VALIDATION = 5_000
FOOD_FULL = 25_000  # of fewer training pairs, a fifth validates
FOOD_SEED = 2409
_NO_PICTURE = "no picture"
_MANY = 0.05  # the share of pairs without picture or text from which on it is worth a warning


def looks_like_n24news(folder: Path) -> bool:
    """Whether `folder` holds a file of the layout."""
    return any((folder / "news" / name).is_file() for name in NEWS_FILES.values())


def looks_like_food101(folder: Path) -> bool:
    """Whether `folder` holds the texts and a list of the layout."""
    return (folder / "texts_txt").is_dir() and any((folder / name).is_file() for name in FOOD_FILES.values())


def read_n24news(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    pictures: bool = False,
) -> Dataset:
    """The data set of `folder`; its texts are captions, or the fields of `layout.text`, one or more of `NEWS_TEXTS`
    (`body` is the field `article`). Files of splits that are not asked for are not opened. `pictures`: decode them all
    to judge them; otherwise they must only be there.

    Raises BadInput with every fault.
    """
    return build(scan_n24news(folder, splits, layout), entry, select, layout, judge_pictures=pictures)


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


def read_food101(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    pictures: bool = False,
) -> Dataset:
    """The data set of `folder`, with a validation split of 5,000 training pairs (a fifth of fewer than 25,000 pairs),
    stratified, the same for any order of the rows. Pairs without a picture or text are left out and counted; a broken
    picture is a fault, and left out once its file is deleted. `pictures`: decode them all to judge them.

    Raises BadInput with every fault.
    """
    return build(scan_food101(folder, splits, layout), entry, select, layout, judge_pictures=pictures)


def scan_food101(folder: Path, splits: Sequence[str], layout: Layout) -> Pairs:
    """Read what can be read of `folder`, draw the validation split, and collect the faults."""
    pairs = Pairs(folder, ("text",))
    if not os.path.isdir(folder):
        pairs.found.add(folder, "folder", "is not a folder")
        return pairs
    if layout.text not in (None, ("text",)):
        fault = f"data.text.columns: food101 has one text per picture, 'text', but got {list(layout.text or ())}"
        pairs.found.add(folder, "text", fault)
    kept: dict[str, list[Pair]] = {}
    for split in (s for s in FOOD_FILES if s in splits):
        path = folder / FOOD_FILES[split]
        table = read_table(path, pairs.found)
        if table is None:
            continue
        needed = [require(table, column, "", pairs.found) for column in ("id", "annotation")]
        if all(needed):
            rows = [
                _FoodRow(path, number, split, row["id"].strip(), row["annotation"].strip())
                for number, row in table.rows
            ]
            kept[split] = _food_pairs(pairs, rows)
    if "train" in kept:
        train = sorted(kept["train"], key=lambda pair: (os.path.basename(pair.image), pair.image))
        held = draw_validation([pair.label for pair in train])
        pairs.splits["train"] = [pair for at, pair in enumerate(train) if at not in held]
        if held and "validation" in splits:
            pairs.splits["validation"] = [pair for at, pair in enumerate(train) if at in held]
    if "test" in kept:
        pairs.splits["test"] = kept["test"]
    judge_labels(pairs)
    return pairs


@dataclass(frozen=True)
class _FoodRow:
    file: Path
    number: int
    split: str
    id: str
    annotation: str

    @property
    def image(self) -> str:
        return os.path.join("images", self.split, self.annotation, self.id) if self.id else ""

    @property
    def text(self) -> str:
        return os.path.join("texts_txt", self.annotation, os.path.splitext(self.id)[0] + ".txt")


def _food_pairs(pairs: Pairs, rows: list[_FoodRow]) -> list[Pair]:
    """The rows that have a picture and a text; the others are counted in `pairs.dropped`."""
    with ThreadPoolExecutor(looks.THREADS) as pool:  # many small files: most of the time is waiting
        texts = list(pool.map(lambda row: _food_text(row, pairs.root), rows))
    kept, lacking = [], list[str]()
    for row, (text, fault) in zip(rows, texts, strict=True):
        if row.id and row.annotation and (reason := _lacks(row, text, fault, pairs.root)):
            pairs.drop(f"{row.split}: {reason}")
            lacking.append(f"{reason}: {pairs.folder / (row.image if reason == _NO_PICTURE else row.text)}")
            continue
        if fault:
            pairs.found.add(row.file, "the text cannot be used", f"text {row.text!r} {fault}", row.number)
        # Without an annotation there is no path: the empty label is the fault to tell.
        image, known = (row.image, text if not fault else None) if row.annotation else (None, None)
        kept.append(judge(pairs, row.file, row.number, image=image, text=known, label=row.annotation))
    first = f"the first one has {lacking[0]}" if lacking else ""
    if lacking and not kept:
        fault = f"none of its {len(rows)} rows has a picture and a text; {first}"
        pairs.found.add(rows[0].file, "no pairs", fault)
    elif len(lacking) > _MANY * len(rows):
        share = f"{len(lacking):,} of {len(rows):,} pairs ({100 * len(lacking) / len(rows):.0f} %)"
        pairs.warnings.append(f"{rows[0].file}: {share} are left out; {first}")
    return kept


def _lacks(row: _FoodRow, text: str | None, fault: str, root: str) -> str:
    """What the pair lacks, "" for nothing. A path that leaves the folder lacks nothing: it is a fault."""
    try:
        picture_files.inside(row.image, root)
    except picture_files.Missing:
        return _NO_PICTURE
    except picture_files.Outside:
        return ""
    if fault:
        return ""
    return "no text" if text is None else "" if text else "empty text"


def _food_text(row: _FoodRow, root: str) -> tuple[str | None, str]:
    """The text of the row's file (None: there is no file), and what is wrong with it."""
    try:
        path = picture_files.inside(row.text, root)
        return Path(path).read_bytes().decode("utf-8-sig").strip(), ""
    except picture_files.Outside as error:
        return None, str(error)
    except picture_files.Missing:
        return None, ""
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 (byte {error.start + 1}); save it as UTF-8"
    except OSError as error:
        return None, f"cannot be read ({error.strerror or error})"


def draw_validation(labels: list[str]) -> set[int]:
    """Positions of the pairs that validate: `FOOD_VALIDATION`, or a fifth of fewer than `FOOD_FULL`; as many of each
    class as its share asks for, largest remainders first, and never the last pair of a class."""
    count = FOOD_VALIDATION if len(labels) >= FOOD_FULL else len(labels) // 5
    classes = sorted(set(labels))
    members = {name: [at for at, label in enumerate(labels) if label == name] for name in classes}
    shares = {name: count * len(members[name]) / len(labels) for name in classes}
    quotas = {name: int(share) for name, share in shares.items()}
    rest = sorted(classes, key=lambda name: (quotas[name] - shares[name], name))
    for name in rest[: count - sum(quotas.values())]:
        quotas[name] += 1
    held: set[int] = set()
    for number, name in enumerate(classes):
        order = np.random.default_rng([FOOD_SEED, number]).permutation(len(members[name]))
        held |= {members[name][at] for at in order[: min(quotas[name], len(members[name]) - 1)]}
    return held
