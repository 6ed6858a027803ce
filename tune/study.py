"""The record of a study on disk (PROTOCOL 7). The driver alone writes here, but for the attempt folders of its runs."""

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import optuna

from m3col import config as run_config
from m3col import files, yamlio
from m3col.data.dataset import Dataset
from m3col.faults import BadInput, nearest
from m3col.judge import flatten
from m3col.patience import Patience
from m3col.secrets import scrubbed
from tune import database, provenance
from tune.config import StorageConfig, StudyConfig, study_from_dict
from tune.runs import LONGEST_STUDY

FORMAT = 2
DESCRIPTION = "study.json"
SUMMARY = "results/summary.md"  # written last: a study that has it is finished
_CONTENT = ("config", "digests", "versions", "dataset")
AUTO = "auto"  # `--resume auto`: begin or go on
_RESERVED = ("train", "mlartifacts", AUTO)  # what else lies in a runs folder, or means something else
# A resumed search may differ in these: they change what it costs, not what a trial computes.
_MAY_CHANGE = ("search.trials", "search.time_budget_s", "search.concurrency", "resources", "tracking", "run.data.dir",
               "run.checkpoint", "search.confirm", "search.replicates", "final.seeds",
               "storage.patience_s")  # fmt: skip
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # what flock says of a lock that somebody has
AT_ONCE = Patience(0)
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


def runs_folder(given: str | Path | None = None) -> Path:
    """Where studies live: the argument, $M3COL_RUNS or ./runs, as an absolute path."""
    return Path(given or os.environ.get("M3COL_RUNS") or "runs").absolute()


class RunFolder:
    """One training of a study: a trial, a replicate, a confirmation or a refit."""

    def __init__(self, path: Path, patience: Patience = AT_ONCE) -> None:
        self.path, self._patience = path, patience

    def create(self, config: Mapping[str, Any]) -> None:
        def write() -> None:
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / "config.yaml").exists():
                files.write_text(self.path / "config.yaml", yamlio.dump(dict(config)))

        self._patience.call(write)

    def config(self) -> dict[str, Any]:
        return yamlio.read(self.path / "config.yaml")

    def history(self) -> list[dict[str, Any]]:
        """Records of the finished epochs; a line torn by a crash is left out."""
        path = self.path / "history.jsonl"
        records = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def append(self, records: Sequence[Mapping[str, Any]], *, restart: bool) -> None:
        """Adds records; after a restart the file is written anew with all records that the new attempt stands on."""
        text = "".join(json.dumps(record) + "\n" for record in records)
        if restart:
            self._patience.call(lambda: files.write_text(self.path / "history.jsonl", text))
        else:
            self._append("history.jsonl", text)

    def log(self, line: str) -> None:
        self._append("log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {scrubbed(line)}\n")

    def _append(self, name: str, text: str) -> None:
        path = self.path / name
        length: int | None = None

        def write() -> None:
            nonlocal length
            if length is None:
                length = path.stat().st_size if path.exists() else 0
            with path.open("ab") as stream:
                stream.truncate(length)  # what an earlier try wrote of it
                stream.write(text.encode())

        self._patience.call(write)

    def result(self) -> dict[str, Any] | None:
        path = self.path / "result.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def write_result(self, result: Mapping[str, Any]) -> None:
        self._patience.call(lambda: files.write_json(self.path / "result.json", dict(result)))

    def outcome(self) -> Path | None:
        """The newest attempt folder in which this run trained its last epoch, if any did. What another run of this name
        left, as one of an earlier winner, is passed over."""
        from tune import attempts  # it needs torch

        done = [path.parent for path in self.path.glob("attempt-*/outcome.json")]
        wanted = attempts.essence_digest(self.config()) if done else None
        about = {path: files.read_json(path / attempts.DESCRIPTION, {}) for path in done}
        mine = [path for path in done if attempts.is_made_with(about[path], wanted)]
        return max(mine, key=lambda path: (attempts.number_of(path.name), path.name), default=None)

    def drop_checkpoints(self) -> None:
        """Frees the disk of a run that will not go on."""
        for pattern in ("attempt-*/epoch-*", "attempt-*/.epoch-*"):
            for path in self.path.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def set_aside(self) -> Path:
        """Moves a run that is not in the database, as after a return to an older copy, out of the study; where to."""
        aside = self.path.parents[1] / "aside"
        number = 1
        while (target := aside / f"{self.path.parent.name}-{self.path.name}-{number}").exists():
            number += 1
        aside.mkdir(exist_ok=True)
        self.path.rename(target)
        return target

    def clear(self) -> None:
        """Forgets a failed run, so that it can be tried again."""
        shutil.rmtree(self.path, ignore_errors=True)


