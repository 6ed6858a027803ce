"""The data sets of MultiBench that were converted by `m3col data convert multibench`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from m3col.data.dataset import Dataset
from m3col.data.formats import conversion, sequence_folder
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.errors import InputError

_PICKLES = (".pkl", ".pk", ".pickle")

_COPIED = "figures of other methods in CoMM's table are copied from FactorCL's, which has plain accuracy"


def read(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout,
    images: bool,
) -> Dataset:
    """Reads a converted folder. See `Read`."""
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles and conversion.name_of(folder) is None:
        command = f"m3col data convert multibench {folder / pickles[0]} --to {folder.with_name(f'{entry.name}-data')}"
        raise InputError([f"{folder}: {pickles[0]} is a pickle, which is not read; convert it: `{command}`"])
    dataset = sequence_folder.read(folder, entry, select or entry.default, splits, layout=layout)
    return replace(dataset, known_issues=entry.known_issues)


def _looks_like(name: str, folder: Path) -> bool:
    return conversion.name_of(folder) == name


def _entry(name: str, description: str, known_issues: str) -> Entry:
    affect = name != "mimic"
    modalities = ("audio", "text", "vision") if affect else ("series", "static")
    return Entry(
        name,
        description,
        read,
        modalities=modalities,
        kinds=dict.fromkeys(modalities, "sequence") if affect else {"series": "sequence"},
        default=("text", "vision") if affect else None,
        looks_like=partial(_looks_like, name),
        known_issues=known_issues,
    )


ENTRIES = (
    _entry(
        "mosi",
        "2,199 opinions on film as word vectors, audio and face features: positive or not (MultiBench)",
        "neutral samples count as negative in CoMM, as positive in FactorCL, and are left out elsewhere, so that "
        f"figures of papers differ by their labels; {_COPIED}",
    ),
    _entry(
        "ur_funny",
        "10,166 punchlines as word vectors, audio and face features: funny or not (MultiBench)",
        f"the file is version 2; papers that count 16,514 samples describe version 1; {_COPIED}",
    ),
    _entry(
        "mustard",
        "690 scenes as word vectors, audio and face features: sarcastic or not (MultiBench)",
        f"138 test samples: one is 0.7 points; {_COPIED}",
    ),
    _entry(
        "mimic",
        "32,616 intensive care stays: 5 numbers, 24 hours of 12 measurements, groups of ICD-9 codes (MultiBench)",
        "FactorCL's figures are scores of the training split; published code scales with the test rows; about two "
        "thirds of the rows are of one class, so compare with the majority row",
    ),
)
