"""Properties of each metric: direction, unit, and how values combine over samples and folds.

A new metric is one entry in `TABLE`.
"""

from dataclasses import dataclass

from m3col.errors import InputError, nearest


@dataclass(frozen=True)
class MetricSpec:
    """Properties of one metric.

    Attributes:
        name: as in configs, tables and MLflow, without the split; parts and outputs follow after `_` (`ce_fused`).
        higher_is_better: its direction.
        unit: "%" where tables show 100 times the value, "" where they show the value itself.
        bounded: whether no value exceeds 1, so that a larger published value must be a percentage.
        per_sample: whether it is the mean of one value per sample.
        ranking: whether it depends on the order of the samples only. Over folds it is then averaged and never pooled,
            because the scores of different models are not on one scale.
        has_unit: whether it has the unit of the targets (or its square), so that its size says nothing by itself.
            Tables then show significant digits instead of decimals.
    """

    name: str
    higher_is_better: bool = True
    unit: str = "%"
    bounded: bool = True
    per_sample: bool = False
    ranking: bool = False
    has_unit: bool = False


def _loss(name: str, *, per_sample: bool = False) -> MetricSpec:
    return MetricSpec(name, higher_is_better=False, unit="", bounded=False, per_sample=per_sample)


TABLE: dict[str, MetricSpec] = {
    spec.name: spec
    for spec in (
        MetricSpec("accuracy", per_sample=True),
        MetricSpec("balanced_accuracy"),
        MetricSpec("macro_f1"),
        MetricSpec("weighted_f1"),
        _loss("log_loss", per_sample=True),
        _loss("brier", per_sample=True),
        _loss("ece"),
        MetricSpec("confidence_auroc", ranking=True),
        MetricSpec("f1"),
        MetricSpec("auroc_macro", ranking=True),
        MetricSpec("auroc_weighted", ranking=True),
        MetricSpec("auroc", ranking=True),
        MetricSpec("average_precision", ranking=True),
        MetricSpec("mcc"),
        MetricSpec("micro_f1"),
        MetricSpec("samples_f1", per_sample=True),
        MetricSpec("map", ranking=True),
        MetricSpec("subset_accuracy", per_sample=True),
        MetricSpec("mse", higher_is_better=False, unit="", bounded=False, per_sample=True, has_unit=True),
        MetricSpec("mae", higher_is_better=False, unit="", bounded=False, per_sample=True, has_unit=True),
        MetricSpec("r2", unit=""),
        MetricSpec("pearson", unit=""),
        _loss("loss"),  # what a training minimises, and its parts
        _loss("ce"),  # the cross-entropy of one output
        _loss("bce"),  # the binary cross-entropy of one output, averaged over its labels
        _loss("nmse"),  # the squared error of one output on standardised targets
    )
}


def of(name: str) -> MetricSpec:
    """Properties of a metric by its full name.

    Args:
        name: such as `auroc`, `val/auroc`, `val/accuracy_mRNA` or `train/loss_contrastive`. The split in front and the
            part, output or modality behind are ignored.

    Returns:
        The entry of `TABLE`.

    Raises:
        InputError: for an unknown metric, with the nearest known one.

    Example:
        >>> of("val/ce_fused").higher_is_better
        False
    """
    base = name.split("/", 1)[-1]
    for metric, spec in TABLE.items():
        if base == metric or base.startswith((f"{metric}_", f"{metric}/")):
            return spec
    raise InputError([f"metric {name!r} is unknown{nearest(base, TABLE)}"])


def higher_is_better(name: str) -> bool:
    """Direction of a metric, see `of`."""
    return of(name).higher_is_better


def text(name: str, value: float) -> str:
    """A value for messages: four decimals, or four significant digits for a metric in the units of the targets.

    Args:
        name: of the metric, see `of`; may be unknown.
        value: its value.

    Returns:
        The text.

    Example:
        >>> text("test/accuracy", 0.5), text("test/mse", 0.000123456)
        ('0.5000', '0.0001235')
    """
    base = name.split("/", 1)[-1]
    in_units = any(base == metric or base.startswith(f"{metric}_") for metric, spec in TABLE.items() if spec.has_unit)
    return f"{value:.4g}" if in_units else f"{value:.4f}"
