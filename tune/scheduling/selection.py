"""Which trial wins, and by how much against which noise (PROTOCOL 4). Plain numbers in, plain numbers out."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scored:
    """A finished trial: its value, and its validation loss, which decides between equal values."""

    number: int
    value: float
    loss: float = math.inf


@dataclass(frozen=True)
class Noise:
    """Spread of one score over seeds: `sd` (ddof 1) of `count` runs of the default on the same folds."""

    sd: float
    count: int


@dataclass(frozen=True)
class Decision:
    """`winner` and `best` are trial numbers and differ where the best is tied with the default, within the noise.

    `values`: what each candidate scored in the deciding runs; `tie`: the difference that the noise alone makes
    (one standard error of a difference), None where the noise was not measured.
    """

    winner: int
    best: int
    values: Mapping[int, float]
    confirmed: bool
    noise: Noise | None
    tie: float | None

    @property
    def default_won_a_tie(self) -> bool:
        return self.winner != self.best


def ranked(trials: Sequence[Scored], *, maximize: bool) -> list[Scored]:
    """Best first; equal values by lower loss, then by number."""
    sign = -1 if maximize else 1
    return sorted(trials, key=lambda trial: (sign * trial.value, trial.loss, trial.number))


def candidates(trials: Sequence[Scored], *, default: int, top: int, maximize: bool) -> list[int]:
    """The best `top` finished trials other than the default, and the default where it finished."""
    others = [trial.number for trial in ranked(trials, maximize=maximize) if trial.number != default]
    return [*others[:top], *([default] if any(trial.number == default for trial in trials) else [])]


def noise(default_value: float | None, replicates: Sequence[float]) -> Noise | None:
    """From the default's own value and those of its replicates; None with fewer than two values."""
    values = [*([default_value] if default_value is not None else []), *replicates]
    return Noise(statistics.stdev(values), len(values)) if len(values) > 1 and replicates else None


def decide(
    trials: Sequence[Scored],
    *,
    default: int,
    maximize: bool,
    measured: Noise | None,
    confirmations: Mapping[int, Sequence[float]],
) -> Decision:
    """The winner: by the mean of the confirmation runs where there are any, else by the search's own values.

    A difference to the default below one standard error of a difference, sd * sqrt(2 / runs), is a tie, and goes to
    the default.
    """
    if confirmations:
        values = {number: statistics.fmean(scores) for number, scores in confirmations.items() if scores}
        runs = min(len(scores) for scores in confirmations.values() if scores)
    else:
        values, runs = {trial.number: trial.value for trial in trials}, 1
    losses = {trial.number: trial.loss for trial in trials}
    order = ranked([Scored(n, value, losses.get(n, math.inf)) for n, value in values.items()], maximize=maximize)
    best = order[0].number
    tie = measured.sd * math.sqrt(2 / runs) if measured is not None else None
    winner = best
    if default in values and best != default and tie is not None and abs(values[best] - values[default]) < tie:
        winner = default
    return Decision(winner, best, values, bool(confirmations), measured, tie)


def within_noise(trials: Sequence[Scored], best: float, measured: Noise | None) -> int | None:
    """How many finished trials lie closer to the best value than two standard deviations of a score's noise."""
    if measured is None:
        return None
    return sum(abs(trial.value - best) <= 2 * measured.sd for trial in trials)
