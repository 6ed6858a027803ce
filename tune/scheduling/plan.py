"""Decides which run is next, from the study's record alone, so that a resumed search continues where it stopped."""

from collections.abc import Set
from enum import Enum
from typing import Any

from optuna.trial import TrialState

from m3col.errors import InputError
from tune.config import search_space as spaces
from tune.config.schema import StudyConfig, reseeded, slug
from tune.scheduling import selection
from tune.scheduling.optuna_study import DEFAULT, Trials
from tune.study.attempts import training_config
from tune.study.partitions import CONFIRM_PARTITION, CONFIRM_SEED, SEARCH_PARTITION
from tune.study.record import StudyFolder
from tune.study.run_messages import FAILED
from tune.study.run_name import CONFIRMATIONS, REFITS, REPLICATES, TRIALS, RunName
from tune.study.run_spec import CONFIRM, REFIT, REPLICATE, TRIAL, RunSpec

PREDICT_TEST_EVERY = 10  # epochs; as the published code evaluated the test split


class NextRun(Enum):
    """Why there is no next run. `WAIT`: other runs must end first; `DONE`: the study is complete."""

    WAIT = "wait"
    DONE = "done"


class Plan:
    """The stages of a study: trials, replicates of the default, confirmation of the best, refits."""

    def __init__(self, folder: StudyFolder, config: StudyConfig, trials: Trials) -> None:
        self.folder, self.config, self.trials = folder, config, trials
        self._decision: selection.Decision | None = None
        points = [spaces.defaults(config.space, config.run)]
        is_grid = config.settings.search.sampler == "grid"
        if is_grid:
            points += spaces.grid(config.space, points=config.settings.search.grid_points)
        self._points = list({repr(sorted(point.items())): point for point in points}.values())
        count = config.settings.search.trials
        self.target = min(count, len(self._points)) if is_grid or not config.space else count

    def prepare(self) -> None:
        """Queues the points that the sampler does not choose, and clears failed runs other than trials for a retry."""
        self.trials.enqueue_first(self._points)
        self._forget_failures()

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is spent."""
        budget = self.config.settings.search.time_budget_s
        return budget is not None and self.trials.seconds() >= budget

    def searching(self) -> bool:
        """Whether trials are still to be started or are unfinished."""
        return not self.out_of_time and (len(self.trials.all()) < self.target or bool(self.trials.running()))

    def next(self, busy: Set[str]) -> RunSpec | NextRun:
        """Returns the next run to start, or why there is none. `busy`: names of the running runs."""
        trial = self._next_trial(busy)
        if trial is not None:
            return trial
        stages = ((REPLICATES, self.replicates), (CONFIRMATIONS, self.confirmations), (REFITS, self.refits))
        busy_stages = {RunName.parse(run).stage for run in busy}
        for number, (_, specs) in enumerate(stages):
            # Confirmations depend on all trials and replicates, refits on all confirmations.
            earlier = {TRIALS, *(other for other, _ in stages[:number])} if number else set()
            if busy_stages & earlier:
                return NextRun.WAIT
            for spec in specs():
                if spec.name in busy:
                    continue
                self._forget_other(spec)
                if self.folder.run(spec.name).outcome() is None:
                    return spec
        return NextRun.WAIT if busy else NextRun.DONE

    def _next_trial(self, busy: Set[str]) -> RunSpec | None:
        if self.out_of_time:
            return None
        trials = self.trials.all()  # only once: the slowest query, with many running trials
        for trial in trials:
            if trial.state is TrialState.RUNNING and str(RunName.trial(trial.number)) not in busy:
                spec = self._trial(trial.number, trial.params)
                if spec is not None:
                    return spec
        count = len(trials)
        while count < self.target:
            trial = self.trials.ask()
            spec = self._trial(trial.number, trial.params)
            if spec is not None:
                return spec
            count = len(self.trials.all())
        return None

    def _trial(self, number: int, params: dict[str, Any]) -> RunSpec | None:
        try:
            config = self.config.point(params)
        except InputError as error:  # values that are valid one by one, but not in combination
            self.trials.fail(number, str(error))
            return None
        return RunSpec(str(RunName.trial(number)), TRIAL, config.to_dict(), SEARCH_PARTITION)

    def replicates(self) -> list[RunSpec]:
        """Returns the runs of the default with other seeds on the same folds."""
        first = self.config.run.train.seed + 1
        return [
            RunSpec(
                str(RunName(REPLICATES, "", index)),
                REPLICATE,
                reseeded(self.config.run, seed=first + index).to_dict(),
                SEARCH_PARTITION,
            )
            for index in range(self.config.settings.search.replicates)
        ]

    def confirmations(self) -> list[RunSpec]:
        """Returns the runs of the best trials and the default on a new partition with new seeds."""
        confirm = self.config.settings.search.confirm
        finished = self.scored()
        if confirm is None or not finished:
            return []
        numbers = selection.candidates(finished, default=self.default(), top=confirm.top, maximize=self.trials.maximize)
        if len(numbers) < 2:
            return []
        first = self.config.run.train.seed + CONFIRM_SEED
        split_seed = self.config.run.validation.seed + CONFIRM_SEED
        return [
            RunSpec(
                str(RunName(CONFIRMATIONS, str(number), index)),
                CONFIRM,
                self.config.point(self.trials.get(number).params, seed=first + index, split_seed=split_seed).to_dict(),
                CONFIRM_PARTITION,
            )
            for number in numbers
            for index in range(confirm.seeds)
        ]

    def refits(self) -> list[RunSpec]:
        """Returns the refits of winner, default and the extra rows, each with the same seeds."""
        if not self.scored():
            return []
        decision = self.decide()
        default = self.default()
        rows = {"winner": (self.config.point(self.trials.get(decision.winner).params), decision.winner)}
        if decision.winner != default:
            rows["default"] = (self.config.run, default)
        rows |= {name: (run, default) for name, run in self.config.rows.items()}
        specs = []
        for name, (run, source) in rows.items():
            for index in range(self.config.settings.final.seeds):
                seeded = reseeded(run, seed=self.config.run.train.seed + index)
                specs.append(
                    RunSpec(
                        str(RunName(REFITS, slug(name), index)),
                        REFIT,
                        seeded.to_dict(),
                        self.config.settings.final.refit,
                        rates=self._rates(run, source),
                        predict_test_every=PREDICT_TEST_EVERY if self.config.settings.final.optimistic else 0,
                    )
                )
        return specs

    def _rates(self, run: Any, source: int) -> tuple[float, ...]:
        """Returns the learning rates per epoch of a full refit with a plateau schedule; else nothing.

        Such a refit has no validation metric. It replays the drops of its trial, scaled to its own learning rate. For
        an extra row, `source` is the default's trial.
        """
        if run.train.schedule.kind != "plateau" or self.config.settings.final.refit != "full":
            return ()
        history = self.folder.run(RunName.trial(source)).history()
        rates = [record["metrics"]["train/learning_rate"] for record in history]
        scale = run.train.learning_rate / rates[0] if rates else 1.0
        return tuple(scale * rate for rate in rates)

    def default(self) -> int:
        """Returns the number of the default's trial: 0, unless a crash made another trial take its place."""
        for trial in self.trials.all():
            if trial.user_attrs.get(DEFAULT):
                return trial.number
        return 0

    def scored(self) -> list[selection.Scored]:
        """Returns the finished trials with their values."""
        return [
            selection.Scored(trial.number, float(trial.value), trial.user_attrs.get("val/loss") or 0.0)
            for trial in self.trials.all()
            if trial.state is TrialState.COMPLETE and trial.value is not None
        ]

    def noise(self) -> selection.Noise | None:
        """Returns the spread of the default's scores over seeds, None if it was not measured."""
        values = {trial.number: trial.value for trial in self.scored()}
        return selection.noise(values.get(self.default()), self._values(REPLICATES))

    def decide(self) -> selection.Decision:
        """Returns the winner. Call it when trials, replicates and confirmations have ended."""
        if self._decision is None:
            confirmations: dict[int, list[float]] = {}
            for spec in self.confirmations():
                outcome = self.folder.run(spec.name).outcome()
                number = int(RunName.parse(spec.name).row)
                if outcome is not None and outcome.is_complete and outcome.value is not None:
                    confirmations.setdefault(number, []).append(outcome.value)
            self._decision = selection.decide(
                self.scored(),
                default=self.default(),
                maximize=self.trials.maximize,
                measured=self.noise(),
                confirmations=confirmations,
            )
        return self._decision

    def _values(self, stage: str) -> list[float]:
        """The values of the finished runs of a stage."""
        outcomes = [run.outcome() for name, run in self.folder.runs() if RunName.parse(name).stage == stage]
        finished = [outcome for outcome in outcomes if outcome is not None and outcome.is_complete]
        return [outcome.value for outcome in finished if outcome.value is not None]

    def _forget_other(self, spec: RunSpec) -> None:
        """Clears the folder of a run that has another config, e.g. because more trials changed the winner."""
        run = self.folder.run(spec.name)
        if (run.path / "config.yaml").exists() and training_config(run.config()) != training_config(spec.config):
            run.clear()

    def _forget_failures(self) -> None:
        """Clears failed runs other than trials: the cause, e.g. a full disk, may be gone."""
        for name, run in list(self.folder.runs()):
            outcome = run.outcome()
            if not RunName.parse(name).is_trial and outcome is not None and outcome.state == FAILED:
                run.clear()