class InUse(BadInput):
    """Another process drives this study."""


class StudyFolder:
    """`runs/<name>/`. `lock` it before anything is written. `patience`: with writes that fail."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.patience = AT_ONCE
        self._lock: IO[str] | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @classmethod
    def create(
        cls, runs: Path, name: str, config: StudyConfig, dataset: Dataset, *, partitions_digest: str, search_id: str,
        locked: bool = False,
    ) -> "StudyFolder":  # fmt: skip
        """A new study, which this process holds from then on where it is to be `locked`. Raises BadInput where another
        process was faster."""
        folder = cls(runs / name)
        described = {
            "format": FORMAT,
            "name": name,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "config": config.to_dict(),
            "digests": {
                "config": run_config.digest(config.to_dict()),
                **dataset.digests(),
                "splits": partitions_digest,
            },
            "versions": provenance.versions(),
            "git": provenance.git_state(),
            "host": socket.gethostname(),
            "user": files.user(),
            "threads": config.run.resources.threads,
            "search_id": search_id,
            "dataset": provenance.describe_dataset(dataset),
        }
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.lock()
        try:
            if (folder.path / DESCRIPTION).exists():
                raise BadInput([f"{folder.path}: was begun by another process just now; go on with --resume {name}"])
            files.write_json(folder.path / DESCRIPTION, described)
        except BaseException:
            folder.unlock()
            raise
        if not locked:
            folder.unlock()
        return folder

    def described(self) -> dict[str, Any]:
        """study.json, migrated to this version's format. Raises BadInput for a newer or unreadable one."""
        path = self.path / DESCRIPTION
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            version = found["format"]
        except OSError as error:
            raise BadInput([f"{self.path}: not a study ({DESCRIPTION}: {error.strerror})"]) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadInput([f"{path}: not readable, so this is no study of m3col"]) from None
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise BadInput([f"{path}: damaged: 'format' must be a number from 1 to {FORMAT}, but is {version!r}"])
        if version > FORMAT:
            raise BadInput(
                [f"{path}: study format {version} is newer than this version reads ({FORMAT}); update m3col"]
            )
        lacks = [key for key in _CONTENT if not isinstance(found.get(key), dict)]
        if lacks:
            raise BadInput([f"{path}: damaged: {', '.join(lacks)} missing or of the wrong type"])
        return _migrated(found)

    def config(self) -> StudyConfig:
        return study_from_dict(self.described()["config"])

    def reopen(self, config: StudyConfig) -> None:
        """Takes over what a resumed search may change; the report and the results are then to be made anew."""
        described = self.described()
        described["config"] = config.to_dict()
        self.patience.call(lambda: files.write_json(self.path / DESCRIPTION, described))
        (self.path / SUMMARY).unlink(missing_ok=True)

    def lock(self) -> None:
        """Holds the study for this process until it ends or unlocks it. Raises BadInput where another one holds it, or
        where files cannot be locked."""
        if self._lock is not None:
            return
        try:
            stream = (self.path / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise BadInput([f"{self.path / 'lock'}: cannot be written ({error.strerror})"]) from None
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _written(stream) or "another process"
            stream.close()
            if error.errno not in _HELD:
                raise BadInput(
                    [f"{self.path}: files cannot be locked here ({error.strerror}), so two searches could write to it "
                     "at once; use a runs folder on a file system with locks, such as a local disk or NFS 4"]
                ) from None  # fmt: skip
            raise InUse([f"{self.path}: in use by {holder}; wait for it to end, or stop it"]) from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        self._lock = stream

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def storage(self) -> optuna.storages.RDBStorage:
        """Raises BadInput where the database of the study cannot be opened."""
        return database.open_storage(self.described()["config"].get("storage", {}).get("database"), self.path)

    def database_name(self) -> str:
        """What Optuna calls this study. A database can hold studies of many runs folders, whose names may be equal."""
        described = self.described()
        name = str(described["name"])  # the folder may have been renamed since
        shared = described["config"].get("storage", {}).get("database") is not None
        return f"{name} {described['search_id']}" if shared else name

    def lost_database(self, knows: Callable[[int], bool]) -> list[str]:
        """The fault of a database that knows none of the trials that have ended here: a search would begin again."""
        names = [path.parent.name for path in self.path.glob("trials/*/result.json")]
        ended = sorted(int(name) for name in names if name.isdigit())
        if not ended or any(knows(number) for number in ended):
            return []
        storage = self.config().settings.storage
        place, uri = storage.database or str(self.path / database.FILE), storage.of(str(self.described()["name"]))
        way_out = "put it back from a copy"
        if storage.database is not None:
            way_out += f", in which this study is called {self.database_name()!r}"
        elif uri is not None:
            again = f"m3col search --resume {self.described()['name']} storage.uri={storage.uri}"
            way_out = f"move the folder away, and fetch the record from {uri} with {again}"
        return [
            f"{self.path}: {len(ended)} trials have ended here, but the database {place} knows none of them; "
            f"{way_out}, or begin another study with --name"
        ]

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.path / name, self.patience)

    def runs(self) -> Iterator[tuple[str, RunFolder]]:
        """All runs that have a folder, by name such as "trials/3"."""
        for pattern in ("trials/*", "replicates/*", "confirm/*", "refits/*/*"):
            for path in sorted(self.path.glob(f"{pattern}/config.yaml"), key=_by_number):
                yield str(path.parent.relative_to(self.path)), RunFolder(path.parent, self.patience)

    @property
    def results(self) -> Path:
        return self.path / "results"

    def finished(self) -> bool:
        return (self.path / SUMMARY).exists()


