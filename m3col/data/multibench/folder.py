"""Writes converted samples as a folder that `m3col train` reads: labels in CSV files, sequences as safetensors."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m3col.data.formats.conversion import REMARKS
from m3col.data.formats.image_text_csv import FILES
from m3col.data.multibench.values import DescribedArray, Refused
from m3col.data.sequences import files
from m3col.data.sequences.column import SequenceColumn
from m3col.errors import InputError, reason_of


@dataclass
class Converted:
    """Samples of all splits.

    Attributes:
        name: the data set.
        rows: by split the columns of its CSV; "id" is one of them.
        sequences: by modality the sequences of all splits, in the order of `rows`.
        tables: by modality the rows [N, D] of all splits, in the same order.
        remarks: what a user should know, one line each.
    """

    name: str
    rows: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    sequences: dict[str, SequenceColumn] = field(default_factory=dict)
    tables: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """The ids of all splits, in their order."""
        return [sample for columns in self.rows.values() for sample in columns["id"]]


def number_table(value: Any, where: str, faults: list[str]) -> NDArray[Any] | None:
    """The numbers of a described array; None, with a fault, for anything else."""
    try:
        if not isinstance(value, DescribedArray):
            raise Refused("is not an array")
        array = value.numpy()
        if array.dtype.kind not in "biuf":
            raise Refused("has texts in place of numbers")
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
    if folder.exists():
        raise InputError([f"{folder}: exists already; name a new folder"])
    draft = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for split, columns in converted.rows.items():
            pd.DataFrame(columns).to_csv(draft / f"{FILES[split]}.csv", index=False)
        for name, column in converted.sequences.items():
            sequences = [column.sequence(row) for row in range(len(column))]
            files.write_file(draft / f"{name}.safetensors", sequences, ids=converted.ids)
        for name, table in converted.tables.items():
            frame = pd.DataFrame(table, columns=[f"{name}_{number}" for number in range(table.shape[1])])
            frame.insert(0, "id", converted.ids)
            frame.to_csv(draft / f"{name}.csv", index=False)
        (draft / REMARKS).write_text(json.dumps({"name": converted.name, "remarks": converted.remarks}, indent=1))
        draft.rename(folder)
    except OSError as error:
        raise InputError([f"{folder}: cannot be written ({reason_of(error)})"]) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
