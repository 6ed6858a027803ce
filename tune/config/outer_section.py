"""Rules of the section `outer:` of a search config that its types cannot express."""

from collections.abc import Mapping
from typing import Any

from m3col.config.keys import get
from m3col.config.validation import validate
from m3col.errors import nearest
from tune.config import extra_rows
from tune.config.schema import OuterConfig

_OF_DIVISIONS = ("folds", "repeats", "seed", "groups")


def worded(line: str) -> str:
    """Returns a fault of `data.resplit` in the words of the section that the user wrote."""
    return line.replace("data.resplit", "outer")


def parse(
    raw: Mapping[str, Any], run_overrides: Mapping[str, Any], *, where: str
) -> tuple[OuterConfig | None, list[str]]:
    """Returns the section of a search config, and the faults of its rules.

    Args:
        raw: the search config as the user wrote it.
        run_overrides: overrides of its runs, by dotted key.
        where: the file, for the faults.

    Returns:
        The section; None without one, or with faults of its types, which the model of the search config reports. And
        one line per fault of the rules.
    """
    section, nulls = raw.get("outer"), get(raw, "search.null", 0)
    if section is None:
        # Studies of permuted labels stand beside the study of the data set's own split.
        return (OuterConfig(kind="given") if isinstance(nulls, int) and nulls > 0 else None), []
    faults = []
    base = dict(extra_rows.dotted(raw.get("overrides", {})))
    if any(key.startswith("data.resplit") for key in [*base, *run_overrides]):
        faults.append(f"{where}: outer: sets data.resplit for each of its studies; leave data.resplit out, or outer")
    if not isinstance(section, Mapping):
        return None, faults
    extra = [key for key in _OF_DIVISIONS if section.get(key) is not None]
    if section.get("kind") == "given" and extra:
        keys = ", ".join(f"outer.{key}" for key in extra)
        faults.append(
            f"{where}: outer.kind 'given' is the data set's own test split, which is not drawn; leave {keys} out, or "
            "choose kind: kfold"
        )
    rows = get(raw, "final.rows", {})
    names = [*extra_rows.TAKEN, *map(str, rows if isinstance(rows, Mapping) else ())]  # other values are faults
    reference = section.get("reference", "winner")
    if isinstance(reference, str) and reference not in names:
        faults.append(
            f"{where}: outer.reference must be one of the rows, but is {reference!r}{nearest(reference, names)}"
        )
    outer, type_faults = validate(OuterConfig, section)
    return (None if type_faults else outer), faults
