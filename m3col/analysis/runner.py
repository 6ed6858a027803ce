"""Runs the analyses of a model and writes their tables, figures and a Markdown page to one folder."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from m3col.analysis import TABLE, umap_plot
from m3col.analysis.context import AnalysisContext, Options, Result
from m3col.checks.limits import disk_faults
from m3col.data.dataset import Dataset
from m3col.errors import InputError, nearest
from m3col.plots import model_plots
from m3col.predictor import Predictor, load
from m3col.storage import atomic_files

PAGE = "README.md"

_SPACE = 20_000_000  # bytes of free disk space that are required


def analyse(
    checkpoint: "str | Path | Sequence[str | Path] | Predictor",
    dataset: Dataset,
    out: str | Path,
    words: Sequence[str] = (),
    only: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Path]:
    """Analyses a model on the test split of a data set; writes `<out>/<name>.csv`, PNG files and README.md.

    Args:
        checkpoint: one checkpoint, several (an ensemble), or a loaded model.
        dataset: with the classes and features of the model.
        out: the folder to write to.
        words: words that heat maps are drawn for; none: the names of the most frequent classes.
        only: names of analyses. None: all that apply; the page says why the others do not.
        seed: of every random draw.

    Returns:
        The paths of the files.

    Raises:
        InputError: with all faults, before anything is written: an unknown name, an analysis that does not apply,
            words for a model without images and texts, a model without classes, a data set with other classes or
            features, a folder that cannot be written.
    """
    predictor = checkpoint if isinstance(checkpoint, Predictor) else load(checkpoint)
    faults = word_faults(words, only, predictor) + name_faults(only) + folder_faults(Path(out))
    faults += predictor.dataset_faults(dataset)
    if predictor.task.label_form != "class":
        faults.append(f"analyse: the analyses need one class per sample, but this is a model of task "
                      f"{predictor.task.name!r}; `m3col evaluate` has its metrics")  # fmt: skip
    if faults:
        raise InputError(faults)
    case = AnalysisContext(predictor, dataset, Options(words=tuple(words), seed=seed))
    chosen = list(dict.fromkeys(TABLE if only is None else only))
    obstacles = {name: text for name in chosen if (text := TABLE[name].obstacle(case)) is not None}
    # An analysis that the user asked for must apply. Words ask for heat maps.
    requested = {*(only or ()), *(["heatmaps"] if words else [])}
    if requested & obstacles.keys():
        raise InputError([f"{name}: {text}" for name, text in obstacles.items() if name in requested])
    results = {name: TABLE[name].run(case) for name in chosen if name not in obstacles}
    return _write(Path(out), case, results, obstacles)


def name_faults(only: Sequence[str] | None) -> list[str]:
    """Unknown names of analyses, and umap where its package is not installed; one line each."""
    faults = [f"--only {name!r} is no analysis{nearest(name, TABLE)}" for name in only or () if name not in TABLE]
    if only is not None and not only:
        faults.append(f"--only: names no analysis; choose from {', '.join(TABLE)}")
    if "umap" in (only or ()) and not umap_plot.installed():
        faults.append(f"--only umap: {umap_plot.MISSING}")
    return faults


def word_faults(words: Sequence[str], only: Sequence[str] | None, predictor: Predictor | None) -> list[str]:
    """Empty words, and words that no analysis uses. `predictor`: None to leave its modalities unchecked."""
    faults = ["--words: a word is empty"] if any(not word.strip() for word in words) else []
    if words and only is not None and "heatmaps" not in only:
        faults.append("--words are for heatmaps, which --only leaves out")
    if words and predictor is not None and not set(TABLE["heatmaps"].needs) <= set(predictor.kinds.values()):
        kinds = ", ".join(f"{name} ({kind})" for name, kind in predictor.kinds.items())
        faults.append(f"--words need a model with an image and a text modality; this one has {kinds}")
    return faults


def folder_faults(out: Path) -> list[str]:
    """Why the files cannot be written to a folder, as lines."""
    return disk_faults(out.absolute(), _SPACE, what="the analysis")


def _write(out: Path, case: AnalysisContext, results: Mapping[str, Result], obstacles: Mapping[str, str]) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, result in results.items():
        table = io.StringIO()
        result.table.to_csv(table, index=False, lineterminator="\n")
        atomic_files.write_text(out / f"{name}.csv", table.getvalue())
        written.append(out / f"{name}.csv")
        for stem, figure in result.figures.items():
            model_plots.save(figure, out / f"{stem}.png")
            written.append(out / f"{stem}.png")
    atomic_files.write_text(out / PAGE, page(case, results, obstacles))
    return [*written, out / PAGE]


def page(case: AnalysisContext, results: Mapping[str, Result], obstacles: Mapping[str, str]) -> str:
    """The page in Markdown. For each analysis: its figures, how to read them, and a link to its table."""
    members = len(case.predictor)
    subject = "one model" if members == 1 else f"an ensemble of {members} members, whose probabilities are averaged"
    method = case.predictor.config["method"]
    lines = [
        f"# {method} on {case.dataset.name}", "",
        f"{subject[0].upper()}{subject[1:]}, on {len(case.test):,} test samples of {case.task.width} classes: "
        f"accuracy {case.right['fused'].mean():.1%}. Seed {case.options.seed}.", "",
    ]  # fmt: skip
    for name, result in results.items():
        lines += [f"## {TABLE[name].description}", "", f"{result.shown} Table: [{name}.csv]({name}.csv).", ""]
        for stem in result.figures:
            lines += [f"![{stem.replace('_', ' ')}]({stem}.png)", ""]
    if obstacles:
        lines += ["## Not shown", "", *(f"- {name}: {text}." for name, text in obstacles.items()), ""]
    return "\n".join(lines)
