"""What the winner's runs show: held-out predictions, loss curves, and the votes of the modalities."""

from typing import Any

import numpy as np

from m3col.evaluation.epoch_metrics import window
from m3col.tasks.base import Task
from tune.page import axes, search_charts
from tune.page.axes import Axis, Frame, line, lines
from tune.page.markup import Html, escaped, joined, tag
from tune.results import formatting, prediction_table, test_table
from tune.results.formatting import shown
from tune.results.study_results import WINNER, StudyResults

_MOST_POINTS = 120


def held_out(results: StudyResults) -> tuple[Any, Any, Task, str] | None:
    """Returns labels, predictions, task and origin of predictions that the winner made for samples it did not see.

    Those of the test split are of the ensemble of its refits. Without test labels they are the out-of-fold ones of the
    runs that chose it. None without either.
    """
    if results.decision is None:
        return None
    jobs = results.deciding_runs(results.decision.winner)
    task = results.task_of(jobs)
    if results.test_labels is not None:
        row = next(row for row in test_table.rows(results) if row.key == WINNER)
        members = [p for job in row.jobs.values() if (p := results.test_probabilities(job)) is not None]
        if members:
            text = f"Test split, {len(results.test_labels):,} samples; mean prediction of {_models(len(members))}."
            return results.test_labels, np.mean(members, axis=0), task, text
    rows = results.predictions
    rows = rows[rows["job"].isin(jobs) & (rows["kind"] == prediction_table.OOF)]
    labels = None if rows.empty else task.labels_of(rows)
    if labels is None:
        return None
    text = f"Out-of-fold predictions of {_models(len(jobs), 'run')} on the training split, {len(labels):,} in all."
    return labels, task.link(task.outputs_of(rows)), task, text


def _models(count: int, noun: str = "model") -> str:
    return f"the winner's {noun}" if count == 1 else f"the winner's {count} {noun}s"


def losses(results: StudyResults) -> Html:
    """Returns training and validation loss over epochs, the mean of the runs that chose the winner; empty without."""
    if results.decision is None:
        return escaped("")
    curves: dict[str, list[list[float]]] = {"train/loss": [], "val/loss": []}
    for name in results.deciding_runs(results.decision.winner):
        records = results.folder.run(name).history()
        for key, values in curves.items():
            values.append([float(record["metrics"].get(key, np.nan)) for record in records])
    means = {key: _mean(values) for key, values in curves.items() if values}
    means = {key: value for key, value in means.items() if len(value) > 1 and np.isfinite(value).any()}
    if not means:
        return escaped("")
    longest = max(len(value) for value in means.values())
    frame = Frame(
        Axis(1, max(2, longest)), Axis.around(np.concatenate(list(means.values())).tolist()), "epoch", "loss",
        "loss over epochs", x_whole=True,
    )  # fmt: skip
    parts, legend = [], []
    for key, text in (("train/loss", "training"), ("val/loss", "validation")):
        if key in means:
            class_ = f"curve {key.partition('/')[0]}"
            kept = [at for at in axes.thinned(means[key].tolist(), _MOST_POINTS) if np.isfinite(means[key][at])]
            parts.append(
                line([frame.x.at(at + 1) for at in kept], [frame.top(float(means[key][at])) for at in kept], class_)
            )
            legend.append((class_, "line", text))
    return joined([tag("h3", "Loss of the winner"), frame.draw([lines(parts)], legend=legend)])


def _mean(curves: list[list[float]]) -> np.ndarray:
    """The mean of curves as long as all of them are there."""
    length = min(map(len, curves))
    return np.mean([curve[:length] for curve in curves], axis=0) if length else np.empty(0)


def votes(results: StudyResults) -> Html:
    """Returns the score of each modality's own vote beside that of the prediction, and of linear models alone."""
    body = [*_heads(results), *_alone(results)]
    return joined(body) if body else escaped("")


def _heads(results: StudyResults) -> list[Html]:
    if results.decision is None:
        return []
    score = results.task.output_score
    sums: dict[str, list[float]] = {}
    for name in results.deciding_runs(results.decision.winner):
        records = results.folder.run(name).history()
        for record in records[-window(len(records)) :]:
            for key, value in record["metrics"].items():
                if key == f"val/{score}" or key.startswith(f"val/{score}_"):
                    sums.setdefault(key.removeprefix(f"val/{score}").removeprefix("_"), []).append(value)
    # Names such as auroc_macro are metrics of the prediction, not votes.
    own = {
        name: float(np.mean(values)) for name, values in sums.items() if f"{score}_{name}" not in results.task.metrics
    }
    whole = own.pop("", None)
    if not own:
        return []
    rows = [(f"vote of {name}", value, _text(value, score)) for name, value in own.items()]
    rows += [("prediction", whole, _text(whole, score))] if whole is not None else []
    text = f"Validation {score} of the winner: of the vote of each modality's head, and of the prediction."
    return [
        tag("h3", "Votes of the winner"),
        tag("p", text, class_="note"),
        search_charts.bars(rows, most=_most(score)),
    ]


def _alone(results: StudyResults) -> list[Html]:
    linear = results.task.linear_baseline
    modalities = results.described["dataset"]["modalities"]
    names = [name for name in results.baselines() if name.removeprefix(f"{linear} ") in modalities or name == linear]
    if len(names) < 2:
        return []
    metric = results.declared
    scores = [(name, results.baseline_cv(name)[metric]) for name in names]
    rows = [
        (name.removeprefix(f"{linear} ") if name != linear else "all modalities", value, _text(value, metric))
        for name, value in scores
    ]
    text = f"Cross-validated {metric} of the linear baseline `{linear}` on each modality alone, and on all."
    return [
        tag("h3", "Each modality alone"), tag("p", text.replace("`", ""), class_="note"),
        search_charts.bars(rows, most=_most(metric), class_="alone"),
    ]  # fmt: skip


def _most(metric: str) -> float | None:
    return 1.0 if formatting.is_percent(metric) else None


def _text(value: float, metric: str) -> str:
    return shown(value, metric) + (" %" if formatting.is_percent(metric) else "")
