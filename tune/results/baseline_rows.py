"""Predictions of the baselines, which need no training of networks, for the test table."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from m3col.config import loading as run_config
from m3col.config.schema import RunConfig
from m3col.data.dataset import Dataset, Split
from m3col.data.splits import Fold
from m3col.evaluation import baseline_table, linear_features
from m3col.evaluation.baseline_forms import Forms
from m3col.evaluation.baseline_table import BaselineTable, Candidate, Wanted
from m3col.metrics import spec
from m3col.metrics.classification import Floats
from m3col.tasks import registry as tasks
from tune.results.prediction_table import BASELINES, cross_validated, declared, prediction_frame

_MOST_KEPT, _MOST_BYTES = 32, 20_000_000

_TEST = -1  # number of the part that predicts the test split


@dataclass(frozen=True)
class Part:
    """The baselines on one fold, or on the test split.

    Attributes:
        fixed: rows that have nothing to choose, with their predictions.
        tried: by row the predictions of each setting.
        candidates: by row the settings.
        left_out: by row or family the reason why it is not there.
    """

    fixed: list[tuple[str, pd.DataFrame]]
    tried: dict[str, list[pd.DataFrame]]
    candidates: dict[str, list[Candidate]]
    left_out: dict[str, str]


@dataclass(frozen=True)
class Fitted:
    """All baselines of a study: their predictions, by row or family why one is left out, by row what was chosen."""

    frames: list[pd.DataFrame]
    left_out: dict[str, str]
    chosen: dict[str, dict[str, Any]]


_FITTED: dict[str, Fitted] = {}


def baseline_predictions(
    run: RunConfig,
    dataset: Dataset,
    samples: Split,
    folds: Sequence[Fold],
    *,
    wanted: bool | Collection[str] = True,
) -> Iterator[pd.DataFrame]:
    """Yields predictions of the baselines, row after row: out of fold, then of the test split.

    Args:
        run: the config of the study's runs.
        dataset: the data. Models fitted on its training split predict its test split, if it has one.
        samples: the development pool.
        folds: indices into `samples`.
        wanted: the config key `final.baselines`.

    Yields:
        The rows of one baseline and fold, or test split.
    """
    yield from Baselines(run, dataset, samples, folds, wanted).predictions()


class Baselines:
    """The baselines of one study.

    Attributes:
        left_out: by row or family the reason why it is not there, after `predictions`.
        chosen: by row the setting that was chosen on the folds, after `predictions`.
    """

    def __init__(
        self, run: RunConfig, dataset: Dataset, samples: Split, folds: Sequence[Fold], wanted: bool | Collection[str]
    ) -> None:
        self._run, self._dataset, self._samples, self._folds = run, dataset, samples, folds
        self._task = tasks.of(run, dataset.classes)
        self._views = linear_features.Views(run, dataset.features)
        self._wanted = Wanted.of(wanted)
        self.left_out: dict[str, str] = {}
        self.chosen: dict[str, dict[str, Any]] = {}

    @property
    def families(self) -> Collection[str]:
        """The names of the wanted families."""
        return self._wanted.names

    def predictions(self, fitted: Fitted | None = None) -> Iterator[pd.DataFrame]:
        """Yields the rows of predictions.parquet, see `baseline_predictions`.

        Studies of several methods on the same data and folds have the same baselines: a process fits them once.

        Args:
            fitted: what `fit` returned in another process.
        """
        fitted = fitted or _FITTED.get(self._key) or self.fit()
        self._keep(fitted)
        self.chosen = fitted.chosen
        self.left_out.update(fitted.left_out)
        yield from fitted.frames

    @property
    def are_fitted(self) -> bool:
        """Whether this process has fitted the same baselines already."""
        return self._key in _FITTED

    def _keep(self, fitted: Fitted) -> None:
        size = sum(int(frame.memory_usage(index=False).sum()) for frame in fitted.frames)
        if size <= _MOST_BYTES and self._key not in _FITTED:
            while len(_FITTED) >= _MOST_KEPT:
                _FITTED.pop(next(iter(_FITTED)))
            _FITTED[self._key] = fitted

    @property
    def parts(self) -> int:
        """Number of parts that are fitted independently: the folds, and the test split if there is one."""
        return len(self._folds) + (self._dataset.test is not None)

    def fit(self, each: Callable[[Callable[[int], Part], Sequence[int]], Iterable[Part]] = map) -> Fitted:
        """Fits all baselines.

        Args:
            each: applies a function to each number in a list, in this process (default) or in several.

        Returns:
            Their predictions, and what was chosen and left out.
        """
        has_test = self._dataset.test is not None
        parts = list(each(self.part, [*range(len(self._folds)), *([_TEST] if has_test else [])]))
        frames: dict[str, list[pd.DataFrame]] = defaultdict(list)
        left_out: dict[str, str] = {}
        for part in parts:
            left_out |= part.left_out
            for row, frame in part.fixed:
                frames[row].append(frame)
        of_folds = parts[: len(self._folds)]
        tried = {row: [[part.tried[row][at] for part in of_folds if row in part.tried] for at in range(len(settings))]
                 for part in of_folds for row, settings in part.candidates.items()}  # fmt: skip
        candidates = {row: settings for part in of_folds for row, settings in part.candidates.items()}
        picks = {row: self._best(frame_lists) for row, frame_lists in tried.items()
                 if len(frame_lists[0]) == len(self._folds)}  # fmt: skip
        chosen = {row: dict(candidates[row][pick].setting) for row, pick in picks.items()}
        for row, pick in picks.items():
            frames[row] = tried[row][pick]
            if has_test:
                frames[row].append(self._tested(row, candidates[row][pick]))
        complete = len(self._folds) + has_test
        for row, found in frames.items():
            if len(found) != complete and row not in left_out and row.partition(" ")[0] not in left_out:
                left_out[row] = "it cannot be fitted on every fold and on the whole training split"
        return Fitted([part for row in frames.values() if len(row) == complete for part in row], left_out, chosen)

    def part(self, number: int) -> Part:
        """Fits the baselines on one fold, or on the training split for the test split (-1), where it leaves out those
        that have something to choose."""
        table = BaselineTable(self._task, self._wanted)
        if number == _TEST:
            assert self._dataset.test is not None
            forms, frozen = self._test_forms
            fixed = [
                (row, self._frame(row, self._dataset.test, predictions, test=True))
                for row, predictions in table.fixed(forms, frozen, self._texts())
            ]
            return Part(fixed, {}, {}, table.left_out)
        fold = self._folds[number]
        train, validation = self._samples.take(fold.train), self._samples.take(fold.validation)
        forms, frozen = self._forms(train, validation)
        fixed = [
            (row, self._frame(row, validation, predictions, fold=number))
            for row, predictions in table.fixed(forms, frozen, self._texts())
        ]
        best = forms if frozen is None else frozen
        candidates = dict(table.candidates(best))
        tried = {
            row: [self._frame(row, validation, one.predictions(self._task, best), fold=number) for one in settings]
            for row, settings in candidates.items()
        }
        return Part(fixed, tried, candidates, table.left_out)

    @cached_property
    def _key(self) -> str:
        """A digest of all that the predictions depend on."""
        sections = self._run.model_dump(mode="json", include={"data", "model", "task", "threshold", "metric"})
        folds = [part.tolist() for fold in self._folds for part in (fold.train, fold.validation)]
        wanted = self._wanted
        return run_config.digest(
            {
                "run": sections, "data": self._dataset.digests(), "ids": self._samples.ids.tolist(), "folds": folds,
                "wanted": [*wanted.names], "by_name": wanted.by_name,
            }
        )  # fmt: skip

    @cached_property
    def _test_forms(self) -> tuple[Forms, Forms | None]:
        assert self._dataset.test is not None
        return self._forms(self._dataset.train, self._dataset.test)

    def _tested(self, row: str, candidate: Candidate) -> pd.DataFrame:
        """The predictions of the test split by a setting that was chosen on the folds."""
        assert self._dataset.test is not None
        forms, frozen = self._test_forms
        predictions = candidate.predictions(self._task, forms if frozen is None else frozen)
        return self._frame(row, self._dataset.test, predictions, test=True)

    def _best(self, settings: list[list[pd.DataFrame]]) -> int:
        """The position of the setting with the best metric over the folds, the first in a tie."""
        metric = declared(self._run, self._task)
        sign = 1 if spec.higher_is_better(metric) else -1
        scores = [sign * cross_validated(pd.concat(parts), self._task)[metric] for parts in settings]
        return int(np.nanargmax(scores)) if np.isfinite(scores).any() else 0

    def _frame(
        self, row: str, samples: Split, predictions: Floats, *, fold: int | None = None, test: bool = False
    ) -> pd.DataFrame:
        outputs, job = self._task.inverse_link(predictions), f"{BASELINES}{row}"
        if fold is None:
            return prediction_frame(job, samples, outputs, self._task, test=test)
        return prediction_frame(job, samples, outputs, self._task, fold=fold, test=test)

    def _texts(self) -> list[str]:
        return [name for name, kind in self._dataset.kinds.items() if kind == "text"]

    def _forms(self, train: Split, apply: Split) -> tuple[Forms, Forms | None]:
        """The forms from the features of a pair of splits, and those with frozen embeddings of texts if they differ."""
        labels = train.labels
        assert labels is not None

        def of(*, frozen: bool) -> Forms:
            blocks = {
                name: baseline_table.block(
                    self._views.of(name, train, apply, frozen=frozen), train.present[name], apply.present[name]
                )
                for name in self._dataset.modalities
            }
            return Forms(self._task, labels, blocks, train.groups)

        differs = linear_features.frozen_differs(self._run, self._dataset.kinds.values())
        return of(frozen=False), of(frozen=True) if differs else None
