"""Checkpoints: safetensors and JSON with a format version. Reading one runs no code.

There are two kinds. "training": weights, optimizer moments and history of every fold, to resume a training from.
"model": weights and fitted preprocessing of one or several members, to predict with.
"""

import glob
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from m3col.errors import InputError
from m3col.models.named_modules import safe_keys
from m3col.storage import atomic_files
from m3col.training.background_write import BackgroundWrite
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import Best, Record
from m3col.training.loop import LockstepTrainer
from m3col.training.training_state import PROBES, TrainingState, best_file, fold_file, notice_of
from m3col.version import __version__

FORMAT = 1

DESCRIPTION = "checkpoint.json"

_CONTENT: dict[str, dict[str, Any]] = {
    "model": {"config": dict, "classes": list, "features": dict, "members": list},
    "training": {"epoch": int, "history": list, "best": dict | None},
}

TASK_PREFIX = "task."  # of the tensors that a task needs for a model's outputs, see `Task.state`

# RuntimeError: raised by torch when a file is deleted after safetensors opened it and before torch maps it.
_UNREADABLE = (OSError, SafetensorError, RuntimeError)

_KEPT = 2  # how many checkpoints of a running training are kept, the newest ones

_WRITING_SHARE = 0.05  # largest share of the training time that may be spent on waiting for checkpoints

_LARGE = 20_000_000  # bytes from which a thread writes a checkpoint; a smaller one takes about 0.1 s without a thread


def versions() -> dict[str, str]:
    """The versions of this package, torch and Python, as stored in checkpoints."""
    return {"m3col": __version__, "torch": torch.__version__, "python": platform.python_version()}


def describe(folder: Path, kind: str) -> dict[str, Any]:
    """Reads and validates the description (`checkpoint.json`) of a checkpoint.

    Args:
        folder: folder of the checkpoint.
        kind: the expected kind, "training" or "model".

    Returns:
        The content of `checkpoint.json`.

    Raises:
        InputError: the file is missing or damaged, was not written by m3col, has a newer format, or describes a
            checkpoint of the other kind.
    """
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError([f"{folder}: not a checkpoint ({DESCRIPTION}: {error.strerror})"]) from None
    except (ValueError, RecursionError):
        raise InputError([f"{path}: not readable as JSON, so this is no checkpoint of m3col"]) from None
    if not isinstance(description, dict) or description.get("made_by") != "m3col":
        raise InputError([f"{path}: a foreign file; a checkpoint of m3col says so in 'made_by'"])
    version = description.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError([f"{path}: damaged: 'format' must be a number from 1 to {FORMAT}, but is {version!r}"])
    if version > FORMAT:
        raise InputError([f"{path}: checkpoint format {version} is newer than this version reads ({FORMAT}); update"])
    if description.get("kind") != kind:
        raise InputError([f"{folder}: must be a {kind} checkpoint, but is a {description.get('kind')} checkpoint"])
    lacking = [name for name, kinds in _CONTENT[kind].items() if not isinstance(description.get(name, ...), kinds)]
    if lacking:
        raise InputError([f"{path}: damaged: {', '.join(lacking)} missing or of the wrong type"])
    invalid = [name for name, is_valid in _checks(description, kind) if not is_valid]
    if invalid:
        raise InputError([f"{path}: damaged: {', '.join(invalid)} incomplete or of the wrong type"])
    outside = [member["file"] for member in description.get("members", ()) if not _is_own_file(member["file"])]
    if outside:
        # Security: a checkpoint from elsewhere must not make this process read other files of this machine.
        lines = [f"{path}: a member's file must lie in this folder, but is {name!r}" for name in outside]
        raise InputError([f"{line}; nearest valid: 'member-0.safetensors'" for line in lines])
    return description


