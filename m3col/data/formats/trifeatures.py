"""The data sets that are drawn by the rules of Trifeatures: pairs of images, and images with captions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from m3col.config.modality_sections import TrifeaturesConfig
from m3col.data.columns import IntArray, MediaColumn
from m3col.data.dataset import Dataset, Split, build_split, choose
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.data.trifeatures import images, pairs
from m3col.data.trifeatures.masks import SHAPES, TEXTURES
from m3col.data.trifeatures.pairs import Images
from m3col.errors import InputError, nearest

PAIR_MODALITIES = ("image_1", "image_2")

CAPTION_MODALITIES = ("image", "text")

KNOWN_ISSUES = (
    "training and validation pairs are made of the same 2,400 images, so that validation scores are above those of the "
    "test split, which has other combinations of shape, texture and colour; pairs for biased pretraining are drawn "
    "among all training pairs that obey the rule, so that some of them are validation pairs with the label `match`"
)

_CLASSES = {
    "share": SHAPES, "unique1": TEXTURES, "unique2": TEXTURES, "synergy": ("other", "match"),
    "shape": SHAPES, "texture": TEXTURES, "colour": tuple(images.COLOURS),
}  # fmt: skip

_CAPTION_TARGETS = ("shape", "texture", "colour")


def read_pairs(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout,
    images: bool,
) -> Dataset:
    """Draws pairs of images with the labels of one target. See `Read`; `folder` is not used."""
    dataset, pretrain = with_pretraining(layout.trifeatures, name=entry.name)
    if layout.trifeatures.biased or (layout.trifeatures.biased is None and layout.trifeatures.target == "synergy"):
        dataset = replace(dataset, pretrain=pretrain)  # else the training fold has the same pairs
    dataset = dataset if "test" in splits else dataset.without_test()
    return dataset if select is None else dataset.select(select)


def with_pretraining(settings: TrifeaturesConfig, *, name: str = "trifeatures") -> tuple[Dataset, Split]:
    """Draws labelled pairs for training and test, and pairs without labels for self-supervised training.

    The labelled pairs are drawn among all pairs with the same shape. Those for self-supervised training are the same
    pairs or, where `settings.biased` says so, pairs that obey the rule of synergy. All share one table of images.

    Args:
        settings: what is drawn.
        name: of the data set, for messages.

    Returns:
        The data set, and the split for self-supervised training.

    Raises:
        InputError: the target is not one of pairs.

    Example:
        >>> from m3col.config.modality_sections import TrifeaturesConfig
        >>> dataset, pretrain = with_pretraining(TrifeaturesConfig(size=32, train_pairs=50, test_pairs=20))
        >>> len(dataset.train), len(dataset.test), len(pretrain)
        (50, 20, 50)
    """
    target = _target(settings, pairs.TARGETS, name)
    biased = target == "synergy" if settings.biased is None else settings.biased
    seed = settings.seed
    of_split = {split: pairs.images_of(split, seed=seed) for split in ("train", "test")}
    drawn = {
        "train": pairs.draw_pairs("train", settings.train_pairs, seed=seed),
        "test": pairs.draw_pairs("test", settings.test_pairs, seed=seed),
    }
    drawn["pretrain"] = (
        pairs.draw_pairs("train", settings.train_pairs, biased=True, seed=seed) if biased else drawn["train"]
    )
    numbers = {key: _numbers(of_split["test" if key == "test" else "train"], rows) for key, rows in drawn.items()}
    columns = _columns(numbers, PAIR_MODALITIES, settings)
    built = {}
    for key, rows in drawn.items():
        members = of_split["test" if key == "test" else "train"]
        labels = None if key == "pretrain" else pairs.labels(members, rows, target, seed=seed)
        ids = np.array([f"{first}-{second}" for first, second in numbers[key].tolist()], dtype=np.str_)
        built[key] = build_split(columns[key], labels, key, ids=ids)
    dataset = Dataset(
        name=name,
        classes=_CLASSES[target],
        features={modality: (modality,) for modality in PAIR_MODALITIES},
        known_issues=KNOWN_ISSUES,
        train=built["train"],
        test=built["test"],
    )
    return dataset, built["pretrain"]


def read_captions(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout,
    images: bool,
) -> Dataset:
    """Draws images with a caption that names shape, colour and texture. See `Read`; `folder` is not used."""
    settings = layout.trifeatures
    target = _target(settings, _CAPTION_TARGETS, entry.name)
    chosen, faults = (CAPTION_MODALITIES, []) if select is None else choose(select, CAPTION_MODALITIES)
    if faults:
        raise InputError(faults)
    of_split = {split: pairs.images_of(split, seed=settings.seed) for split in ("train", "test")}
    numbers = {split: _numbers(members, np.arange(len(members.copy))[:, None]) for split, members in of_split.items()}
    columns = _columns(numbers, ("image",), settings)
    built = {}
    for split, members in of_split.items():
        texts = MediaColumn.of("text", [caption(combination) for combination in members.combination.tolist()])
        ids = np.array([str(number) for number in numbers[split][:, 0].tolist()], dtype=np.str_)
        labels = {"shape": members.shape, "texture": members.texture, "colour": members.colour}[target]
        built[split] = build_split({**columns[split], "text": texts}, labels, split, ids=ids)
    dataset = Dataset(
        name=entry.name,
        classes=_CLASSES[target],
        features={"image": ("image",), "text": ("caption",)},
        known_issues=entry.known_issues,
        train=built["train"],
        test=built["test"] if "test" in splits else None,
    )
    return dataset.select(chosen)


def caption(combination: int) -> str:
    """The caption of an image.

    Example:
        >>> caption(0)
        'a red triangle with a solid texture'
    """
    shape, texture, colour = images.Features.of(combination).names
    article = "an" if colour[0] in "aeiou" else "a"
    return f"{article} {colour} {shape} with a {texture} texture"


def target_faults(name: object, target: object) -> list[str]:
    """The fault of a target that only the other one of the two data sets has."""
    choices = {"trifeatures": pairs.TARGETS, "trifeatures_captions": _CAPTION_TARGETS}.get(str(name))
    if choices is None or not isinstance(target, str) or target in choices or target not in _CLASSES:
        return []
    return [f"data.trifeatures.target {target!r} is not a target of {name}{nearest(target, choices)}"]


def _target(settings: TrifeaturesConfig, choices: Sequence[str], name: str) -> str:
    faults = target_faults(name, settings.target)
    if faults:
        raise InputError(faults)
    return settings.target or choices[0]


def _numbers(members: Images, rows: IntArray) -> IntArray:
    """The number of each image, COPIES combination + copy, in the shape of `rows` (positions in `members`)."""
    return (members.combination * images.COPIES + members.copy)[rows]


def _columns(
    numbers: Mapping[str, IntArray], modalities: Sequence[str], settings: TrifeaturesConfig
) -> dict[str, dict[str, MediaColumn]]:
    """By split and modality the column of images. All columns share one source with the images that occur.

    Args:
        numbers: by split the image numbers [n, modalities].
        modalities: names of the columns of `numbers`.
        settings: what is drawn.
    """
    used = np.unique(np.concatenate([rows.ravel() for rows in numbers.values()]))
    drawn = images.contents(
        [divmod(number, images.COPIES) for number in used.tolist()], size=settings.size, seed=settings.seed
    )
    source = np.empty(len(drawn), dtype=object)
    source[:] = drawn
    return {
        split: {
            name: MediaColumn("image", source, np.searchsorted(used, rows[:, column]))
            for column, name in enumerate(modalities)
        }
        for split, rows in numbers.items()
    }
