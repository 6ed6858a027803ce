"""Where the files of timm's and transformers' models come from.

A local folder or file first, then the hub's cache on this machine, then, unless HF_HUB_OFFLINE is set, one request to
the hub: without an answer nothing is tried again. What is not there is said in one line: which file goes where.
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


# For each part the sets of files that will do: the first one that the hub has is fetched.
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

_BESIDE_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

# Names from before the hub had owners; its cache on this machine may know either.
_OWNERS = {
    "bert-base-": "google-bert",
    "bert-large-": "google-bert",
    "roberta-": "FacebookAI",
    "xlm-roberta-": "FacebookAI",
    "distilbert-": "distilbert",
    "distilroberta-": "distilbert",
    "albert-": "albert",
}

# Encoders that people ask for, for the nearest name to a misspelt one.
_WELL_KNOWN = (
    "albert-base-v2", "answerdotai/ModernBERT-base", "bert-base-cased", "bert-base-multilingual-cased",
    "bert-base-uncased", "bert-large-cased", "bert-large-uncased", "distilbert-base-cased", "distilbert-base-uncased",
    "distilroberta-base", "google/electra-base-discriminator", "google/electra-small-discriminator",
    "microsoft/MiniLM-L12-H384-uncased", "microsoft/deberta-v3-base", "microsoft/mpnet-base", "roberta-base",
    "roberta-large", "sentence-transformers/all-MiniLM-L6-v2", "xlm-roberta-base",
)  # fmt: skip

_TIMEOUT = 10.0

_STILL_S = 300.0  # without a byte, before a download is given up

_LOOK_S = 1.0


def text_folder(name: str, parts: Collection[Part], *, key: str) -> Path:
    """The folder with the files of a text encoder or tokeniser.

    name: a folder, or a name of the hub. parts: what has to be in it. key: the config key that holds `name`, for
    messages. Raises InputError where something is missing.
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
        found = _cached_folder(repository)
        if found is not None and not _lacking(found, parts):
            return found
    reason = _fetch(name, parts)
    if isinstance(reason, Path):
        return reason
    wanted = " and ".join(sets[0][0] for part, sets in _FILES.items() if part in parts)
    raise InputError(
        [f"{key} {name!r}: its files are not on this machine, and {reason}{_close(name)} Put {wanted} into a folder "
         f"and give that folder as {key}, or run `hf download {name}` where there is a network and copy the result to "
         f"{constants.HF_HUB_CACHE}"]
    )  # fmt: skip


def image_file(config: ImageModelConfig) -> Path:
    """The file with the weights of an image encoder: `config.weights`, else that of the hub. Raises InputError."""
    if config.weights is not None:
        return _given_file(config.weights)
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
        found = _cached_file(repository, name)
        if found is not None:
            return found
    reason = _fetch_file(repository, names)
    if isinstance(reason, Path):
        return reason
    raise InputError(
        [f"model.image.name {config.name!r}: its weights are not on this machine, and {reason}. Give {names[0]} of the "
         f"hub's {repository} as model.image.weights, or run `hf download {repository}` where there is a network and "
         f"copy the result to {constants.HF_HUB_CACHE}; model.image.pretrained=false means random weights"]
    )  # fmt: skip


def _given_file(given: str) -> Path:
    path = Path(given).expanduser()
    if os.path.isdir(path):
        inside = [path / name for name in ("model.safetensors", "pytorch_model.bin")]
        found = [file for file in inside if file.is_file()] or sorted(path.glob("*.safetensors"))
        if len(found) != 1 and not (found and found[0] == inside[0]):
            raise InputError([f"model.image.weights {given!r}: the folder has no model.safetensors; name a file in it"])
        return found[0]
    if not os.path.isfile(path):
        raise InputError([f"model.image.weights {given!r}: there is no such file"])
    return path


def _lacking(folder: Path, parts: Iterable[Part]) -> list[str]:
    """The first choice of files for each part that the folder lacks."""
    return [
        _FILES[part][0][0]
        for part in _FILES
        if part in parts and not any(all(any(folder.glob(file)) for file in files) for files in _FILES[part])
    ]


