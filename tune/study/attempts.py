"""The attempts of one run, as the actors see them.

An attempt is one process's execution of a run. It writes into its own folder, because an actor can outlive a killed
driver and must not write where its successor does. Files that other processes may read are published: an upload where
the study has a storage URI, nothing where all machines share the study's folder.
"""

import contextlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from m3col.config import yaml_files
from m3col.config.keys import flatten, without_keys
from m3col.config.loading import digest
from m3col.storage import atomic_files, object_store
from m3col.training import checkpoint

DESCRIPTION = "attempt.json"

_KEPT = 2  # newest checkpoints of a running run

_FREE = ("data.dir", "checkpoint.")  # of a run's config: no number depends on these


def training_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config without what may change between two sessions of a study."""
    return without_keys(dict(config), frozenset(path for path, _ in flatten(config) if path.startswith(_FREE)))


def training_config_digest(config: Mapping[str, Any]) -> str:
    """Equal for two configs of which one may go on from the other's checkpoints."""
    return digest(training_config(config))


def matches_config(described: Any, wanted: str | None) -> bool:
    """Whether an attempt, by its description, belongs to a run whose config has this digest; one that does not say
    what it was made with does."""
    return not isinstance(described, dict) or described.get("config") in (None, wanted)


def number_of(attempt: str) -> int:
    """Of an attempt's name; 0 where it is none."""
    kind, _, rest = attempt.partition("-")
    digits = rest.partition("-")[0]
    return int(digits) if kind == "attempt" and digits.isdigit() else 0


class Attempts:
    """`study`: path of the study's folder; `run`: name below it, such as "trials/3"; `uri`: where the study's files are
    in a storage, None where its folder is all there is. `config`: of the run; by default what its config.yaml says.

    A checkpoint is named by its place below the run: "attempt-2/epoch-000010". Attempts that were made with another
    config are passed over: after a return to an older copy of the database a number may stand for another point.
    Methods raise OSError where the place does not answer, and can then be called again.
    """

    def __init__(self, study: str, run: str, *, uri: str | None, config: Mapping[str, Any] | None = None) -> None:
        self.run, self.uri = run, uri
        self.folder = Path(study) / run
        self._remote = None if uri is None else object_store.Folder(uri) / run
        self._scratch: object_store.Scratch | None = None
        self._published: list[str] = []  # checkpoints of this process, oldest first
        if config is None and (self.folder / "config.yaml").exists():
            config = yaml_files.read(self.folder / "config.yaml")
        self._digest = None if config is None else training_config_digest(config)

    @property
    def _local(self) -> Path:
        """The folder on this machine that holds the attempt folders."""
        if self._remote is None:
            return self.folder
        if self._scratch is None:
            self._scratch = object_store.Scratch()
        return self._scratch.path / "run"

    def new(self) -> Path:
        """A fresh attempt folder, in which this process alone writes."""
        if self._remote is None:
            if not self.folder.is_dir():  # the driver made it before the run began; here it would be another one
                raise OSError(
                    f"{self.folder}: this machine ({socket.gethostname()}) does not see the study's folder; mount it "
                    "on every node, or set storage.uri"
                )
            path = _next_folder(self.folder)
        else:
            # A storage has no step that only one of two processes can do, so the number alone would not be unique.
            taken = [number_of(name) for name in self._remote.folders()]
            path = self._local / f"attempt-{max(taken, default=0) + 1}-{uuid.uuid4().hex[:6]}"
            path.mkdir(parents=True)
        writer = {"host": socket.gethostname(), "process": os.getpid()}  # tells which node ran it
        atomic_files.write_json(path / DESCRIPTION, {"config": self._digest, **writer})
        self.publish(path / DESCRIPTION)
        return path

    def newest(self) -> str | None:
        """The complete training checkpoint with the most epochs over all attempts, None where there is none."""
        if self._remote is None:
            complete = [checkpoint.newest_training(path) for path in self.folder.glob("attempt-*")]
            names = [f"{path.parent.name}/{path.name}" for path in complete if path is not None]
        else:
            marker = f"/{checkpoint.DESCRIPTION}"
            listed = [item.name.removesuffix(marker) for item in self._remote.files() if item.name.endswith(marker)]
            names = [name for name in listed if _is_checkpoint(name)]
        mine = {attempt: self._is_mine(attempt) for attempt in {name.partition("/")[0] for name in names}}
        return max(
            (name for name in names if mine[name.partition("/")[0]]),
            key=lambda name: (name.partition("/")[2], name),
            default=None,
        )

    def _is_mine(self, attempt: str) -> bool:
        if self._remote is None:
            described = atomic_files.read_json(self.folder / attempt / DESCRIPTION, {})
        else:
            described = remote_json(self._remote, f"{attempt}/{DESCRIPTION}")
        return matches_config(described, self._digest)

    def fetch(self, name: str) -> Path:
        """A local folder with that checkpoint; several processes may ask at once."""
        path = self._local / name
        if self._remote is not None and not (path / checkpoint.DESCRIPTION).exists():
            names = [item.name for item in self._remote.files(name)]
            if not names:
                raise FileNotFoundError(f"{self._remote}/{name}: not there")
            self._remote.fetch_all(names, self._local, last=f"{name}/{checkpoint.DESCRIPTION}")
        return path

    def publish(self, path: Path) -> None:
        """Makes `path`, a complete file or folder below the attempt's folder, visible to other processes. Of the
        checkpoints that this process published, only the newest two are kept."""
        if self._remote is None:
            return
        name = str(path.relative_to(self._local))
        if not path.is_dir():
            self._remote.put(path, name)
            return
        self._remote.put_folder(path, name, marker=checkpoint.DESCRIPTION)
        if _is_checkpoint(name):
            self._published = [*(other for other in self._published if other != name), name]
            with contextlib.suppress(OSError):  # then it goes with the next one
                while len(self._published) > _KEPT:
                    self.drop(self._published[:1])
                    self._published.pop(0)

    def drop(self, names: Iterable[str]) -> None:
        """Removes these checkpoints; missing ones are ignored."""
        for name in names:
            shutil.rmtree(self._local / name, ignore_errors=True)
            if self._remote is not None:
                # The marker goes first: what is left of a folder that is being removed is no checkpoint.
                self._remote.remove(f"{name}/{checkpoint.DESCRIPTION}")
                self._remote.remove(name)

    def clear_checkpoints(self) -> None:
        """Removes all training checkpoints of a finished run, as far as they can be removed."""
        here = self._local.glob("attempt-*") if self._remote is None or self._scratch is not None else ()
        for path in here:
            checkpoint.Keeper(path, 0).clear()
        if self._remote is not None:
            with contextlib.suppress(OSError):
                self.drop(sorted({found for item in self._remote.files() if (found := _checkpoint_of(item.name))}))

    def close(self) -> None:
        """Removes this process's scratch folder."""
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


def remote_json(folder: object_store.Folder, name: str) -> dict[str, Any]:
    """What a JSON file in a storage holds, nothing where it is missing or torn. Raises OSError."""
    try:
        found = json.loads(folder.read_text(name))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _next_folder(folder: Path) -> Path:
    number = 1
    while True:
        try:
            (folder / f"attempt-{number}").mkdir()
        except FileExistsError:
            number += 1
            continue
        return folder / f"attempt-{number}"


def _is_checkpoint(name: str) -> bool:
    return name.partition("/")[2].startswith("epoch-")


def _checkpoint_of(name: str) -> str | None:
    """The training checkpoint that a file of a run belongs to: its first two folders."""
    folder = "/".join(name.split("/")[:2])
    return folder if _is_checkpoint(folder) else None
