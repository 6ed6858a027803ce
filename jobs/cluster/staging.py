"""Builds the folder that a job uploads: the source of the imported packages, and the configs."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import jobs
import m3col
import tune
from jobs.cluster.preflight import REQUEST
from m3col.config import loading as run_config
from m3col.config import yaml_files
from m3col.errors import InputError
from m3col.methods import registry
from m3col.storage import atomic_files
from tune.study import provenance

GIVEN = "given"  # the caller's own configs, beside the packages

_PACKAGES = (m3col, tune, jobs)

_LIMIT_BYTES = 20e6  # Ray accepts 512 MiB; the packages are below 1 MB, and every node unpacks them


@contextmanager
def staged(config: str | None, words: Sequence[str]) -> Iterator["Staged"]:
    """A folder to upload, removed afterwards. Raises InputError if a config is missing or the folder is too large."""
    with TemporaryDirectory(prefix="m3col-job-") as scratch:
        folder = Path(scratch) / "job"
        for package in _PACKAGES:
            source = Path(str(package.__file__)).parent
            shutil.copytree(source, folder / source.name, ignore=_other_than_sources)
        atomic_files.write_json(folder / tune.__name__ / "study" / provenance.SENT, provenance.git_state())
        shutil.copytree(run_config.folder(), folder / "m3col" / "configs", ignore=_other_than_configs)
        name, remaining = config_files(config, words, folder)
        for module in registry.own_modules():
            _copy_module(module, folder)
        faults = _size_faults(folder)
        if faults:
            raise InputError(faults)
        yield Staged(folder, name, tuple(remaining))


def _copy_module(module: ModuleType, folder: Path) -> None:
    """Copies the module or package of a user's own method, which the nodes of the cluster do not have."""
    source = Path(str(module.__file__))
    if source.name == "__init__.py":
        shutil.copytree(source.parent, folder / source.parent.name, ignore=_other_than_sources)
    else:
        shutil.copyfile(source, folder / source.name)


class Staged:
    """A folder to upload, and the arguments `config` and `words` of the search that runs in it."""

    def __init__(self, folder: Path, config: str | None, words: Sequence[str]) -> None:
        self.folder, self.config, self.words = folder, config, words

    def ask(self, id: str, request: Mapping[str, Any]) -> None:
        """Writes the request of job `id` into the folder. The id makes each upload different: Ray deletes an upload
        after its job has ended, even if a newer job relies on an equal upload."""
        atomic_files.write_json(
            self.folder / REQUEST, {"id": id, "config": self.config, "words": self.words, **request}
        )


_SOURCES = (".py", ".typed", ".css", ".js")  # what the packages consist of; style and script are those of report.html


def _other_than_sources(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not _kept(Path(folder, name), _SOURCES)]


def _other_than_configs(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not _kept(Path(folder, name), (".yaml", ".yml"))]


def _kept(path: Path, suffixes: Sequence[str]) -> bool:
    if path.is_dir():
        return path.name not in ("__pycache__", "configs")
    return path.suffix in suffixes


def config_files(
    config: str | None, words: Sequence[str], folder: Path, *, seen_as: str = ""
) -> tuple[str | None, list[str]]:
    """Copies the config of a search and those of its runs into `folder`. Shipped configs are not copied.

    Returns the config argument and the override words of the command, with paths relative to `folder`, or to
    `seen_as` if the folder is mounted elsewhere. Raises InputError if a config does not exist.
    """
    if config is None:
        return None, list(words)
    path = run_config.find(config, "search")
    raw = yaml_files.read(path)
    replaced = dict(run_config.parse_override(word) for word in words if word.partition("=")[0] in ("base", "datasets"))
    raw = run_config.join(raw, replaced)
    copied = _Copies(folder, seen_as)
    changed: dict[str, Any] = {}
    if isinstance(raw.get("base"), str):
        changed["base"] = copied.run(raw["base"])
    if isinstance(raw.get("datasets"), list):
        changed["datasets"] = [copied.run(item) if isinstance(item, str) else item for item in raw["datasets"]]
    kept = [word for word in words if word.partition("=")[0] not in replaced]
    if replaced or any(raw[key] != value for key, value in changed.items()):
        return copied.add(path.name, yaml_files.dump({**raw, **changed}), GIVEN), kept
    if _is_shipped(path, "search"):
        return path.stem, kept
    return copied.add(path.name, path.read_text(encoding="utf-8"), GIVEN), kept


class _Copies:
    def __init__(self, folder: Path, seen_as: str) -> None:
        self._folder, self._seen_as = folder, seen_as

    def run(self, name: str) -> str:
        """Copies the config of a run; returns its name in the copy."""
        path = run_config.find(name, "train")
        if _is_shipped(path, "train"):
            return path.stem
        return self.add(path.name, path.read_text(encoding="utf-8"), f"{GIVEN}/runs")

    def add(self, name: str, text: str, below: str) -> str:
        """Writes a file under its own name (studies are named after it), or with a number if that is taken."""
        target, number = self._folder / below / name, 1
        target.parent.mkdir(parents=True, exist_ok=True)
        while target.exists() and target.read_text(encoding="utf-8") != text:
            number += 1
            target = target.with_name(f"{Path(name).stem}-{number}{Path(name).suffix}")
        atomic_files.write_text(target, text)
        return str(Path(self._seen_as) / target.relative_to(self._folder))


def _is_shipped(path: Path, kind: str) -> bool:
    return path.resolve().parent == (run_config.folder() / kind).resolve()


def _size_faults(folder: Path) -> list[str]:
    sizes = sorted(((path.stat().st_size, path) for path in folder.rglob("*") if path.is_file()), reverse=True)
    total = sum(size for size, _ in sizes)
    if total <= _LIMIT_BYTES:
        return []
    largest = ", ".join(f"{path.relative_to(folder)} ({size / 1e6:.1f} MB)" for size, path in sizes[:3])
    return [
        f"the upload of the job is {total / 1e6:.1f} MB, and must be at most {_LIMIT_BYTES / 1e6:.0f} MB; "
        f"the largest files: {largest}"
    ]
