"""MOSI, UR-FUNNY and MUsTARD as MultiBench has them: splits of padded sequences with one number as label.

Rules of the published loader: samples whose text is 0 everywhere are left out, -inf in the audio becomes 0, and padding
in front is cut off at the first step with a text, in all modalities alike.
Differs: the loader then pads behind to the longest sequence of a batch; here sequences keep their lengths.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3col.data.multibench.folder import Converted, as_float32, number_table
from m3col.data.multibench.values import DescribedArray, Refused, text_of
from m3col.data.sequences.column import SequenceColumn

MODALITIES = ("vision", "audio", "text")

_WIDTHS = {(20, 5): "mosi", (35, 74): "mosi", (371, 81): "ur_funny or mustard"}  # vision and audio

_TEXT_WIDTH = 300

SPLITS = {"train": "train", "validation": "valid", "test": "test"}  # ours: MultiBench's

Arrays = Mapping[str, NDArray[Any]]


def looks_like(value: Any) -> bool:
    return isinstance(value, dict) and {"train", "valid", "test"} <= {text_of(key) for key in value}


def convert(value: Mapping[Any, Any], faults: list[str]) -> Converted | None:
    """Reads the splits of a described pickle.

    Args:
        value: a dict of splits.
        faults: to which the faults are added, one line each.

    Returns:
        The samples of all splits; None if there are faults.
    """
    by_name = {text_of(key): part for key, part in value.items()}
    parts = {ours: _split(by_name[theirs], f"split {theirs!r}", faults) for ours, theirs in SPLITS.items()}
    if faults:
        return None
    arrays = {split: arrays for split, arrays in parts.items() if arrays is not None}
    kind = _kind(arrays, faults)
    return None if faults else _converted(arrays, str(kind), faults)


def _split(part: Any, where: str, faults: list[str]) -> dict[str, Any] | None:
    """The arrays of a split by name; None, with `faults`, if they do not fit each other."""
    if not isinstance(part, dict):
        faults.append(f"{where} is not a dict of arrays")
        return None
    by_name = {text_of(key): content for key, content in part.items()}
    arrays: dict[str, Any] = {}
    for name in (*MODALITIES, "labels"):
        if name not in by_name:
            faults.append(f"{where} has no {name!r}; it has {', '.join(sorted(by_name)) or 'nothing'}")
            continue
        array = number_table(
            by_name[name], f"{where}, {name!r}", faults, dimensions=(3,) if name in MODALITIES else (1, 2, 3)
        )
        if array is not None:
            arrays[name] = array
    if len(arrays) < len(MODALITIES) + 1:
        return None
    count = len(arrays["labels"])
    before = len(faults)
    for name in MODALITIES:
        shape = arrays[name].shape
        if shape[0] != count or shape[1] != arrays["text"].shape[1] or 0 in shape[1:]:
            faults.append(
                f"{where}, {name!r} must have the shape [samples, steps, features] with the {count} samples of "
                f"'labels' and the steps of 'text', but has {list(shape)}"
            )
    if arrays["labels"].size != count:
        faults.append(f"{where}, 'labels' must have one number per sample, but has {list(arrays['labels'].shape)}")
    elif not np.isfinite(arrays["labels"].astype(np.float64)).all():
        faults.append(f"{where}, 'labels' has values that are not finite")
    arrays["id"] = _ids(by_name.get("id"), count, f"{where}, 'id'", faults)
    return arrays if len(faults) == before else None


def _ids(given: Any, count: int, where: str, faults: list[str]) -> list[str]:
    """The ids of the file, which are kept for reference alone; empty texts for a file without them."""
    if given is None:
        return [""] * count
    try:
        if isinstance(given, list):
            ids = [" ".join(map(text_of, row)) if isinstance(row, list | tuple) else text_of(row) for row in given]
        elif isinstance(given, DescribedArray):
            ids = given.texts()
        else:
            raise Refused("is neither a list nor an array")
    except Refused as error:
        faults.append(f"{where} {error}")
        return []
    if len(ids) != count:
        faults.append(f"{where} has {len(ids)} rows for {count} samples")
    return ids


def _kind(arrays: Mapping[str, Arrays], faults: list[str]) -> str | None:
    """The data set, by its widths and labels."""
    widths = {name: {split[name].shape[2] for split in arrays.values()} for name in MODALITIES}
    for name, values in widths.items():
        if len(values) > 1:
            faults.append(f"{name!r} has {' and '.join(map(str, sorted(values)))} features in different splits")
    if faults:
        return None
    vision, audio = min(widths["vision"]), min(widths["audio"])
    labels = np.unique(np.concatenate([split["labels"].ravel() for split in arrays.values()]).astype(np.float64))
    known, low = _WIDTHS.get((vision, audio)), float(labels.min(initial=0))
    if known is None:
        faults.append(f"vision and audio have {vision} and {audio} features; known are 20 and 5, 35 and 74, 371 and 81")
    elif known == "mosi" and np.abs(labels).max(initial=0) > 3:
        faults.append(f"'labels' must be from -3 to 3, but reach from {low:g} to {labels.max():g}")
    elif known != "mosi" and not np.isin(labels, (-1, 0, 1)).all():
        faults.append(f"'labels' must be -1, 0 or 1, but are {', '.join(f'{label:g}' for label in labels[:8])}")
    return known if known == "mosi" else "mustard" if low < 0 else "ur_funny"


def _converted(arrays: Mapping[str, Arrays], kind: str, faults: list[str]) -> Converted | None:
    result = Converted(kind)
    kept, columns = dict[str, NDArray[np.int64]](), dict[str, list[SequenceColumn]]()
    silent = infinite = front = 0
    for split, parts in arrays.items():
        text = parts["text"]
        if not np.isfinite(text).all():
            faults.append(f"split {SPLITS[split]!r}, 'text' has values that are NaN or infinite")
            continue
        # The published rule: the sum over a sample's text, which is 0 where there are no word vectors.
        spoken = np.abs(text).sum(axis=(1, 2)) > 0
        silent += int((~spoken).sum())
        kept[split] = rows = np.flatnonzero(spoken)
        starts = (np.abs(text[rows]).sum(axis=2) > 0).argmax(axis=1)
        front += int(starts.sum())
        for name in MODALITIES:
            where = f"split {SPLITS[split]!r}, {name!r}"
            values = as_float32(parts[name][rows], where, faults)
            if name == "audio":
                infinite += int(np.isneginf(values).sum())
                values = np.where(np.isneginf(values), np.float32(0), values)
            if not np.isfinite(values).all():
                faults.append(f"{where} has values that are NaN or infinite")
            if len(rows):
                pieces = [sample[start:] for sample, start in zip(values, starts, strict=True)]
                columns.setdefault(name, []).append(SequenceColumn.of(pieces))
        if not len(rows):
            faults.append(f"split {SPLITS[split]!r} has no sample with a text")
    if faults:
        return None
    for split, rows in kept.items():
        numbers = arrays[split]["labels"].ravel().astype(np.float64)[rows]
        result.rows[split] = {
            "id": [f"{split}-{row}" for row in rows.tolist()],
            "source_id": [arrays[split]["id"][row] for row in rows.tolist()],
            **_labels(kind, numbers),
        }
    for name, parts_of in columns.items():
        joined = parts_of[0]
        for more in parts_of[1:]:
            joined = joined.joined(more)
        result.sequences[name] = joined
    _remark(result, arrays, kept, {"silent": silent, "infinite": infinite, "front": front})
    return result


def _labels(kind: str, numbers: NDArray[np.float64]) -> dict[str, list[Any]]:
    """The columns of labels."""
    if kind != "mosi":
        return {"label": np.where(numbers > 0, 1, 0).tolist()}
    return {
        "label": np.where(numbers > 0, 1, 0).tolist(),
        "not_negative": np.where(numbers >= 0, 1, 0).tolist(),
        "sentiment": numbers.tolist(),
    }


def _remark(
    result: Converted, arrays: Mapping[str, Arrays], kept: Mapping[str, NDArray[np.int64]], counts: Mapping[str, int]
) -> None:
    """Adds what a user should know about the file."""
    remarks = result.remarks
    width = arrays["train"]["text"].shape[2]
    if width != _TEXT_WIDTH:
        remarks.append(f"the text has {width} features at each step; in the published files it has {_TEXT_WIDTH}")
    if counts["silent"]:
        remarks.append(f"{counts['silent']} samples without any text were left out, as in the published loader")
    if counts["front"]:
        remarks.append(f"{counts['front']} steps of padding in front of the first word were cut off")
    if counts["infinite"]:
        remarks.append(f"{counts['infinite']} values of -inf in the audio became 0, as in the published loader")
    if result.name == "mosi":
        numbers = {split: arrays[split]["labels"].ravel()[rows] for split, rows in kept.items()}
        neutral = {split: int((values == 0).sum()) for split, values in numbers.items()}
        if any(neutral.values()):
            shown = ", ".join(f"{count} in {split}" for split, count in neutral.items())
            remarks.append(
                f"neutral samples (sentiment 0): {shown}; `label` counts them as negative (CoMM), `not_negative` as "
                "positive (FactorCL), other papers leave them out"
            )
        if arrays["train"]["vision"].shape[2] == 35:
            remarks.append(
                "35 and 74 features, as in mosi_raw.pkl: another file than mosi_data.pkl (20 and 5 features) of the "
                "published figures"
            )
