"""What an analysis looks at, and what it gives.

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
    """`words`: what heat maps look for, () for the most frequent classes; `seed`: of every draw; `repeats`: draws of
    noise; `samples`: at most so many test samples where each costs several runs of an encoder."""

    words: tuple[str, ...] = ()
    seed: int = 0
    repeats: int = 5
    samples: int = 2000


@dataclass(frozen=True)
class Result:
    """`table` becomes a CSV; `figures` PNGs, by name; `shown`: one or two sentences on what is seen and how to read
    it, in Markdown."""

    table: pd.DataFrame
    figures: Mapping[str, Figure]
    shown: str


class AnalysisContext:
    """A model and the labelled test split of a data set; what several analyses need is computed once.

    Raises InputError where there is no such split.
    """

    def __init__(self, predictor: Predictor, dataset: Dataset, options: Options = Options()) -> None:
        self.predictor, self.dataset, self.options = predictor, dataset, options
        if dataset.test is None or dataset.test.labels is None or not len(dataset.test):
            raise InputError([f"{dataset.name}: has no labelled test split to look at"])
        self.test: Split = dataset.test
        self.labels: IntArray = dataset.test.labels

    @property
    def task(self) -> Task:
        """What the model predicts."""
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
        """Probabilities [N, C] of each head on the test split, the mean over the members."""
        return self.predictor.votes(self.test.inputs)

    @cached_property
    def right(self) -> dict[str, NDArray[np.bool_]]:
        """Per head whether each test sample [N] is classified correctly."""
        return {name: self.task.decide(value) == self.labels for name, value in self.votes.items()}

    def modality(self, kind: str) -> str | None:
        """The first modality of that kind, None where there is none."""
        return next((name for name, found in self.predictor.kinds.items() if found == kind), None)

    def some(self, purpose: str, among: IntArray | None = None, most: int | None = None) -> IntArray:
        """Positions of at most `most` (default: `samples`) test samples, of all or of those at `among`, ascending;
        drawn where there are more."""
        at = np.arange(len(self.test)) if among is None else among
        most = self.options.samples if most is None else most
        if len(at) <= most:
            return at
        draw = randomness.generator(seed=self.options.seed, fold=0, epoch=0, purpose=f"analysis/{purpose}")
        return np.sort(draw.choice(at, most, replace=False))

    def frequent(self, most: int) -> list[int]:
        """The most frequent classes of the test split, the first one of a tie first."""
        counts = np.bincount(self.task.strata(self.labels), minlength=self.task.num_strata)
        return [int(k) for k in np.argsort(-counts, kind="stable")[:most] if counts[k]]

    def member_note(self) -> str:
        """Whose embeddings are shown, where there are several members; else ""."""
        count = len(self.predictor)
        return "" if count == 1 else f" Embeddings are those of the first of {count} members."
