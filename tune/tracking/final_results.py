"""Sends the results of a study to MLflow: winner, tables, plots and the model."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m3col.checks.resolve import layout
from m3col.data import loading
from m3col.errors import InputError
from m3col.metrics import spec
from m3col.plots import model_plots
from m3col.tasks import registry as tasks
from m3col.tasks.base import Task
from m3col.tracking import mlflow_store, payload
from m3col.tracking.mlflow_store import LACKS, NOTE, RUN_NAME
from m3col.tracking.payload import Point
from tune.results import failure_reasons, prediction_table
from tune.results.report import Report
from tune.results.study_results import DEFAULT, ENSEMBLE, WINNER
from tune.study.record import DESCRIPTION
from tune.study.run_folder import RunFolder
from tune.study.run_messages import COMPLETE
from tune.study.run_name import REFITS
from tune.tracking.notes import CONFIRMED, DECIMALS, GAIN, RANK, SCORE
from tune.tracking.study_to_mlflow import StudyToMlflow

_SENT, _MODEL = "m3col.results", "m3col.model"

_RANKED = 20  # number of child runs with a rank: one screen of the table

_NOTE_LENGTH = 7900


Standing = list[dict[str, Any]]


def send(mlflow_study: StudyToMlflow, report: Report) -> dict[str, str]:
    """Sends results/, unless MLflow has the same content already.

    Returns the parts that the store rejected, with the reasons. The study's MLflow runs are closed in any case. After a
    rejection another call sends everything again.
    """
    folder, tracker, parent = mlflow_study.folder, mlflow_study.tracker, mlflow_study.parent
    lacks = failure_reasons.no_model(folder)
    if lacks is not None and not mlflow_study.driven:  # a search has already warned
        mlflow_study.warn(lacks)
    digest = _digest(folder.results)
    if mlflow_study.ended and mlflow_study.parent_tags.get(_SENT) == digest:
        return {}
    written = (
        (folder.results / "summary.md").stat().st_mtime
    )  # a fixed time, so that sending again does not duplicate points
    refused = tracker.attempt(
        parent,
        {
            "results": lambda: _send_tables(mlflow_study, report, written),
            "files": lambda: _send_files(mlflow_study),
            "model": lambda: _send_model(mlflow_study),
            "trials without a result": lambda: mlflow_study.close_stopped(written),
            "columns of the table": lambda: mlflow_study.set_view(finished=True),
            "end of the study": lambda: _end(mlflow_study, written),
        },
    )
    missing = "; ".join([*([lacks] if lacks else []), *(f"{part}: {reason}" for part, reason in refused.items())])
    tags = {LACKS: missing} if missing != mlflow_study.parent_tags.get(LACKS, "") else {}
    tags |= {} if refused else {_SENT: digest}
    refused |= tracker.attempt(parent, {"note": lambda: tracker.write(parent, tags=tags)})
    mlflow_study.parent_tags |= tags
    return refused


def _send_tables(mlflow_study: StudyToMlflow, report: Report, written: float) -> None:
    standing = _standing(report.trials.sort_values("number"), maximize=mlflow_study.maximize)
    _mark_children(mlflow_study, standing, report.test_metrics, written)
    _write_parent(mlflow_study, standing, report, written)


def _send_files(mlflow_study: StudyToMlflow) -> None:
    described = mlflow_study.folder.path / DESCRIPTION
    for path in [described, *sorted(mlflow_study.folder.results.iterdir())]:
        if path.is_file() and not path.name.startswith("."):
            mlflow_study.tracker.artifacts(mlflow_study.parent, path)
    if mlflow_study.config.settings.tracking.log_ids:
        for name in ("splits.csv", "predictions.parquet"):
            mlflow_study.tracker.artifacts(mlflow_study.parent, mlflow_study.folder.path / name)


def _end(mlflow_study: StudyToMlflow, written: float) -> None:
    mlflow_study.tracker.close(mlflow_study.parent, mlflow_store.FINISHED, written)
    mlflow_study.ended, mlflow_study.running = True, False


def _digest(results: Path) -> str:
    sha = hashlib.sha256()
    for path in sorted(results.iterdir()):
        if path.is_file() and path.suffix in (".md", ".csv", ".yaml", ".html"):
            sha.update(path.name.encode() + path.read_bytes())
    return sha.hexdigest()


def _standing(trials: pd.DataFrame, *, maximize: bool) -> Standing:
    """Returns the finished trials, the winner first. `gain`: difference from the default in the deciding runs."""
    finished = trials[trials["state"] == COMPLETE].copy()
    finished["role"] = finished["role"].fillna("")
    for column in ("value", "confirmed"):  # in a table in memory a column without values has the type object
        finished[column] = pd.to_numeric(finished[column])
    finished["won"] = finished["role"].str.contains(WINNER)
    decided = finished["confirmed"] if finished["confirmed"].notna().any() else finished["value"]
    default = decided[finished["role"].str.contains(DEFAULT)]
    finished["gain"] = decided - (default.iloc[0] if len(default) else np.nan)
    order = finished.sort_values(["won", "value"], ascending=[False, not maximize], kind="stable")
    return [
        {str(k): v for k, v in line.items()} for line in order.assign(rank=range(1, len(order) + 1)).to_dict("records")
    ]


def _mark_children(mlflow_study: StudyToMlflow, standing: Standing, tests: pd.DataFrame, written: float) -> None:
    declared = _declared(tests)
    for line in standing:
        child = mlflow_study.children.get(line["number"])
        if child is None or not (line["rank"] <= _RANKED or child.ranked):
            continue
        name = f"trial {line['number']}" + (f" ({line['role']})" if line["role"] else "")
        metrics = {RANK: line["rank"], CONFIRMED: line["confirmed"], GAIN: line["gain"]}
        for key in (WINNER, DEFAULT):
            if key in line["role"]:
                metrics |= {
                    f"test/{metric}": value for metric, value in _tested(tests, key).items() if metric == declared
                }
        tags = {RUN_NAME: name} if name != child.name else {}
        if line["won"]:
            tags[NOTE] = verdict(mlflow_study, standing, tests)
        elif child.ranked:  # it may have been the winner before the study was extended
            tags[NOTE] = ""
        mlflow_study.tracker.write(child.id, _points(metrics, written), tags=tags)
        child.name, child.ranked = name, True


def _write_parent(mlflow_study: StudyToMlflow, standing: Standing, report: Report, written: float) -> None:
    tests, summary = report.test_metrics, report.summary
    name = mlflow_study.described["name"]
    metrics: dict[str, float] = {RANK: 0}
    tags = {}
    if standing:
        best = standing[0]
        metrics |= {SCORE: best["value"], CONFIRMED: best["confirmed"], GAIN: best["gain"]}
        name = f"{name}: trial {int(best['number'])} won"
        tags["m3col.winner"] = f"trial {int(best['number'])}"
        tags["m3col.winner_setting"] = _setting(mlflow_study, best)
    for key, split in ((WINNER, "test"), (ENSEMBLE, "test_ensemble"), (DEFAULT, "test_default")):
        metrics |= {f"{split}/{metric}": value for metric, value in _tested(tests, key).items()}
    if summary.startswith("# "):  # the page shows the title itself
        summary = summary.partition("\n")[2].lstrip()
    tags |= {RUN_NAME: name, "m3col.verdict": verdict(mlflow_study, standing, tests), NOTE: _shortened(summary)}
    tags |= {mlflow_store.STATE: "complete", mlflow_store.FAILURE: ""}
    mlflow_study.tracker.write(mlflow_study.parent, _points(metrics, written), tags=tags)
    mlflow_study.parent_tags |= tags
    _write_experiment_note(mlflow_study)


def _write_experiment_note(mlflow_study: StudyToMlflow) -> None:
    """Writes the experiment's note: its studies, newest first, each with its verdict and a link."""
    runs = mlflow_study.tracker.find(mlflow_study.experiment, {mlflow_store.KIND: "study"})
    dataset = mlflow_study.described["dataset"]
    counts = ", ".join(f"{name} {count}" for name, count in dataset["features"].items())
    lines = []
    for run in reversed(runs):
        name = run.tags[mlflow_store.STUDY].rpartition(" ")[0]
        page = f"#/experiments/{mlflow_study.experiment}/runs/{run.id}?workflowType=machine_learning"
        lines.append(f"- [{name}]({page}): {run.tags.get('m3col.verdict', 'running')}")
    lines += [
        "",
        f"{dataset['name']}: {dataset['train']} training and {dataset['test']} test samples; features: {counts}. "
        f"{dataset['known_issues']}",
    ]
    mlflow_study.tracker.tag_experiment(mlflow_study.experiment, {NOTE: _shortened("\n".join(lines))})


