"""Notes and table views of a study's MLflow page."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from m3col.tracking import mlflow_names, mlflow_store
from m3col.tracking.mlflow_store import LATEST_VIEW, SHARED_VIEW
from tune.study.record import COMPLETE, FAILED, PRUNED
from tune.tracking.final_results import CONFIRMED, GAIN, RANK, SCORE, SO_FAR

if TYPE_CHECKING:
    from tune.tracking.study_to_mlflow import StudyToMlflow


DECIMALS = 6  # of scores in MLflow's tables; the study's files have them all

_VIEW_LENGTH = 150  # with what MLflow puts before it, the key of a tag

_NARROW, _WIDE = 60, 92  # pixels


def progress_note(projection: "StudyToMlflow", results: Mapping[int, Mapping[str, Any]]) -> str:
    """The study's page until it has results. `results`: of the trials that have ended, by number."""
    ended = [result for result in results.values() if result]
    counts = {state: sum(result["state"] == state for result in ended) for state in (COMPLETE, PRUNED, FAILED)}
    total = projection.config.settings.search.trials
    if projection.driven:
        head, tail = "**The search is running.**", (
            "Which trial wins is decided when the best ones have been confirmed on other folds and seeds."
        )  # fmt: skip
    else:
        head = f"**The search failed:** {projection.failure}." if projection.failure else "**The search has stopped.**"
        tail = f"`m3col search --resume {projection.folder.name}` goes on with it."
    text = (f"{head} {len(ended)} of {total} trials have ended: {counts[COMPLETE]} complete, "
            f"{counts[PRUNED]} pruned, {counts[FAILED]} failed.")  # fmt: skip
    scored = {number: result["value"] for number, result in results.items() if result.get("state") == COMPLETE}
    if scored:
        best = (max if projection.maximize else min)(scored, key=lambda number: scored[number])
        text += f" Best so far: trial {best} with {projection.metric} {scored[best]:.4f}."
    return f"{text}\n\n{tail}"


def view(projection: "StudyToMlflow", *, finished: bool) -> None:
    """Tells MLflow's table of runs which columns to show, and in which order, for this study.

    A table that is sorted by a metric is flat: children stand beside their study instead of being folded below it.
    """
    scores = [RANK, SCORE, CONFIRMED, GAIN] if finished else [SCORE, SO_FAR]
    tested = [f"test/{projection.metric.partition('/')[2]}"] if finished else []
    columns = [f"metrics.`{mlflow_names.key(name)}`" for name in [*scores, *tested]]
    columns += [f"params.`{mlflow_names.key(path)}`" for path in projection.config.space]
    state = {
        "selectedColumns": columns,
        "columnOrder": columns,
        # Narrow, so that scores and settings fit on one screen.
        "columnWidths": {name: _NARROW if RANK in name else _WIDE for name in columns},
        "orderByKey": f"metrics.`{RANK if finished else SCORE}`",
        "orderByAsc": finished or not projection.maximize,
        "searchFilter": f"tags.`{mlflow_store.STUDY}` = '{projection.key}'",
    }
    key = view_key(projection.described["name"])
    tags = {f"{SHARED_VIEW}{key}": json.dumps(state), LATEST_VIEW: key}
    projection.tracker.tag_experiment(projection.experiment, tags)


def view_key(study: str) -> str:
    """What a link calls the view of a study: letters, digits, `-` and `_`."""
    plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in study)
    if plain != study or len(plain) > _VIEW_LENGTH:
        plain = f"{plain[:_VIEW_LENGTH]}_{mlflow_names.mark_of(study)}"
    return f"m3col-{plain}"
