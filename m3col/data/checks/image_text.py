"""Checks a folder of images and texts and reports its content, faults and warnings."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3col.data import label_tables
from m3col.data.checks.folder_report import Report, Row
from m3col.data.columns import encodable
from m3col.data.dataset import SPLITS
from m3col.data.formats import (
    food101,
    hateful_memes,
    image_text_csv,
    mmimdb,
    n24news,
    numbered_csv,
    overlaps,
    pair_dataset,
)
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.pairs import Pair, Pairs
from m3col.data.images.index import ImageInfo
from m3col.data.labels import case_warnings

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_BATCH = 1000  # texts per call of the tokenizer

_LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path, Sequence[str], Layout], Pairs]]] = {
    "n24news": (n24news.looks_like_n24news, n24news.scan_n24news),
    "food101": (food101.looks_like_food101, food101.scan_food101),
    "mmimdb": (mmimdb.looks_like, mmimdb.scan),
    "hateful_memes": (hateful_memes.looks_like, hateful_memes.scan),
    "image_text": (image_text_csv.looks_like, image_text_csv.scan),
}


def layout_of(folder: Path) -> str | None:
    """The image and text layout of `folder` (n24news, food101 or image_text); None if it has none of them."""
    if not os.path.isdir(folder) or numbered_csv.looks_like(folder):
        return None
    return next((name for name, (looks_like, _) in _LAYOUTS.items() if looks_like(folder)), None)


def check_pairs(
    folder: Path, *, name: str, layout: Layout, tokenizer: "Tokenizer | None" = None, max_length: int = 512
) -> Report:
    """Reports unreadable images, empty texts, image sizes, text lengths and labels per split, and overlaps of splits.

    All images are decoded. Nothing is raised for faults of the folder: they are in the report.

    Args:
        folder: the folder.
        name: its layout, as returned by `layout_of`.
        layout: columns of images, texts and labels.
        tokenizer: text lengths are in its tokens; None: in words.
        max_length: the report states the share of texts with more tokens than this, if there is a tokenizer.
    """
    pairs = _LAYOUTS[name][1](folder, SPLITS, layout)
    infos = pair_dataset.inspect_images(pairs)
    counter = _words if tokenizer is None else _tokens(tokenizer)
    unit = "words" if tokenizer is None else "tokens"
    columns: tuple[str, ...] = ("file", "split", "pairs", "unreadable", "no text")
    columns += ("smallest", "median size", "largest", f"median {unit}", f"longest ({unit})")
    columns += () if tokenizer is None else (f"cut off at {max_length}",)
    rows = [
        _describe(split, members, infos, counter, None if tokenizer is None else max_length)
        for split, members in pairs.splits.items()
        if members
    ]
    class_columns, class_rows = ("class", *pairs.splits), _class_rows(pairs)
    if pairs.tables:
        tables = {split: labels.values for split, labels in pairs.tables.items()}
        class_columns, class_rows = label_tables.describe(tables, pairs.classes, layout.form)
    warnings = [f"{count} pairs are left out, {reason}" for reason, count in pairs.dropped.items()]
    counts = Counter(pair.label for pair in pairs.splits.get("train", ()))
    warnings += case_warnings(pairs.classes, [counts[label] for label in pairs.classes], str(folder))
    return Report(
        folder=folder,
        columns=columns,
        rows=tuple(rows),
        class_columns=class_columns,
        class_rows=class_rows,
        faults=tuple(pairs.faults.lines()),
        warnings=(*warnings, *pairs.warnings, *(overlap.line for overlap in overlaps.find(pairs.splits, infos))),
    )


def _words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _tokens(tokenizer: "Tokenizer") -> Callable[[Sequence[str]], list[int]]:
    # A copy without truncation and padding, which would hide the lengths of the texts.
    untruncated = type(tokenizer).from_str(tokenizer.to_str())
    untruncated.no_truncation()
    untruncated.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        batches = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
        return [len(encoding.ids) for batch in batches for encoding in untruncated.encode_batch(list(batch))]

    return count


def _describe(
    split: str,
    members: list[Pair],
    infos_by_path: Mapping[str, ImageInfo],
    counter: Callable[[Sequence[str]], list[int]],
    max_length: int | None,
) -> Row:
    """One row of the table. Images are ordered by their number of pixels."""
    infos = [infos_by_path[pair.path] if pair.path is not None else ImageInfo(fault="missing") for pair in members]
    sizes = sorted((info.size for info in infos if info.size is not None), key=lambda size: (size[0] * size[1], size))
    shown = [f"{w} x {h}" for w, h in (sizes[0], sizes[(len(sizes) - 1) // 2], sizes[-1])] if sizes else ["-"] * 3
    # Half of a surrogate pair is reported as a fault, and no tokenizer accepts it.
    texts = [pair.text for pair in members if pair.text and encodable(pair.text)]
    lengths = np.array(counter(texts), dtype=np.int64)
    spread = [f"{np.median(lengths):g}", str(lengths.max())] if len(lengths) else ["-"] * 2
    if max_length is not None:
        spread.append(f"{100 * np.mean(lengths > max_length):.1f} %" if len(lengths) else "-")
    unreadable, empty = sum(info.size is None for info in infos), sum(not pair.text for pair in members)
    return (members[0].file.name, split, str(len(members)), str(unreadable), str(empty), *shown, *spread)


def _class_rows(pairs: Pairs) -> tuple[Row, ...]:
    counts: dict[str, dict[str, int]] = {}
    for split, members in pairs.splits.items():
        for pair in members:
            if pair.label:
                by_split = counts.setdefault(pair.label, dict.fromkeys(pairs.splits, 0))
                by_split[split] += 1
    return tuple((label, *map(str, counts[label].values())) for label in sorted(counts))