def verdict(mlflow_study: StudyToMlflow, standing: Standing, tests: pd.DataFrame) -> str:
    """Returns one sentence: the winner, its setting, its difference from the default, and its test result."""
    if not standing:
        return "no trial finished"
    best = standing[0]
    number, setting = int(best["number"]), _setting(mlflow_study, best)
    is_confirmed = np.isfinite(best["confirmed"])
    score = spec.text(mlflow_study.metric, best["confirmed"] if is_confirmed else best["value"])
    scored = f"{mlflow_study.metric} {score} in {'confirmation' if is_confirmed else 'the search'}"
    if DEFAULT in best["role"]:
        head = f"**The default setting (trial {number}) stays the best**"
    else:
        head = f"**Trial {number} won**"
        head += f" by {best['gain']:+.4f} against the default" if np.isfinite(best["gain"]) else ""
    return f"{head}: {setting}; {scored}{_test_words(tests)}"


def _setting(mlflow_study: StudyToMlflow, line: Any) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {_short(line[path])}" for path in mlflow_study.config.space)


def _test_words(tests: pd.DataFrame) -> str:
    declared = _declared(tests)
    line = tests[(tests["row"] == WINNER) & (tests["metric"] == declared)]
    if not len(line) or not np.isfinite(line.iloc[0]["test"]):
        return ""
    result = line.iloc[0]
    test, low, high = (spec.text(declared, result[name]) for name in ("test", "low", "high"))
    return f"; test {declared} {test}" + (f" [{low}, {high}]" if np.isfinite(result["low"]) else "")


