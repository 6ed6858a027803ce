"""Validates pairs of an image and a text and builds a data set from them, for all file layouts."""

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
    """Joins the texts that are not missing, one per line. If all are missing, returns the first mark, or ""."""
    stripped = [text.strip() for text in texts]
    present = [text for text in stripped if text not in MARKS]
    return "\n".join(present) if present else next(filter(None, stripped), "")


def missing(what: str, cell: str) -> str:
    """The fault of a cell that is empty or marked as missing."""
    return f"{what} is empty" if not cell else f"{what} is {cell!r}, which stands for a missing one; leave the pair out"


def read_pair(
    pairs: Pairs, file: Path, row: int | None, *, image: str | None, text: str | None, label: str | None
) -> Pair:
    """Converts a row to a pair and adds its faults to `pairs.faults`.

    A value is None if the file has no such column, which is reported elsewhere. `row` is None if the file is one pair.
    """
    path = None
    image = None if image is None else image.strip()
    if image in MARKS:
        pairs.faults.add(file, "no path of an image", missing("the path of the image", str(image)), row)
    elif image is not None:
        try:
            path = decoding.inside(image, pairs.root)
        except decoding.Outside as error:
            pairs.faults.add(file, "the image is outside of the data folder", f"image {image!r} {error}", row)
        except decoding.Unreadable as error:
            pairs.faults.add(file, "the image is missing", f"image {image!r}: {error}", row)
    if text is not None and text in MARKS:
        pairs.faults.add(file, "the text is empty", missing("the text", text), row)
    label = None if label is None else label.strip()
    if label in MARKS:
        pairs.faults.add(file, "the label is empty", missing("the label", str(label)), row)
        label = ""
    for what, value in (("text", text), ("label", label)):
        if value and not encodable(value):  # JSON can contain half of a surrogate pair, which cannot be encoded
            pairs.faults.add(file, f"the {what} is not Unicode", f"the {what} holds half a surrogate pair", row)
    shown = os.path.normpath(decoding.with_slashes(image or "", pairs.root))
    return Pair(file, row or 1, shown, path, "" if text in MARKS else text or "", label or "")


def validate_labels(pairs: Pairs) -> None:
    """Checks that training has at least two classes, and that all labels of other splits occur in training."""
    classes, train = pairs.classes, pairs.splits.get("train")
    if not train or not classes or pairs.tables:
        return
    if len(classes) == 1:
        fault = f"at least two classes are needed, but every label is {classes[0]!r}"
        pairs.faults.add(train[0].file, "classes", fault)
    training_classes = set(classes)
    for split in ("validation", "test"):
        for pair in pairs.splits.get(split, ()):
            if pair.label and pair.label not in training_classes:
                hint = close(pair.label, classes)
                fault = f"label {pair.label!r} never occurs in {train[0].file.name}{hint}"
                pairs.faults.add(pair.file, "a label that training lacks", fault, pair.row)


def close(value: str, choices: Iterable[str]) -> str:
    """Like `nearest`, but "" if no choice is close, instead of a list of all choices."""
    near = nearest(value, choices)
    return near if near.startswith("; did") else ""


def inspect_images(pairs: Pairs) -> dict[str, ImageInfo]:
    """Inspects every image and adds faults for those that cannot be decoded. Returns the properties by path."""
    usable = [pair for split in pairs.splits.values() for pair in split if pair.path is not None]
    paths = list(dict.fromkeys(pair.path for pair in usable if pair.path is not None))
    infos = dict(zip(paths, index.inspect(paths), strict=True))
    for pair in usable:
        if pair.path is not None and infos[pair.path].fault:
            fault = f"image {pair.image!r} {infos[pair.path].fault}"
            pairs.faults.add(pair.file, "the image cannot be read", fault, pair.row)
    return infos


def build(
    pairs: Pairs, entry: Entry, select: Sequence[str | int] | None, layout: Layout, *, decode_images: bool
) -> Dataset:
    """Builds the data set from the pairs. Raises InputError with all faults."""
    chosen, faults = (MODALITIES, []) if select is None else choose(select, MODALITIES)
    warnings = list(pairs.warnings)
    if decode_images and "image" in (chosen or MODALITIES):
        infos = inspect_images(pairs)
        shared_images = [overlap for overlap in overlaps.find(pairs.splits, infos) if overlap.images]
        warnings += [f"{pairs.folder}: {overlap.line}" for overlap in shared_images]
    faults = [*faults, *pairs.faults.lines()]
    if faults:
        raise InputError(faults)
    splits = _splits(pairs)
    dataset = Dataset(
        name=entry.name,
        classes=pairs.classes,
        features={"image": (layout.image,), "text": pairs.columns},
        known_issues=entry.known_issues,
        dropped=dict(pairs.dropped),
        warnings=tuple(warnings),
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
    )
    return dataset.select(chosen)


def _splits(pairs: Pairs) -> dict[str, Split]:
    numbers = {label: number for number, label in enumerate(pairs.classes)}
    used: set[str] = set()
    all_pairs = [pair for split in pairs.splits.values() for pair in split]
    images, image_at = _distinct([str(pair.path) for pair in all_pairs])
    texts, text_at = _distinct([pair.text for pair in all_pairs])
    built, start = {}, 0
    for split, members in pairs.splits.items():
        positions = np.arange(start, start + len(members))
        start += len(members)
        built[split] = build_split(
            {
                "image": MediaColumn("image", images, image_at[positions]),
                "text": MediaColumn("text", texts, text_at[positions]),
            },
            pairs.tables[split].values
            if split in pairs.tables
            else np.array([numbers[pair.label] for pair in members], dtype=np.int64),
            split,
            ids=np.array([_unique(pair.image, used) for pair in members], dtype=np.str_),
        )
    return built


def _distinct(values: list[str]) -> tuple[ObjectArray, np.ndarray]:
    """The distinct values in order of first occurrence, and the position of each value among them.

    An image or text that occurs twice is thus decoded only once.
    """
    positions = {value: position for position, value in enumerate(dict.fromkeys(values))}
    source = np.empty(len(positions), dtype=object)
    source[:] = list(positions)
    return source, np.array([positions[value] for value in values], dtype=np.int64)


def _unique(name: str, used: set[str]) -> str:
    """Makes a name unique by appending `#2`, `#3`, ... if it was used before."""
    unique, count = name, 1
    while unique in used:
        count += 1
        unique = f"{name}#{count}"
    used.add(unique)
    return unique
