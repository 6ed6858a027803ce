"""The data sets that `m3col data convert` makes: those of MultiBench, and Vision & Touch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from m3col.data.columns import Kind
from m3col.data.dataset import Dataset
from m3col.data.formats import conversion, sequence_folder
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.errors import InputError

_SOURCES = {".pkl": "multibench", ".pk": "multibench", ".pickle": "multibench", ".h5": "vision_touch"}  # of raw files

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
    name = conversion.name_of(folder)
    if name is not None and name != entry.name:
        raise InputError([f"{folder}: was converted from {name}, not from {entry.name}; use data.name: {name}"])
    raw = sorted(path for path in folder.iterdir() if path.suffix in _SOURCES)
    if raw and name is None:
        source = _SOURCES[raw[0].suffix]
        given = folder if source == "vision_touch" else raw[0]
        command = f"m3col data convert {source} {given} --to {folder.with_name(f'{entry.name}-data')}"
        raise InputError([f"{folder}: {raw[0].name} is converted before it is read: `{command}`"])
    dataset = sequence_folder.read(folder, entry, select or entry.default, splits, layout=layout)
    return replace(dataset, known_issues=entry.known_issues)


def _looks_like(name: str, folder: Path) -> bool:
    return conversion.name_of(folder) == name


def _entry(
    name: str, description: str, known_issues: str, kinds: Mapping[str, Kind], default: tuple[str, ...] | None = None
) -> Entry:
    return Entry(
        name,
        description,
        read,
        modalities=tuple(kinds),
        kinds={modality: kind for modality, kind in kinds.items() if kind != "numeric"},
        default=default,
        looks_like=partial(_looks_like, name),
        known_issues=known_issues,
    )


_AFFECT: dict[str, Kind] = dict.fromkeys(("audio", "text", "vision"), "sequence")

_WORDS_AND_FACES = ("text", "vision")

ENTRIES = (
    _entry(
        "mosi",
        "2,199 opinions on film as word vectors, audio and face features: positive or not (MultiBench)",
        "neutral samples count as negative in CoMM, as positive in FactorCL, and are left out elsewhere, so that "
        f"figures of papers differ by their labels; {_COPIED}",
        _AFFECT,
        _WORDS_AND_FACES,
    ),
    _entry(
        "ur_funny",
        "10,166 punchlines as word vectors, audio and face features: funny or not (MultiBench)",
        f"the file is version 2; papers that count 16,514 samples describe version 1; {_COPIED}",
        _AFFECT,
        _WORDS_AND_FACES,
    ),
    _entry(
        "mustard",
        "690 scenes as word vectors, audio and face features: sarcastic or not (MultiBench)",
        f"138 test samples: one is 0.7 points; {_COPIED}",
        _AFFECT,
        _WORDS_AND_FACES,
    ),
    _entry(
        "mimic",
        "32,616 intensive care stays: 5 numbers, 24 hours of 12 measurements, groups of ICD-9 codes (MultiBench)",
        "FactorCL's figures are scores of the training split; published code scales with the test rows; about two "
        "thirds of the rows are of one class, so compare with the majority row",
        {"series": "sequence", "static": "numeric"},
    ),
    _entry(
        "vision_touch",
        "147,000 steps of a robot that puts a peg into a hole: image, force and proprioception (MultiBench)",
        "published code validates and chooses the cost of its linear evaluation on the test split, and its split of "
        "files has pieces of one recording in training and test",
        {"force": "sequence", "image": "image", "proprio": "numeric"},
        ("force", "image"),
    ),
)