def _send_model(mlflow_study: StudyToMlflow) -> None:
    checkpoint = mlflow_study.folder.results / "model"
    if not checkpoint.is_dir():
        return
    sha = hashlib.sha256()
    for path in sorted(checkpoint.iterdir()):
        sha.update(path.name.encode() + path.read_bytes())
    if mlflow_study.parent_tags.get(_MODEL) == sha.hexdigest():
        return
    tracker, parent = mlflow_study.tracker, mlflow_study.parent
    tracker.artifacts(parent, checkpoint, "checkpoint")
    with tempfile.TemporaryDirectory() as folder:
        _draw(mlflow_study, Path(folder))
        tracker.artifacts(parent, Path(folder), "figures")
    uri = tracker.model(parent, checkpoint, example=_medians(mlflow_study), listed=False)
    tracker.write(parent, tags={_MODEL: sha.hexdigest(), "m3col.model_uri": uri})
    mlflow_study.parent_tags[_MODEL] = sha.hexdigest()


def _medians(mlflow_study: StudyToMlflow) -> dict[str, np.ndarray] | None:
    """Returns medians of the training split as input example; None if the data cannot be loaded."""
    if mlflow_study.dataset is not None:
        return payload.medians(mlflow_study.dataset)
    run = mlflow_study.config.run
    config = run.data
    try:
        folder = None if config.dir is None else Path(config.dir)
        loaded = loading.load(
            config.name, data_dir=folder, modalities=config.modalities, splits=("train",), layout=layout(run),
            resplit=config.resplit, permutation=config.permuted_labels, task=run.task,
        )  # fmt: skip
    except InputError:
        return None
    return payload.medians(loaded)


def _draw(mlflow_study: StudyToMlflow, folder: Path) -> None:
    """Draws the learning curves of the winner's refits, and figures of the ensemble's test predictions."""
    refits = [RunFolder(path) for path in sorted((mlflow_study.folder.path / REFITS / WINNER).glob("*"))]
    refits = refits[: mlflow_study.config.settings.final.seeds]
    histories = [
        pd.DataFrame([{"epoch": r["epoch"], **r["metrics"]} for r in records])
        for run in refits
        if (records := run.history())
    ]
    if histories:
        figure = model_plots.learning_curves(histories, metric=mlflow_study.metric)
        model_plots.save(figure, folder / "learning_curves.png")
    rows = prediction_table.read(mlflow_study.folder)
    rows = rows[(rows["kind"] == prediction_table.TEST) & rows["job"].str.startswith(f"{REFITS}/{WINNER}/")]
    members = [group for _, group in rows.groupby("job", sort=True)]
    task = delivered_task(mlflow_study)
    labels = task.labels_of(members[0]) if members else None
    if labels is not None:
        mean = np.mean([task.link(task.outputs_of(group)) for group in members], axis=0)
        for name, figure in task.figures(labels, mean).items():
            model_plots.save(figure, folder / f"{name}.png")


def delivered_task(mlflow_study: StudyToMlflow) -> Task:
    """Returns the task of a study with what the delivered model has chosen, such as thresholds."""
    task = tasks.of(mlflow_study.config.run, mlflow_study.described["dataset"]["classes"])
    model = mlflow_study.folder.results / "model"
    if not task.chooses or not model.is_dir():
        return task
    from m3col.training.checkpoint import describe  # it needs torch

    return task.with_choices(describe(model, "model").get("choices", {}))


def _declared(tests: pd.DataFrame) -> str:
    return str(tests["metric"].iloc[0]) if len(tests) else ""


def _tested(tests: pd.DataFrame, row: str) -> dict[str, float]:
    chosen = tests[(tests["row"] == row) & tests["test"].notna()]
    return dict(zip(chosen["metric"], chosen["test"], strict=True))


def _points(metrics: Mapping[str, Any], written: float) -> list[Point]:
    return [
        Point(name, round(float(value), DECIMALS), 0, written) for name, value in metrics.items() if np.isfinite(value)
    ]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _shortened(text: str) -> str:
    """Cuts a text to the length of a tag. The whole summary is an artifact."""
    if len(text) <= _NOTE_LENGTH:
        return text
    return text[:_NOTE_LENGTH].rpartition("\n")[0] + "\n\n(cut: the whole text is the artifact summary.md)"
