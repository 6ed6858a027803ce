"""A paragraph for the methods section of a paper, written from the facts of a study."""

from collections.abc import Mapping
from typing import Any

from m3col.methods import registry
from tune.config.schema import StudyConfig
from tune.results import summary
from tune.results.study_results import StudyResults

_SAMPLERS = {
    "tpe": "a tree-structured Parzen estimator", "random": "random sampling", "gp": "Gaussian-process optimisation",
    "grid": "a grid", "cmaes": "CMA-ES", "nsga2": "the genetic algorithm NSGA-II",
    "nsga3": "the genetic algorithm NSGA-III",
}  # fmt: skip

_PRUNERS = {
    "asha": "Unpromising trials were stopped early by asynchronous successive halving.",
    "median": "Trials below the median of the earlier ones were stopped early.",
    "none": "No trial was stopped early.",
}


def paragraphs(results: StudyResults) -> list[str]:
    """Returns the paragraphs: data and model, search, evaluation and statistics, software."""
    described, config = results.described, results.config
    return [
        data(described, config),
        search(
            config,
            trials=len(results.trials),
            confirmed=results.decision is not None and results.decision.confirmed,
            replicates=0 if results.noise is None else results.noise.count - 1,
        ),
        _evaluation(results),
        software(described),
    ]


def data(described: Mapping[str, Any], config: StudyConfig) -> str:
    """Returns the sentences on data, splits and model.

    Args:
        described: content of study.json or tree.json.
        config: the study.
    """
    dataset, run = described["dataset"], config.run
    listed = [f"{name} ({count:,} {_noun(count, 'feature')})" for name, count in dataset["features"].items()]
    names = listed or list(dataset["modalities"])
    kinds = {
        "single_label": f"{len(dataset['classes'])} classes", "multi_label": f"{len(dataset['classes'])} labels",
        "regression": _counted(len(dataset["classes"]), "target"),
    }  # fmt: skip
    test = f" and {dataset['test']:,} test samples" if dataset["test"] else " samples and no test samples"
    text = (
        f"We used the data set {dataset['name']} with {dataset['train']:,} training{test}, "
        f"{_counted(len(dataset['modalities']), 'modality')} ({_and(names)}) and {kinds[run.task]}."
    )
    if run.data.resplit is not None:
        text += f" Training and test samples were drawn from all labelled samples (seed {run.data.resplit.seed})."
    epochs = _counted(run.train.epochs, "epoch")
    method = registry.find(run.method).display_name if run.method in registry.TABLE else run.method
    batch = "all samples of the training fold in each batch" if run.train.batch_size is None else (
        f"a batch size of {run.train.batch_size:,}"
    )  # fmt: skip
    text += f" Models of the method {method} were trained for {epochs} with {run.train.optimizer} and {batch}."
    return f"{text} Preprocessing was fitted on the training fold alone."


def search(config: StudyConfig, *, trials: int, confirmed: bool = True, replicates: int | None = None) -> str:
    """Returns the sentences on the search: space, sampler, budget, validation, confirmation.

    Args:
        config: the study.
        trials: number of trials that were begun.
        confirmed: whether confirmations chose the winner.
        replicates: finished repetitions of the default; None: as many as the config says.
    """
    settings, run = config.settings.search, config.run
    validation = {
        "kfold": f"stratified {run.validation.folds}-fold cross-validation on the training split",
        "holdout": f"a stratified {100 * run.validation.fraction:.0f} % of the training split",
        "given": "the validation split of the data set",
    }.get(str(run.validation.kind), "validation samples")
    if not config.space or settings.trials == 1:
        text = f"No hyperparameter was searched. The settings were scored by {run.metric} with {validation}."
    else:
        ranges = _and([f"{path} ({_range(config.raw_space[path])})" for path in config.space])
        text = (
            f"Hyperparameters were searched over {ranges} with {_SAMPLERS[settings.sampler]} (seed {settings.seed}) in "
            f"{_counted(trials, 'trial')}, the default setting first. Each trial was scored by {run.metric} with "
            f"{validation}, averaged over the last tenth of the epochs. {_PRUNERS[settings.pruner]}"
        )
    if settings.time_budget_s is not None:
        text += f" The time budget was {settings.time_budget_s:g} s."
    repeated = settings.replicates if replicates is None else replicates
    if repeated:
        text += (
            f" The noise of a score was the standard deviation over the default setting and "
            f"{_counted(repeated, 'repetition')} of it with other seeds."
        )
    if confirmed and settings.confirm is not None and config.space and settings.trials > 1:
        where = "" if run.validation.kind == "given" else "on a new partition "
        text += (
            f" The {settings.confirm.top} best trials and the default were trained again {where}with "
            f"{_counted(settings.confirm.seeds, 'new seed')}; the mean of these runs chose the winner, and a lead over "
            "the default of less than one standard error of a difference went to the default."
        )
    return text


def _evaluation(results: StudyResults) -> str:
    final, labels = results.config.settings.final, results.test_labels
    seeds = _counted(final.seeds, "seed")
    trained = "on the whole training split" if final.refit == "full" else (
        "on the training split, with the epoch that is best on the validation split,"
    )  # fmt: skip
    if labels is None:
        return f"The winner was trained {trained} with {seeds}. No labelled test split was available."
    groups = results.test_groups is not None
    unit = "groups of test samples" if groups else "test samples"
    within = " within class" if results.task.exact_strata else ""
    text = (
        f"The winner and each compared row were trained {trained} with {seeds}, and scored on the test split by "
        f"{results.declared}, the mean over seeds. No choice of the search used a test label. "
        f"{summary.ledger(results)} Intervals are 95 % and combine {final.draws:,} bootstrap draws of {unit}{within} "
        "with the spread over seeds (t distribution); differences are paired by draw and seed. P-values are adjusted "
        "by Holm's method over the compared rows."
    )
    if results.best_baseline is not None:
        text += (
            f" {_counted(len(results.baselines()), 'baseline')} without a neural network were fitted on the same "
            f"splits; the best one by cross-validation was {results.best_baseline}."
        )
    return text


def software(described: Mapping[str, Any]) -> str:
    """Returns the sentence on software and its versions. `described`: content of study.json or tree.json."""
    versions = {name: version for name, version in described["versions"].items() if version != "not installed"}
    own = versions.pop("m3col", "")
    others = _and([f"{name} {version}" for name, version in versions.items()])
    commit = (described.get("git") or {}).get("commit")
    at = f" (commit {commit[:12]})" if commit else ""
    digests = described["digests"]
    listed = _and([f"{name} {digests[name][:12]}" for name in ("train", "test") if digests.get(name)])
    text = f"Software: m3col {own}{at} with {others}."
    return f"{text} SHA-256 digests of the data begin with: {listed}." if listed else text


def _range(space: Any) -> str:
    choices = space.get("choices") if isinstance(space, dict) else space
    if isinstance(choices, list):
        return "one of " + ", ".join(str(value) for value in choices)
    scale = ", log scale" if space.get("log") else ""
    return f"{space['low']:g} to {space['high']:g}{scale}"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def _noun(count: int, noun: str) -> str:
    if count == 1:
        return noun
    return noun[:-1] + "ies" if noun.endswith("y") else f"{noun}s"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {_noun(count, noun)}"
