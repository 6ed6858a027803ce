"""Which baselines a test table has, and their predictions for one pair of training samples and samples to predict.

Letters: N samples to predict, C outputs of the task, M modalities.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from m3col.errors import nearest
from m3col.evaluation import estimators
from m3col.evaluation.baseline_forms import Block, Forms
from m3col.metrics.classification import Floats
from m3col.tasks.base import Task

LINEAR, TUNED, GROUPED, COOPERATIVE = "linear", "linear_tuned", "linear_grouped", "cooperative"

FAMILIES = (LINEAR, TUNED, GROUPED, COOPERATIVE, *estimators.TABLE)

_MOST_WORK = {TUNED: 2e7, GROUPED: 2e7, COOPERATIVE: 2e7}

_MOST_STACKED = 2e8

_MOST_COLUMNS = 3000  # of cooperative learning, which solves a system of that size

LATE, STACKED, FROZEN = "late", "stacked", "frozen"


@dataclass(frozen=True)
class Wanted:
    """The families of baselines that a table shall have.

    Attributes:
        names: names of `FAMILIES`.
        by_name: whether a config named them; otherwise those that would take long are left out.
    """

    names: tuple[str, ...]
    by_name: bool

    @classmethod
    def of(cls, setting: bool | Collection[str]) -> "Wanted":
        """From the config key `final.baselines`: true, or a list of families."""
        if isinstance(setting, bool):
            names = [name for name in FAMILIES if name not in estimators.TABLE or estimators.TABLE[name].is_installed]
            return cls(tuple(names), by_name=False)
        return cls(tuple(setting), by_name=True)


def faults(setting: bool | Collection[str]) -> list[str]:
    """Faults of the config key `final.baselines`, one line each."""
    if isinstance(setting, bool):
        return []
    lines = [f"{name!r} is unknown{nearest(name, FAMILIES)}" for name in setting if name not in FAMILIES]
    for name in setting:
        estimator = estimators.TABLE.get(name)
        if estimator is not None and not estimator.is_installed:
            lines.append(f"{name!r} needs the package {estimator.package}, which is not installed")
    twice = dict.fromkeys(name for name in setting if [*setting].count(name) > 1)
    return lines + [f"{name!r} is given twice" for name in twice]


def reserved(task: type[Task]) -> tuple[str, ...]:
    """The first words of all rows of baselines, which no other row of a test table may begin with."""
    return (task.constant_baseline, task.linear_baseline, COOPERATIVE, *estimators.TABLE)


class BaselineTable:
    """The baselines of one data set.

    Args:
        task: what the labels are.
        wanted: the families.

    Attributes:
        wanted: the families.
        left_out: by family or row the reason why it is not there.
    """

    def __init__(self, task: Task, wanted: Wanted) -> None:
        self.task, self.wanted = task, wanted
        self.left_out: dict[str, str] = {}

    def fixed(self, forms: Forms, frozen: Forms | None, differing: Collection[str]) -> Iterator[tuple[str, Floats]]:
        """The rows that have nothing to choose on the folds of a study: their names and predictions [N, C].

        Args:
            forms: from the features of all modalities.
            frozen: the same with embeddings in place of TF-IDF; None: there are no such embeddings.
            differing: the modalities whose features differ in `frozen`.
        """
        yield self.task.constant_baseline, forms.constant()
        yield from self._linear(forms, self.task.linear_baseline, forms.blocks)
        if frozen is not None:
            yield from self._linear(frozen, f"{self.task.linear_baseline} {FROZEN}", differing)
        best = forms if frozen is None else frozen
        if self._takes(COOPERATIVE, best) and len(best.blocks) > 1:
            predictions = best.cooperative()
            if predictions is None:
                self.left_out[COOPERATIVE] = _NO_INNER_FOLDS
            else:
                yield COOPERATIVE, predictions

    def candidates(self, forms: Forms) -> Iterator[tuple[str, list["Candidate"]]]:
        """The rows of which one setting is chosen on the folds of a study: their names and settings."""
        for name, estimator in estimators.TABLE.items():
            if self._takes(name, forms):
                for form in ("", *([LATE] if len(forms.blocks) > 1 else [])):
                    row = f"{name} {form}".strip()
                    yield row, [Candidate(name, setting, form == LATE) for setting in estimator.settings]

    def _linear(self, forms: Forms, base: str, alone: Collection[str]) -> Iterator[tuple[str, Floats]]:
        several = len(forms.blocks) > 1
        for family, row, tuned in ((LINEAR, base, False), (TUNED, f"{base} tuned", True)):
            if not self._takes(family, forms):
                continue
            yield row, forms.together(forms.tuned() if tuned else forms.linear())
            if several:
                for name in alone:
                    yield self._single(row, name), forms.alone(forms.tuned(name) if tuned else forms.linear(), name)
                yield f"{row} {LATE}", forms.late_tuned() if tuned else forms.late(forms.linear())
                yield from self._stacked(forms, row, family)
        if several and self._takes(GROUPED, forms):
            yield f"{base} grouped", forms.grouped()

    def _stacked(self, forms: Forms, base: str, family: str) -> Iterator[tuple[str, Floats]]:
        row = f"{base} {STACKED}"
        if not self.wanted.by_name and _work(forms, self.task) > _MOST_STACKED:
            self.left_out[row] = f"the training split is large; name {family!r} in final.baselines to have it"
            return
        predictions = forms.stacked(tuned=family == TUNED)
        if predictions is None:
            self.left_out[row] = _NO_INNER_FOLDS
        else:
            yield row, predictions

    def _single(self, base: str, name: str) -> str:
        # A name that begins with the word of a form would read like that form.
        words = (LATE, STACKED, FROZEN, "tuned", "grouped")
        return f"{base} {name} (modality)" if name.split(" ")[0] in words else f"{base} {name}"

    def _takes(self, family: str, forms: Forms) -> bool:
        if family not in self.wanted.names or (family != LINEAR and self.task.estimates is None):
            return False
        reason = self._too_large(family, forms)
        if reason is not None:
            self.left_out[family] = reason
        return reason is None

    def _too_large(self, family: str, forms: Forms) -> str | None:
        columns = forms.joined.train.shape[1]
        if family == COOPERATIVE and columns > _MOST_COLUMNS:
            return f"{columns:,} columns are more than {_MOST_COLUMNS:,}"
        if self.wanted.by_name:
            return None
        if family in estimators.TABLE:
            reason = estimators.TABLE[family].too_large(
                len(forms.labels),
                _values(forms.joined.train, dense=estimators.TABLE[family].dense),
                _outputs(self.task),
            )
        else:
            most, work = _MOST_WORK.get(family, np.inf), _work(forms, self.task)
            reason = f"{work:,} values times outputs are more than {int(most):,}" if work > most else None
        return reason and f"{reason}; name it in final.baselines to have it"


_NO_INNER_FOLDS = "a class has a single training sample or group, so that there are no inner folds"


@dataclass(frozen=True)
class Candidate:
    """One setting of an estimator in one form.

    Attributes:
        estimator: its name.
        setting: of the estimator.
        late: whether each modality is fitted alone and the predictions are averaged.
    """

    estimator: str
    setting: Mapping[str, Any]
    late: bool

    def predictions(self, task: Task, forms: Forms) -> Floats:
        """Predictions [N, C]."""
        fit: Callable[[Any, Any, Any], Floats] = lambda x, labels, apply: estimators.predict(  # noqa: E731
            task, self.estimator, self.setting, x, labels, apply
        )
        return forms.late(fit) if self.late else forms.together(fit)


def _values(x: Any, *, dense: bool = False) -> int:
    """The stored values of features, or with `dense` all that are written out."""
    is_sparse: bool = sparse.issparse(x)
    return int(x.nnz if is_sparse and not dense else x.shape[0] * x.shape[1])


def _outputs(task: Task) -> int:
    return 1 if task.estimates == "classes" and task.width == 2 else task.width


def _work(forms: Forms, task: Task) -> int:
    return _values(forms.joined.train) * _outputs(task)


def block(pair: tuple[Any, Any], in_train: Any, in_apply: Any) -> Block:
    """The features of one modality from `linear_features.Views.of` and the masks of its samples."""
    return Block(pair[0], pair[1], np.asarray(in_train, dtype=bool), np.asarray(in_apply, dtype=bool))
