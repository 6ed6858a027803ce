"""Writes converted samples as a folder that `m3col train` reads: labels in CSV files, sequences as safetensors."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m3col.data.formats import conversion
from m3col.data.formats.image_text_csv import FILES
from m3col.data.multibench.values import DescribedArray, Refused
from m3col.data.sequences import files
from m3col.data.sequences.column import SequenceColumn


@dataclass
class Converted:
    """Samples of all splits.

    Attributes:
        name: the data set.
        label: the usual column of labels.
        rows: by split the columns of its CSV; "id" is one of them.
        sequences: by modality the sequences of all splits, in the order of `rows`.
        tables: by modality the rows [N, D] of all splits, in the same order.
        remarks: what a user should know, one line each.
    """

    name: str
    label: str = "label"
    rows: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    sequences: dict[str, SequenceColumn] = field(default_factory=dict)
    tables: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """The ids of all splits, in their order."""
        return [sample for columns in self.rows.values() for sample in columns["id"]]


def number_table(
    value: Any, where: str, faults: list[str], *, dimensions: tuple[int, ...]
) -> NDArray[Any] | None:  # fmt: skip
    """The numbers of a described array with one of these `dimensions`; None, with a fault, for anything else."""
    try:
        if not isinstance(value, DescribedArray):
            raise Refused("is not an array")
        array = value.numpy()
        if array.dtype.kind not in "biuf":
            raise Refused("has texts in place of numbers")
        if array.ndim not in dimensions:
            wanted = " or ".join(map(str, dimensions))
            raise Refused(f"must have {wanted} dimensions, but has the shape {list(array.shape)}")
    except Refused as error:
        faults.append(f"{where} {error}")
        return None
    return array


def as_float32(values: NDArray[Any], where: str, faults: list[str]) -> NDArray[np.float32]:
    """The values in float32; a fault where a number does not fit into it. NaN and infinite values stay."""
    with np.errstate(over="ignore"):
        result = np.asarray(values, dtype=np.float32)
    wrong = int((np.isinf(result) & np.isfinite(values)).sum())
    if wrong:
        faults.append(f"{where} has {wrong} numbers beyond float32 (3.4e38)")
    return result


def write(converted: Converted, folder: Path) -> None:
    """Writes a new folder, all of it or nothing.

    Raises:
        InputError: the folder exists, or cannot be written.
    """
    with conversion.new_folder(folder) as draft:
        for split, columns in converted.rows.items():
            pd.DataFrame(columns).to_csv(draft / f"{FILES[split]}.csv", index=False)
        for name, column in converted.sequences.items():
            sequences = [column.sequence(row) for row in range(len(column))]
            files.write_file(draft / f"{name}.safetensors", sequences, ids=converted.ids)
        for name, table in converted.tables.items():
            frame = pd.DataFrame(table, columns=[f"{name}_{number}" for number in range(table.shape[1])])
            frame.insert(0, "id", converted.ids)
            frame.to_csv(draft / f"{name}.csv", index=False)
        conversion.write(draft, converted.name, converted.remarks, label=converted.label)
