"""Where in a picture a word is found.

Letters: n pictures, P patches, S side of a picture, D embedding width.
Paper: Kumar et al., arXiv 2409.17777, section 4.2 ("Visualization of Attention Heatmaps") and Fig. 3, 4 and 8: the dot
  product of the word's text embedding with the picture's patch tokens.
"""

import math
import re
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from m3col.analysis import drawing
from m3col.analysis.case import Case, Result
from m3col.data.columns import IntArray, Records
from m3col.faults import BadInput
from m3col.figures import INK

PICTURES = 6  # of a word
WORDS = 6  # where none are given: the most frequent classes


def obstacle(case: Case) -> str | None:
    """Why this does not apply to a model, None where it does."""
    kinds = case.predictor.kinds.values()
    if not {"image", "text"} <= set(kinds):
        return f"words are looked for in pictures, but the modalities of the model are {', '.join(kinds)}"
    image = case.modality("image")
    assert image is not None
    try:
        patches(case, case.test.inputs[image][:1])
    except BadInput as error:
        return "; ".join(error.faults)
    return None


def run(case: Case) -> Result:
    """One figure per word with up to six pictures; the table has a row per word, picture and patch.

    Columns: word, sample (its id in the test split), class, row and column of the patch from the upper left,
    similarity, member (whose embeddings these are).
    """
    tables, figures = [], dict[str, Figure]()
    for word in words(case):
        at = pictures_for(case, word)
        maps = similarities(case, word, at)
        tables.append(_table(case, word, at, maps))
        figures[_file(word, figures)] = _draw(case, word, at, maps)
    text = (
        "Upper row: test pictures as the model sees them. Lower row: the dot product of the word's text embedding with "
        "each patch of the picture (Fig. 3 of the paper), warmer where the two agree more; colours mean the same in "
        "all pictures of a word. Pictures are drawn from the class of that name or, where the word names no class, are "
        f"those that agree most with it.{case.member_note()}"
    )
    return Result(pd.concat(tables, ignore_index=True), figures, text)


def words(case: Case) -> tuple[str, ...]:
    """The given words, else the names of the most frequent classes."""
    return case.options.words or tuple(_spoken(case.dataset.classes[k]) for k in case.frequent(WORDS))


def class_of(case: Case, word: str) -> int | None:
    """The class of that name; case, - and _ do not matter."""
    names = [_spoken(name).lower() for name in case.dataset.classes]
    spoken = _spoken(word).lower()
    return names.index(spoken) if spoken in names else None


def _spoken(name: str) -> str:
    return re.sub(r"[_\-\s]+", " ", name).strip()


def pictures_for(case: Case, word: str) -> IntArray:
    """Positions of up to six test samples: of the class that the word names, drawn; else those whose mean similarity
    with the word is highest, of at most `samples`, the best one first."""
    label = class_of(case, word)
    if label is not None:
        return case.some(f"heatmaps/{label}", np.flatnonzero(case.labels == label), PICTURES)
    at = case.some("heatmaps")
    means = similarities(case, word, at).mean(axis=(1, 2))
    return at[np.argsort(-means, kind="stable")[:PICTURES]]


def similarities(case: Case, word: str, at: IntArray) -> NDArray[np.float64]:
    """Dot products [n, rows, columns] of the word's embedding with the patches of the test pictures at `at`, both by
    the first member and not normalised."""
    image, text = case.modality("image"), case.modality("text")
    assert image is not None and text is not None
    first = case.predictor.members[0]
    embedding = first.encode(first.sources({text: Records.of("text", [_spoken(word) or word])}))[text][0]
    found = patches(case, case.test.inputs[image][at]) @ embedding.double()
    side = math.isqrt(found.shape[1])
    return found.reshape(len(found), side, side).numpy()


def patches(case: Case, column: Any) -> torch.Tensor:
    """Patch tokens [n, P, D] in float64. Raises BadInput for models without patches in a square."""
    image = case.modality("image")
    assert image is not None
    first = case.predictor.members[0]
    found = first.patches(image, first.sources({image: column})[image]).double()
    if math.isqrt(found.shape[1]) ** 2 != found.shape[1]:
        raise BadInput([f"the {found.shape[1]} patches of a picture form no square"])
    return found


def _table(case: Case, word: str, at: IntArray, maps: NDArray[np.float64]) -> pd.DataFrame:
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


def _draw(case: Case, word: str, at: IntArray, maps: NDArray[np.float64]) -> Figure:
    image = case.modality("image")
    assert image is not None
    first = case.predictor.members[0]
    source = first.sources({image: case.test.inputs[image][at]})[image]
    shown: Any = source.rows(slice(0, len(at)))
    pictures = shown.permute(0, 2, 3, 1).double().numpy()
    figure = drawing.figure(1.0 + 1.75 * len(at), 4.0)
    grid: Any = figure.subplots(2, len(at), squeeze=False)
    low, high = float(maps.min()), float(maps.max())
    side = pictures.shape[1]
    for place, (upper, lower) in enumerate(grid.T):
        upper.imshow(pictures[place])
        name = case.dataset.classes[case.labels[at[place]]]
        upper.set_title(name if len(name) <= 18 else f"{name[:17]}…", fontsize=9, color=INK)
        lower.imshow(pictures[place].mean(axis=2), cmap="gray", vmin=0, vmax=1)
        drawn = lower.imshow(
            maps[place], cmap="turbo", vmin=low, vmax=high, alpha=0.65, interpolation="bilinear",
            extent=(-0.5, side - 0.5, side - 0.5, -0.5),
        )  # fmt: skip
        drawing.bare(upper)
        drawing.bare(lower)
    bar = figure.colorbar(drawn, ax=grid, shrink=0.85)
    bar.set_label("similarity of word and patch", color=INK)
    bar.outline.set_visible(False)
    assert bar.solids is not None
    bar.solids.set_alpha(1)  # pale colours are hard to tell apart in a narrow strip
    figure.suptitle(f"“{word}”", x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    return figure
