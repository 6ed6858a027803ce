"""The folds of a study: drawn once from a seed, the same for all trials."""

from m3col.config import loading as run_config
from m3col.data import splits
from m3col.data.dataset import Dataset
from m3col.tasks import registry as tasks
from tune.config.schema import StudyConfig

SEARCH_PARTITION, CONFIRM_PARTITION = "search", "confirm"

CONFIRM_SEED = 1000  # difference between the seeds of the confirmation and those of the search


def partitions(study: StudyConfig, dataset: Dataset) -> dict[str, list[splits.Fold]]:
    """Returns the folds of the search and of the confirmation by partition. They depend on the study's seed only."""
    validation = study.run.validation
    assert validation.kind is not None
    task = tasks.of(study.run, dataset.classes)

    def draw(seed: int) -> list[splits.Fold]:
        return splits.draw(
            dataset,
            kind=str(validation.kind),
            folds=validation.folds,
            fraction=validation.fraction,
            seed=seed,
            task=task,
        )

    return {SEARCH_PARTITION: draw(validation.seed), CONFIRM_PARTITION: draw(validation.seed + CONFIRM_SEED)}


def partitions_digest(study: StudyConfig, dataset: Dataset) -> str:
    """Returns a digest of the validation samples of all folds."""
    folds_of = partitions(study, dataset)
    return run_config.digest({name: [fold.validation.tolist() for fold in folds] for name, folds in folds_of.items()})
