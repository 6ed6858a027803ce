"""The record of a tree on disk: `tree.json`, one study for each outer split, and the results over all of them.

runs/<tree>/tree.json    what it runs, the digests of its data
            ended.json   the studies that have ended, each with a digest of what it was asked for
            split_00/    an ordinary study, split_01/, ... and `delivered/`
            null_00/     the same procedure on permuted labels, null_01/, ... (`search.null`)
            results/     the table over the splits
"""

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from m3col.config import loading as run_config
from m3col.config.loading import with_overrides
from m3col.data.dataset import Dataset
from m3col.errors import InputError, nearest, reason_of
from m3col.storage import atomic_files
from tune.config.loading import study_from_dict
from tune.config.schema import OuterConfig, StudyConfig
from tune.study import compatibility, provenance
from tune.study.record import SUMMARY, TREE, StudyFolder

FORMAT = 1

ENDED = "ended.json"

DELIVERED = "delivered"

NULL = "null"

_EVERYTHING = "everything"

_MAY_CHANGE = ("repeats", "deliver", "reference")  # settings of a tree that a resumed one may change

# Settings of a study that make it run again when a resumed tree changes them.
_EXTENDS = ("search.trials", "search.time_budget_s", "search.replicates", "search.confirm", "final.seeds")


class TreeFolder:
    """The folder `runs/<name>/` of a tree. Call `lock` before writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locked = StudyFolder(path)  # a tree is locked in the same way as a study

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def results(self) -> Path:
        return self.path / "results"

    @classmethod
    def create(cls, runs: Path, name: str, config: StudyConfig, dataset: Dataset, *, search_id: str) -> "TreeFolder":
        """Creates a tree and locks it.

        Args:
            runs: folder of studies.
            name: name of the tree.
            config: the study of the first outer split; its settings have the section `outer`.
            dataset: the data of the first outer split.
            search_id: id of the search.

        Raises:
            InputError: another process has created it in the meantime.
        """
        folder = cls(runs / name)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.lock()
        if (folder.path / TREE).exists():
            folder.unlock()
            raise InputError([f"{folder.path}: another process has just created it; resume it with --resume {name}"])
        assert config.settings.outer is not None
        description = {
            "format": FORMAT,
            "name": name,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "config": config.to_dict(),
            "outer": config.settings.outer.model_dump(),
            "digests": dataset.digests(),
            "versions": provenance.versions(),
            "git": provenance.git_state(),
            "search_id": search_id,
            "dataset": provenance.describe_dataset(dataset),
        }
        atomic_files.write_json(folder.path / TREE, description)
        return folder

    def described(self) -> dict[str, Any]:
        """Returns tree.json. Raises InputError if it is newer or unreadable."""
        path = self.path / TREE
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            version = description["format"]
            complete = isinstance(description["config"], dict) and isinstance(description["outer"], dict)
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError([f"{path}: not readable, so this is no tree of studies"]) from None
        if not complete or not isinstance(version, int) or version > FORMAT:
            raise InputError([f"{path}: tree format {version} is not one that this version reads; update m3col"])
        return dict(description)

    def config(self) -> StudyConfig:
        """Returns the study of the first outer split, with the section `outer` in its settings.

        Raises:
            InputError: tree.json is damaged, or of another version.
        """
        described = self.described()
        try:
            outer, config = OuterConfig.model_validate(described["outer"]), described["config"]
        except (KeyError, ValidationError) as error:
            reason = reason_of(error, limit=None)
            raise InputError([f"{self.path / TREE}: is damaged ({type(error).__name__}: {reason})"]) from None
        return with_outer(study_from_dict(config), outer)

    def reopen(self, config: StudyConfig) -> None:
        """Stores the config of a resumed tree."""
        described = self.described()
        outer = config.settings.outer
        assert outer is not None
        stored = {**described, "config": config.to_dict(), "outer": outer.model_dump()}
        if stored != described:
            atomic_files.write_json(self.path / TREE, stored)

    def differences(self, config: StudyConfig, dataset: Dataset) -> list[str]:
        """Returns the settings and the parts of the data that differ from what the tree began with and must not."""
        described, outer = self.described(), config.settings.outer
        assert outer is not None
        lines = compatibility.differences(study_from_dict(described["config"]).to_dict(), config.to_dict())
        before = OuterConfig.model_validate(described["outer"]).model_dump()
        lines += [
            f"outer.{key} was {before[key]!r} and is now {value!r}; a resumed tree keeps it"
            for key, value in outer.model_dump().items()
            if key not in _MAY_CHANGE and before[key] != value
        ]
        if not lines:  # another division has other data
            lines = compatibility.digest_differences(described["digests"], dataset, "")
        return [f"{self.path / TREE}: {line}" for line in lines]

    def lock(self) -> None:
        """Locks the tree for this process. Raises InputError, as `StudyFolder.lock` does."""
        self._locked.lock()

    def unlock(self) -> None:
        """Releases the lock, if this process has it."""
        self._locked.unlock()

    def study(self, name: str) -> StudyFolder:
        """Returns the folder of one of its studies, which need not exist."""
        return StudyFolder(self.path / name)

    def studies(self) -> Iterator[StudyFolder]:
        """Yields the studies that exist, in their order."""
        for name in study_names(self.config()):
            if (self.path / name / "study.json").exists():
                yield self.study(name)

    def has_ended(self, name: str, config: StudyConfig) -> bool:
        """Whether a study has ended with the extent that `config` asks for."""
        ended: Mapping[str, str] = atomic_files.read_json(self.path / ENDED, {})
        return ended.get(name) == _extent(config)

    def end(self, name: str, config: StudyConfig) -> None:
        """Notes that a study has ended, with all of its results stored everywhere."""
        ended = dict(atomic_files.read_json(self.path / ENDED, {}))
        atomic_files.write_json(self.path / ENDED, {**ended, name: _extent(config)})

    def finished(self) -> bool:
        """Whether all studies have ended and the table exists."""
        config = self.config()
        names = study_names(config)
        return (self.path / SUMMARY).exists() and all(self.has_ended(name, study_of(config, name)) for name in names)


def _extent(config: StudyConfig) -> str:
    values = config.to_dict()
    return run_config.digest({key: values[key.partition(".")[0]][key.partition(".")[2]] for key in _EXTENDS})


def with_outer(config: StudyConfig, outer: OuterConfig | None) -> StudyConfig:
    """Returns a study with another section `outer` in its settings."""
    return dataclasses.replace(config, settings=config.settings.model_copy(update={"outer": outer}))


def study_names(config: StudyConfig) -> list[str]:
    """Returns the names of the studies of a tree: `split_00`, ..., and if asked for `null_00`, ... and `delivered`."""
    outer = config.settings.outer
    assert outer is not None
    nulls = [f"{NULL}_{index:02d}" for index in range(config.settings.search.null)]
    return [f"split_{index:02d}" for index in range(outer.count)] + nulls + ([DELIVERED] if outer.deliver else [])


def is_null(name: str) -> bool:
    """Whether a study of a tree has permuted labels."""
    return name.partition("_")[0] == NULL


def study_of(config: StudyConfig, name: str) -> StudyConfig:
    """Returns the config of one study of a tree.

    Where nothing is searched, the default is not repeated with other seeds: the spread over splits shows more.
    """
    outer = config.settings.outer
    assert outer is not None
    index = 0 if name == DELIVERED else int(name.partition("_")[2])
    # The division of a study of permuted labels must not depend on `repeats`, which a resumed tree may change.
    section = outer.division(index % outer.folds if is_null(name) else index)
    if name == DELIVERED:
        section = {**(section or {}), "kind": _EVERYTHING}
    changes = {"data.resplit": section, **({"data.permuted_labels": index} if is_null(name) else {})}
    search = config.settings.search.model_copy(update={"null": 0})
    if not config.searches:
        search = search.model_copy(update={"replicates": 0})
    return dataclasses.replace(
        config,
        run=with_overrides(config.run, changes),
        rows={row: with_overrides(run, changes) for row, run in config.rows.items()},
        settings=config.settings.model_copy(update={"outer": None, "search": search}),
    )


def find(runs: Path, name: str) -> TreeFolder | None:
    """Returns the tree of that name or path; None if there is none."""
    for path in (Path(name), runs / name):
        try:
            if (path / TREE).exists():
                return TreeFolder(path.absolute())
        except OSError:  # the name is too long
            continue
    return None


def all_trees(runs: Path) -> Iterator[TreeFolder]:
    """Yields the readable trees in a runs folder, oldest first."""
    for path in sorted(runs.glob(f"*/{TREE}"), key=lambda path: path.stat().st_mtime):
        folder = TreeFolder(path.parent.absolute())
        try:
            folder.described()
        except InputError:
            continue
        yield folder


def newest(runs: Path, config: StudyConfig, *, unfinished: bool) -> TreeFolder | None:
    """Returns the newest tree of this config: an unfinished one, else a finished one unless `unfinished`."""
    trees = [folder for folder in all_trees(runs) if folder.described()["config"]["name"] == config.name]
    still = [folder for folder in trees if not folder.finished()]
    chosen = still or ([] if unfinished else trees)
    return chosen[-1] if chosen else None


def not_found(runs: Path, name: str) -> str:
    """Returns the fault of a tree that does not exist, with the most similar name."""
    return f"tree {name!r}: not found in {runs}{nearest(name, [folder.name for folder in all_trees(runs)])}"
