"""Preprocessing steps for numeric tables, fitted on training samples and stored as JSON and plain arrays.

x is [N, D] float64; NaN and infinity mean missing. The state of a fitted step is a dict of arrays. Its keys determine
the transform: `keep` selects columns, `fill` replaces missing values, `shift` and `scale` map x to
(x - shift) / scale.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3col.config.yaml_files import is_finite_number
from m3col.data.columns import FloatArray, IntArray
from m3col.errors import InputError, nearest

State = dict[str, NDArray[Any]]


def _minmax(x: FloatArray, labels: IntArray | None, value: float) -> State:
    return {"shift": x.min(axis=0), "scale": np.ptp(x, axis=0)}


def _standard(x: FloatArray, labels: IntArray | None, value: float) -> State:
    # rounding may give a constant column a deviation above 0; its range is exactly 0
    return {"shift": x.mean(axis=0), "scale": np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), 0.0)}


def _impute(x: FloatArray, labels: IntArray | None, value: float) -> State:
    fill = [np.median(column[is_finite]) if (is_finite := np.isfinite(column)).any() else 0.0 for column in x.T]
    return {"fill": np.array(fill, dtype=np.float64)}


def _variance(x: FloatArray, labels: IntArray | None, value: float) -> State:
    variances = np.where(np.ptp(x, axis=0) > 0, x.var(axis=0), 0.0)
    keep = np.flatnonzero(variances > value)
    if not len(keep):
        raise InputError(
            [
                f"preprocess step variance: {value:g} keeps no feature; the largest training variance is "
                f"{variances.max():.3g}"
            ]
        )
    return {"keep": keep}


def _anova(x: FloatArray, labels: IntArray | None, value: float) -> State:
    if labels is None:
        raise InputError(["step anova ranks features by their labels, but these samples have none"])
    if labels.ndim > 1:
        raise InputError(["step anova ranks features by one class per sample, but these labels are a table; nearest: "
                          "variance"])  # fmt: skip
    scores = f_statistic(x, labels)
    best = np.argsort(-scores, kind="stable")[: int(value)]
    return {"keep": np.sort(best)}


def f_statistic(x: FloatArray, labels: IntArray) -> FloatArray:
    """F statistic of the one-way analysis of variance per column [D]. Constant columns get -1, so they rank last."""
    centred = x - x.mean(axis=0)
    between, within = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    groups = [centred[labels == label] for label in np.unique(labels)]
    for group in groups:
        between += len(group) * group.mean(axis=0) ** 2
        within += ((group - group.mean(axis=0)) ** 2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = (between / (len(groups) - 1)) / (within / (len(x) - len(groups)))
    return np.where(np.ptp(x, axis=0) > 0, np.nan_to_num(scores, nan=-1.0, posinf=np.inf), -1.0)


@dataclass(frozen=True)
class Step:
    """A kind of preprocessing step.

    Attributes:
        fit: (x, labels, value) -> the state of the fitted step.
        rule: description of the valid values, for messages; "" if the step takes no value.
        valid: whether a value is valid.
        default: the value if the config has none; None if a value is required.
    """

    fit: Callable[[FloatArray, IntArray | None, float], State]
    rule: str = ""
    valid: Callable[[Any], bool] = lambda value: False
    default: float | None = 0.0


TABLE: dict[str, Step] = {
    "minmax": Step(_minmax),
    "standard": Step(_standard),
    "impute": Step(_impute),
    "variance": Step(_variance, "a finite number >= 0", lambda value: is_finite_number(value) and value >= 0),
    "anova": Step(
        _anova,
        "a whole number of features >= 1",
        lambda value: is_finite_number(value) and isinstance(value, int) and value >= 1,
        default=None,
    ),
}


def _split_item(item: Any) -> tuple[Any, Any, bool]:
    """Splits an entry of a list of steps into name, value, and whether it has a value."""
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, value),) = item.items()
        return name, value, True
    return item, None, False


def _item_fault(item: Any, where: str) -> str | None:
    name, value, has_value = _split_item(item)
    if not isinstance(name, str):
        return f"{where}: a step is a name or one `name: value`, but got {item!r}"
    if name not in TABLE:
        return f"{where}: step {name!r} is unknown{nearest(name, TABLE)}"
    step = TABLE[name]
    if has_value and not step.rule:
        return f"{where}: step {name!r} takes no value, but got {value!r}"
    if not has_value and step.default is None:
        return f"{where}: step {name!r} needs a value, {step.rule}, such as `{name}: 50`"
    if has_value and not step.valid(value):
        return f"{where}: {name} must be {step.rule}, but got {value!r}"
    return None


def _list_faults(spec: Any, where: str) -> list[str]:
    if isinstance(spec, str) or not isinstance(spec, Sequence):
        return [f"{where}: must be a list of steps ({', '.join(TABLE)}), but got {spec!r}"]
    item_faults = [_item_fault(item, f"{where}[{index}]") for index, item in enumerate(spec)]
    names = [_split_item(item)[0] for item in spec]
    if "impute" in names[1:]:
        item_faults.append(f"{where}: impute must be the first step, because the others need every value, but is not")
    return [fault for fault in item_faults if fault is not None]


def faults(spec: Any, where: str = "data.preprocess") -> list[str]:
    """Faults of a list of steps, or of a mapping from modality to such a list, one line each."""
    if isinstance(spec, Mapping):
        return [fault for name, steps in spec.items() for fault in _list_faults(steps, f"{where}.{name}")]
    return _list_faults(spec, where)


def resolve(spec: Any, modalities: Sequence[str], where: str = "data.preprocess") -> dict[str, list[Any]]:
    """The steps of each modality. Raises InputError for faults; a mapping must have an entry for every modality."""
    lines = faults(spec, where)
    if isinstance(spec, Mapping):
        lines += [
            f"{where}: modality {name!r} is unknown{nearest(name, modalities)}"
            for name in spec
            if name not in modalities
        ]
        lines += [
            f"{where}: modality {name!r} has no steps; use [] for none" for name in modalities if name not in spec
        ]
    if lines:
        raise InputError(lines)
    return {name: list(spec[name] if isinstance(spec, Mapping) else spec) for name in modalities}


def apply(x: FloatArray, state: State) -> FloatArray:
    """Applies one fitted step to x [N, D]."""
    if "keep" in state:
        return x[:, state["keep"]]
    if "fill" in state:
        return np.where(np.isfinite(x), x, state["fill"])
    varies = state["scale"] > 0
    # a column that is constant in training becomes 0 for all samples
    return np.where(varies, (x - state["shift"]) / np.where(varies, state["scale"], 1.0), 0.0)


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The fitted preprocessing steps of one modality.

    Attributes:
        steps: names of the steps.
        states: state of each step.
        feature_names_in: names of the columns before the steps.
        feature_names: names of the columns after the steps.
    """

    steps: tuple[str, ...]
    states: tuple[State, ...]
    feature_names_in: tuple[str, ...]
    feature_names: tuple[str, ...]

    @classmethod
    def fit(
        cls, x: FloatArray, labels: IntArray | None, steps: Sequence[Any], *, feature_names: Sequence[str]
    ) -> "Pipeline":
        """Fits `steps` one after the other. `anova: k` keeps all features if there are at most k.

        Args:
            x: [N, D] training samples.
            labels: [N] their labels; None if they have none.
            steps: the entries of the config.
            feature_names: names of the D columns.

        Raises:
            InputError: `steps` has a fault, or a step keeps no feature.
            ValueError: the number of feature names is not D.
        """
        lines = faults(list(steps))
        if lines:
            raise InputError(lines)
        if x.shape[1] != len(feature_names):
            raise ValueError(f"{len(feature_names)} feature names for {x.shape[1]} columns")
        x = np.ascontiguousarray(x)  # same memory layout, hence the same rounding of sums, for arrays and DataFrames
        names = np.array(feature_names, dtype=object)
        states = []
        for item in steps:
            name, value, has_value = _split_item(item)
            step = TABLE[name]
            state = step.fit(x, labels, value if has_value else step.default or 0.0)
            x = apply(x, state)
            names = names[state["keep"]] if "keep" in state else names
            states.append(state)
        kinds = tuple(_split_item(item)[0] for item in steps)
        return cls(kinds, tuple(states), tuple(feature_names), tuple(names.tolist()))

    def transform(self, x: FloatArray) -> FloatArray:
        """Applies all steps to x [N, D]; returns [N, len(feature_names)]."""
        if x.ndim != 2 or x.shape[1] != len(self.feature_names_in):
            raise ValueError(f"x must be [N, {len(self.feature_names_in)}], but has shape {list(x.shape)}")
        for state in self.states:
            x = apply(x, state)
        return np.ascontiguousarray(x, dtype=np.float64)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """The arguments of `from_state`: a dict for JSON, and arrays named `<number of the step>.<key>`."""
        described = {
            "steps": list(self.steps),
            "feature_names_in": list(self.feature_names_in),
            "feature_names": list(self.feature_names),
        }
        return described, {f"{at}.{key}": array for at, s in enumerate(self.states) for key, array in s.items()}

    @classmethod
    def from_state(cls, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Pipeline":
        """Restores the pipeline from the result of `state`. Raises InputError if the arguments are not consistent."""
        try:
            steps = tuple(described["steps"])
            states = tuple(
                {key.split(".", 1)[1]: np.asarray(a) for key, a in arrays.items() if key.startswith(f"{at}.")}
                for at in range(len(steps))
            )
            before, after = tuple(described["feature_names_in"]), tuple(described["feature_names"])
        except (KeyError, TypeError) as error:
            raise InputError([f"stored preprocessing: {error} is missing or of the wrong type"]) from error
        kinds = ({"keep"}, {"fill"}, {"shift", "scale"})
        lines = [
            f"stored preprocessing: step {name!r} is unknown{nearest(name, TABLE)}"
            for name in steps
            if name not in TABLE
        ]
        lines += [
            f"stored preprocessing: the arrays of step {at} are {sorted(s)}"
            for at, s in enumerate(states)
            if set(s) not in kinds
        ]
        if lines:
            raise InputError(lines)
        return cls(steps, states, before, after)