def _aliases(name: str) -> list[str]:
    owners = [owner for prefix, owner in _OWNERS.items() if name.startswith(prefix)] if "/" not in name else []
    return [name, *(f"{owner}/{name}" for owner in owners)]


def _close(name: str) -> str:
    """The nearest name of a model that is well known or on this machine; "." where none is near or this is one."""
    prefix = "models--"
    here = [path.name.removeprefix(prefix) for path in Path(constants.HF_HUB_CACHE).glob(f"{prefix}*")]
    known = [*_WELL_KNOWN, *(folder.replace("--", "/", 1) for folder in here)]
    is_known = name in {alias for each in known for alias in _aliases(each)}
    near = "" if is_known else nearest(name, known)
    return near if near.startswith("; did") else "."


def _cached_folder(repository: str) -> Path | None:
    try:
        return Path(huggingface_hub.snapshot_download(repository, local_files_only=True))
    except (OSError, ValueError):  # not there, or no name that the hub could have
        return None


def _cached_file(repository: str, name: str) -> Path | None:
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=True))
    except (OSError, ValueError):
        return None


def _fetch(name: str, parts: Collection[Part]) -> Path | str:
    """The folder after a download, or why there is none."""
    listed = _listed(name)
    if isinstance(listed, str):
        return listed
    patterns: list[str] = []
    for part in parts:
        held = [files for files in _FILES[part] if all(any(Path(n).match(f) for n in listed) for f in files)]
        if not held:
            return f"the hub's {name} has no {_FILES[part][0][0]}"
        patterns += [*held[0], *(_BESIDE_TOKENIZER if part == "tokenizer" else ())]
    try:
        return _watched(
            lambda: huggingface_hub.snapshot_download(name, allow_patterns=patterns, etag_timeout=_TIMEOUT), name
        )
    except Exception as error:
        return f"the download failed ({_short(error)})"


def _fetch_file(repository: str, names: Iterable[str]) -> Path | str:
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
    """What a download returns. Raises TimeoutError where nothing has come for five minutes: the hub's library waits for
    ever for a stopped process that has the lock on the same file."""
    found: list[str | Exception] = []

    def run() -> None:
        try:
            found.append(download())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    came, since = -1, time.monotonic()
    while thread.is_alive() and time.monotonic() - since < _STILL_S:
        thread.join(_LOOK_S)
        now = _bytes(repository)
        if now != came:
            came, since = now, time.monotonic()
    if not found:
        locks = Path(constants.HF_HUB_CACHE) / ".locks" / _folder_name(repository)
        held = [f"{file.name} by {who}" for file in locks.glob("*.lock") if (who := holder(file))]
        raise TimeoutError(f"nothing came for {_STILL_S:g} s{'; locked: ' if held else ''}{', '.join(held)}")
    if isinstance(found[0], Exception):
        raise found[0]
    return Path(found[0])


def _folder_name(repository: str) -> str:
    return f"models--{repository.replace('/', '--')}"


def _bytes(repository: str) -> int:
    """What lies on this machine of a repository, and of what the hub's protocol keeps of any."""
    places = [Path(constants.HF_HUB_CACHE) / _folder_name(repository), Path(constants.HF_XET_CACHE)]
    total = 0
    for file in (file for place in places for file in place.rglob("*")):
        with contextlib.suppress(OSError):
            total += file.lstat().st_size
    return total


def _listed(repository: str) -> list[str] | str:
    """The files of a repository by one request, or why they are not known. The hub's own downloads would ask six times
    within half a minute where there is no network."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        found = huggingface_hub.HfApi().model_info(repository, timeout=_TIMEOUT)
    except huggingface_hub.errors.RepositoryNotFoundError:
        return f"the hub has no model {repository!r}"
    except Exception as error:  # any kind of network fault
        return f"the hub gave no answer ({_short(error)})"
    return [file.rfilename for file in found.siblings or []]


def _short(error: Exception) -> str:
    text = reason_of(error, limit=None)
    return text if len(text) <= 100 else f"{text[:97]}..."
