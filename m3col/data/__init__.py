"""Data sets: each a named entry in `TABLE`, read from a folder, embedded, or given as arrays."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from m3col.data import cache, digits, image_text, mogonet, preprocess, published, values
from m3col.data.arrays import from_arrays
from m3col.data.columns import Records
from m3col.data.dataset import SPLITS, Dataset, Split, concat, own_ids
from m3col.data.entry import Entry
from m3col.data.layout import Layout
from m3col.faults import BadInput, nearest

__all__ = [
    "TABLE",
    "Dataset",
    "Entry",
    "Split",
    "concat",
    "faults",
    "from_arrays",
    "load",
    "locate",
    "names",
    "unreadable",
    "value_faults",
]

FETCHABLE = ("rosmap", "brca")
_SHOWN = 5  # pictures named one by one in a message; the rest is counted


def _read_digits(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout,
    pictures: bool,
) -> Dataset:
    dataset = digits.read(test="test" in splits)
    dataset = replace(dataset, known_issues=entry.known_issues)
    return dataset if select is None else dataset.select(select)


_UPSTREAM = "features were selected and scaled upstream; with the test samples or not cannot be told"

TABLE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "digits",
            "1,797 handwritten digits of scikit-learn as pixels, Fourier magnitudes and gradient histograms",
            _read_digits,
            modalities=digits.MODALITIES,
            classes=digits.CLASSES,
            embedded=True,
            known_issues="the training split is small (200 of 1,797 samples) by choice: settings then differ",
        ),
        Entry(
            "rosmap",
            "Alzheimer's disease against normal controls, three omics (MOGONET)",
            mogonet.read,
            looks_like=mogonet.looks_like,
            modalities=("mRNA", "methylation", "miRNA"),
            classes=("control", "AD"),
            known_issues=(
                "the published split is atypical: logistic regression on mRNA reaches 83.0 % on it and 75.2 "
                "+- 3.8 % over 60 random resplits, on methylation 66.0 against 73.7, and 5-fold CV inside "
                f"train gives 72.1 on mRNA, so a validation figure far from test is this split; {_UPSTREAM}"
            ),
        ),
        Entry(
            "brca",
            "breast cancer PAM50 subtypes, three omics (MOGONET)",
            mogonet.read,
            looks_like=mogonet.looks_like,
            modalities=("mRNA", "methylation", "miRNA"),
            classes=("Normal-like", "Basal-like", "HER2-enriched", "Luminal A", "Luminal B"),
            known_issues=_UPSTREAM,
        ),
        Entry(
            "tcga_breast",
            "breast cancer subtypes of mixOmics' breast.TCGA; protein is missing from its test split",
            mogonet.read,
            looks_like=mogonet.looks_like,
            modalities=("mRNA", "miRNA", "protein"),
            default=("mRNA", "miRNA"),
            known_issues=(
                "the test split is not random: samples were put there because they have no protein data, and "
                "it holds none; features were filtered and normalised upstream"
            ),
        ),
        Entry(
            "handwritten",
            "2,000 handwritten digits as six feature sets (UCI Multiple Features)",
            mogonet.read,
            looks_like=mogonet.looks_like,
            modalities=("pixels", "fourier", "profiles", "zernike", "karhunen_loeve", "morphology"),
            classes=digits.CLASSES,
            known_issues="six pairs of samples are identical in every value, all inside the training split",
        ),
        Entry(
            "omics",
            "any folder in the MOGONET layout, given with --data-dir",
            mogonet.read,
            generic=True,
            looks_like=mogonet.looks_like,
        ),
        Entry(
            "n24news",
            "New York Times articles of 24 sections: a photo and its caption, headline, abstract or body",
            published.read_n24news,
            modalities=image_text.MODALITIES,
            kinds=image_text.KINDS,
            text=("caption",),
            looks_like=published.looks_like_n24news,
            known_issues="captions, headlines and abstracts of one article may name its section",
        ),
        Entry(
            "food101",
            "UPMC Food-101: photos of 101 dishes, each with the text of the web page where it was found",
            published.read_food101,
            modalities=image_text.MODALITIES,
            kinds=image_text.KINDS,
            looks_like=published.looks_like_food101,
            known_issues=(
                "pages were found by searching for the dish, so that most texts name it; labels are those searches, "
                "and some pictures show something else"
            ),
        ),
        Entry(
            "emoji",
            "1,840 emoji with their name and keywords, to be sorted into nine Unicode groups",
            image_text.read,
            modalities=image_text.MODALITIES,
            kinds=image_text.KINDS,
            text=("abstract",),
            looks_like=image_text.looks_like,
            known_issues=(
                "variants of one emoji, with nearly the same picture and text, lie in different splits; headlines and "
                "captions give some labels away (the caption of 253 flags is 'flag'), abstracts leave those words out"
            ),
        ),
        Entry(
            "image_text",
            "any folder with train.csv, val.csv and test.csv: paths of pictures, texts, labels; given with --data-dir",
            image_text.read,
            modalities=image_text.MODALITIES,
            kinds=image_text.KINDS,
            generic=True,
            looks_like=image_text.looks_like,
        ),
    )
}


def names() -> tuple[str, ...]:
    return tuple(TABLE)


def load(
    name: str,
    *,
    data_dir: Path | None = None,
    modalities: Sequence[str | int] | None = None,
    splits: Sequence[str] = SPLITS,
    layout: Layout = Layout(),  # noqa: B008 - it is frozen
    pictures: bool = False,
) -> Dataset:
    """The named data set, with the splits asked for as far as it has them; files of other splits stay closed.

    `data_dir` is the data set's own folder or, for a named set, the one that holds it; see `locate`.
    `modalities` are names or numbers from 1; `layout`: which columns hold pictures, texts and labels; `pictures`: look
    at each of them, which costs time once; otherwise their files must only be there. Values may be NaN or infinite
    here: `faults` looks at that. Raises BadInput.
    """
    if name not in TABLE:
        raise BadInput([f"data.name: data set {name!r} is unknown{nearest(name, TABLE)}"])
    unknown = [f"splits: {split!r} is unknown{nearest(split, SPLITS)}" for split in splits if split not in SPLITS]
    if unknown or "train" not in splits:
        raise BadInput(unknown or [f"splits: must contain 'train', but got {list(splits)}"])
    entry = TABLE[name]
    folder = Path() if entry.embedded else locate(name, data_dir=data_dir)
    if layout.text is None and entry.text is not None:
        layout = replace(layout, text=entry.text)
    return entry.read(folder, entry, modalities, splits, layout=layout, pictures=pictures)


def locate(name: str, *, data_dir: Path | None = None) -> Path:
    """The folder of a data set: the first of `data_dir`, $M3COL_DATA, ./data and ../shared/data that holds it
    (as the folder `name`, or itself). For a generic layout, `data_dir` is the folder. Raises BadInput with the places.
    """
    entry = TABLE[name]
    variable = os.environ.get("M3COL_DATA")
    if data_dir is not None and not os.path.isdir(data_dir):  # False also for a path that is too long
        raise BadInput([f"--data-dir: {data_dir} is not a folder"])
    if entry.generic and data_dir is not None:
        return Path(data_dir)
    given = [("--data-dir", data_dir), ("M3COL_DATA", Path(variable) if variable else None)]
    places = [(what, Path(path)) for what, path in given if path is not None]
    places += [("", Path("data")), ("", Path("..") / "shared" / "data")]
    for _, place in places:
        if not entry.generic and (place / name).is_dir():
            return place / name
        # a folder that carries the name of another set is that other set
        if place.resolve().name not in set(TABLE) - {name} and entry.looks_like(place):
            return place
    looked = ", ".join(f"{what} {path.resolve()}".strip() for what, path in places)
    fetch = (
        f"; get it with `m3col data fetch {name} --to data`"
        if name in FETCHABLE
        else "; give its folder with --data-dir"
    )
    raise BadInput([f"data.name: {name!r} was not found; looked in {looked}{fetch}"])


def faults(dataset: Dataset, spec: Any, where: str = "data.preprocess", *, precision: str = "float32") -> list[str]:
    """Faults of preprocessing `spec` on this data set: its own, a value that is missing where a modality has no
    `impute` step, a step that keeps no feature of the training split, values that no longer fit into `precision` after
    it. What does not fit before is told by `value_faults`, and its modality is not looked at here.
    """
    numeric = [name for name, kind in dataset.kinds.items() if kind == "numeric"]
    found: list[str] = []
    try:
        steps = preprocess.resolve(spec, numeric, where) if numeric else {}
    except BadInput as error:
        return list(error.faults)
    for name in numeric:
        imputes = "impute" in steps[name]
        missing = [] if imputes else _missing(dataset, name, where)
        found += missing
        if not missing and not _value_faults(dataset, name, precision):
            found += _fitting_faults(dataset, name, steps[name], where, precision)
    return found


def value_faults(dataset: Dataset, precision: str = "float32") -> list[str]:
    """Values of all numeric modalities and splits that are infinite or too large for `precision`."""
    return [line for name in dataset.modalities for line in _value_faults(dataset, name, precision)]


def _value_faults(dataset: Dataset, modality: str, precision: str) -> list[str]:
    return [
        fault
        for split, part in dataset.splits.items()
        if modality in part.inputs and not isinstance(column := part.inputs[modality], Records)
        for fault in values.faults(
            column,
            f"{dataset.name}, modality {modality!r}, {split}",
            dataset.features[modality],
            precision=precision,
            ids=own_ids(part, split),
        )
    ]


def _fitting_faults(dataset: Dataset, modality: str, steps: Sequence[Any], where: str, precision: str) -> list[str]:
    """Faults of steps fitted to the whole training split: a step that fails, values that no longer fit after it."""
    column, labels = dataset.train.inputs[modality], dataset.train.labels
    if isinstance(column, Records):
        return []
    if labels is None:
        raise ValueError("the training split has no labels")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            fitted = preprocess.Pipeline.fit(column, labels, steps, feature_names=dataset.features[modality])
            found = []
            for split, part in dataset.splits.items():
                x = part.inputs[modality]
                assert not isinstance(x, Records)
                place = f"{dataset.name}, modality {modality!r}, {split}, after {where}"
                found += values.faults(fitted.transform(x), place, fitted.feature_names, precision=precision)
    except BadInput as error:
        return [f"{where}, modality {modality!r}: {fault}" for fault in error.faults]
    return found


def unreadable(dataset: Dataset) -> list[str]:
    """Pictures and texts of a data set in memory that cannot be used; `load` judges those of files."""
    found: list[str] = []
    for split, part in dataset.splits.items():
        for column in part.inputs.values():
            if not isinstance(column, Records):
                continue
            broken, items, place = cache.faults(column), column.values, f"{dataset.name}, {split}"
            for row in sorted(broken)[:_SHOWN]:
                shown = f"{items[row]}: " if column.kind == "image" and isinstance(items[row], str) else ""
                found.append(f"{place}: row {row + 1}: {shown}{broken[row]}")
            if len(broken) > _SHOWN:
                found.append(f"{place}: {len(broken) - _SHOWN} more rows that cannot be used")
    return found


def _missing(dataset: Dataset, modality: str, where: str) -> list[str]:
    found: list[str] = []
    for split, part in dataset.splits.items():
        x = part.inputs[modality]
        if isinstance(x, Records):
            continue
        rows, columns = np.nonzero(np.isnan(x))
        if len(rows):
            row, column, ids = int(rows[0]), int(columns[0]), own_ids(part, split)
            named = "" if ids is None else f" (id {ids[row]!r})"
            first = f"row {row + 1}{named}, column {column + 1} ({dataset.features[modality][column]})"
            found.append(
                f"{dataset.name}, modality {modality!r}, {split}: {first}: value {x[rows[0], columns[0]]:g} "
                f"({len(rows)} such in all) needs `impute` as the first step of {where}"
            )
    return found
