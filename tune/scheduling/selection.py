"""Selects the winner of a search, taking the noise of scores into account (PROTOCOL 4)."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scored:
    """A finished trial. The validation loss decides between trials with equal values."""

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
    """The winner of a search and why it won.

    Attributes:
        winner: number of the winning trial.
        best: number of the trial with the best value. It differs from `winner` if it is tied with the default.
        values: score of each candidate in the deciding runs.
        confirmed: whether the deciding runs are confirmations.
        noise: spread of one score over seeds; None if it was not measured.
        tie: difference below which two trials are tied: one standard error of a difference. None without `noise`.
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
    """Returns the trials, best first. Equal values are sorted by lower loss, then by number."""
    sign = -1 if maximize else 1
    return sorted(trials, key=lambda trial: (sign * trial.value, trial.loss, trial.number))


def candidates(trials: Sequence[Scored], *, default: int, top: int, maximize: bool) -> list[int]:
    """Returns the best `top` finished trials other than the default, and the default if it finished."""
    others = [trial.number for trial in ranked(trials, maximize=maximize) if trial.number != default]
    return [*others[:top], *([default] if any(trial.number == default for trial in trials) else [])]


def noise(default_value: float | None, replicates: Sequence[float]) -> Noise | None:
    """Returns the noise from the values of the default and its replicates; None with fewer than two values."""
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
    """Selects the winner by the mean of the confirmation runs; without any, by the values of the search.

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
    """Returns how many finished trials are within two standard deviations of the noise from the best value."""
    if measured is None:
        return None
    return sum(abs(trial.value - best) <= 2 * measured.sd for trial in trials)
