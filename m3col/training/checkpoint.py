"""Checkpoints: safetensors and JSON with a format version. Reading one runs no code.

Two kinds: "training" (weights, optimiser moments and history of every fold, to go on from) and "model" (weights and
fitted preprocessing of one or several members, to predict with).
"""

import glob
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from m3col.errors import InputError
from m3col.models.named_modules import safe_keys
from m3col.storage import atomic_files
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import Best, Record
from m3col.training.loop import LockstepTrainer
from m3col.version import __version__

FORMAT = 1

DESCRIPTION = "checkpoint.json"

_CONTENT: dict[str, dict[str, Any]] = {
    "model": {"config": dict, "classes": list, "features": dict, "members": list},
    "training": {"epoch": int, "history": list, "best": dict | None},
}

_PROBES = "probes.safetensors"

# RuntimeError: torch maps a file that safetensors has just seen, and that its owner has removed since.
_UNREADABLE = (OSError, SafetensorError, RuntimeError)

_KEPT = 2  # newest checkpoints of a running training

_WRITING_SHARE = 0.05  # of the training time, at most


def versions() -> dict[str, str]:
    return {"m3col": __version__, "torch": torch.__version__, "python": platform.python_version()}


def describe(folder: Path, kind: str) -> dict[str, Any]:
    """The description of a checkpoint. Raises InputError where it is missing, foreign, newer or of another kind."""
    path = folder / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError([f"{folder}: not a checkpoint ({DESCRIPTION}: {error.strerror})"]) from None
    except (ValueError, RecursionError):
        raise InputError([f"{path}: not readable as JSON, so this is no checkpoint of m3col"]) from None
    if not isinstance(found, dict) or found.get("made_by") != "m3col":
        raise InputError([f"{path}: a foreign file; a checkpoint of m3col says so in 'made_by'"])
    version = found.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError([f"{path}: damaged: 'format' must be a number from 1 to {FORMAT}, but is {version!r}"])
    if version > FORMAT:
        raise InputError([f"{path}: checkpoint format {version} is newer than this version reads ({FORMAT}); update"])
    if found.get("kind") != kind:
        raise InputError([f"{folder}: must be a {kind} checkpoint, but is a {found.get('kind')} checkpoint"])
    lacks = [name for name, wanted in _CONTENT[kind].items() if not isinstance(found.get(name, ...), wanted)]
    if lacks:
        raise InputError([f"{path}: damaged: {', '.join(lacks)} missing or of the wrong type"])
    wrong = [where for where, is_right in _parts(found, kind) if not is_right]
    if wrong:
        raise InputError([f"{path}: damaged: {', '.join(wrong)} incomplete or of the wrong type"])
    strange = [member["file"] for member in found.get("members", ()) if not _is_own_file(member["file"])]
    if strange:
        # A description that comes from elsewhere must not point at other files of this machine.
        lines = [f"{path}: a member's file must lie in this folder, but is {name!r}" for name in strange]
        raise InputError([f"{line}; nearest valid: 'member-0.safetensors'" for line in lines])
    return found


def _parts(found: Mapping[str, Any], kind: str) -> list[tuple[str, bool]]:
    """What is inside of a description, and whether it is what those who read it take for granted."""
    if kind == "model":
        features, members, encoders = found["features"], found["members"], found.get("encoders", {})
        return [
            ("classes", _are(str, found["classes"])),
            ("features", bool(features) and all(_are(str, names) for names in features.values())),
            ("members", bool(members)),
            ("encoders", isinstance(encoders, dict) and _are(dict, list(encoders.values()))),
            *((f"file or preprocess of member {at}", _is_member(member)) for at, member in enumerate(members)),
        ]
    best, history = found["best"], found["history"]
    return [
        ("best", best is None or (_is(int, best.get("epoch")) and _is(int | float, best.get("score")))),
        ("history", _are(dict, history) and all(_is_record(record) for record in history)),
    ]


def _is(wanted: Any, value: Any) -> bool:
    return isinstance(value, wanted) and not isinstance(value, bool)


def _are(wanted: Any, values: Any) -> bool:
    return isinstance(values, list) and all(_is(wanted, value) for value in values)


def _is_member(member: Any) -> bool:
    if not isinstance(member, dict) or "file" not in member or not isinstance(member.get("preprocess"), dict):
        return False
    return _are(dict, list(member["preprocess"].values()))


def _is_record(record: Mapping[str, Any]) -> bool:
    known = set(record) == {field.name for field in fields(Record)}
    return known and _is(int, record["epoch"]) and isinstance(record["metrics"], dict)


