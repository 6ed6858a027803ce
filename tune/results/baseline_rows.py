"""Predictions of the baselines, which need no training of networks, for the test table."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
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

# Key -> predictions, baselines that are left out, and settings that were chosen.
_FITTED: dict[str, tuple[list[pd.DataFrame], dict[str, str], dict[str, dict[str, Any]]]] = {}


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
        self._table = BaselineTable(self._task, Wanted.of(wanted))
        self.chosen: dict[str, dict[str, Any]] = {}

    @property
    def left_out(self) -> dict[str, str]:
        return self._table.left_out

    def predictions(self) -> Iterator[pd.DataFrame]:
        """Yields the rows of predictions.parquet, see `baseline_predictions`.

        Studies of several methods on the same data and folds have the same baselines: a process fits them once.
        """
        key = self._key()
        if key not in _FITTED:
            frames = list(self._fitted())
            size = sum(int(frame.memory_usage(index=False).sum()) for frame in frames)
            if size <= _MOST_BYTES:
                while len(_FITTED) >= _MOST_KEPT:
                    _FITTED.pop(next(iter(_FITTED)))
                _FITTED[key] = (frames, dict(self.left_out), dict(self.chosen))
            yield from frames
            return
        frames, left_out, self.chosen = _FITTED[key]
        self.left_out.update(left_out)
        yield from frames

    def _key(self) -> str:
        """A digest of all that the predictions depend on."""
        sections = self._run.model_dump(mode="json", include={"data", "model", "task", "threshold", "metric"})
        folds = [part.tolist() for fold in self._folds for part in (fold.train, fold.validation)]
        wanted = self._table.wanted
        return run_config.digest(
            {
                "run": sections, "data": self._dataset.digests(), "ids": self._samples.ids.tolist(), "folds": folds,
                "wanted": [*wanted.names], "by_name": wanted.by_name,
            }
        )  # fmt: skip

    def _fitted(self) -> Iterator[pd.DataFrame]:
        frames: dict[str, list[pd.DataFrame]] = defaultdict(list)
        tried: dict[str, list[list[pd.DataFrame]]] = {}
        candidates: dict[str, list[Candidate]] = {}
        for number, fold in enumerate(self._folds):
            train, validation = self._samples.take(fold.train), self._samples.take(fold.validation)
            forms, frozen = self._forms(train, validation)
            for row, predictions in self._table.fixed(forms, frozen, self._texts()):
                frames[row].append(self._frame(row, validation, predictions, fold=number))
            best = forms if frozen is None else frozen
            for row, settings in self._table.candidates(best):
                candidates[row] = settings
                for frame_list, candidate in zip(tried.setdefault(row, [[] for _ in settings]), settings, strict=True):
                    predictions = candidate.predictions(self._task, best)
                    frame_list.append(self._frame(row, validation, predictions, fold=number))
        picks = {row: self._best(parts) for row, parts in tried.items() if len(parts[0]) == len(self._folds)}
        for row, pick in picks.items():
            frames[row] = tried[row][pick]
            self.chosen[row] = dict(candidates[row][pick].setting)
        if self._dataset.test is not None:
            self._test(frames, {row: candidates[row][pick] for row, pick in picks.items()})
        complete = len(self._folds) + (self._dataset.test is not None)
        for row, parts in frames.items():
            if len(parts) == complete:
                yield from parts
            elif row not in self.left_out and row.partition(" ")[0] not in self.left_out:
                self.left_out[row] = "it cannot be fitted on every fold and on the whole training split"

    def _test(self, frames: dict[str, list[pd.DataFrame]], chosen: dict[str, Candidate]) -> None:
        """Appends the predictions of the test split by models of the whole training split."""
        test = self._dataset.test
        assert test is not None
        forms, frozen = self._forms(self._dataset.train, test)
        for row, predictions in self._table.fixed(forms, frozen, self._texts()):
            frames[row].append(self._frame(row, test, predictions, test=True))
        for row, candidate in chosen.items():
            predictions = candidate.predictions(self._task, forms if frozen is None else frozen)
            frames[row].append(self._frame(row, test, predictions, test=True))

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
