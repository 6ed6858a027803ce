"""Input and result of an analysis.

Letters: N test samples, C classes, D embedding width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from m3col import randomness
from m3col.data.columns import IntArray
from m3col.data.dataset import Dataset, Split
from m3col.errors import InputError
from m3col.predictor import Predictor
from m3col.tasks.base import Task


@dataclass(frozen=True)
class Options:
    """Options of all analyses.

    Attributes:
        words: words that heat maps are drawn for; () for the names of the most frequent classes.
        seed: of every random draw.
        repeats: number of noise draws.
        samples: the most test samples that an analysis uses where each one needs several encoder passes.
        training_samples: the most training samples that a linear classifier is fitted to.
    """

    words: tuple[str, ...] = ()
    seed: int = 0
    repeats: int = 5
    samples: int = 2000
    training_samples: int = 5000


@dataclass(frozen=True)
class Result:
    """Result of an analysis.

    Attributes:
        table: written as a CSV file.
        figures: written as PNG files, by name.
        shown: one or two sentences in Markdown: what the figures show and how to read them.
    """

    table: pd.DataFrame
    figures: Mapping[str, Figure]
    shown: str


class AnalysisContext:
    """A model and the labelled test split of a data set. Values that several analyses need are computed once.

    Raises InputError where the data set has no labelled test split.
    """

    def __init__(self, predictor: Predictor, dataset: Dataset, options: Options = Options()) -> None:
        self.predictor, self.dataset, self.options = predictor, dataset, options
        if dataset.test is None or dataset.test.labels is None or not len(dataset.test):
            raise InputError([f"{dataset.name}: has no labelled test split to look at"])
        self.test: Split = dataset.test
        self.labels: IntArray = dataset.test.labels

    @property
    def task(self) -> Task:
        """The task of the model."""
        return self.predictor.task

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.predictor.modalities

    @property
    def heads(self) -> tuple[str, ...]:
        """The modalities that have a head of their own."""
        return tuple(name for name in self.modalities if name in self.votes)

    @cached_property
    def votes(self) -> dict[str, NDArray[np.float64]]:
        """Probabilities [N, C] of each head on the test split, averaged over the members of the ensemble."""
        return self.predictor.votes(self.test.inputs)

    @cached_property
    def right(self) -> dict[str, NDArray[np.bool_]]:
        """For each head, whether it classifies each test sample [N] correctly."""
        return {name: self.task.decide(value) == self.labels for name, value in self.votes.items()}

    def fusion_obstacle(self) -> str | None:
        """Why outputs cannot be computed from embeddings of single modalities, or None where they can."""
        if not self.predictor.members[0].method.sequences:
            return None
        return "needs outputs that follow from the embeddings of single modalities, but the model fuses their tokens"

    def modality(self, kind: str) -> str | None:
        """The name of the first modality of a kind, or None."""
        return next((name for name, found in self.predictor.kinds.items() if found == kind), None)

    def subsample(self, purpose: str, among: IntArray | None = None, most: int | None = None) -> IntArray:
        """Draws a random subset of the test samples.

        Args:
            purpose: a name for the draw; each purpose has its own random stream.
            among: positions to draw from; None for all test samples.
            most: the largest size of the subset; None for `options.samples`. A smaller set is returned whole.

        Returns:
            Ascending positions in the test split.
        """
        at = np.arange(len(self.test)) if among is None else among
        most = self.options.samples if most is None else most
        if len(at) <= most:
            return at
        draw = randomness.generator(seed=self.options.seed, fold=0, epoch=0, purpose=f"analysis/{purpose}")
        return np.sort(draw.choice(at, most, replace=False))

    def frequent(self, most: int) -> list[int]:
        """The at most `most` most frequent classes of the test split, most frequent first; ties in order of class."""
        counts = np.bincount(self.task.strata(self.labels), minlength=self.task.num_strata)
        return [int(k) for k in np.argsort(-counts, kind="stable")[:most] if counts[k]]

    def member_note(self) -> str:
        """A sentence that says whose embeddings are shown; "" for a model with one member."""
        count = len(self.predictor)
        return "" if count == 1 else f" Embeddings are those of the first of {count} members."