def _written(stream: IO[str]) -> str:
    """What the holder of a lock wrote about itself; one that has just taken it may still be about to."""
    for _ in range(10):
        stream.seek(0)
        if text := stream.read().strip():
            return text
        time.sleep(0.05)
    return ""


def _migrated(found: dict[str, Any]) -> dict[str, Any]:
    """A description of an older format in the words of this one.

    1: a trial had one worker, its share of a machine stood in resources.cpus_per_trial and gpus_per_trial, and the
    study's folder was the only storage.
    """
    if found["format"] == 1:
        old = found["config"].get("resources", {})
        renamed = {key.replace("_per_trial", "_per_worker"): value for key, value in old.items()}
        config = {**found["config"], "resources": {"workers_per_trial": 1, **renamed}}
        config["storage"] = StorageConfig().model_dump()
        return {**found, "format": FORMAT, "config": config}
    return found


def _by_number(path: Path) -> tuple[str, int, str]:
    name = path.parent.name
    return (str(path.parent.parent), int(name) if name.isdigit() else -1, name)


def new_name(
    runs: Path, wanted: str | None, config: StudyConfig, *, elsewhere: Callable[[str], bool] = lambda name: False
) -> str:
    """`wanted`, if it is a free folder name, else `<config>-<n>` with the next free n. Raises BadInput.

    `elsewhere`: whether a name is taken in the storage, where studies of other machines are as well.
    """

    def is_taken(name: str) -> bool:
        return _is_taken(runs / name) or elsewhere(name)

    if wanted is not None:
        usable = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip(".-_") or f"{config.name}-1"
        if usable != wanted:
            raise BadInput(
                [f"--name {wanted!r}: must be letters and digits, with . _ - between; nearest valid: {usable!r}"]
            )
        if len(wanted) > LONGEST_STUDY:
            raise BadInput([f"--name: must have at most {LONGEST_STUDY} letters, but has {len(wanted)}: {wanted!r}"])
        if wanted in _RESERVED:
            raise BadInput([f"--name {wanted}: this name is taken by a folder of its own; choose another one"])
        if is_taken(wanted):
            if (runs / wanted / DESCRIPTION).exists():
                folder = StudyFolder(runs / wanted)
                try:
                    folder.lock()  # says who drives it, if anybody does
                    folder.unlock()
                except InUse:
                    raise
                except BadInput:  # of another user, say: it exists all the same
                    pass
            raise BadInput(
                [f"--name {wanted}: a study of this name exists; go on with --resume {wanted}, or choose another name"]
            )
        return wanted
    number = 1
    while is_taken(f"{config.name}-{number}"):
        number += 1
    return f"{config.name}-{number}"


