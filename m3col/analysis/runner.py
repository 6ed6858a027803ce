"""All analyses of a model in one folder, with a page that shows them."""

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

_SPACE = 20_000_000  # bytes that the files may take


def analyse(
    checkpoint: "str | Path | Sequence[str | Path] | Predictor",
    dataset: Dataset,
    out: str | Path,
    words: Sequence[str] = (),
    only: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Path]:
    """Looks at a model with the test split of `dataset`, writes `<out>/<name>.csv`, PNGs and README.md; their paths.

    words: what heat maps look for; none: the names of the most frequent classes. only: names of analyses; None: all
    that apply, and the page says why others do not. seed: of every draw. Raises InputError with all faults before
    anything is written: an unknown name, one that does not apply, words without images and texts, a data set with
    other classes or features, a folder that cannot be written.
    """
    predictor = checkpoint if isinstance(checkpoint, Predictor) else load(checkpoint)
    faults = word_faults(words, only, predictor) + name_faults(only) + place_faults(Path(out))
    faults += predictor.dataset_faults(dataset)
    if faults:
        raise InputError(faults)
    case = AnalysisContext(predictor, dataset, Options(words=tuple(words), seed=seed))
    wanted = list(dict.fromkeys(TABLE if only is None else only))
    obstacles = {name: text for name in wanted if (text := TABLE[name].obstacle(case)) is not None}
    # Asked for by name, it has to be possible: heat maps by words as well.
    asked = {*(only or ()), *(["heatmaps"] if words else [])}
    if asked & obstacles.keys():
        raise InputError([f"{name}: {text}" for name, text in obstacles.items() if name in asked])
    results = {name: TABLE[name].run(case) for name in wanted if name not in obstacles}
    return _write(Path(out), case, results, obstacles)


def name_faults(only: Sequence[str] | None) -> list[str]:
    """Of the names of analyses, and of umap where its package is missing."""
    found = [f"--only {name!r} is no analysis{nearest(name, TABLE)}" for name in only or () if name not in TABLE]
    if only is not None and not only:
        found.append(f"--only: names no analysis; choose from {', '.join(TABLE)}")
    if "umap" in (only or ()) and not umap_plot.installed():
        found.append(f"--only umap: {umap_plot.MISSING}")
    return found


def word_faults(words: Sequence[str], only: Sequence[str] | None, predictor: Predictor | None) -> list[str]:
    """Words that are empty, or that nothing is done with. predictor: None where it is not known."""
    found = ["--words: a word is empty"] if any(not word.strip() for word in words) else []
    if words and only is not None and "heatmaps" not in only:
        found.append("--words are for heatmaps, which --only leaves out")
    if words and predictor is not None and not set(TABLE["heatmaps"].needs) <= set(predictor.kinds.values()):
        kinds = ", ".join(f"{name} ({kind})" for name, kind in predictor.kinds.items())
        found.append(f"--words are looked for in images by models of images and texts; this one has {kinds}")
    return found


def place_faults(out: Path) -> list[str]:
    """Whether the files can be written there."""
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
    """The page in Markdown: each analysis with its figures, a link to its table, and how to read it."""
    members = len(case.predictor)
    what = "one model" if members == 1 else f"an ensemble of {members} members, whose probabilities are averaged"
    method = case.predictor.config["method"]
    lines = [
        f"# {method} on {case.dataset.name}", "",
        f"{what[0].upper()}{what[1:]}, on {len(case.test):,} test samples of {case.task.width} classes: "
        f"accuracy {case.right['fused'].mean():.1%}. Seed {case.options.seed}.", "",
    ]  # fmt: skip
    for name, result in results.items():
        lines += [f"## {TABLE[name].description}", "", f"{result.shown} Table: [{name}.csv]({name}.csv).", ""]
        for stem in result.figures:
            lines += [f"![{stem.replace('_', ' ')}]({stem}.png)", ""]
    if obstacles:
        lines += ["## Not shown", "", *(f"- {name}: {text}." for name, text in obstacles.items()), ""]
    return "\n".join(lines)
