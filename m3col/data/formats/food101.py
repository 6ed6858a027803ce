"""Reads UPMC Food-101 from a folder in the layout of its authors."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m3col.data.dataset import Dataset
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.data.formats.image_text_csv import read_table, require
from m3col.data.formats.n24news import MANY_FAULTS, NO_IMAGE
from m3col.data.formats.pair_dataset import build, read_pair, validate_labels
from m3col.data.formats.pairs import Pair, Pairs
from m3col.data.images import decoding as image_files
from m3col.data.images import index

FOOD_FILES = {"train": "train.csv", "test": "test.csv"}

FOOD_VALIDATION = 5_000

FOOD_FULL = 25_000  # with fewer training pairs, a fifth of them are validation pairs

FOOD_SEED = 2409


def looks_like_food101(folder: Path) -> bool:
    """Whether `folder` has the layout: the folder of texts, and a CSV file."""
    return (folder / "texts_txt").is_dir() and any((folder / name).is_file() for name in FOOD_FILES.values())


def read_food101(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    images: bool = False,
) -> Dataset:
    """Reads the data set of `folder` and draws a validation split from its training pairs.

    The validation split has 5,000 pairs, or a fifth if there are fewer than 25,000. It is stratified and does not
    depend on the order of the rows. Pairs without an image or a text are left out and counted. A broken image file is
    a fault; once the file is deleted, its pair is left out. `images`: whether to decode all images to validate them.

    Raises:
        InputError: with all faults.
    """
    return build(scan_food101(folder, splits, layout), entry, select, layout, decode_images=images)


def scan_food101(folder: Path, splits: Sequence[str], layout: Layout) -> Pairs:
    """Reads `folder`, draws the validation split, and collects the faults."""
    pairs = Pairs(folder, ("text",))
    if not os.path.isdir(folder):
        pairs.faults.add(folder, "folder", "is not a folder")
        return pairs
    if layout.text not in (None, ("text",)):
        fault = f"data.text.columns: food101 has one text per image, 'text', but got {list(layout.text or ())}"
        pairs.faults.add(folder, "text", fault)
    kept: dict[str, list[Pair]] = {}
    for split in (s for s in FOOD_FILES if s in splits):
        path = folder / FOOD_FILES[split]
        table = read_table(path, pairs.faults)
        if table is None:
            continue
        needed = [require(table, column, "", pairs.faults) for column in ("id", "annotation")]
        if all(needed):
            rows = [
                _FoodRow(path, number, split, row["id"].strip(), row["annotation"].strip())
                for number, row in table.rows
            ]
            kept[split] = _food_pairs(pairs, rows)
    if "train" in kept:
        train = sorted(kept["train"], key=lambda pair: (os.path.basename(pair.image), pair.image))
        validation = draw_validation([pair.label for pair in train])
        pairs.splits["train"] = [pair for position, pair in enumerate(train) if position not in validation]
        if validation and "validation" in splits:
            pairs.splits["validation"] = [pair for position, pair in enumerate(train) if position in validation]
    if "test" in kept:
        pairs.splits["test"] = kept["test"]
    validate_labels(pairs)
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
    """The pairs that have an image and a text. The others are counted in `pairs.dropped`."""
    with ThreadPoolExecutor(index.THREADS) as pool:  # many small files: most of the time is spent waiting for the disk
        texts = list(pool.map(lambda row: _food_text(row, pairs.root), rows))
    kept, incomplete = [], list[str]()
    for row, (text, fault) in zip(rows, texts, strict=True):
        if row.id and row.annotation and (reason := _lacks(row, text, fault, pairs.root)):
            pairs.drop(f"{row.split}: {reason}")
            incomplete.append(f"{reason}: {pairs.folder / (row.image if reason == NO_IMAGE else row.text)}")
            continue
        if fault:
            pairs.faults.add(row.file, "the text cannot be used", f"text {row.text!r} {fault}", row.number)
        # Without an annotation there are no paths; only the empty label is reported.
        image, text_or_none = (row.image, text if not fault else None) if row.annotation else (None, None)
        kept.append(read_pair(pairs, row.file, row.number, image=image, text=text_or_none, label=row.annotation))
    example = f"the first one has {incomplete[0]}" if incomplete else ""
    if incomplete and not kept:
        fault = f"none of its {len(rows)} rows has an image and a text; {example}"
        pairs.faults.add(rows[0].file, "no pairs", fault)
    elif len(incomplete) > MANY_FAULTS * len(rows):
        share = f"{len(incomplete):,} of {len(rows):,} pairs ({100 * len(incomplete) / len(rows):.0f} %)"
        pairs.warnings.append(f"{rows[0].file}: {share} are left out; {example}")
    return kept


def _lacks(row: _FoodRow, text: str | None, fault: str, root: str) -> str:
    """What the pair lacks; "" if it is complete, or if its path leaves the folder, which is reported as a fault."""
    try:
        image_files.inside(row.image, root)
    except image_files.Missing:
        return NO_IMAGE
    except image_files.Outside:
        return ""
    if fault:
        return ""
    return "no text" if text is None else "" if text else "empty text"


def _food_text(row: _FoodRow, root: str) -> tuple[str | None, str]:
    """The text of the row (None if there is no file), and its fault."""
    try:
        path = image_files.inside(row.text, root)
        return Path(path).read_bytes().decode("utf-8-sig").strip(), ""
    except image_files.Outside as error:
        return None, str(error)
    except image_files.Missing:
        return None, ""
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 (byte {error.start + 1}); save it as UTF-8"
    except OSError as error:
        return None, f"cannot be read ({error.strerror or error})"


def draw_validation(labels: list[str]) -> set[int]:
    """Draws the positions of the validation pairs: `FOOD_VALIDATION`, or a fifth if there are fewer than `FOOD_FULL`.

    Classes get numbers of pairs proportional to their size (largest remainder method), but never their last pair.
    """
    count = FOOD_VALIDATION if len(labels) >= FOOD_FULL else len(labels) // 5
    classes = sorted(set(labels))
    members = {name: [position for position, label in enumerate(labels) if label == name] for name in classes}
    shares = {name: count * len(members[name]) / len(labels) for name in classes}
    quotas = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(classes, key=lambda name: (quotas[name] - shares[name], name))
    for name in by_remainder[: count - sum(quotas.values())]:
        quotas[name] += 1
    validation: set[int] = set()
    for number, name in enumerate(classes):
        order = np.random.default_rng([FOOD_SEED, number]).permutation(len(members[name]))
        validation |= {members[name][position] for position in order[: min(quotas[name], len(members[name]) - 1)]}
    return validation
