"""Preprocessing steps, fitted on training samples and stored as JSON and plain arrays.

x [N, D] float64, NaN or infinity where a value is missing. A step's state is a dict of arrays and says what
it does: `keep` selects columns, `fill` replaces missing values, `shift` and `scale` map x to (x - shift) /
scale.
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
    # the deviation of a constant column may be a rounding error instead of 0, the range is exact
    return {"shift": x.mean(axis=0), "scale": np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), 0.0)}


def _impute(x: FloatArray, labels: IntArray | None, value: float) -> State:
    fill = [np.median(column[known]) if (known := np.isfinite(column)).any() else 0.0 for column in x.T]
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
    scores = f_statistic(x, labels)
    best = np.argsort(-scores, kind="stable")[: int(value)]
    return {"keep": np.sort(best)}


def f_statistic(x: FloatArray, labels: IntArray) -> FloatArray:
    """F of the one-way analysis of variance per column [D]; -1 for a constant column: it ranks last."""
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
    """A kind of step. `rule` says which values it takes ("" for none); `default` is None where one must be
    given.
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
    """(name, value, whether a value was given) of one entry of a list of steps."""
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, value),) = item.items()
        return name, value, True
    return item, None, False


def _item_fault(item: Any, where: str) -> str | None:
    name, value, given = _split_item(item)
    if not isinstance(name, str):
        return f"{where}: a step is a name or one `name: value`, but got {item!r}"
    if name not in TABLE:
        return f"{where}: step {name!r} is unknown{nearest(name, TABLE)}"
    step = TABLE[name]
    if given and not step.rule:
        return f"{where}: step {name!r} takes no value, but got {value!r}"
    if not given and step.default is None:
        return f"{where}: step {name!r} needs a value, {step.rule}, such as `{name}: 50`"
    if given and not step.valid(value):
        return f"{where}: {name} must be {step.rule}, but got {value!r}"
    return None


def _list_faults(spec: Any, where: str) -> list[str]:
    if isinstance(spec, str) or not isinstance(spec, Sequence):
        return [f"{where}: must be a list of steps ({', '.join(TABLE)}), but got {spec!r}"]
    found = [_item_fault(item, f"{where}[{at}]") for at, item in enumerate(spec)]
    names = [_split_item(item)[0] for item in spec]
    if "impute" in names[1:]:
        found.append(f"{where}: impute must be the first step, because the others need every value, but is not")
    return [fault for fault in found if fault is not None]


def faults(spec: Any, where: str = "data.preprocess") -> list[str]:
    """Faults of a list of steps, or of a mapping from modality to such a list."""
    if isinstance(spec, Mapping):
        return [fault for name, steps in spec.items() for fault in _list_faults(steps, f"{where}.{name}")]
    return _list_faults(spec, where)


def resolve(spec: Any, modalities: Sequence[str], where: str = "data.preprocess") -> dict[str, list[Any]]:
    """The steps of each modality. A mapping must have an entry for every modality; else InputError."""
    found = faults(spec, where)
    if isinstance(spec, Mapping):
        found += [
            f"{where}: modality {name!r} is unknown{nearest(name, modalities)}"
            for name in spec
            if name not in modalities
        ]
        found += [
            f"{where}: modality {name!r} has no steps; use [] for none" for name in modalities if name not in spec
        ]
    if found:
        raise InputError(found)
    return {name: list(spec[name] if isinstance(spec, Mapping) else spec) for name in modalities}


def apply(x: FloatArray, state: State) -> FloatArray:
    """x [N, D] after one step."""
    if "keep" in state:
        return x[:, state["keep"]]
    if "fill" in state:
        return np.where(np.isfinite(x), x, state["fill"])
    varies = state["scale"] > 0
    # a column that is constant in training carries nothing: 0, whatever a later sample has
    return np.where(varies, (x - state["shift"]) / np.where(varies, state["scale"], 1.0), 0.0)


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Fitted steps of one modality: their names and states, names of the features before and after."""

    steps: tuple[str, ...]
    states: tuple[State, ...]
    feature_names_in: tuple[str, ...]
    feature_names: tuple[str, ...]

    @classmethod
    def fit(
        cls, x: FloatArray, labels: IntArray | None, steps: Sequence[Any], *, feature_names: Sequence[str]
    ) -> "Pipeline":
        """Fit `steps` one after the other on training samples x [N, D] with labels [N], if they have any.

        `anova: k` keeps all features where there are no more than k. Raises InputError for a fault in `steps`
        and for a step that keeps no feature, ValueError where x and the feature names disagree.
        """
        found = faults(list(steps))
        if found:
            raise InputError(found)
        if x.shape[1] != len(feature_names):
            raise ValueError(f"{len(feature_names)} feature names for {x.shape[1]} columns")
        x = np.ascontiguousarray(x)  # a DataFrame's columns lie the other way round, and sums then end differently
        names = np.array(feature_names, dtype=object)
        states = []
        for item in steps:
            name, value, given = _split_item(item)
            step = TABLE[name]
            state = step.fit(x, labels, value if given else step.default or 0.0)
            x = apply(x, state)
            names = names[state["keep"]] if "keep" in state else names
            states.append(state)
        kinds = tuple(_split_item(item)[0] for item in steps)
        return cls(kinds, tuple(states), tuple(feature_names), tuple(names.tolist()))

    def transform(self, x: FloatArray) -> FloatArray:
        """x [N, D] as the fitted steps make it, [N, len(feature_names)]."""
        if x.ndim != 2 or x.shape[1] != len(self.feature_names_in):
            raise ValueError(f"x must be [N, {len(self.feature_names_in)}], but has shape {list(x.shape)}")
        for state in self.states:
            x = apply(x, state)
        return np.ascontiguousarray(x, dtype=np.float64)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What `from_state` needs: a dict for JSON, and arrays named `<number of the step>.<part>`."""
        described = {
            "steps": list(self.steps),
            "feature_names_in": list(self.feature_names_in),
            "feature_names": list(self.feature_names),
        }
        return described, {f"{at}.{part}": array for at, s in enumerate(self.states) for part, array in s.items()}

    @classmethod
    def from_state(cls, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Pipeline":
        """The pipeline that `state` described. Raises InputError where the two do not fit together."""
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
        found = [
            f"stored preprocessing: step {name!r} is unknown{nearest(name, TABLE)}"
            for name in steps
            if name not in TABLE
        ]
        found += [
            f"stored preprocessing: the arrays of step {at} are {sorted(s)}"
            for at, s in enumerate(states)
            if set(s) not in kinds
        ]
        if found:
            raise InputError(found)
        return cls(steps, states, before, after)
