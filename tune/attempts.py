"""Where the attempts of one run live, as the actors see it.

An attempt is one process's go at a run. It writes into a folder of its own, because an actor can outlive a killed
driver and must not write where its successor does. What other processes may read is published: nothing to do where
the study's folder is on a file system that all share, an upload where the study has a storage URI.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from m3col import checkpoint, files, yamlio
from m3col.config import digest
from m3col.judge import flatten, without_keys

DESCRIPTION = "attempt.json"
_FREE = ("data.dir", "checkpoint.", "resources.")  # of a run's config: no checkpoint depends on these


def essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config without what may change between two sessions of a study."""
    return without_keys(dict(config), frozenset(path for path, _ in flatten(config) if path.startswith(_FREE)))


def essence_digest(config: Mapping[str, Any]) -> str:
    """Equal for two configs of which one may go on from the other's checkpoints."""
    return digest(essence(config))


class Attempts:
    """`study`: path of the study's folder; `run`: name below it, such as "trials/3"; `uri`: where the study's files are
    in a storage, None where its folder is all there is. `config`: of the run; by default what its config.yaml says.

    A checkpoint is named by its place below the run: "attempt-2/epoch-000010". Attempts that were made with another
    config are passed over: after a return to an older copy of the database a number may stand for another point.
    Methods raise OSError where the place does not answer.
    """

    def __init__(self, study: str, run: str, *, uri: str | None, config: Mapping[str, Any] | None = None) -> None:
        self.run, self.uri = run, uri
        self.folder = Path(study) / run
        if config is None and (self.folder / "config.yaml").exists():
            config = yamlio.read(self.folder / "config.yaml")
        self._digest = None if config is None else essence_digest(config)

    def new(self) -> Path:
        """A fresh attempt folder, in which this process alone writes."""
        number = 1
        while True:
            path = self.folder / f"attempt-{number}"
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                number += 1
                continue
            files.write_json(path / DESCRIPTION, {"config": self._digest})
            return path

    def newest(self) -> str | None:
        """The complete training checkpoint with the most epochs over all attempts, None where there is none."""
        found = [checkpoint.newest_training(path) for path in self.folder.glob("attempt-*") if self._is_mine(path)]
        best = max((path for path in found if path is not None), key=lambda path: (path.name, path), default=None)
        return None if best is None else f"{best.parent.name}/{best.name}"

    def _is_mine(self, attempt: Path) -> bool:
        return files.read_json(attempt / DESCRIPTION, {}).get("config") in (None, self._digest)

    def fetch(self, name: str) -> Path:
        """A local folder with that checkpoint; several processes may ask at once."""
        return self.folder / name

    def publish(self, path: Path) -> None:
        """Tells that `path`, a file or folder below the attempt's, is complete."""

    def drop(self, names: Iterable[str]) -> None:
        """Forgets these checkpoints; those that are gone already are passed over."""
        for name in names:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def clear_checkpoints(self) -> None:
        """Forgets all training checkpoints of the run: it is finished."""
        for path in self.folder.glob("attempt-*"):
            checkpoint.Keeper(path, 0).clear()

    def close(self) -> None:
        """Removes what lies in this process's scratch."""
