"""What stands in two splits of a data set of images and texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from m3col.data.images.index import ImageInfo

if TYPE_CHECKING:
    from m3col.data.formats.pairs import Pair


@dataclass(frozen=True)
class Overlap:
    """Of two splits: how many pairs of the second have an image that is in the first as well; `line` says it."""

    images: int
    line: str


def find(splits: "Mapping[str, Sequence[Pair]]", seen: Mapping[str, ImageInfo]) -> list[Overlap]:
    """One for each two splits that have an image (by its content) or a text in common. `seen`: by path."""
    found = []
    for first, second in combinations(splits, 2):
        a, b = splits[first], splits[second]
        same = _common(a, b, lambda pair: _digest(pair, seen))
        texts = _common(a, b, lambda pair: pair.text)
        if not same and not texts:
            continue
        one, other = (same or texts)[0]
        example = f"{first} row {one.row} {one.image!r} = {second} row {other.row} {other.image!r}"
        line = (
            f"{first} and {second} overlap: of the {len(b)} pairs of {second}, {len(same)} have an image and "
            f"{len(texts)} a text that {first} has too ({'image' if same else 'text'} of {example})"
        )
        found.append(Overlap(len(same), line))
    return found


def _digest(pair: "Pair", seen: Mapping[str, ImageInfo]) -> str:
    """Of the image's file; "" for one that cannot be used, which is a fault already."""
    look = None if pair.path is None else seen[pair.path]
    return "" if look is None or look.fault else look.digest


def _common(a: "Sequence[Pair]", b: "Sequence[Pair]", key: "Callable[[Pair], str]") -> "list[tuple[Pair, Pair]]":
    """The pairs of `b` whose key occurs in `a`, each after the first that has it there; an empty key is none."""
    known: dict[str, Pair] = {}
    for pair in a:
        known.setdefault(key(pair), pair)
    return [(known[key(pair)], pair) for pair in b if key(pair) and key(pair) in known]
