"""Marks of missing values, the same for numbers, labels, texts and paths."""

from typing import Any

import numpy as np
import pandas as pd

# The marks that pandas reads as missing, and variants in upper and lower case.
MARKS = frozenset(
    {
        "", "NA", "Na", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "NAN", "Nan", "-NaN", "-nan",
        "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN", "NULL", "Null", "null", "None", "none", "NONE", "NaT",
    }
)  # fmt: skip


def is_missing(value: Any) -> bool:
    """Whether a cell is missing: None, NaN, NA and NaT of pandas, or one of `MARKS`, also with surrounding blanks."""
    if isinstance(value, str):
        return value.strip() in MARKS
    missing = pd.isna(value)
    # For a list, pandas returns an array; a list is a value, whatever it contains.
    return bool(missing) if isinstance(missing, bool | np.bool_) else False
