"""A data set built from pairs of an image and a text, whatever file they were listed in."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from m3col.data.columns import MediaColumn, ObjectArray, encodable
from m3col.data.dataset import Dataset, Split, build_split, choose
from m3col.data.formats import overlaps
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.data.formats.missing_marks import MARKS
from m3col.data.formats.pairs import MODALITIES, Pair, Pairs
from m3col.data.images import decoding, index
from m3col.data.images.index import ImageInfo
from m3col.errors import InputError, nearest


def joined(texts: Iterable[str]) -> str:
    """The texts that are neither blank nor marked as missing, one per line; where there is none, the first mark."""
    stripped = [text.strip() for text in texts]
    there = [text for text in stripped if text not in MARKS]
    return "\n".join(there) if there else next(filter(None, stripped), "")


def missing(what: str, cell: str) -> str:
    """The fault of a cell that is empty or marked as missing."""
    return f"{what} is empty" if not cell else f"{what} is {cell!r}, which stands for a missing one; leave the pair out"


def judge(pairs: Pairs, file: Path, row: int, *, image: str | None, text: str | None, label: str | None) -> Pair:
    """A row as a pair, with its faults put into `pairs.found`. None: the file has no such column, a fault already."""
    path = None
    image = None if image is None else image.strip()
    if image in MARKS:
        pairs.found.add(file, "no path of an image", missing("the path of the image", str(image)), row)
    elif image is not None:
        try:
            path = decoding.inside(image, pairs.root)
        except decoding.Outside as error:
            pairs.found.add(file, "the image is outside of the data folder", f"image {image!r} {error}", row)
        except decoding.Unreadable as error:
            pairs.found.add(file, "the image is missing", f"image {image!r}: {error}", row)
    if text is not None and text in MARKS:
        pairs.found.add(file, "the text is empty", missing("the text", text), row)
    label = None if label is None else label.strip()
    if label in MARKS:
        pairs.found.add(file, "the label is empty", missing("the label", str(label)), row)
        label = ""
    for what, value in (("text", text), ("label", label)):
        if value and not encodable(value):  # JSON can spell what no tokenizer and no file takes
            pairs.found.add(file, f"the {what} is not Unicode", f"the {what} holds half a surrogate pair", row)
    shown = os.path.normpath(decoding.with_slashes(image or "", pairs.root))
    return Pair(file, row, shown, path, "" if text in MARKS else text or "", label or "")


def judge_labels(pairs: Pairs) -> None:
    """Training has at least two classes, and every class that occurs."""
    classes, train = pairs.classes, pairs.splits.get("train")
    if not train or not classes:
        return
    if len(classes) == 1:
        fault = f"at least two classes are needed, but every label is {classes[0]!r}"
        pairs.found.add(train[0].file, "classes", fault)
    known = set(classes)
    for split in ("validation", "test"):
        for pair in pairs.splits.get(split, ()):
            if pair.label and pair.label not in known:
                near = close(pair.label, classes)
                fault = f"label {pair.label!r} never occurs in {train[0].file.name}{near}"
                pairs.found.add(pair.file, "a label that training lacks", fault, pair.row)


def close(value: str, choices: Iterable[str]) -> str:
    """`nearest`, but silent where no choice is close: the list of all classes would hide the line."""
    near = nearest(value, choices)
    return near if near.startswith("; did") else ""


def judge_decoding(pairs: Pairs) -> dict[str, ImageInfo]:
    """A look at every image, by its path; what cannot be decoded becomes a fault."""
    every = [pair for split in pairs.splits.values() for pair in split if pair.path is not None]
    paths = list(dict.fromkeys(pair.path for pair in every if pair.path is not None))
    seen = dict(zip(paths, index.inspect(paths), strict=True))
    for pair in every:
        if pair.path is not None and seen[pair.path].fault:
            fault = f"image {pair.image!r} {seen[pair.path].fault}"
            pairs.found.add(pair.file, "the image cannot be read", fault, pair.row)
    return seen


def build(
    pairs: Pairs, entry: Entry, select: Sequence[str | int] | None, layout: Layout, *, judge_images: bool
) -> Dataset:
    """The data set of what was read. Raises InputError with every fault."""
    chosen, faults = (MODALITIES, []) if select is None else choose(select, MODALITIES)
    warnings = list(pairs.warnings)
    if judge_images and "image" in (chosen or MODALITIES):
        seen = judge_decoding(pairs)
        shared = [found for found in overlaps.find(pairs.splits, seen) if found.images]
        warnings += [f"{pairs.folder}: {found.line}" for found in shared]
    faults = [*faults, *pairs.found.lines()]
    if faults:
        raise InputError(faults)
    built = _splits(pairs)
    dataset = Dataset(
        name=entry.name,
        classes=pairs.classes,
        features={"image": (layout.image,), "text": pairs.columns},
        known_issues=entry.known_issues,
        dropped=dict(pairs.dropped),
        warnings=tuple(warnings),
        train=built["train"],
        validation=built.get("validation"),
        test=built.get("test"),
    )
    return dataset.select(chosen)


def _splits(pairs: Pairs) -> dict[str, Split]:
    numbers = {label: number for number, label in enumerate(pairs.classes)}
    used: set[str] = set()
    every = [pair for split in pairs.splits.values() for pair in split]
    images, image_at = _distinct([str(pair.path) for pair in every])
    texts, text_at = _distinct([pair.text for pair in every])
    built, start = {}, 0
    for split, members in pairs.splits.items():
        here = np.arange(start, start + len(members))
        start += len(members)
        built[split] = build_split(
            {"image": MediaColumn("image", images, image_at[here]), "text": MediaColumn("text", texts, text_at[here])},
            np.array([numbers[pair.label] for pair in members], dtype=np.int64),
            split,
            ids=np.array([_unique(pair.image, used) for pair in members], dtype=np.str_),
        )
    return built


def _distinct(values: list[str]) -> tuple[ObjectArray, np.ndarray]:
    """The distinct values in the order of their first occurrence, and the position of each value in them: what occurs
    twice is decoded once."""
    positions = {value: position for position, value in enumerate(dict.fromkeys(values))}
    source = np.empty(len(positions), dtype=object)
    source[:] = list(positions)
    return source, np.array([positions[value] for value in values], dtype=np.int64)


def _unique(name: str, used: set[str]) -> str:
    """The name, with `#2`, `#3`, ... where it was used before."""
    unique, count = name, 1
    while unique in used:
        count += 1
        unique = f"{name}#{count}"
    used.add(unique)
    return unique
