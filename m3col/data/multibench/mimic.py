"""MIMIC as MultiBench has it: five numbers of a patient, 24 hours of twelve measurements, groups of ICD-9 codes.

Rules of the published loader: NaN and infinite values become 0; the rows are shuffled by Python's generator with
seed 10; the first tenth is for validation, the next one for test, the rest for training.
Differs: the loader scales with the means and deviations of all rows, those of the test split too; here a training
  scales with those of its training fold.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from m3col.data.multibench.folder import Converted, as_float32, number_table
from m3col.data.multibench.values import text_of
from m3col.data.sequences.column import SequenceColumn

SERIES, STATIC, CODES = "ep_tdata", "adm_features_all", "y_icd9"

_SEED = 10  # of the published split

_PUBLISHED_TASK = 7  # column of the codes


def looks_like(value: Any) -> bool:
    return isinstance(value, dict) and {SERIES, STATIC, CODES} <= {text_of(key) for key in value}


def convert(value: Mapping[Any, Any], faults: list[str]) -> Converted | None:
    """Reads the arrays of a described pickle.

    Args:
        value: a dict of arrays.
        faults: to which the faults are added, one line each.

    Returns:
        The samples of all splits; None if there are faults.
    """
    by_name = {text_of(key): part for key, part in value.items()}
    series, static, codes = (
        number_table(by_name[name], repr(name), faults, dimensions=(count,))
        for name, count in ((SERIES, 3), (STATIC, 2), (CODES, 2))
    )
    if series is None or static is None or codes is None:
        return None
    count = len(series)
    for name, array in ((SERIES, series), (STATIC, static), (CODES, codes)):
        if len(array) != count or 0 in array.shape:
            faults.append(f"{name!r} must have {count} rows, but has the shape {list(array.shape)}")
    if codes.shape[1] <= _PUBLISHED_TASK:
        faults.append(f"{CODES!r} must have at least {_PUBLISHED_TASK + 1} columns, but has {codes.shape[1]}")
    if not faults and not np.isin(codes, (0, 1)).all():
        faults.append(f"{CODES!r} must be 0 or 1 everywhere")
    if not faults and count < 10:
        faults.append(f"{SERIES!r} has {count} rows, which cannot be split in tenths")
    if faults:
        return None
    result = Converted("mimic", label=f"icd9_{_PUBLISHED_TASK}")
    replaced = int((~np.isfinite(series)).sum() + (~np.isfinite(static)).sum())
    series, static = (
        as_float32(np.where(np.isfinite(array), array, 0), repr(name), faults)
        for name, array in ((SERIES, series), (STATIC, static))
    )
    if faults:
        return None
    order = published_order(count)
    ends = {"validation": (0, int(0.1 * count)), "test": (int(0.1 * count), int(0.2 * count)),
            "train": (int(0.2 * count), count)}  # fmt: skip
    for split in ("train", "validation", "test"):
        rows = order[slice(*ends[split])]
        columns = {f"icd9_{group}": codes[rows, group].astype(int).tolist() for group in range(codes.shape[1])}
        result.rows[split] = {"id": [f"row-{row}" for row in rows], **columns}
    used = [row for split in ("train", "validation", "test") for row in order[slice(*ends[split])]]
    result.sequences["series"] = SequenceColumn.of([*series[used]])
    result.tables["static"] = static[used]
    if replaced:
        result.remarks.append(f"{replaced} values that were NaN or infinite became 0, as in the published loader")
    share = float(codes[:, _PUBLISHED_TASK].mean())
    result.remarks.append(
        f"{100 * max(share, 1 - share):.1f} % of the rows are of the larger class of icd9_{_PUBLISHED_TASK}, the "
        "published task: an accuracy near this says nothing"
    )
    result.remarks.append(
        "published code scales with all rows, also of the test split; here a training scales with its training fold"
    )
    return result


def published_order(count: int) -> list[int]:
    """The order of the rows in which the published split takes them."""
    order = [*range(count)]
    random.Random(_SEED).shuffle(order)
    return order
