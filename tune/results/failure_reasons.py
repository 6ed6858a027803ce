"""Explains why a study has no winner or no model: one line with the cause and the value to change."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from tune.scheduling.plan import Plan
from tune.study.record import StudyFolder
from tune.study.run_folder import RunFolder
from tune.study.run_messages import FAILED
from tune.study.run_name import REFITS, WINNER, RunName

_LONGEST = 300  # characters of a failure reason

_MARGIN = 1.5  # proposed over estimated time budget: the first trial also waits for its process to start

# (pattern of a reason, advice).
_ADVICE = (
    (r"\b(nan|inf)\b", "a lower train.learning_rate, or a range that ends lower"),
    (r"out of memory|process died|OutOfMemory", "a smaller train.batch_size, or fewer trials at a time with "
     "search.concurrency"),
)  # fmt: skip


@dataclass(frozen=True)
class _Furthest:
    """The unfinished trial with the largest share of its epochs trained, and the seconds that took."""

    number: int
    epoch: int
    epochs: int
    seconds: float


def no_winner(plan: Plan) -> str:
    """Returns why no trial of a study has finished, as one line."""
    trials = plan.trials.all()
    running = sum(trial.state is TrialState.RUNNING for trial in trials)
    is_cut = plan.out_of_time and (running > 0 or len(trials) < plan.target)
    parts = [_budget(plan, running)] if is_cut else []
    parts += _failed(plan, trials, is_cut=is_cut)
    pruned = sum(trial.state is TrialState.PRUNED for trial in trials)
    if pruned:
        parts.append(
            f"{pruned} of {_trials(len(trials))} {'was' if pruned == 1 else 'were'} pruned (search.pruner is "
            f"{plan.config.settings.search.pruner!r}; a study with search.pruner=none lets all run to their end)"
        )
    if not is_cut and (running or not parts):
        parts.append(f"{running} of {_trials(len(trials))} unfinished; resume it with {_resume(plan.folder)}")
    return f"{plan.folder.path}: no trial finished: {'; '.join(parts)}"


def budget_left_trials(plan: Plan) -> str | None:
    """Returns how many trials a spent time budget left, and a sufficient budget; None if it left none."""
    trials = plan.trials.all()
    ended = [trial for trial in trials if trial.state.is_finished()]
    missing = plan.target - len(ended)
    if not plan.out_of_time or missing <= 0:
        return None
    spent, budget = plan.trials.seconds(), plan.config.settings.search.time_budget_s
    again = f"about search.time_budget_s={_rounded_up(spent * plan.target / len(ended))} would do" if ended else ""
    return (
        f"The time budget ended the search: search.time_budget_s {budget:g} was spent with {missing} of "
        f"{_trials(plan.target)} left{f'; {again}' if again else ''}."
    )


def no_model(folder: StudyFolder) -> str | None:
    """Returns why a study with a winner has no model; None if it has a model, or no winner."""
    if not (folder.results / "best_config.yaml").exists() or (folder.results / "model").is_dir():
        return None
    runs = [(name, run) for name, run in folder.runs() if _is_winners(name)]
    reasons = [(name, reason) for name, run in runs if (reason := _reason(run)) is not None]
    if not reasons:
        why = "results/model is gone, though it was refitted" if runs else "it was not refitted"
        return f"{folder.path}: the winner has no model: {why}; resume it with {_resume(folder)}"
    count = f"all {len(runs)}" if len(reasons) == len(runs) else f"{len(reasons)} of {len(runs)}"
    return (
        f"{folder.path}: the winner has no model: {count} of its refits failed, {_most_frequent(folder, reasons)}; "
        f"fix that, and resume it with {_resume(folder)}"
    )


def failed_refits(folder: StudyFolder) -> str | None:
    """Returns a line that says how many runs after the search failed; None if none did."""
    runs = [(name, run) for name, run in folder.runs() if not RunName.parse(name).is_trial]
    reasons = [(name, reason) for name, run in runs if (reason := _reason(run)) is not None]
    if not reasons:
        return None
    return (
        f"{folder.path}: {len(reasons)} of {len(runs)} runs after the search failed, "
        f"{_most_frequent(folder, reasons)}; {_resume(folder)} tries them again"
    )


def _failed(plan: Plan, trials: Sequence[FrozenTrial], *, is_cut: bool) -> list[str]:
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    if not failed:
        return []
    reasons = []
    for trial in failed:
        name = str(RunName.trial(trial.number))
        reason = trial.user_attrs.get("failure") or _reason(plan.folder.run(name)) or "no reason was recorded"
        reasons.append((name, str(reason)))
    count = f"all {_trials(len(failed))}" if len(failed) == len(trials) else f"{len(failed)} of {_trials(len(trials))}"
    override = f"search.trials={plan.target + len(failed)}"
    again = "" if is_cut else f"; fix that, and resume it with {_resume(plan.folder, override)}"
    return [f"{count} failed, {_most_frequent(plan.folder, reasons)}{again}"]


def _budget(plan: Plan, running: int) -> str:
    """Explains a time budget that ended before any trial did: progress of the furthest trial, sufficient budgets."""
    budget, spent = plan.config.settings.search.time_budget_s, plan.trials.seconds()
    cause = f"the time budget was spent before a trial could finish: search.time_budget_s is {budget:g}"
    furthest = _furthest(plan)
    if furthest is None:
        override = f"search.time_budget_s={_rounded_up(10 * max(spent, budget or 0.0))}"
        unfinished = f" {_trials(running)} had begun, and" if running else ""
        return f"{cause},{unfinished} no epoch was through after {spent:.1f} s; try {_resume(plan.folder, override)}"
    whole = furthest.seconds * furthest.epochs / furthest.epoch
    for_one = _rounded_up(_MARGIN * max(whole, spent))
    for_all = _rounded_up(_MARGIN * max(whole * plan.target, spent))
    enough = "" if for_all == for_one else f" ({for_all} for all {plan.target}, one after the other)"
    return (
        f"{cause}, and the furthest, trial {furthest.number}, had reached epoch {furthest.epoch} of {furthest.epochs} "
        f"after {furthest.seconds:.1f} s; a whole trial takes about {whole:.0f} s, so resume it with "
        f"{_resume(plan.folder, f'search.time_budget_s={for_one}')}{enough}"
    )


def _furthest(plan: Plan) -> _Furthest | None:
    unfinished: list[_Furthest] = []
    for trial in plan.trials.running():
        run = plan.folder.run(str(RunName.trial(trial.number)))
        history = run.history()
        if not history:
            continue
        epoch, epochs = int(history[-1]["epoch"]), int(run.config()["train"]["epochs"])
        # At most the time spent on trials: a resumed trial may have paused.
        seconds = min(history[-1]["time"] - (run.path / "config.yaml").stat().st_mtime, plan.trials.seconds())
        unfinished.append(_Furthest(trial.number, epoch, epochs, max(seconds, 0.1)))
    return max(unfinished, key=lambda item: item.epoch / item.epochs, default=None)


def _reason(run: RunFolder) -> str | None:
    """Returns why a run failed, None if it did not."""
    outcome = run.outcome()
    return None if outcome is None or outcome.state != FAILED else str(outcome.failure)


def _is_winners(name: str) -> bool:
    """Whether a run is a refit of the winner."""
    run = RunName.parse(name)
    return (run.stage, run.row) == (REFITS, WINNER)


def _most_frequent(folder: StudyFolder, reasons: Iterable[tuple[str, str]]) -> str:
    """Returns the most frequent reason (numbers ignored) with its count, the log of one run, and advice."""
    cleaned = [(name, " ".join(reason.split())) for name, reason in reasons]
    kinds = Counter(re.sub(r"\d+", "#", reason) for _, reason in cleaned)
    kind, count = kinds.most_common(1)[0]
    name, reason = next((name, reason) for name, reason in cleaned if re.sub(r"\d+", "#", reason) == kind)
    log = folder.path / name / "log.txt"
    share = "with" if len(kinds) == 1 else f"{count} of them with"
    see_log = f" (see {log})" if log.exists() else ""
    advice = next((text for pattern, text in _ADVICE if re.search(pattern, reason)), None)
    return f"{share}: {reason[:_LONGEST]}{see_log}{f'; what helps is {advice}' if advice else ''}"


def _resume(folder: StudyFolder, override: str = "") -> str:
    """Returns the command that resumes the study."""
    return f"`m3col search --resume {folder.resume_name}{f' {override}' if override else ''}`"


def _rounded_up(seconds: float) -> int:
    """Rounds an estimate up to two significant digits."""
    step = 10 ** max(math.floor(math.log10(max(seconds, 1.0))) - 1, 0)
    return math.ceil(seconds / step) * step


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"
