"""Converts a file of MultiBench to a folder."""

from pathlib import Path
from typing import Any

from m3col.data.formats import conversion
from m3col.data.multibench import affect, folder, mimic, opcodes
from m3col.data.multibench.folder import Converted
from m3col.data.multibench.values import Refused
from m3col.errors import InputError


def convert(path: Path, to: Path) -> Converted:
    """Converts mosi_data.pkl, humor.pkl, sarcasm.pkl or im.pk. Which of them it is follows from what it has.

    Args:
        path: the pickle. Nothing of it is called, see `m3col.data.multibench.opcodes`.
        to: the new folder.

    Returns:
        What was written.

    Raises:
        InputError: the file is none of these, or is damaged; or the folder exists or cannot be written.

    Example:
        >>> convert(Path("sarcasm.pkl"), Path("data/mustard")).name  # doctest: +SKIP
        'mustard'
    """
    conversion.check_new(to)  # before a large file is read
    value = opcodes.read(path)
    faults: list[str] = []
    converted = None
    try:
        if mimic.looks_like(value):
            converted = mimic.convert(value, faults)
        elif affect.looks_like(value):
            converted = affect.convert(value, faults)
        else:
            faults.append(_unknown(value))
    except Refused as error:
        faults.append(str(error))
    if converted is None or faults:
        raise InputError([f"{path}: {line}" for line in faults])
    folder.write(converted, to)
    return converted


def _unknown(value: Any) -> str:
    shown = type(value).__name__
    if isinstance(value, dict):
        shown = f"a dict of {', '.join(sorted(f'{key!s:.40}' for key in value)[:10]) or 'nothing'}"
    return (
        "is not a file of MultiBench that is known: it must be a dict of train, valid and test (MOSI, UR-FUNNY, "
        f"MUsTARD) or of {mimic.SERIES}, {mimic.STATIC} and {mimic.CODES} (MIMIC), but is {shown}"
    )
