"""How people and programs write that a value is missing: one table for numbers, labels, texts and paths."""

from typing import Any

import numpy as np
import pandas as pd

# What pandas reads as missing, and the same words in other cases.
MARKS = frozenset(
    {
        "", "NA", "Na", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "NAN", "Nan", "-NaN", "-nan",
        "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN", "NULL", "Null", "null", "None", "none", "NONE", "NaT",
    }
)  # fmt: skip


def is_missing(value: Any) -> bool:
    """Whether a cell stands for a missing value: None, NaN, pandas' NA and NaT, or one of `MARKS` with blanks around
    it."""
    if isinstance(value, str):
        return value.strip() in MARKS
    found = pd.isna(value)
    return bool(found) if isinstance(found, bool | np.bool_) else False  # a list is a value, whatever it holds
