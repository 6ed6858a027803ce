"""Notes and table views of a study's MLflow page."""

import json
from collections.abc import Mapping

from m3col.metrics import spec
from m3col.tracking import mlflow_names, mlflow_store
from tune.config.schema import StudyConfig
from tune.study.run_messages import COMPLETE, FAILED, PRUNED, RunOutcome

SCORE, SO_FAR, BEST = "score", "score_so_far", "best_score"

RANK, CONFIRMED, GAIN = "rank", "confirmed", "vs_default"

DECIMALS = 6  # of scores in MLflow; the study's files have full precision

_VIEW_LENGTH = 150  # with MLflow's prefix it must fit into the key of a tag

_NARROW, _WIDE = 60, 92  # pixels


def progress_note(
    name: str, config: StudyConfig, outcomes: Mapping[int, RunOutcome], *, maximize: bool, running: bool,
    failure: str = "",
) -> str:  # fmt: skip
    """Returns the text of a study's page until it has results.

    Args:
        name: the study's name, for the command that resumes it.
        config: the study's config.
        outcomes: of the trials that have ended, by trial number.
        maximize: whether higher values of the study's metric are better.
        running: whether a search is running.
        failure: why the search failed, "" if it did not.
    """
    ended = outcomes.values()
    counts = {state: sum(outcome.state == state for outcome in ended) for state in (COMPLETE, PRUNED, FAILED)}
    if running:
        head, tail = "**The search is running.**", (
            "Which trial wins is decided when the best ones have been confirmed on other folds and seeds."
        )  # fmt: skip
    else:
        head = f"**The search failed:** {failure}." if failure else "**The search has stopped.**"
        tail = f"`m3col search --resume {name}` resumes it."
    text = (f"{head} {len(ended)} of {config.settings.search.trials} trials have ended: {counts[COMPLETE]} complete, "
            f"{counts[PRUNED]} pruned, {counts[FAILED]} failed.")  # fmt: skip
    scored = {number: o.value for number, o in outcomes.items() if o.is_complete and o.value is not None}
    if scored:
        best = (max if maximize else min)(scored, key=lambda number: scored[number])
        text += (
            f" Best so far: trial {best} with {config.run.metric} {spec.text(str(config.run.metric), scored[best])}."
        )
    return f"{text}\n\n{tail}"


def table_view(config: StudyConfig, study: str, *, maximize: bool, finished: bool) -> str:
    """Returns the view of MLflow's table of runs for a study, as JSON: columns and their order.

    A table that is sorted by a metric is flat: child runs are not nested below their study.

    Args:
        config: the study's config.
        study: value of the study's tag, by which the view filters.
        maximize: whether higher values of the study's metric are better.
        finished: whether the study has its results.
    """
    scores = [RANK, SCORE, CONFIRMED, GAIN] if finished else [SCORE, SO_FAR]
    tested = [f"test/{str(config.run.metric).partition('/')[2]}"] if finished else []
    columns = [f"metrics.`{mlflow_names.key(name)}`" for name in [*scores, *tested]]
    columns += [f"params.`{mlflow_names.key(path)}`" for path in config.space]
    state = {
        "selectedColumns": columns,
        "columnOrder": columns,
        # Narrow, so that scores and settings fit on one screen.
        "columnWidths": {name: _NARROW if RANK in name else _WIDE for name in columns},
        "orderByKey": f"metrics.`{RANK if finished else SCORE}`",
        "orderByAsc": finished or not maximize,
        "searchFilter": f"tags.`{mlflow_store.STUDY}` = '{study}'",
    }
    return json.dumps(state)


def view_key(study: str) -> str:
    """Returns the key of a study's view, which is part of a link: letters, digits, `-` and `_`."""
    plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in study)
    if plain != study or len(plain) > _VIEW_LENGTH:
        plain = f"{plain[:_VIEW_LENGTH]}_{mlflow_names.mark_of(study)}"
    return f"m3col-{plain}"