def _checks(description: Mapping[str, Any], kind: str) -> list[tuple[str, bool]]:
    """Pairs (part of a description, whether its nested values have the types that the readers rely on)."""
    if kind == "model":
        features, members, encoders = description["features"], description["members"], description.get("encoders", {})
        return [
            ("classes", _are(str, description["classes"])),
            ("features", bool(features) and all(_are(str, names) for names in features.values())),
            ("members", bool(members)),
            ("encoders", isinstance(encoders, dict) and _are(dict, list(encoders.values()))),
            ("notice", isinstance(description.get("notice", ""), str)),
            ("choices", _are_choices(description.get("choices", {}), len(description["classes"]))),
            *((f"file or preprocess of member {at}", _is_member(member)) for at, member in enumerate(members)),
        ]
    best, history = description["best"], description["history"]
    return [
        ("best", best is None or (_is(int, best.get("epoch")) and _is(int | float, best.get("score")))),
        ("history", _are(dict, history) and all(_is_record(record) for record in history)),
    ]


def _is(expected: Any, value: Any) -> bool:
    """Whether the value has the expected type; a bool does not count as an int."""
    return isinstance(value, expected) and not isinstance(value, bool)


def _are(expected: Any, values: Any) -> bool:
    """Whether `values` is a list whose items all have the expected type."""
    return isinstance(values, list) and all(_is(expected, value) for value in values)


def _are_choices(choices: Any, outputs: int) -> bool:
    """Whether each value is a list with a number for each output."""
    return isinstance(choices, dict) and all(_are(int | float, v) and len(v) == outputs for v in choices.values())


def _is_member(member: Any) -> bool:
    if not isinstance(member, dict) or "file" not in member or not isinstance(member.get("preprocess"), dict):
        return False
    return _are(dict, list(member["preprocess"].values()))


def _is_record(record: Mapping[str, Any]) -> bool:
    has_all_fields = set(record) == {field.name for field in fields(Record)}
    return has_all_fields and _is(int, record["epoch"]) and isinstance(record["metrics"], dict)


