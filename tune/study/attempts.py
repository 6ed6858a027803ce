"""The attempts of one run: folders, checkpoints, and their publication.

An attempt is one process's execution of a run. It writes into its own folder, because an actor can outlive a killed
driver and must not write into the folder of its successor. `publish` makes files visible to other processes: it uploads
them if the study has a storage URI, and does nothing if all machines share the study's folder.
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

_FREE = ("data.dir", "checkpoint.")  # keys of a run config that do not affect results


def training_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's config without the keys that may change when a study is resumed."""
    return without_keys(dict(config), frozenset(path for path, _ in flatten(config) if path.startswith(_FREE)))


def training_config_digest(config: Mapping[str, Any]) -> str:
    """Returns a digest that is equal for configs that can resume from each other's checkpoints."""
    return digest(training_config(config))


def matches_config(description: Any, digest: str | None) -> bool:
    """Whether an attempt belongs to a run whose config has this digest. One without a stored digest matches every run.

    Args:
        description: content of attempt.json.
        digest: see `training_config_digest`.
    """
    return not isinstance(description, dict) or description.get("config") in (None, digest)


def number_of(attempt: str) -> int:
    """Returns the number in an attempt's name; 0 for another name."""
    kind, _, suffix = attempt.partition("-")
    digits = suffix.partition("-")[0]
    return int(digits) if kind == "attempt" and digits.isdigit() else 0


class Attempts:
    """The attempts of one run.

    A checkpoint is named by its path relative to the run's folder: "attempt-2/epoch-000010". Attempts with another
    config are skipped: after an older copy of the database was restored, a trial number may stand for another point.
    Methods raise OSError if disk or storage fails, and can then be called again.

    Args:
        study: path of the study's folder.
        run: name of the run, such as "trials/3".
        uri: URI of the study's files in its storage; None: all files are in the study's folder.
        config: the run's config; default: the content of its config.yaml.
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
        """The local folder with the attempt folders."""
        if self._remote is None:
            return self.folder
        if self._scratch is None:
            self._scratch = object_store.Scratch()
        return self._scratch.path / "run"

    def new(self) -> Path:
        """Creates an attempt folder, in which only this process writes."""
        if self._remote is None:
            if not self.folder.is_dir():  # the driver created it, so this machine does not share it
                raise OSError(
                    f"{self.folder}: this machine ({socket.gethostname()}) does not see the study's folder; mount it "
                    "on every node, or set storage.uri"
                )
            path = _next_folder(self.folder)
        else:
            # Object stores cannot create a name exclusively, so the number alone might not be unique.
            taken = [number_of(name) for name in self._remote.folders()]
            path = self._local / f"attempt-{max(taken, default=0) + 1}-{uuid.uuid4().hex[:6]}"
            path.mkdir(parents=True)
        writer = {"host": socket.gethostname(), "process": os.getpid()}  # for debugging: which node ran it
        atomic_files.write_json(path / DESCRIPTION, {"config": self._digest, **writer})
        self.publish(path / DESCRIPTION)
        return path

    def newest(self) -> str | None:
        """Returns the complete training checkpoint with the most epochs of all attempts; None if there is none."""
        if self._remote is None:
            complete = [checkpoint.newest_training(path) for path in self.folder.glob("attempt-*")]
            names = [f"{path.parent.name}/{path.name}" for path in complete if path is not None]
        else:
            marker = f"/{checkpoint.DESCRIPTION}"
            listed = [item.name.removesuffix(marker) for item in self._remote.files() if item.name.endswith(marker)]
            names = [name for name in listed if _is_checkpoint(name)]
        matches = {attempt: self._matches(attempt) for attempt in {name.partition("/")[0] for name in names}}
        return max(
            (name for name in names if matches[name.partition("/")[0]]),
            key=lambda name: (name.partition("/")[2], name),
            default=None,
        )

    def _matches(self, attempt: str) -> bool:
        """Whether an attempt has this run's config."""
        if self._remote is None:
            description = atomic_files.read_json(self.folder / attempt / DESCRIPTION, {})
        else:
            description = remote_json(self._remote, f"{attempt}/{DESCRIPTION}")
        return matches_config(description, self._digest)

    def fetch(self, name: str) -> Path:
        """Returns a local folder with that checkpoint, downloaded if needed. Several processes may call it at once."""
        path = self._local / name
        if self._remote is not None and not (path / checkpoint.DESCRIPTION).exists():
            names = [item.name for item in self._remote.files(name)]
            if not names:
                raise FileNotFoundError(f"{self._remote}/{name}: not there")
            self._remote.fetch_all(names, self._local, last=f"{name}/{checkpoint.DESCRIPTION}")
        return path

    def publish(self, path: Path) -> None:
        """Makes a complete file or folder visible to other processes.

        Only the two newest checkpoints that this process published are kept.

        Args:
            path: below the attempt's folder.
        """
        if self._remote is None:
            return
        name = str(path.relative_to(self._local))
        if not path.is_dir():
            self._remote.put(path, name)
            return
        self._remote.put_folder(path, name, marker=checkpoint.DESCRIPTION)
        if _is_checkpoint(name):
            self._published = [*(other for other in self._published if other != name), name]
            with contextlib.suppress(OSError):  # retried with the next checkpoint
                while len(self._published) > _KEPT:
                    self.drop(self._published[:1])
                    self._published.pop(0)

    def drop(self, names: Iterable[str]) -> None:
        """Removes these checkpoints; missing ones are ignored."""
        for name in names:
            shutil.rmtree(self._local / name, ignore_errors=True)
            if self._remote is not None:
                # The marker goes first, so that a partly removed folder does not count as a checkpoint.
                self._remote.remove(f"{name}/{checkpoint.DESCRIPTION}")
                self._remote.remove(name)

    def clear_checkpoints(self) -> None:
        """Removes all training checkpoints of a finished run; failures are ignored."""
        local = self._local.glob("attempt-*") if self._remote is None or self._scratch is not None else ()
        for path in local:
            checkpoint.Keeper(path, 0).clear()
        if self._remote is not None:
            with contextlib.suppress(OSError):
                self.drop(sorted({name for item in self._remote.files() if (name := _checkpoint_of(item.name))}))

    def close(self) -> None:
        """Removes this process's scratch folder."""
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


def remote_json(folder: object_store.Folder, name: str) -> dict[str, Any]:
    """Returns the mapping in a JSON file of the storage; empty if the file is missing or damaged. Raises OSError."""
    try:
        content = json.loads(folder.read_text(name))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _next_folder(folder: Path) -> Path:
    """Creates the attempt folder with the next free number."""
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
    """Returns the training checkpoint that a file belongs to, None if it belongs to none."""
    folder = "/".join(name.split("/")[:2])
    return folder if _is_checkpoint(folder) else None
