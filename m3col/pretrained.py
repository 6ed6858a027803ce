"""Finds the files of pretrained models of timm and transformers, and downloads them where necessary.

Searched in this order: a local folder or file, the cache of the Hugging Face hub on this machine, and, unless
HF_HUB_OFFLINE is set, the hub itself. The hub gets one request, without retries. The message for a missing file is one
line that says which file to put where.
"""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Literal

import huggingface_hub
from huggingface_hub import constants

from m3col.config.modality_sections import ImageModelConfig
from m3col.errors import InputError, nearest, reason_of
from m3col.storage.atomic_files import holder

Part = Literal["config", "weights", "tokenizer"]


# For each part the alternative sets of files, the preferred one first: the first set that the hub has is downloaded.
_FILES: dict[Part, tuple[tuple[str, ...], ...]] = {
    "config": (("config.json",),),
    "weights": (
        ("model.safetensors",),
        ("model.safetensors.index.json", "model-*.safetensors"),
        ("pytorch_model.bin",),
        ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
    ),
    "tokenizer": (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"), ("*.model",)),
}

# Downloaded with a tokenizer where the hub has them.
_BESIDE_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

# Owners of models whose short names are older than owners on the hub; the local cache may have either name.
_OWNERS = {
    "bert-base-": "google-bert",
    "bert-large-": "google-bert",
    "roberta-": "FacebookAI",
    "xlm-roberta-": "FacebookAI",
    "distilbert-": "distilbert",
    "distilroberta-": "distilbert",
    "albert-": "albert",
}

# Well-known encoders, to suggest the nearest name for a misspelt one.
_WELL_KNOWN = (
    "albert-base-v2", "answerdotai/ModernBERT-base", "bert-base-cased", "bert-base-multilingual-cased",
    "bert-base-uncased", "bert-large-cased", "bert-large-uncased", "distilbert-base-cased", "distilbert-base-uncased",
    "distilroberta-base", "google/electra-base-discriminator", "google/electra-small-discriminator",
    "microsoft/MiniLM-L12-H384-uncased", "microsoft/deberta-v3-base", "microsoft/mpnet-base", "roberta-base",
    "roberta-large", "sentence-transformers/all-MiniLM-L6-v2", "xlm-roberta-base",
)  # fmt: skip

_TIMEOUT = 10.0  # seconds to wait for an answer of the hub

_STILL_S = 300.0  # seconds without a new byte, after which a download is given up

_POLL_S = 1.0  # seconds between two checks of a download


def text_folder(name: str, parts: Collection[Part], *, key: str) -> Path:
    """The folder with the files of a text encoder or tokenizer; downloads them where necessary.

    Args:
        name: a folder, or the name of a model on the hub.
        parts: the parts that the folder must have.
        key: the config key with the value `name`, for messages.

    Returns:
        The folder.

    Raises:
        InputError: files are missing and cannot be downloaded.
    """
    local = Path(name).expanduser()
    if os.path.isdir(local):  # Path.is_dir raises where a name is too long
        lacking = _lacking(local, parts)
        if lacking:
            raise InputError([f"{key} {name!r}: the folder has no {' and no '.join(lacking)}"])
        return local
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise InputError([f"{key} {name!r}: there is no such folder"])
    for repository in _aliases(name):
        cached = _cached_folder(repository)
        if cached is not None and not _lacking(cached, parts):
            return cached
    reason = _fetch(name, parts)
    if isinstance(reason, Path):
        return reason
    files = " and ".join(sets[0][0] for part, sets in _FILES.items() if part in parts)
    raise InputError(
        [f"{key} {name!r}: its files are not on this machine, and {reason}{_close(name)} Put {files} into a folder "
         f"and give that folder as {key}, or run `hf download {name}` where there is a network and copy the result to "
         f"{constants.HF_HUB_CACHE}"]
    )  # fmt: skip


def image_file(config: ImageModelConfig) -> Path:
    """The file with the weights of an image encoder; downloads it where necessary.

    Args:
        config: the config section of the image encoder.

    Returns:
        `config.weights` where it is set, else the file of the hub in its cache on this machine.

    Raises:
        InputError: the file is missing and cannot be downloaded.
    """
    if config.weights is not None:
        return _local_file(config.weights)
    import timm

    registered = timm.models.get_pretrained_cfg(config.name, allow_unregistered=True)
    repository = registered.hf_hub_id if registered is not None else None
    if not repository:
        tagged = timm.list_models(f"{config.name.partition('.')[0]}*", pretrained=True)
        raise InputError(
            [f"model.image.name {config.name!r}: has no weights on the hub{nearest(config.name, tagged)}; else give a "
             "file as model.image.weights, or set model.image.pretrained=false for random weights"]
        )  # fmt: skip
    assert registered is not None
    names = [registered.hf_hub_filename] if registered.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    for name in names:
        cached = _cached_file(repository, name)
        if cached is not None:
            return cached
    reason = _fetch_file(repository, names)
    if isinstance(reason, Path):
        return reason
    raise InputError(
        [f"model.image.name {config.name!r}: its weights are not on this machine, and {reason}. Give {names[0]} of the "
         f"hub's {repository} as model.image.weights, or run `hf download {repository}` where there is a network and "
         f"copy the result to {constants.HF_HUB_CACHE}; model.image.pretrained=false means random weights"]
    )  # fmt: skip


def _local_file(weights: str) -> Path:
    """The file that `model.image.weights` names, directly or by its folder. Raises InputError where there is none."""
    path = Path(weights).expanduser()
    if os.path.isdir(path):
        usual = [path / name for name in ("model.safetensors", "pytorch_model.bin")]
        files = [file for file in usual if file.is_file()] or sorted(path.glob("*.safetensors"))
        if len(files) != 1 and not (files and files[0] == usual[0]):
            text = "the folder has no model.safetensors; name a file in it"
            raise InputError([f"model.image.weights {weights!r}: {text}"])
        return files[0]
    if not os.path.isfile(path):
        raise InputError([f"model.image.weights {weights!r}: there is no such file"])
    return path


def _lacking(folder: Path, parts: Iterable[Part]) -> list[str]:
    """The preferred file of each part that the folder lacks."""
    return [
        _FILES[part][0][0]
        for part in _FILES
        if part in parts and not any(all(any(folder.glob(file)) for file in files) for files in _FILES[part])
    ]


def _aliases(name: str) -> list[str]:
    """The name and, for an old short name, the name with its owner."""
    owners = [owner for prefix, owner in _OWNERS.items() if name.startswith(prefix)] if "/" not in name else []
    return [name, *(f"{owner}/{name}" for owner in owners)]


def _close(name: str) -> str:
    """A hint with the nearest name of a model that is well known or on this machine; "." where there is none."""
    prefix = "models--"
    here = [path.name.removeprefix(prefix) for path in Path(constants.HF_HUB_CACHE).glob(f"{prefix}*")]
    known = [*_WELL_KNOWN, *(folder.replace("--", "/", 1) for folder in here)]
    is_known = name in {alias for model in known for alias in _aliases(model)}
    near = "" if is_known else nearest(name, known)
    return near if near.startswith("; did") else "."


def _cached_folder(repository: str) -> Path | None:
    try:
        return Path(huggingface_hub.snapshot_download(repository, local_files_only=True))
    except (OSError, ValueError):  # not in the cache, or not a valid name for the hub
        return None


def _cached_file(repository: str, name: str) -> Path | None:
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=True))
    except (OSError, ValueError):
        return None


