"""TABLE of the augmentations of each kind of modality, and how a config composes them.

A config has `data.<kind>.augment`: the name of an augmentation or of a preset, or a list of augmentations, each a name
or one `name: {setting: value}`, or a mapping from modalities to these. They are applied in the order of the list.

    augment: simclr
    augment: [resized_crop: {area: [0.5, 1.0]}, flip, blur: {p: 0.2}]
    augment: {image_1: simclr, image_2: none}

Functions are written as "module:function" and imported when they are used, because they need torch.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_type_hints

from m3col.augmentation.settings import (
    Blur,
    ConsecutiveDrop,
    Crop,
    Drop,
    Flip,
    Grey,
    InputMixup,
    Jitter,
    Mask,
    Noise,
    OneOf,
    Permute,
    ResizedCrop,
    Window,
)
from m3col.config.keys import Strict
from m3col.config.validation import validate
from m3col.errors import InputError, nearest

NONE = "none"


@dataclass(frozen=True)
class Augmentation:
    """One augmentation of one kind of modality.

    Attributes:
        kind: of the modality, as in `m3col.data.modality_kinds.TABLE`.
        name: in the config.
        settings: the typed model of its settings.
        function: applies it, see m3col/augmentation/images.py, arrays.py and tokens.py; "" where the source of batches
            does it while it reads a sample.
        mixes: whether the function needs other samples of the training fold.
    """

    kind: str
    name: str
    settings: type[Strict]
    function: str = ""
    mixes: bool = False

    @cached_property
    def apply(self) -> Callable[..., Any]:
        """The function."""
        module, _, name = self.function.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function


@dataclass(frozen=True)
class Chosen:
    """An augmentation with its settings."""

    augmentation: Augmentation
    settings: Any

    @property
    def name(self) -> str:
        return self.augmentation.name


_IMAGES, _ARRAYS = "m3col.augmentation.images", "m3col.augmentation.arrays"

_OF_ARRAYS: dict[str, tuple[type[Strict], str]] = {
    "noise": (Noise, f"{_ARRAYS}:noise"),
    "drop": (Drop, f"{_ARRAYS}:drop"),
    "consecutive_drop": (ConsecutiveDrop, f"{_ARRAYS}:consecutive_drop"),
    "permute": (Permute, f"{_ARRAYS}:permute"),
    "crop": (Window, f"{_ARRAYS}:crop"),
    "input_mixup": (InputMixup, f"{_ARRAYS}:input_mixup"),
    "one_of": (OneOf, f"{_ARRAYS}:one_of"),
}

TABLE: dict[tuple[str, str], Augmentation] = {
    (entry.kind, entry.name): entry
    for entry in (
        Augmentation("image", "crop", Crop),
        Augmentation("image", "flip", Flip),
        Augmentation("image", "resized_crop", ResizedCrop),
        Augmentation("image", "jitter", Jitter, f"{_IMAGES}:jitter"),
        Augmentation("image", "grey", Grey, f"{_IMAGES}:grey"),
        Augmentation("image", "blur", Blur, f"{_IMAGES}:blur"),
        *(
            Augmentation(kind, name, settings, function, mixes=settings is InputMixup)
            for kind in ("numeric", "sequence")
            for name, (settings, function) in _OF_ARRAYS.items()
        ),
        Augmentation("text", "mask", Mask, "m3col.augmentation.tokens:mask"),
    )
}

PRESETS: dict[tuple[str, str], list[Any]] = {
    ("image", "crop_flip"): ["crop", "flip"],
    ("image", "simclr"): ["resized_crop", "jitter", "grey", "blur", "flip"],
    ("image", "weak"): [{"resized_crop": {"area": [0.5, 1.0]}}],
}

_PLURAL = {"image": "images", "numeric": "numeric tables", "sequence": "sequences", "text": "texts"}


def names(kind: str) -> tuple[str, ...]:
    """The augmentations and presets of a kind."""
    return (NONE, *(name for of, name in (*TABLE, *PRESETS) if of == kind))


def faults(spec: Any, *, kind: str, where: str) -> list[str]:
    """All faults of a value of `data.<kind>.augment`, one line each.

    Args:
        spec: the value.
        kind: of the modality.
        where: the key, for the messages.
    """
    if isinstance(spec, Mapping):
        return [fault for name, one in spec.items() for fault in _faults(one, kind, f"{where}.{name}")]
    return _faults(spec, kind, where)


def _faults(spec: Any, kind: str, where: str) -> list[str]:
    if isinstance(spec, str):
        return [] if spec in names(kind) else [_unknown(spec, kind, where)]
    if not isinstance(spec, Sequence):
        return [f"{where} must be the name of an augmentation or a list of them, but got {spec!r}"]
    items = [_split(item) for item in spec]
    lines = [
        line
        for number, (item, (name, settings)) in enumerate(zip(spec, items, strict=True))
        for line in _item_faults(item, name, settings, kind, f"{where}[{number}]")
    ]
    known = [name for name, _ in items if isinstance(name, str)]
    lines += [
        f"{where} names {name!r} twice; leave one out" for name in sorted({n for n in known if known.count(n) > 1})
    ]
    lines += [
        f"{where} names {name!r} twice, once inside 'one_of', with the same random numbers; leave one out"
        for name in sorted(_inside_one_of(items) & set(known))
    ]
    if {"crop", "resized_crop"} <= set(known) and kind == "image":
        lines.append(f"{where} must have one of 'crop' and 'resized_crop', which both choose the place, but has both")
    return lines


def _split(item: Any) -> tuple[Any, Any]:
    """Name and settings of an entry of a list."""
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, settings),) = item.items()
        return name, settings
    return item, {}


def _item_faults(item: Any, name: Any, settings: Any, kind: str, where: str) -> list[str]:
    if not isinstance(name, str):
        return [f"{where} must be a name or one `name: {{setting: value}}`, but got {item!r}"]
    if (kind, name) in PRESETS or name == NONE:
        return [f"{where} {name!r} is a preset, which cannot be an entry of a list; write it alone"]
    if (kind, name) not in TABLE:
        return [_unknown(name, kind, where)]
    if not isinstance(settings, Mapping):
        return [f"{where}.{name} must be a mapping of settings, but got {settings!r}"]
    model = TABLE[kind, name].settings
    if model is OneOf and isinstance(settings.get("of"), list):
        places = [f"{where}.of[{at}]" for at in range(len(settings["of"]))]
        lines = [line for one, at in zip(settings["of"], places, strict=True) for line in _choice_faults(one, kind, at)]
        if lines:
            return lines
    return [fault.text for fault in validate(model, settings, prefix=f"{where}.{name}.")[1]] + [
        f"{where}.{name}.{key} must be [smallest, largest], but got {value}; did you mean {value[::-1]}?"
        for key, value in settings.items()
        if _is_pair(model, key) and _descends(value)
    ]


def _inside_one_of(items: Sequence[tuple[Any, Any]]) -> set[str]:
    """The names of the augmentations that a `one_of` of the list chooses from."""
    chosen = [settings.get("of", OneOf().of) for name, settings in items if name == "one_of" and _is_mapping(settings)]
    entries = [_split(item)[0] for choices in chosen if isinstance(choices, list) for item in choices]
    return {name for name in entries if isinstance(name, str)} - {"one_of"}


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _choice_faults(item: Any, kind: str, where: str) -> list[str]:
    """Faults of an entry of `one_of`."""
    name, settings = _split(item)
    if item == NONE:
        return []
    if isinstance(name, str) and (kind, name) in TABLE and (name == "one_of" or TABLE[kind, name].mixes):
        return [f"{where}: {name!r} cannot be one of several augmentations; leave it out"]
    return _item_faults(item, name, settings, kind, where)


def _is_pair(model: type[Strict], key: str) -> bool:
    return isinstance(key, str) and get_type_hints(model).get(key) == list[float]


def _descends(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 2 and all(isinstance(part, int | float) for part in value)
    return numbers and value[0] > value[1]


def _unknown(name: str, kind: str, where: str) -> str:
    others = [_PLURAL[of] for of, known in (*TABLE, *PRESETS) if known == name and of in _PLURAL]
    of = (
        f"is an augmentation of {' and '.join(dict.fromkeys(others))}, not of {_PLURAL[kind]}"
        if others
        else "is unknown"
    )
    return f"{where}: augmentation {name!r} {of}{nearest(name, names(kind))}"


def of_modality(spec: Any, modality: str) -> Any:
    """The value of `data.<kind>.augment` for one modality; modalities that a mapping leaves out are not augmented."""
    return spec.get(modality, NONE) if isinstance(spec, Mapping) else spec


def with_crop_area(spec: Any, smallest: float) -> Any:
    """The value of `data.image.augment` of one modality with another smallest area of `resized_crop`."""
    changed = [
        {chosen.name: {**chosen.settings.model_dump(), "area": [smallest, chosen.settings.area[1]]}}
        if isinstance(chosen.settings, ResizedCrop)
        else {chosen.name: chosen.settings.model_dump()}
        for chosen in parse(spec, kind="image")
    ]
    return changed if any("resized_crop" in item for item in changed) else spec


def crop_area_faults(smallest: Any, spec: Any, *, where: str) -> list[str]:
    """Faults of `data.image.crop_area` with a value of `data.image.augment` that has none itself."""
    if not isinstance(smallest, int | float) or isinstance(smallest, bool):
        return []  # a fault of its type
    values = list(spec.values()) if isinstance(spec, Mapping) else [spec]
    chosen = [one.settings for value in values for one in parse(value, kind="image")]
    largest = [settings.area[1] for settings in chosen if isinstance(settings, ResizedCrop)]
    if not largest:
        return [f"{where} needs 'resized_crop' in data.image.augment, which is {spec!r}; did you mean 'simclr'?"]
    if smallest > min(largest):
        text = f"{where} must be <= {min(largest)}, the largest area of data.image.augment, but got {smallest}"
        return [f"{text}; the nearest valid value is {min(largest)}"]
    return []


def is_used(spec: Any) -> bool:
    """Whether a value of `data.<kind>.augment` augments any modality."""
    values = list(spec.values()) if isinstance(spec, Mapping) else [spec]
    return any(value not in (NONE, []) for value in values)


def parse(spec: Any, *, kind: str) -> tuple[Chosen, ...]:
    """The augmentations of one modality, in order.

    Args:
        spec: a name, or a list.
        kind: of the modality.

    Raises:
        InputError: with every fault.

    Example:
        >>> [chosen.name for chosen in parse("crop_flip", kind="image")]
        ['crop', 'flip']
    """
    lines = _faults(spec, kind, f"data.{kind}.augment")
    if lines:
        raise InputError(lines)
    if isinstance(spec, str):
        spec = [] if spec == NONE else PRESETS.get((kind, spec), [spec])
    return tuple(
        Chosen(TABLE[kind, name], TABLE[kind, name].settings.model_validate(dict(settings)))
        for name, settings in map(_split, spec)
    )