def _is_taken(path: Path) -> bool:
    """Whether a study cannot begin in this folder; one that holds nothing but a lock was left by a killed start, or
    belongs to one that is just beginning."""
    return path.exists() and not (path.is_dir() and {item.name for item in path.iterdir()} <= {"lock"})


def find(runs: Path, name: str) -> StudyFolder:
    """The study of that name or path. Raises BadInput with the nearest name."""
    # Not Path.exists, which raises where a name is too long.
    path = Path(name) if os.path.exists(Path(name) / DESCRIPTION) else runs / name
    if os.path.exists(path / DESCRIPTION):
        return StudyFolder(path.absolute())
    known = [folder.parent.name for folder in runs.glob(f"*/{DESCRIPTION}")]
    raise BadInput([f"study {name!r}: not found in {runs}{nearest(name, known) or '; it holds no study'}"])


def all_studies(runs: Path) -> Iterator[StudyFolder]:
    """The readable studies below a runs folder, oldest first."""
    paths = sorted(runs.glob(f"*/{DESCRIPTION}"), key=lambda path: path.stat().st_mtime)
    for path in paths:
        folder = StudyFolder(path.parent.absolute())
        try:
            folder.described()
        except BadInput:
            continue
        yield folder


def newest(runs: Path, config: StudyConfig) -> StudyFolder | None:
    """The newest unfinished study of this config, else the newest finished one (to be extended)."""
    mine = [folder for folder in all_studies(runs) if folder.described()["config"]["name"] == config.name]
    return newest_unfinished(mine) or (mine[-1] if mine else None)


def newest_unfinished(studies: Sequence[StudyFolder]) -> StudyFolder | None:
    """The last one of `studies` without results."""
    return next((folder for folder in reversed(studies) if not folder.finished()), None)


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What keeps a study from being resumed: every setting that differs and may not, with both values."""
    old, new = dict(flatten(stored)), dict(flatten(wanted))
    lines = []
    for path in [*old, *(path for path in new if path not in old)]:
        if any(path == free or path.startswith(f"{free}.") for free in _MAY_CHANGE) or old.get(path) == new.get(path):
            continue
        lines.append(f"{path} was {old.get(path)!r} and is now {new.get(path)!r}; a resumed study keeps it")
    return lines


def digest_differences(stored: Mapping[str, str], dataset: Dataset, splits: str) -> list[str]:
    found = {**dataset.digests(), "splits": splits}
    return [
        f"{name}: the data differs from what the study began with (digest {stored[name][:12]}, now {value[:12]})"
        for name, value in found.items()
        if name in stored and stored[name] != value
    ]