def _is_own_file(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and not name.startswith(".") and "/" not in name


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises InputError for a file that cannot be read."""
    try:
        return load_file(path)
    except _UNREADABLE as error:
        raise InputError([f"{path}: cannot be read as safetensors ({error})"]) from None


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a safetensors file. Raises OSError where the disk refuses, which safetensors reports by its own type."""
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def write_model(
    folder: Path, trainers: Sequence[FoldTrainer], *, config: Mapping[str, Any], classes: Sequence[str],
    features: Mapping[str, Sequence[str]], choices: Mapping[str, Sequence[float]] | None = None,
) -> None:  # fmt: skip
    """Writes a model checkpoint with one member per trainer. The folder appears atomically, with all of its files.

    Args:
        folder: folder of the new checkpoint.
        trainers: the trained models, one per fold.
        config: the config of the run, as plain values.
        classes: names of the classes, in the order of the logits.
        features: names of the columns by modality.
        choices: what the task chose on validation predictions, see `Task.choices`.
    """
    with atomic_files.new_folder(folder) as temporary:
        members = []
        for number, trainer in enumerate(trainers):
            tensors = {f"weights.{name}": value.cpu() for name, value in trainer.method.state_dict().items()}
            tensors |= {TASK_PREFIX + key: torch.as_tensor(value) for key, value in trainer.task.state().items()}
            preprocess = {}
            prefixes = preprocess_prefixes(trainer.transforms)
            for modality, transform in trainer.transforms.items():
                preprocess[modality], arrays = transform.state()
                tensors |= {prefixes[modality] + key: torch.as_tensor(value) for key, value in arrays.items()}
            name = f"member-{number}.safetensors"
            _save(tensors, temporary / name)
            about = {"seed": trainer.seed, "fold": trainer.fold, "device": trainer.device.type}
            members.append({"file": name, "preprocess": preprocess, "samples": len(trainer.labels), **about})
        encoders: dict[str, Any] = dict(trainers[0].method.encoders.items())
        stored = {name: encoder.stored() for name, encoder in encoders.items()}
        _write_description(temporary, "model", config=config, classes=list(classes), members=members,
                           features={name: list(values) for name, values in features.items()},
                           encoders={name: encoder for name, encoder in stored.items() if encoder},
                           **({"choices": choices} if choices else {}), **notice_of(trainers[0]))  # fmt: skip


def preprocess_prefixes(modalities: Iterable[str]) -> dict[str, str]:
    """By modality the prefix of the tensor names of its preprocessing; no prefix is the start of another one."""
    return {name: f"preprocess.{key}." for name, key in safe_keys(modalities).items()}


def join_models(folder: Path, sources: Sequence[Path], *, choices: Mapping[str, Sequence[float]] | None = None) -> None:
    """Joins the members of several model checkpoints into one checkpoint, the ensemble that a search delivers.

    Args:
        folder: folder of the new checkpoint.
        sources: folders of the model checkpoints. Config, classes and features are those of the last one.
        choices: what the task chose on validation predictions, see `Task.choices`.
    """
    with atomic_files.new_folder(folder) as temporary:
        members: list[dict[str, Any]] = []
        description: dict[str, Any] = {}
        for source in sources:
            description = describe(source, "model")
            for member in description["members"]:
                name = f"member-{len(members)}.safetensors"
                shutil.copyfile(source / member["file"], temporary / name)
                members.append({**member, "file": name})
        _write_description(temporary, "model", config=description["config"], classes=description["classes"],
                           members=members, features=description["features"],
                           encoders=description.get("encoders", {}),
                           **({"choices": choices} if choices else {}),
                           **({"notice": description["notice"]} if "notice" in description else {}))  # fmt: skip


def _write_description(folder: Path, kind: str, **content: Any) -> None:
    head = {"made_by": "m3col", "format": FORMAT, "kind": kind, "versions": versions()}
    atomic_files.write_json(folder / DESCRIPTION, {**head, **content})


def write_training(folder: Path, training: LockstepTrainer | TrainingState) -> None:
    """Writes a training checkpoint: all state that the remaining epochs depend on. The folder appears atomically."""
    state = training if isinstance(training, TrainingState) else TrainingState.of(training)
    with atomic_files.new_folder(folder) as temporary:
        for name, tensors in state.files.items():
            _save(tensors, temporary / name)
        _write_description(temporary, "training", **state.description)


def restore_training(folder: Path, training: LockstepTrainer) -> None:
    """Restores the state of `training` from a checkpoint. Raises InputError where it cannot be read."""
    read_training(folder, training)()


def read_training(folder: Path, training: LockstepTrainer) -> Callable[[], None]:
    """Reads a whole training checkpoint without changing `training`.

    Args:
        folder: folder of the checkpoint.
        training: the training that is to be restored.

    Returns:
        A function that puts the state into `training`. It reads no files, so it does not fail half-way.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    description, folds = describe(folder, "training"), range(len(training.trainers))
    states = [read_tensors(folder / fold_file(number)) for number in folds]
    best: Best | None = None
    if description["best"] is not None:
        weights = [read_tensors(folder / best_file(number)) for number in folds]
        best = Best(description["best"]["epoch"], description["best"]["score"], weights)
    test_logits = {int(epoch): value.numpy() for epoch, value in read_tensors(folder / PROBES).items()}

    def restore() -> None:
        training.restore(states, [Record(**record) for record in description["history"]])
        if best is not None:
            training.best = best
        training.test_logits = test_logits

    return restore


def _needed(description: Mapping[str, Any], names: Collection[str]) -> set[str]:
    """The files that a complete training checkpoint has. `names`: its files, which show the number of folds."""
    folds = sum(name.startswith("fold-") for name in names)
    best = {best_file(number) for number in range(folds)} if description["best"] is not None else set()
    return {fold_file(number) for number in range(max(folds, 1))} | best | {PROBES}


def newest_training(folder: Path) -> Path | None:
    """The complete training checkpoint with the most epochs anywhere below `folder`, or None; skips damaged ones."""
    complete = []
    # Not Path.glob: it raises when a folder is deleted while it lists files.
    for match in glob.iglob(os.path.join(glob.escape(str(folder)), "**", "epoch-*"), recursive=True):
        path = Path(match)
        try:
            description = describe(path, "training")
            names = {file.name for file in path.glob("*.safetensors")}
            for name in names:
                with safe_open(path / name, framework="pt"):  # reads the header and compares it with the file's length
                    pass
        except (InputError, *_UNREADABLE):
            continue
        if _needed(description, names) <= names:
            complete.append((description["epoch"], path))
    return max(complete)[1] if complete else None


Store = Callable[[Callable[[], Path]], float]
"""Calls a function that writes a checkpoint and returns its folder. Returns the seconds that this took."""


def _store(write: Callable[[], Path]) -> float:
    start = time.monotonic()
    write()
    return time.monotonic() - start


@dataclass
class Keeper:
    """Writes training checkpoints at intervals and keeps the newest two.

    Small ones are written at once. Of a large one the state is copied, and a thread writes it while the training
    continues. At most one write is under way. The interval is at least `every_s`, and long enough that the training
    waits for at most a twentieth of the time.

    Attributes:
        folder: folder of the checkpoints, one subfolder `epoch-...` each.
        every_s: least seconds between two checkpoints.
        last: when the training continued after the last checkpoint, in seconds of `time.monotonic`.
        cost_s: how many seconds the training waited for the last checkpoint.
        epoch: epoch of the last checkpoint, which may still be written.
    """

    folder: Path
    every_s: float
    last: float = 0.0
    cost_s: float = 0.0
    epoch: int = 0

    def __post_init__(self) -> None:
        self.last = time.monotonic()
        self._background = BackgroundWrite()

    def due(self) -> bool:
        """Whether it is time to write the next checkpoint. Never while the one before is being written."""
        if self._background.is_running:
            return False
        return time.monotonic() - self.last >= max(self.every_s, self.cost_s / _WRITING_SHARE)

    def write(self, training: LockstepTrainer, *, store: Store = _store) -> None:
        """Writes a checkpoint, or has it written by a thread while the caller continues.

        Waits for a checkpoint that is still being written. Where writing fails, older checkpoints are kept.

        Args:
            training: the training, at the end of an epoch.
            store: calls the function that writes, with retries for example; from the thread, if there is one.

        Raises:
            OSError: the disk refuses. For a checkpoint of a thread, `check` or `wait` raises it.
            Exception: whatever `store` raises; of a thread as above.
        """
        self.wait()
        start = time.monotonic()
        self.epoch, cost_s = training.epoch, None
        try:
            state = TrainingState.of(training)
            if state.size >= _LARGE and state.fits_twice():
                self._background.start(partial(store, partial(self._write, state.copied())))
            else:
                cost_s = store(partial(self._write, state))
        finally:
            self.last = time.monotonic()
            self.cost_s = self.last - start if cost_s is None else cost_s

    def _write(self, state: TrainingState) -> Path:
        for path in self.folder.glob(".epoch-*"):  # left incomplete by a killed process
            shutil.rmtree(path, ignore_errors=True)
        path = self.folder / f"epoch-{state.epoch:06d}"
        write_training(path, state)
        for old in sorted(self.folder.glob("epoch-*"))[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def check(self) -> None:
        """Raises the error of a checkpoint that a thread could not write, once. Does not wait."""
        self._background.check()

    def wait(self) -> None:
        """Waits until no checkpoint is being written. Raises the error of one that could not be written, once."""
        self._background.wait()

    def clear(self) -> None:
        """Deletes all checkpoints in the folder, complete or not."""
        for pattern in ("epoch-*", ".epoch-*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)