def _is_own_file(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and not name.startswith(".") and "/" not in name


def read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except _UNREADABLE as error:
        raise InputError([f"{path}: cannot be read as safetensors ({error})"]) from None


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises OSError where the disk refuses: safetensors reports that with an exception of its own."""
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def write_model(
    folder: Path, trainers: Sequence[FoldTrainer], *, config: Mapping[str, Any], classes: Sequence[str],
    features: Mapping[str, Sequence[str]],
) -> None:  # fmt: skip
    """A model checkpoint with one member per trainer, in one step."""
    with atomic_files.new_folder(folder) as temporary:
        members = []
        for number, trainer in enumerate(trainers):
            tensors = {f"weights.{name}": value.cpu() for name, value in trainer.method.state_dict().items()}
            described = {}
            prefixes = preprocess_prefixes(trainer.preparations)
            for modality, preparation in trainer.preparations.items():
                described[modality], arrays = preparation.state()
                tensors |= {prefixes[modality] + key: torch.as_tensor(value) for key, value in arrays.items()}
            name = f"member-{number}.safetensors"
            _save(tensors, temporary / name)
            members.append({"file": name, "preprocess": described, "seed": trainer.seed, "fold": trainer.fold})
        encoders: dict[str, Any] = dict(trainers[0].method.encoders.items())
        stored = {name: encoder.stored() for name, encoder in encoders.items()}
        _write_description(temporary, "model", config=config, classes=list(classes), members=members,
                           features={name: list(values) for name, values in features.items()},
                           encoders={name: found for name, found in stored.items() if found})  # fmt: skip


def preprocess_prefixes(modalities: Iterable[str]) -> dict[str, str]:
    """What the tensors of each modality's preprocessing begin with; none begins with another one's."""
    return {name: f"preprocess.{key}." for name, key in safe_keys(modalities).items()}


def join_models(folder: Path, sources: Sequence[Path]) -> None:
    """One model checkpoint with the members of several: the ensemble that is delivered."""
    with atomic_files.new_folder(folder) as temporary:
        members: list[dict[str, Any]] = []
        found: dict[str, Any] = {}
        for source in sources:
            found = describe(source, "model")
            for member in found["members"]:
                name = f"member-{len(members)}.safetensors"
                shutil.copyfile(source / member["file"], temporary / name)
                members.append({**member, "file": name})
        _write_description(temporary, "model", config=found["config"], classes=found["classes"], members=members,
                           features=found["features"], encoders=found.get("encoders", {}))  # fmt: skip


def _write_description(folder: Path, kind: str, **content: Any) -> None:
    head = {"made_by": "m3col", "format": FORMAT, "kind": kind, "versions": versions()}
    atomic_files.write_json(folder / DESCRIPTION, {**head, **content})


def write_training(folder: Path, training: LockstepTrainer) -> None:
    """Everything that the rest of a training depends on, in one step."""
    with atomic_files.new_folder(folder) as temporary:
        for number, trainer in enumerate(training.trainers):
            _save(trainer.state(), temporary / _fold(number))
        test_logits = {str(epoch): torch.as_tensor(value) for epoch, value in training.test_logits.items()}
        _save(test_logits, temporary / _PROBES)
        best = training.best
        if best is not None:
            for number, weights in enumerate(best.weights):
                _save(weights, temporary / _best(number))
        _write_description(
            temporary,
            "training",
            epoch=training.epoch,
            history=[record.to_dict() for record in training.history],
            best=None if best is None else {"epoch": best.epoch, "score": best.score},
        )


def _fold(number: int) -> str:
    return f"fold-{number}.safetensors"


def _best(number: int) -> str:
    return f"best-{number}.safetensors"


def restore_training(folder: Path, training: LockstepTrainer) -> None:
    """Puts `training` where the checkpoint stood. Raises InputError where it cannot be read."""
    read_training(folder, training)()


def read_training(folder: Path, training: LockstepTrainer) -> Callable[[], None]:
    """All of a checkpoint is read before anything changes; what is returned puts `training` there. Raises
    InputError."""
    found, folds = describe(folder, "training"), range(len(training.trainers))
    states = [read_tensors(folder / _fold(number)) for number in folds]
    best: Best | None = None
    if found["best"] is not None:
        weights = [read_tensors(folder / _best(number)) for number in folds]
        best = Best(found["best"]["epoch"], found["best"]["score"], weights)
    test_logits = {int(epoch): value.numpy() for epoch, value in read_tensors(folder / _PROBES).items()}

    def put() -> None:
        training.restore(states, [Record(**record) for record in found["history"]])
        if best is not None:
            training.best = best
        training.test_logits = test_logits

    return put


def _needed(described: Mapping[str, Any], names: Collection[str]) -> set[str]:
    """The files that a training checkpoint consists of, as far as its description and the `names` there tell."""
    folds = sum(name.startswith("fold-") for name in names)
    best = {_best(number) for number in range(folds)} if described["best"] is not None else set()
    return {_fold(number) for number in range(max(folds, 1))} | best | {_PROBES}


def newest_training(folder: Path) -> Path | None:
    """The complete training checkpoint with the most epochs below `folder`, or None. Broken ones are passed over."""
    found = []
    # Not Path.glob, which raises where a folder goes away while it looks.
    for place in glob.iglob(os.path.join(glob.escape(str(folder)), "**", "epoch-*"), recursive=True):
        path = Path(place)
        try:
            described = describe(path, "training")
            names = {file.name for file in path.glob("*.safetensors")}
            for name in names:
                with safe_open(path / name, framework="pt"):  # reads the header and compares it with the file's length
                    pass
        except (InputError, *_UNREADABLE):
            continue
        if _needed(described, names) <= names:
            found.append((described["epoch"], path))
    return max(found)[1] if found else None


@dataclass
class Keeper:
    """Writes training checkpoints into `folder` now and then: at least `every_s` apart, and so seldom that writing
    takes at most a twentieth of the time; keeps the newest two."""

    folder: Path
    every_s: float
    last: float = 0.0
    cost_s: float = 0.0

    def __post_init__(self) -> None:
        self.last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.last >= max(self.every_s, self.cost_s / _WRITING_SHARE)

    def write(self, training: LockstepTrainer) -> Path:
        """The checkpoint's folder. Raises OSError where the disk refuses; the checkpoints written before stay."""
        start = time.monotonic()
        for path in self.folder.glob(".epoch-*"):  # torn by a kill
            shutil.rmtree(path, ignore_errors=True)
        path = self.folder / f"epoch-{training.epoch:06d}"
        try:
            write_training(path, training)
        finally:
            self.last = time.monotonic()
            self.cost_s = self.last - start
        for old in sorted(self.folder.glob("epoch-*"))[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def clear(self) -> None:
        for pattern in ("epoch-*", ".epoch-*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)
