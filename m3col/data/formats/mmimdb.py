"""Reads MM-IMDb from a folder in the layout of its authors: films with a poster, plots and genres.

Files: `split.json`, lists of ids by split (`train`, `dev`, `test`); `dataset/<id>.json` with `plot`, a list of texts,
and `genres`; `dataset/<id>.jpeg`.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m3col.data.dataset import SPLITS, Dataset
from m3col.data.formats import json_pairs
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.data.formats.pair_dataset import build, joined, read_pair
from m3col.data.formats.pairs import Pair, Pairs
from m3col.data.labels import Labels
from m3col.errors import nearest

GENRES = (
    "action", "adventure", "animation", "biography", "comedy", "crime", "documentary", "drama", "family", "fantasy",
    "film-noir", "history", "horror", "music", "musical", "mystery", "romance", "sci-fi", "short", "sport", "thriller",
    "war", "western",
)  # fmt: skip

IGNORED = ("news", "adult", "talk-show", "reality-tv")  # genres without a label, as published

FILE_SPLITS = {"train": "train", "validation": "dev", "test": "test"}

TEXTS = ("plot", "longest_plot", "all_plots")

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


def looks_like(folder: Path) -> bool:
    """Whether `folder` has the layout."""
    return (folder / "split.json").is_file() and (folder / "dataset").is_dir()


def read(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    images: bool = False,
) -> Dataset:
    """Reads the data set of `folder`. Films of splits that are not requested are not opened.

    A film is one sample, also with several plots. `layout.text` says which of them is its text: `plot`, the first one
    (default); `longest_plot`; or `all_plots`, joined.
    Differs: the authors of CoMM draw one of the plots anew at every access, in the evaluation too.

    Raises:
        InputError: with all faults.
    """
    return build(scan(folder, splits, layout), entry, select, layout, decode_images=images)


def scan(folder: Path, splits: Sequence[str], layout: Layout) -> Pairs:
    """Reads `folder` and collects the faults."""
    texts = layout.text or TEXTS[:1]
    pairs = Pairs(folder, texts)
    if not os.path.isdir(folder):
        pairs.faults.add(folder, "folder", "is not a folder")
        return pairs
    for name in texts:
        if name not in TEXTS:
            pairs.faults.add(folder, "text", f"data.text.columns: {name!r} is unknown{nearest(name, TEXTS)}")
    if len(texts) != 1:
        fault = f"data.text.columns must name one of {', '.join(TEXTS)}, but names {list(texts)}"
        pairs.faults.add(folder, "text", fault)
    ids = _ids(folder / "split.json", pairs)
    counts: Counter[str] = Counter()
    for split in (s for s in SPLITS if s in splits and s in ids):
        films = [_film(pairs, split, number, name, texts[0], counts) for number, name in enumerate(ids[split], start=1)]
        kept = [film for film in films if film is not None]
        pairs.splits[split] = [pair for pair, _ in kept]
        pairs.tables[split] = Labels(np.array([row for _, row in kept], dtype=np.int64).reshape(-1, 23), GENRES)
    _remark(pairs, counts)
    return pairs


def _ids(path: Path, pairs: Pairs) -> dict[str, list[str]]:
    """The ids of each split. A film in two splits is a fault."""
    content = json_pairs.read_object(path, pairs.faults)
    if content is json_pairs.FAULT:
        return {}
    if not isinstance(content, dict):
        pairs.faults.add(path, "json", f"must be an object of lists of ids, but is {json_pairs.described(content)}")
        return {}
    for key in sorted(set(content) - set(FILE_SPLITS.values())):
        fault = f"{key!r:.40} is no split{nearest(key, FILE_SPLITS.values())}"
        pairs.faults.add(path, "json", fault)
    result: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for split, key in FILE_SPLITS.items():
        given = content.get(key)
        if not isinstance(given, list) or not given:
            if key == "train" or given is not None:
                pairs.faults.add(path, "json", f"{key!r} must be a list of ids, but is {json_pairs.described(given)}")
            continue
        result[split] = []
        for number, name in enumerate(map(str, given), start=1):
            if not _ID.fullmatch(name):
                pairs.faults.add(path, "an id", f"{key}, entry {number}: {name!r:.60} is not an id")
            elif name in seen:
                pairs.faults.add(path, "repeated ids", f"{key}, entry {number}: {name!r} is in {seen[name]!r} already")
            else:
                seen[name] = key
                result[split].append(name)
    return result


def _film(
    pairs: Pairs, split: str, number: int, name: str, text: str, counts: "Counter[str]"
) -> tuple[Pair, list[int]] | None:
    """The poster and text of a film, and its labels; None for a film that cannot be read."""
    path = pairs.folder / "dataset" / f"{name}.json"
    content = json_pairs.read_object(path, pairs.faults)
    if content is json_pairs.FAULT:
        return None
    if not isinstance(content, dict):
        pairs.faults.add(path, "no object", f"must be an object, but is {json_pairs.described(content)}")
        return None
    plots, genres = (_texts(pairs, path, key, content.get(key)) for key in ("plot", "genres"))
    if plots is None or genres is None:
        return None
    named = {genre.strip().lower() for genre in genres}
    for genre in sorted(named - {*GENRES, *IGNORED}):
        fault = f"genre {genre!r:.40} is unknown{nearest(genre, GENRES)}"
        pairs.faults.add(path, "the genre is unknown", fault)
    counts["several plots"] += len(plots) > 1
    counts["ignored genre"] += bool(named & {*IGNORED})
    counts["no label"] += not named & {*GENRES}
    counts["films"] += 1
    pair = read_pair(
        pairs, path, None, image=os.path.join("dataset", f"{name}.jpeg"), text=_text(plots, text), label=None
    )
    return Pair(path, number, pair.image, pair.path, pair.text, ""), [int(genre in named) for genre in GENRES]


def _texts(pairs: Pairs, path: Path, key: str, value: Any) -> list[str] | None:
    """A list of texts; None, with a fault, for anything else."""
    if not isinstance(value, list):
        pairs.faults.add(
            path, f"{key} is no list", f"{key!r} must be a list of texts, but is {json_pairs.described(value)}"
        )
        return None
    wrong = [item for item in value if not isinstance(item, str)]
    if wrong:
        fault = f"{key!r} must be a list of texts, but has {json_pairs.described(wrong[0])} in it"
        pairs.faults.add(path, f"{key} has other values", fault)
        return None
    return value


def _text(plots: Sequence[str], which: str) -> str:
    plots = [plot for plot in plots if plot.strip()]
    if which == "all_plots" or not plots:
        return joined(plots)
    return (max(plots, key=len) if which == "longest_plot" else plots[0]).strip()


def _remark(pairs: Pairs, counts: Mapping[str, Any]) -> None:
    """Adds warnings about what the published loader does silently."""
    films = f"of {counts['films']:,} films"
    if counts["several plots"]:
        pairs.warnings.append(
            f"{pairs.folder}: {counts['several plots']:,} {films} have several plots; each film is one sample with "
            f"{pairs.columns[0]!r}, while published code draws one of them at every access"
        )
    if counts["no label"]:
        pairs.warnings.append(
            f"{pairs.folder}: {counts['no label']:,} {films} have none of the 23 genres, {counts['ignored genre']:,} "
            f"have one of {', '.join(IGNORED)}, which are no labels"
        )
