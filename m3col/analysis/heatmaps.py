"""Heat maps: the similarity of a word with each patch of an image.

Letters: n images, P patches, S side of an image, D embedding width.
Paper: Kumar et al., arXiv 2409.17777, section 4.2 ("Visualization of Attention Heatmaps") and Fig. 3, 4 and 8: the dot
  product of the word's text embedding with the image's patch tokens.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from m3col.analysis.context import AnalysisContext, Result
from m3col.data.columns import IntArray, MediaColumn
from m3col.errors import InputError
from m3col.inputs.base import Source
from m3col.inputs.tables import TableSource
from m3col.plots import fonts, style
from m3col.plots.model_plots import INK

IMAGES = 6  # per word
WORDS = 6  # number of most frequent classes that are used where the options name no words
_BATCH = 64  # images that are encoded at once; their patch tokens take 77 MB with ViT-B/16
Maps = NDArray[np.float64]


def obstacle(case: AnalysisContext) -> str | None:
    """Returns why heat maps cannot be drawn for a model, or None where they can."""
    if case.fusion_obstacle() is not None:
        return case.fusion_obstacle()
    kinds = case.predictor.kinds.values()
    if not {"image", "text"} <= set(kinds):
        return f"needs an image and a text modality, but the modalities of the model are {', '.join(kinds)}"
    image = case.modality("image")
    assert image is not None
    try:
        _patches(case, case.predictor.members[0].sources({image: case.test.inputs[image][:1]})[image], 0)
    except InputError as error:
        return "; ".join(error.faults)
    return None


def run(case: AnalysisContext) -> Result:
    """Draws one figure per word with up to six images. The table has one row per word, image and patch.

    Columns: word, sample (its id in the test split), class, row and column of the patch counted from the upper left
    corner, similarity, member (the ensemble member that computed the embeddings).
    """
    tables, figures = [], dict[str, Figure]()
    for word, (at, maps) in word_maps(case, words(case)).items():
        tables.append(_table(case, word, at, maps))
        figures[_file(word, figures)] = _draw(case, word, at, maps)
    text = (
        "Upper row: test images as the model sees them. Lower row: the dot product of the word's text embedding with "
        "each patch of the image (Fig. 3 of the paper), warmer where the two agree more; colours mean the same in "
        "all images of a word. Images are drawn from the class of that name or, where there are none of it, are "
        f"those that agree most with it.{case.member_note()}"
    )
    return Result(pd.concat(tables, ignore_index=True), figures, text)


def words(case: AnalysisContext) -> tuple[str, ...]:
    """The words of the options, or by default the names of the most frequent classes."""
    return case.options.words or tuple(_spoken(case.dataset.classes[k]) for k in case.frequent(WORDS))


def class_of(case: AnalysisContext, word: str) -> int | None:
    """The number of the class with that name, or None. Case, `-` and `_` do not matter."""
    names = [_spoken(name).lower() for name in case.dataset.classes]
    spoken = _spoken(word).lower()
    return names.index(spoken) if spoken in names else None


def _spoken(name: str) -> str:
    return re.sub(r"[_\-\s]+", " ", name).strip()


def word_maps(case: AnalysisContext, searched: Sequence[str]) -> dict[str, tuple[IntArray, Maps]]:
    """Selects up to six test samples per word and computes the heat maps of their images. Encodes each image once.

    A word that names a class with test samples gets a random draw of them. Any other word gets the samples with the
    highest mean similarity among at most `options.samples` drawn ones, best first.

    Returns:
        By word: positions [n] in the test split, and maps [n, rows, columns].
    """
    searched = list(dict.fromkeys(searched))
    drawn = dict[str, IntArray]()
    for word in searched:
        label = class_of(case, word)
        among = np.flatnonzero(case.labels == label) if label is not None else ()
        if len(among):
            drawn[word] = case.subsample(f"heatmaps/{label}", np.asarray(among), IMAGES)
    candidates = np.zeros(0, np.int64) if len(drawn) == len(searched) else case.subsample("heatmaps")
    every = np.unique(np.concatenate([candidates, *drawn.values()]))
    result = {}
    for word, maps in zip(searched, similarities(case, searched, every), strict=True):
        at = drawn.get(word)
        if at is None:
            means = maps[np.searchsorted(every, candidates)].mean(axis=(1, 2))
            at = candidates[np.argsort(-means, kind="stable")[:IMAGES]]
        result[word] = (at, maps[np.searchsorted(every, at)])
    return result


def similarities(case: AnalysisContext, searched: Sequence[str], at: IntArray) -> Maps:
    """Dot products [words, n, rows, columns] of word embeddings with the patch tokens of the test images at `at`.

    All embeddings are those of the first member, not normalised.
    """
    image, text = case.modality("image"), case.modality("text")
    assert image is not None and text is not None
    first = case.predictor.members[0]
    texts = MediaColumn.of("text", [_spoken(word) or word for word in searched])
    vectors = first.encode(first.sources({text: texts}))[text].double()
    source = first.sources({image: case.test.inputs[image][at]})[image]
    pieces = [_patches(case, source, start) @ vectors.T for start in range(0, len(at), _BATCH)]
    products = torch.cat(pieces).permute(2, 0, 1)
    side = math.isqrt(products.shape[2])
    return products.reshape(*products.shape[:2], side, side).numpy()


def _patches(case: AnalysisContext, source: Source, start: int) -> torch.Tensor:
    """Patch tokens [n, P, D] of the batch that begins at `start`, in float64. InputError for models without them."""
    image = case.modality("image")
    assert image is not None
    batch: Any = source.rows(slice(start, start + _BATCH))
    return case.predictor.members[0].patches(image, TableSource(batch)).double()


def _table(case: AnalysisContext, word: str, at: IntArray, maps: Maps) -> pd.DataFrame:
    number, row, column = (index.ravel() for index in np.indices(maps.shape))
    return pd.DataFrame(
        {"word": word, "sample": case.test.ids[at][number],
         "class": np.asarray(case.dataset.classes)[case.labels[at]][number], "row": row, "column": column,
         "similarity": maps.ravel(), "member": 1}
    )  # fmt: skip


def _file(word: str, taken: Any) -> str:
    """A file name for a word, different from those in `taken`."""
    plain = f"heatmaps_{re.sub(r'[^a-z0-9]+', '_', word.lower()).strip('_') or 'word'}"[:60]
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}_{number}", number + 1
    return name


def _draw(case: AnalysisContext, word: str, at: IntArray, maps: Maps) -> Figure:
    image = case.modality("image")
    assert image is not None
    first = case.predictor.members[0]
    source = first.sources({image: case.test.inputs[image][at]})[image]
    shown: Any = source.rows(slice(0, len(at)))
    images = shown.permute(0, 2, 3, 1).double().numpy()
    figure = style.figure(1.0 + 1.75 * len(at), 4.0)
    grid: Any = figure.subplots(2, len(at), squeeze=False)
    low, high = float(maps.min()), float(maps.max())
    side = images.shape[1]
    classes = fonts.names([n if len(n) <= 18 else f"{n[:17]}…" for n in case.dataset.classes])
    for column, (upper, lower) in enumerate(grid.T):
        upper.imshow(images[column])
        upper.set_title(classes[case.labels[at[column]]], fontsize=9, color=INK)
        lower.imshow(images[column].mean(axis=2), cmap="gray", vmin=0, vmax=1)
        drawn = lower.imshow(
            maps[column], cmap="turbo", vmin=low, vmax=high, alpha=0.65, interpolation="bilinear",
            extent=(-0.5, side - 0.5, side - 0.5, -0.5),
        )  # fmt: skip
        style.bare(upper)
        style.bare(lower)
    bar = figure.colorbar(drawn, ax=grid, shrink=0.85)
    bar.set_label("similarity of word and patch", color=INK)
    bar.outline.set_visible(False)
    assert bar.solids is not None
    bar.solids.set_alpha(1)  # pale colours are hard to tell apart in a narrow strip
    figure.suptitle(f"“{fonts.literal(word)}”", x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    return figure
