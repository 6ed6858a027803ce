"""Checks the names of modalities, features and classes of a data set. Ambiguous names are faults."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from m3col.data import modality_kinds

FUSED = "fused"  # the head of all modalities together, in predictions and metrics

_SHOWN = 5  # names listed individually in a message; the others are only counted

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of surrogate pairs, line breaks

_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"

# What spreadsheet programs make of gene names such as MARCH1, SEPT2 or DEC1.
_DATE = re.compile(rf"\d{{1,2}}[-. ]({_MONTHS})|({_MONTHS})[-. ]\d{{1,2}}|\d{{4}}-\d\d-\d\d.*|\d{{1,2}}/\d{{1,2}}/\d+")


def faults(
    modalities: Collection[str],
    features: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    kinds: Mapping[str, str],
) -> list[str]:
    """Faults of the names of one data set, one line each.

    Args:
        modalities: names of the modalities.
        features: by modality, names of its columns. Modalities that it lacks are checked without their columns.
        classes: names of the classes.
        kinds: by modality: numeric, image or text. Columns of modalities that it lacks are not checked.
    """
    lines = _modality_faults(modalities)
    numeric = {
        name: features[name] for name in modalities if name in features and kinds.get(name) == modality_kinds.NUMERIC
    }
    for name, columns in numeric.items():
        lines += _feature_faults(name, columns)
    return lines + _column_faults(modalities, numeric) + _class_faults(classes)


def repeats(names: Iterable[object]) -> list[str]:
    """Faults of keys that are different objects but the same modality name, such as 1 and "1"."""
    by_text: dict[str, list[object]] = {}
    for key in names:
        by_text.setdefault(str(key), []).append(key)
    return [
        f"modality {text!r} is given {len(keys)} times, as {' and '.join(map(repr, keys))}; rename one"
        for text, keys in by_text.items()
        if len(keys) > 1
    ]


def apart(modality: str, words: Collection[str]) -> str:
    """Adds "(modality)" to a name that is also one of `words`, which mean something else in the same table."""
    return f"{modality} (modality)" if modality in words else modality


def is_printable(name: str) -> bool:
    """Whether a name can be shown in one line of a message or a table."""
    return not any(unicodedata.category(sign) in _UNPRINTABLE for sign in name)


def folded(name: str) -> str:
    """Normalizes a name as lenient file systems and databases compare names: ignores case and surrounding blanks."""
    return unicodedata.normalize("NFC", name.strip().casefold())


def _modality_faults(modalities: Collection[str]) -> list[str]:
    lines: list[str] = []
    seen: dict[str, str] = {}
    for name in modalities:
        if not name.strip():
            lines.append(f"modality {name!r}: a name must not be empty; give it one")
        elif not is_printable(name):
            lines.append(
                f"modality {name!r}: a name must be printable, but this one has a control character; rename it"
            )
        elif folded(name) == FUSED:
            text = "this name is taken by the prediction from all modalities together"
            lines.append(f"modality {name!r}: {text}; rename it, such as {name.strip() + '_input'!r}")
        elif name in seen.values():
            lines.append(f"modality {name!r} is there twice; rename one")
        elif folded(name) in seen:
            text = "differ only in case or blanks, and file systems and databases take them for one; rename one"
            lines.append(f"modalities {seen[folded(name)]!r} and {name!r} {text}")
        seen.setdefault(folded(name), name)
    return lines


def _feature_faults(modality: str, columns: Sequence[str]) -> list[str]:
    lines: list[str] = []
    counts = {name: count for name, count in Counter(columns).items() if count > 1 and name.strip()}
    if counts:
        listed = _listed([f"{name!r} ({count} times)" for name, count in counts.items()])
        is_date = any(_DATE.fullmatch(name) for name in counts)
        cause = "; Excel turns gene names such as MARCH1 and MAR1 into 1-Mar: take the names from the source" * is_date
        remedy = cause or "; rename or drop all but one of each"
        lines.append(f"modality {modality!r}: feature names that occur more than once: {listed}{remedy}")
    empty = [str(at + 1) for at, name in enumerate(columns) if not name.strip()]
    if empty:
        which = f"column {empty[0]} has" if len(empty) == 1 else f"columns {_listed(empty)} have"
        lines.append(f"modality {modality!r}: feature names must not be empty, but {which} none")
    return lines


def _column_faults(modalities: Collection[str], numeric: Mapping[str, Sequence[str]]) -> list[str]:
    """Faults of columns that would have the same name in a table of all modalities.

    Such a table names numeric columns `<modality>.<feature>` and those of images and texts `<modality>`.
    """
    if not any("." in name for name in modalities):
        return []
    owners: dict[str, tuple[str, str]] = {}
    lines: list[str] = []
    for modality in modalities:
        for feature in dict.fromkeys(numeric[modality]) if modality in numeric else [""]:
            column = f"{modality}.{feature}" if modality in numeric else modality
            other = owners.setdefault(column, (modality, feature))
            if other[0] != modality:
                pair = " and ".join(f"feature {f!r} of modality {m!r}" if f else f"modality {m!r}"
                                    for m, f in (other, (modality, feature)))  # fmt: skip
                lines.append(f"column {column!r} would mean {pair}; rename one of the modalities")
    hidden = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"{hidden} more columns that would mean two features"] if hidden > 0 else [])]


def _class_faults(classes: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for at, name in enumerate(classes):
        if not name.strip():
            lines.append(f"class {at}: a name must not be empty, but is {name!r}")
        elif not is_printable(name):
            lines.append(f"class {at}: a name must be printable, but {name!r} has a control character")
    for name, count in Counter(classes).items():
        if count > 1 and name.strip():
            numbers = _listed([str(at) for at, other in enumerate(classes) if other == name])
            lines.append(f"class name {name!r} stands for {count} classes ({numbers}); each needs a name of its own")
    return lines


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
