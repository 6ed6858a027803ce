"""Linear evaluation of the embeddings of each modality alone, and of all: what each modality adds.

A logistic regression is fitted to embeddings of the training fold alone, as methods without labels do it
(m3col.evaluation.linear_evaluation), and scored on the validation fold and on the test split.

Letters: N samples, F columns, C classes; S_k modality k alone, S_0 all modalities.
Paper: Dufumier et al., arXiv 2409.07402, sections 3 and 4. I(X1, X2; Y) = R + U1 + U2 + S and I(Xk; Y) = R + U_k
divide the information about the label into what is redundant, unique to a modality, and synergistic.
Differs: scores stand in for information, which the embeddings may hold in a form that no linear classifier sees. Three
scores do not determine four parts, so that each part gets a range.
"""

import numpy as np
import pandas as pd

from m3col import randomness
from m3col.analysis import subset_scores
from m3col.analysis.context import AnalysisContext, Result
from m3col.data.dataset import Split

VALIDATION, TEST = "validation", "test"

ALL = "all"

_LEAST_SHIFT = 0.005  # of a score, which is said to have changed


def obstacle(case: AnalysisContext) -> str | None:
    """Returns why the analysis does not apply to a model, or None where it applies."""
    if (reason := subset_scores.obstacle(case)) is not None:
        return reason
    if case.dataset.train.labels is None:
        return "needs labels of the training split, to which a linear classifier is fitted"
    faults = subset_scores.fold_faults(case)
    if faults:
        return f"the training fold cannot be drawn again from this data set: {faults[0]}"
    if len(subset_scores.complete_rows(subset_scores.folds(case)[0])):
        return None
    return "needs a training sample that has all modalities, but the training fold has none"


def run(case: AnalysisContext) -> Result:
    """Returns the table of `evaluations` and its figure."""
    table, fitted = evaluations(case)
    groups = {str(split): rows for split, rows in table.groupby("split", sort=False)}
    figure = subset_scores.bars(
        groups, [*next(iter(groups.values()))["modalities"]], title="Linear evaluation of embeddings",
        chance=chance(case),
    )  # fmt: skip
    text = (
        "A logistic regression on frozen embeddings of each modality alone and of all together, fitted to "
        f"{fitted:,} samples of the training fold and scored on others. {in_words(case, groups[TEST])} "
        f"Whiskers are 95 % intervals over samples. {subset_scores.BALANCED_NOTE}{case.member_note()}"
    )
    return Result(table, {"linear": figure}, text)


def chance(case: AnalysisContext) -> float:
    """Balanced accuracy of one class for all test samples."""
    return case.task.score("balanced_accuracy", case.labels, case.task.constant(case.labels, len(case.labels)))


def evaluations(case: AnalysisContext) -> tuple[pd.DataFrame, int]:
    """Scores of a linear classifier on the embeddings of each subset of `subset_scores.subsets`.

    Returns:
        The table, with the columns split ("validation" or "test"), modalities, samples, cost (of the regularisation)
        and for each of `subset_scores.METRICS` its value, ends of its interval, and `<metric>_gain`, what all
        modalities score above this row. And the number of samples that the classifiers were fitted to.
    """
    train, validation = (None if s is None else subset_scores.complete(s) for s in subset_scores.folds(case))
    assert train is not None and train.labels is not None
    train = train.take(case.subsample("linear", np.arange(len(train)), case.options.training_samples))
    held_out = {VALIDATION: validation, TEST: subset_scores.complete(case.test)}
    scored = {name: split for name, split in held_out.items() if split is not None and len(split)}
    chosen = subset_scores.subsets(case.modalities)
    fit = _embeddings(case, train, chosen)
    assert train.labels is not None
    config = case.predictor.members[0].method.config
    # The key of the training: where all of its samples are used, the classifier of all modalities is that of the model.
    seed = randomness.torch_seed(seed=config.train.seed, fold=0, epoch=0, purpose="evaluation")
    weight = case.task.class_weights(config.objective.class_weight, train.labels)
    models = {name: case.task.linear_model(x, train.labels, weight=weight, seed=seed) for name, x in fit.items()}
    rows = []
    for split_name, split in scored.items():
        for name, x in _embeddings(case, split, chosen).items():
            predictions = case.task.link(models[name].outputs(x))
            assert split.labels is not None
            values = subset_scores.scores(case, split.labels, predictions)
            rows.append({"split": split_name, "modalities": name, "cost": models[name].cost, **values})
    table = pd.DataFrame(rows)
    for metric in subset_scores.METRICS:
        best = table[table["modalities"] == ALL].set_index("split")[metric]
        table[f"{metric}_gain"] = table["split"].map(best) - table[metric]
    return table, len(train)


