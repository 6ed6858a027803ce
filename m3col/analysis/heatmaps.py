"""Where in an image a word is found.

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

IMAGES = 6  # of a word
WORDS = 6  # where none are given: the most frequent classes
_BATCH = 64  # images whose patches are in memory: 77 MB at ViT-B/16
Maps = NDArray[np.float64]


def obstacle(case: AnalysisContext) -> str | None:
    """Why this does not apply to a model, None where it does."""
    kinds = case.predictor.kinds.values()
    if not {"image", "text"} <= set(kinds):
        return f"words are looked for in images, but the modalities of the model are {', '.join(kinds)}"
    image = case.modality("image")
    assert image is not None
    try:
        _patches(case, case.predictor.members[0].sources({image: case.test.inputs[image][:1]})[image], 0)
    except InputError as error:
        return "; ".join(error.faults)
    return None


def run(case: AnalysisContext) -> Result:
    """One figure per word with up to six images; the table has a row per word, image and patch.

    Columns: word, sample (its id in the test split), class, row and column of the patch from the upper left,
    similarity, member (whose embeddings these are).
    """
    tables, figures = [], dict[str, Figure]()
    for word, (at, maps) in look_for(case, words(case)).items():
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
    """The given words, else the names of the most frequent classes."""
    return case.options.words or tuple(_spoken(case.dataset.classes[k]) for k in case.frequent(WORDS))


def class_of(case: AnalysisContext, word: str) -> int | None:
    """The class of that name; case, - and _ do not matter."""
    names = [_spoken(name).lower() for name in case.dataset.classes]
    spoken = _spoken(word).lower()
    return names.index(spoken) if spoken in names else None


def _spoken(name: str) -> str:
    return re.sub(r"[_\-\s]+", " ", name).strip()


def look_for(case: AnalysisContext, wanted: Sequence[str]) -> dict[str, tuple[IntArray, Maps]]:
    """Of each word the positions [n] of up to six test samples, and its maps [n, rows, columns] of their images.

    Samples are of the class that the word names, drawn. Where it names none, or one without test samples, they are
    those whose mean similarity with the word is highest, of at most `samples`, the best one first. No image is
    encoded twice.
    """
    wanted = list(dict.fromkeys(wanted))
    drawn = dict[str, IntArray]()
    for word in wanted:
        label = class_of(case, word)
        among = np.flatnonzero(case.labels == label) if label is not None else ()
        if len(among):
            drawn[word] = case.some(f"heatmaps/{label}", np.asarray(among), IMAGES)
    rest = np.zeros(0, np.int64) if len(drawn) == len(wanted) else case.some("heatmaps")
    every = np.unique(np.concatenate([rest, *drawn.values()]))
    result = {}
    for word, maps in zip(wanted, similarities(case, wanted, every), strict=True):
        at = drawn.get(word)
        if at is None:
            means = maps[np.searchsorted(every, rest)].mean(axis=(1, 2))
            at = rest[np.argsort(-means, kind="stable")[:IMAGES]]
        result[word] = (at, maps[np.searchsorted(every, at)])
    return result


def similarities(case: AnalysisContext, wanted: Sequence[str], at: IntArray) -> Maps:
    """Dot products [words, n, rows, columns] of the words' embeddings with the patches of the test images at `at`,
    all by the first member and not normalised."""
    image, text = case.modality("image"), case.modality("text")
    assert image is not None and text is not None
    first = case.predictor.members[0]
    texts = MediaColumn.of("text", [_spoken(word) or word for word in wanted])
    vectors = first.encode(first.sources({text: texts}))[text].double()
    source = first.sources({image: case.test.inputs[image][at]})[image]
    pieces = [_patches(case, source, start) @ vectors.T for start in range(0, len(at), _BATCH)]
    products = torch.cat(pieces).permute(2, 0, 1)
    side = math.isqrt(products.shape[2])
    return products.reshape(*products.shape[:2], side, side).numpy()


def _patches(case: AnalysisContext, source: Source, start: int) -> torch.Tensor:
    """Patch tokens [n, P, D] of the batch that begins there, in float64. Raises InputError for models without them."""
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
    """A file name that no other word has."""
    plain = f"heatmaps_{re.sub(r'[^a-z0-9]+', '_', word.lower()).strip('_') or 'word'}"[:60]
    found, number = plain, 2
    while found in taken:
        found, number = f"{plain}_{number}", number + 1
    return found


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
    for place, (upper, lower) in enumerate(grid.T):
        upper.imshow(images[place])
        upper.set_title(classes[case.labels[at[place]]], fontsize=9, color=INK)
        lower.imshow(images[place].mean(axis=2), cmap="gray", vmin=0, vmax=1)
        drawn = lower.imshow(
            maps[place], cmap="turbo", vmin=low, vmax=high, alpha=0.65, interpolation="bilinear",
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
