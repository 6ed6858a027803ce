"""What a folder of pictures and texts holds and what is wrong or suspicious about it."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3col.data import image_text, mogonet, pictures, published
from m3col.data.dataset import SPLITS
from m3col.data.image_text import Pair, Pairs
from m3col.data.layout import Layout
from m3col.data.report import Report, Row

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BATCH = 1000  # texts that are tokenised at a time
_LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path, Sequence[str], Layout], Pairs]]] = {
    "n24news": (published.looks_like_n24news, published.scan_n24news),
    "food101": (published.looks_like_food101, published.scan_food101),
    "image_text": (image_text.looks_like, image_text.scan),
}


@dataclass(frozen=True)
class _Picture:
    """A file that was read to its end: SHA-256 of its bytes, width and height; or why it cannot be decoded."""

    digest: str = ""
    size: tuple[int, int] | None = None
    fault: str = ""


def layout_of(folder: Path) -> str | None:
    """The layout of pictures and texts that `folder` has: n24news, food101, image_text; None for another one."""
    if not folder.is_dir() or mogonet.looks_like(folder):
        return None
    return next((name for name, (looks_like, _) in _LAYOUTS.items() if looks_like(folder)), None)


def check_pairs(
    folder: Path, *, name: str, layout: Layout, tokenizer: "Tokenizer | None" = None, max_length: int = 512
) -> Report:
    """Unreadable pictures (all are decoded), empty texts, labels and sizes per split, texts in words or in tokens of
    `tokenizer` with the share that is cut off at `max_length`, and what stands in two splits. `name`: one of the
    layouts of `layout_of`. Raises nothing: what is wrong is in the report.
    """
    pairs = _LAYOUTS[name][1](folder, SPLITS, layout)
    looks = _look(pairs)
    for pair in _every(pairs):
        if pair.path is not None and looks[pair.path].fault:
            image_text.add_unreadable(pairs, pair, looks[pair.path].fault)
    counter = _words if tokenizer is None else _tokens(tokenizer)
    unit = "words" if tokenizer is None else "tokens"
    columns: tuple[str, ...] = ("file", "split", "pairs", "unreadable", "no text")
    columns += ("smallest", "median size", "largest", f"median {unit}", f"longest ({unit})")
    columns += () if tokenizer is None else (f"cut off at {max_length}",)
    rows = [
        _describe(split, members, looks, counter, None if tokenizer is None else max_length)
        for split, members in pairs.splits.items()
        if members
    ]
    warnings = [f"{count} pairs are left out, {reason}" for reason, count in pairs.dropped.items()]
    return Report(
        folder=folder,
        columns=columns,
        rows=tuple(rows),
        class_columns=("class", *pairs.splits),
        class_rows=_class_rows(pairs),
        faults=tuple(pairs.found.lines()),
        warnings=(*warnings, *_twice(pairs, looks)),
    )


def _every(pairs: Pairs) -> Iterable[Pair]:
    return (pair for members in pairs.splits.values() for pair in members)


def _look(pairs: Pairs) -> dict[str, _Picture]:
    """Every picture's file by its path, each read once."""
    paths = list(dict.fromkeys(pair.path for pair in _every(pairs) if pair.path is not None))
    with ThreadPoolExecutor(image_text.THREADS) as pool:
        return dict(zip(paths, pool.map(_look_at, paths), strict=True))


def _look_at(path: str) -> _Picture:
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return _Picture(fault=f"cannot be read ({error.strerror or error})")
    try:
        return _Picture(digest, pictures.measure(path))
    except pictures.Unreadable as error:  # a fault already, so what equals it does not matter
        return _Picture(fault=str(error))


def _words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _tokens(tokenizer: "Tokenizer") -> Callable[[Sequence[str]], list[int]]:
    # A copy: a tokenizer that cuts or pads would hide how long the texts are.
    whole = type(tokenizer).from_str(tokenizer.to_str())
    whole.no_truncation()
    whole.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        batches = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
        return [len(encoding.ids) for batch in batches for encoding in whole.encode_batch(list(batch))]

    return count


def _describe(
    split: str,
    members: list[Pair],
    looks: dict[str, _Picture],
    counter: Callable[[Sequence[str]], list[int]],
    max_length: int | None,
) -> Row:
    """One row of the table. Pictures are ordered by their number of pixels."""
    seen = [looks[pair.path] if pair.path is not None else _Picture(fault="missing") for pair in members]
    sizes = sorted((look.size for look in seen if look.size is not None), key=lambda size: (size[0] * size[1], size))
    shown = [f"{w} x {h}" for w, h in (sizes[0], sizes[(len(sizes) - 1) // 2], sizes[-1])] if sizes else ["-"] * 3
    # Half a surrogate pair is a fault already, and no tokenizer takes it.
    texts = [pair.text for pair in members if pair.text and image_text.encodable(pair.text)]
    lengths = np.array(counter(texts), dtype=np.int64)
    spread = [f"{np.median(lengths):g}", str(lengths.max())] if len(lengths) else ["-"] * 2
    if max_length is not None:
        spread.append(f"{100 * np.mean(lengths > max_length):.1f} %" if len(lengths) else "-")
    unreadable, empty = sum(look.size is None for look in seen), sum(not pair.text for pair in members)
    return (members[0].file.name, split, str(len(members)), str(unreadable), str(empty), *shown, *spread)


def _class_rows(pairs: Pairs) -> tuple[Row, ...]:
    counts: dict[str, dict[str, int]] = {}
    for split, members in pairs.splits.items():
        for pair in members:
            if pair.label:
                own = counts.setdefault(pair.label, dict.fromkeys(pairs.splits, 0))
                own[split] += 1
    return tuple((label, *map(str, counts[label].values())) for label in sorted(counts))


def _twice(pairs: Pairs, looks: dict[str, _Picture]) -> list[str]:
    """A warning for each two splits that have a picture (by its content) or a text in common."""
    warnings = []
    for first, second in combinations(pairs.splits, 2):
        a, b = pairs.splits[first], pairs.splits[second]
        same = _common(a, b, lambda pair: looks[pair.path].digest if pair.path is not None else "")
        texts = _common(a, b, lambda pair: pair.text)
        if not same and not texts:
            continue
        one, other = (same or texts)[0]
        example = f"{first} row {one.row} {one.image!r} = {second} row {other.row} {other.image!r}"
        warnings.append(
            f"{first} and {second} overlap: of the {len(b)} pairs of {second}, {len(same)} have a picture and "
            f"{len(texts)} a text that {first} has too ({'picture' if same else 'text'} of {example})"
        )
    return warnings


def _common(a: list[Pair], b: list[Pair], key: Callable[[Pair], str]) -> list[tuple[Pair, Pair]]:
    """The pairs of `b` whose key occurs in `a`, each after the first that has it there; an empty key is none."""
    known: dict[str, Pair] = {}
    for pair in a:
        known.setdefault(key(pair), pair)
    return [(known[key(pair)], pair) for pair in b if key(pair) and key(pair) in known]
