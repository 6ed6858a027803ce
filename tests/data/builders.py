"""Small folders in the MOGONET layout, written for tests."""

from pathlib import Path

import numpy as np

TRAIN, TEST = 12, 6


def write_folder(folder: Path, *, modalities: int = 2, test: bool = True, classes: int = 2) -> Path:
    """A valid folder: tables of `modalities` modalities with 3 + k columns, labels that cycle through 0..classes-1."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("tr", TRAIN), ("te", TEST)):
        if part == "te" and not test:
            continue
        for k in range(1, modalities + 1):
            np.savetxt(folder / f"{k}_{part}.csv", rng.normal(size=(count, 3 + k)), delimiter=",")
        np.savetxt(folder / f"labels_{part}.csv", np.arange(count) % classes)
    return folder


def edit(path: Path, *, row: int, column: int | None = None, to: str | None) -> None:
    """Replaces a line, or one field of it (both counted from 1); `to=None` deletes it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if column is None:
        lines[row - 1 : row] = [] if to is None else [to]
    else:
        cells = lines[row - 1].split(",")
        cells[column - 1 : column] = [] if to is None else [to]
        lines[row - 1] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
