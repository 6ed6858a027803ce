"""UPMC Food-101, read from the folder as its authors publish it."""

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
from m3col.data.formats.pair_dataset import build, judge, judge_labels
from m3col.data.formats.pairs import Pair, Pairs
from m3col.data.images import decoding as image_files
from m3col.data.images import index

FOOD_FILES = {"train": "train.csv", "test": "test.csv"}

FOOD_VALIDATION = 5_000

FOOD_FULL = 25_000  # of fewer training pairs, a fifth validates

FOOD_SEED = 2409


def looks_like_food101(folder: Path) -> bool:
    """Whether `folder` holds the texts and a list of the layout."""
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
    """The data set of `folder`, with a validation split of 5,000 training pairs (a fifth of fewer than 25,000 pairs),
    stratified, the same for any order of the rows. Pairs without an image or text are left out and counted; a broken
    image is a fault, and left out once its file is deleted. `images`: decode them all to judge them.

    Raises InputError with every fault.
    """
    return build(scan_food101(folder, splits, layout), entry, select, layout, judge_images=images)


def scan_food101(folder: Path, splits: Sequence[str], layout: Layout) -> Pairs:
    """Read what can be read of `folder`, draw the validation split, and collect the faults."""
    pairs = Pairs(folder, ("text",))
    if not os.path.isdir(folder):
        pairs.found.add(folder, "folder", "is not a folder")
        return pairs
    if layout.text not in (None, ("text",)):
        fault = f"data.text.columns: food101 has one text per image, 'text', but got {list(layout.text or ())}"
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
    """The rows that have an image and a text; the others are counted in `pairs.dropped`."""
    with ThreadPoolExecutor(index.THREADS) as pool:  # many small files: most of the time is waiting
        texts = list(pool.map(lambda row: _food_text(row, pairs.root), rows))
    kept, lacking = [], list[str]()
    for row, (text, fault) in zip(rows, texts, strict=True):
        if row.id and row.annotation and (reason := _lacks(row, text, fault, pairs.root)):
            pairs.drop(f"{row.split}: {reason}")
            lacking.append(f"{reason}: {pairs.folder / (row.image if reason == NO_IMAGE else row.text)}")
            continue
        if fault:
            pairs.found.add(row.file, "the text cannot be used", f"text {row.text!r} {fault}", row.number)
        # Without an annotation there is no path: the empty label is the fault to tell.
        image, known = (row.image, text if not fault else None) if row.annotation else (None, None)
        kept.append(judge(pairs, row.file, row.number, image=image, text=known, label=row.annotation))
    first = f"the first one has {lacking[0]}" if lacking else ""
    if lacking and not kept:
        fault = f"none of its {len(rows)} rows has an image and a text; {first}"
        pairs.found.add(rows[0].file, "no pairs", fault)
    elif len(lacking) > MANY_FAULTS * len(rows):
        share = f"{len(lacking):,} of {len(rows):,} pairs ({100 * len(lacking) / len(rows):.0f} %)"
        pairs.warnings.append(f"{rows[0].file}: {share} are left out; {first}")
    return kept


def _lacks(row: _FoodRow, text: str | None, fault: str, root: str) -> str:
    """What the pair lacks, "" for nothing. A path that leaves the folder lacks nothing: it is a fault."""
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
    """The text of the row's file (None: there is no file), and what is wrong with it."""
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