def _fetch(name: str, parts: Collection[Part]) -> Path | str:
    """Downloads the parts of a model. Returns their folder, or the reason why there is none."""
    listed = _listed(name)
    if isinstance(listed, str):
        return listed
    patterns: list[str] = []
    for part in parts:
        available = [files for files in _FILES[part] if all(any(Path(n).match(f) for n in listed) for f in files)]
        if not available:
            return f"the hub's {name} has no {_FILES[part][0][0]}"
        patterns += [*available[0], *(_BESIDE_TOKENIZER if part == "tokenizer" else ())]
    try:
        return _watched(
            lambda: huggingface_hub.snapshot_download(name, allow_patterns=patterns, etag_timeout=_TIMEOUT), name
        )
    except Exception as error:
        return f"the download failed ({_short(error)})"


def _fetch_file(repository: str, names: Iterable[str]) -> Path | str:
    """Downloads the first of `names` that the repository has. Returns the file, or the reason why there is none."""
    listed = _listed(repository)
    if isinstance(listed, str):
        return listed
    for name in names:
        if name in listed:
            try:
                return _watched(
                    functools.partial(huggingface_hub.hf_hub_download, repository, name, etag_timeout=_TIMEOUT),
                    repository,
                )
            except Exception as error:
                return f"the download failed ({_short(error)})"
    return f"the hub's {repository} has none of {', '.join(names)}"


def _watched(download: Callable[[], str], repository: str) -> Path:
    """Runs a download and returns the path that it returns.

    Raises TimeoutError where no byte has arrived for five minutes. The hub's library has no such limit: it waits
    forever for a stopped process that has the lock on the same file.
    """
    outcome: list[str | Exception] = []

    def run() -> None:
        try:
            outcome.append(download())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    size, since = -1, time.monotonic()
    while thread.is_alive() and time.monotonic() - since < _STILL_S:
        thread.join(_POLL_S)
        new_size = _bytes(repository)
        if new_size != size:
            size, since = new_size, time.monotonic()
    if not outcome:
        locks = Path(constants.HF_HUB_CACHE) / ".locks" / _folder_name(repository)
        locked = [f"{file.name} by {owner}" for file in locks.glob("*.lock") if (owner := holder(file))]
        raise TimeoutError(f"nothing came for {_STILL_S:g} s{'; locked: ' if locked else ''}{', '.join(locked)}")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return Path(outcome[0])


def _folder_name(repository: str) -> str:
    return f"models--{repository.replace('/', '--')}"


def _bytes(repository: str) -> int:
    """The bytes on this machine of a repository, and of the cache of hf-xet, which is shared by all repositories."""
    folders = [Path(constants.HF_HUB_CACHE) / _folder_name(repository), Path(constants.HF_XET_CACHE)]
    total = 0
    for file in (file for folder in folders for file in folder.rglob("*")):
        with contextlib.suppress(OSError):
            total += file.lstat().st_size
    return total


def _listed(repository: str) -> list[str] | str:
    """The files of a repository, by one request to the hub, or the reason why they are not known.

    Without a network the download functions of the hub's library would retry six times, for half a minute.
    """
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        info = huggingface_hub.HfApi().model_info(repository, timeout=_TIMEOUT)
    except huggingface_hub.errors.RepositoryNotFoundError:
        return f"the hub has no model {repository!r}"
    except Exception as error:  # any kind of network fault
        return f"the hub gave no answer ({_short(error)})"
    return [file.rfilename for file in info.siblings or []]


def _short(error: Exception) -> str:
    """The message of an error, at most 100 characters."""
    text = reason_of(error, limit=None)
    return text if len(text) <= 100 else f"{text[:97]}..."
