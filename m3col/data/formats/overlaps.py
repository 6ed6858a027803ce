"""Finds images and texts that occur in two splits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from m3col.data.images.index import ImageInfo

if TYPE_CHECKING:
    from m3col.data.formats.pairs import Pair


@dataclass(frozen=True)
class Overlap:
    """The overlap of two splits.

    Attributes:
        images: number of pairs of the second split whose image is also in the first.
        line: the message.
    """

    images: int
    line: str


def find(splits: "Mapping[str, Sequence[Pair]]", infos: Mapping[str, ImageInfo]) -> list[Overlap]:
    """Finds the overlaps of all pairs of splits that have an image (equal content) or a text in common.

    `infos`: properties of the images, by path.
    """
    overlaps = []
    for first, second in combinations(splits, 2):
        a, b = splits[first], splits[second]
        images = _common(a, b, lambda pair: _digest(pair, infos))
        texts = _common(a, b, lambda pair: pair.text)
        if not images and not texts:
            continue
        first_pair, second_pair = (images or texts)[0]
        example = (
            f"{first} row {first_pair.row} {first_pair.image!r} = {second} row {second_pair.row} {second_pair.image!r}"
        )
        line = (
            f"{first} and {second} overlap: of the {len(b)} pairs of {second}, {len(images)} have an image and "
            f"{len(texts)} a text that {first} has too ({'image' if images else 'text'} of {example})"
        )
        overlaps.append(Overlap(len(images), line))
    return overlaps


def _digest(pair: "Pair", infos: Mapping[str, ImageInfo]) -> str:
    """The digest of the image file; "" if it cannot be used, which is reported as a fault."""
    info = None if pair.path is None else infos[pair.path]
    return "" if info is None or info.fault else info.digest


def _common(a: "Sequence[Pair]", b: "Sequence[Pair]", key: "Callable[[Pair], str]") -> "list[tuple[Pair, Pair]]":
    """For each pair of `b` whose key occurs in `a`: (first such pair of `a`, pair of `b`). Empty keys are ignored."""
    first_with_key: dict[str, Pair] = {}
    for pair in a:
        first_with_key.setdefault(key(pair), pair)
    return [(first_with_key[key(pair)], pair) for pair in b if key(pair) and key(pair) in first_with_key]
