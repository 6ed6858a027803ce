"""Validates a tree before anything is written: every division of the data, the folder to resume, its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3col.checks.resolve import check_against_data
from m3col.config.loading import with_overrides
from m3col.config.resplit import ResplitConfig
from m3col.config.schema import RunConfig
from m3col.data import resplits, splits
from m3col.data.dataset import Dataset
from m3col.errors import InputError
from m3col.tasks import registry as tasks
from tune.config import loading as search_config
from tune.config import outer_section
from tune.config.schema import OuterConfig, StudyConfig
from tune.outer import tree_folder
from tune.outer.tree_folder import TreeFolder
from tune.study import directory, provenance, resume
from tune.study.directory import AUTO

_CHANGEABLE = ("outer.repeats", "outer.deliver", "outer.reference")


@dataclass(frozen=True)
class CheckedTree:
    """A tree that passed every check.

    Attributes:
        outer: the section `outer:`.
        folder: the tree to resume; None for a new one.
        data: the data set in memory; None: the config names it.
    """

    outer: OuterConfig
    folder: TreeFolder | None
    data: Any = None


def division_faults(run: RunConfig, outer: OuterConfig, *, data: Any, where: str) -> list[str]:
    """Faults of any outer split: a class that is missing on one side, or too small for the folds for validation.

    Args:
        run: the run config of the first outer split, resolved.
        outer: the section `outer:`.
        data: the data set in memory; None: the config names it.
        where: the file, for the messages.
    """
    if outer.kind == "given":
        resolved, faults = check_against_data(run, data=data, where=where)
        if resolved is not None and (resolved.dataset.test is None or resolved.dataset.test.labels is None):
            name = resolved.dataset.name
            key = "outer.kind 'given' (the default with search.null)"
            return [f"{where}: {key} needs labelled test samples, but {name} has none; set outer.kind to 'kfold'"]
        return faults
    whole, faults = check_against_data(
        with_overrides(run, {"data.resplit": None, "data.modalities": None if outer.groups else run.data.modalities}),
        data=data, where=where,
    )  # fmt: skip
    if whole is None:
        return faults
    task, lines = tasks.of(run, whole.dataset.classes), []
    for index in range(outer.count):
        section = outer.division(index)
        assert section is not None
        try:
            part = resplits.apply(whole.dataset, ResplitConfig.model_validate(section), task=task)
        except InputError as error:
            lines += [f"{where}: {outer_section.worded(line)}" for line in error.faults]
            continue
        lines += [f"{where}: outer split {index}: {line}" for line in _validation_faults(part, run)]
    return list(dict.fromkeys(lines))


def _validation_faults(part: Dataset, run: RunConfig) -> list[str]:
    validation = run.validation
    return splits.faults(
        part, kind=str(validation.kind), folds=validation.folds, fraction=validation.fraction,
        task=tasks.of(run, part.classes),
    )  # fmt: skip


def folder_for(
    runs: Path, study: StudyConfig, dataset: Dataset, *, resumed: bool | str, name: str | None
) -> tuple[TreeFolder | None, list[str]]:
    """Returns the tree to resume, None for a new one, and warnings.

    Args:
        runs: folder of studies.
        study: the study of the first outer split, resolved.
        dataset: its data.
        resumed: see `tune.checks.Options.resume`.
        name: the tree's name.

    Raises:
        InputError: the tree does not exist, began with another config or other data, or is in use; or the name of a new
            one is invalid or taken.
    """
    folder: TreeFolder | None = None
    if resumed == AUTO:
        folder = tree_folder.newest(runs, study, unfinished=True) if name is None else tree_folder.find(runs, name)
    elif isinstance(resumed, str):
        folder = tree_folder.find(runs, resumed)
    elif resumed:
        folder = tree_folder.newest(runs, study, unfinished=False)
    if folder is None and resumed and resumed != AUTO:
        missing = resumed if isinstance(resumed, str) else study.name
        raise InputError([f"--resume: {tree_folder.not_found(runs, missing)}; leave --resume out to begin one"])
    if folder is None:
        new_name(runs, name, study, resumed=resumed)
        return None, []
    lines = folder.differences(study, dataset)
    if lines:
        raise InputError(lines)
    folder.lock()  # fails here, before Ray starts, if the tree is in use
    folder.unlock()
    return folder, provenance.version_warnings(folder.described()["versions"])


def new_name(runs: Path, name: str | None, study: StudyConfig, *, resumed: bool | str) -> str:
    """Returns a free name for a tree. Raises InputError if `name` is invalid or taken.

    In a storage a name is taken by the tree's first study. With "auto" such a tree is resumed there.
    """
    taken = resume.is_taken(study.settings.storage)

    def elsewhere(candidate: str) -> bool:
        return taken(candidate) or (resumed != AUTO and taken(f"{candidate}/{tree_folder.study_names(study)[0]}"))

    return directory.new_name(runs, name, study, elsewhere=elsewhere)


def stored(folder: TreeFolder, overrides: Mapping[str, Any]) -> StudyConfig:
    """Returns the study that tree.json describes, with settings replaced. Raises InputError."""
    own = {key: value for key, value in overrides.items() if key.partition(".")[0] == "outer"}
    faults = [
        f"{key}: a resumed tree keeps it; of outer only {', '.join(_CHANGEABLE)} can be given"
        for key in own
        if key not in _CHANGEABLE
    ]
    described, defaults = folder.described(), OuterConfig().model_dump()
    changed = {**described["outer"], **{key.partition(".")[2]: value for key, value in own.items()}}
    section = {key: value for key, value in changed.items() if defaults.get(key, value) != value or key not in defaults}
    raw = {"outer": section, "final": {"rows": described["config"]["rows"]}}
    outer, outer_faults = outer_section.parse(raw, {}, where="overrides")
    faults += outer_faults
    try:
        study = search_config.stored(
            described["config"], {key: value for key, value in overrides.items() if key not in own}
        )
    except InputError as error:
        raise InputError([*faults, *error.faults]) from None
    if faults or outer is None:
        raise InputError(faults or ["overrides: outer: has a value of the wrong type"])
    return tree_folder.with_outer(study, outer)