def _embeddings(case: AnalysisContext, split: Split, chosen: dict[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """The embeddings [N, F] of each subset, by the first member."""
    member = case.predictor.members[0]
    sources = member.sources({name: split.inputs[name] for name in case.modalities})
    return dict(zip(chosen, member.subset_features(sources, [*chosen.values()]), strict=True))


def ranges(alone: tuple[float, float], both: float) -> dict[str, tuple[float, float]]:
    """The parts of a score of two modalities, as ranges that agree with the scores of each alone and of both.

    With a_k the score of modality k alone and t that of both, all above chance: a_k = R + U_k, t = R + U1 + U2 + S,
    and no part is negative. Then R is from max(0, a_1 + a_2 - t) to min(a_1, a_2), which gives the other parts.

    Args:
        alone: a_1 and a_2.
        both: t; where it is below a_1 or a_2, the larger of these takes its place.

    Returns:
        Lowest and highest value by part: redundant, unique_1, unique_2, synergistic.

    Example:
        >>> ranges((0.5, 0.0), 0.75)
        {'redundant': (0.0, 0.0), 'unique_1': (0.5, 0.5), 'unique_2': (0.0, 0.0), 'synergistic': (0.25, 0.25)}
    """
    first, second = (max(value, 0.0) for value in alone)
    total = max(both, first, second)
    low, high = max(0.0, first + second - total), min(first, second)
    return {
        "redundant": (low, high),
        "unique_1": (first - high, first - low),
        "unique_2": (second - high, second - low),
        "synergistic": (total - first - second + low, total - first - second + high),
    }


def in_words(case: AnalysisContext, table: pd.DataFrame) -> str:
    """What the test scores say about the modalities, in sentences."""
    score = table.set_index("modalities")["balanced_accuracy"]
    base = chance(case)
    alone = {name: float(score[f"{name} alone"]) for name in case.modalities}
    best = max(alone, key=lambda name: alone[name])
    gain = float(score[ALL]) - alone[best]
    text = [
        f"On test, the best modality alone is {best} with a balanced accuracy of {alone[best]:.1%}; all reach "
        f"{score[ALL]:.1%}, a gain of {100 * gain:+.1f} points (one class for all: {base:.1%})."
    ]
    if gain < 0:
        text[0] += (
            f" So a linear classifier sees less in the embedding of all than in that of {best}: the model has not "
            "learnt to keep it, or the samples are too few for more columns."
        )
    if len(alone) > 2:
        lost = {name: float(score[ALL] - score[f"without {name}"]) for name in case.modalities}
        listed = ", ".join(f"{name} {100 * value:+.1f}" for name, value in lost.items())
        return (
            f"{text[0]} All modalities score above all but one by so many points: {listed}. This is what only that "
            "modality has (unique), or what shows only in its presence (synergistic); near 0, others have it as well "
            "(redundant), or it has nothing."
        )
    one, two = case.modalities
    parts = ranges((alone[one] - base, alone[two] - base), float(score[ALL]) - base)
    called = {"redundant": "redundant (in either modality)", "unique_1": f"unique to {one}",
              "unique_2": f"unique to {two}", "synergistic": "synergistic (in neither alone)"}  # fmt: skip
    shown = "; ".join(f"{called[part]}: {_range(*ends)}" for part, ends in parts.items())
    text.append(f"Of the points above one class for all, these are {shown}. A range is all that three scores can say.")
    return " ".join(text)


def _range(low: float, high: float) -> str:
    if high - low < _LEAST_SHIFT:
        return f"{100 * low:.1f}"
    return f"{100 * low:.1f} to {100 * high:.1f}"
