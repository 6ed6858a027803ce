"""The `m3col` command: words in, exit code out. 0 done, 1 failed, 2 bad input, 130/143 interrupted."""

import argparse
import contextlib
import importlib
import os
import sqlite3
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from jobs.terminal import streams
from m3col.errors import InputError
from m3col.storage.redaction import scrubbed

_EXAMPLES = {
    "train": "m3col train digits objective.beta=0.2",
    "search": "m3col search configs/search/rosmap.yaml search.trials=40",
    "submit": "m3col submit configs/search/rosmap.yaml --address http://HEAD:8265 --follow",
    "jobs": "m3col jobs list --address http://HEAD:8265",
    "report": "m3col report digits-1",
    "evaluate": "m3col evaluate runs/digits-1/results/model --data digits",
    "analyse": "m3col analyse runs/digits-1/results/model --only errors,umap",
    "predict": "m3col predict runs/digits-1/results/model pixels=p.csv fourier=f.csv gradients=g.csv --out labels.csv",
    "data": "m3col data check data/my_folder",
    "ui": "m3col ui",
    "sync": "m3col sync digits-1",
    "runs": "m3col runs list",
}
_HELP = {
    "train": "train one configuration and test it once",
    "search": "search, confirm, refit, test once and report",
    "submit": "run a search as a job of a Ray cluster",
    "jobs": "list, look at, stop or resume the jobs of a Ray cluster",
    "report": "make a study's tables and plots anew from its files, without training",
    "evaluate": "score a checkpoint on the test split of a data set",
    "analyse": "figures and tables of what a checkpoint has learnt",
    "predict": "label and probabilities for new samples",
    "data": "list, check or fetch data sets",
    "ui": "browse the runs in MLflow",
    "sync": "write to MLflow what it lacks of a study",
    "runs": "list or remove studies and training runs",
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command; every expected failure is a line on standard error, never a traceback."""
    streams.settle()
    arguments = _parse(words)
    with streams.lasting("stderr"):
        code = _run(arguments)
        try:
            streams.flush()
        except BrokenPipeError:
            return code or 1
        except OSError as error:
            sys.stderr.write(f"failed: standard output cannot be written ({error.strerror or error})\n")
            return code or 1
    return code


def _run(arguments: argparse.Namespace) -> int:
    # Imported after parsing: `--help` should not wait for numpy, pandas and torch.
    from jobs.commands import dispatch

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            _find_own_modules(getattr(arguments, "imports", None) or [])
            return dispatch.COMMANDS[arguments.command](arguments)
    except InputError as error:
        sys.stderr.write("".join(f"error: {scrubbed(line)}\n" for line in error.faults))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except EOFError:
        sys.stderr.write("failed: an answer is needed, but there is no terminal; `runs rm --yes` does not ask\n")
        return 1
    except Exception as error:
        sys.stderr.write(scrubbed(_shown(error)))
        return 1


def _find_own_modules(names: Sequence[str]) -> None:
    """Lets modules of the current folder be imported, after all others, and imports those that --import names."""
    with contextlib.suppress(FileNotFoundError):  # a folder that was removed
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    faults = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            faults.append(f"--import {name}: {error}")
    if faults:
        raise InputError(faults)


def _shown(error: Exception) -> str:
    if _is_expected(error):
        return f"failed: {error}\n"
    encoding = sys.getfilesystemencoding()
    if isinstance(error, UnicodeEncodeError) and encoding.lower().replace("-", "") != "utf8":
        name, remedy = ascii(error.object), "set PYTHONUTF8=1, or LC_ALL to a UTF-8 locale such as C.UTF-8"
        return f"failed: file names are in {encoding} here, which cannot hold {name}; {remedy}\n"
    return traceback.format_exc()  # a mistake of ours is shown where it happened


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    """argparse gives up on `key=value` words that follow an option; they belong to those that stand before it."""
    top = parser()
    arguments, left = top.parse_known_args(words)
    into = next((getattr(arguments, name) for name in ("overrides", "inputs") if hasattr(arguments, name)), None)
    foreign = [word for word in left if word.startswith("-") or "=" not in word or into is None]
    if foreign:
        top.error(f"unrecognized arguments: {' '.join(foreign)}")
    if into is not None:
        into.extend(left)
    return arguments


def _is_expected(error: BaseException | None) -> bool:
    """Whether it is the world that failed (a disk, a database, a training) and not this program."""
    if error is None:
        return False
    known = isinstance(error, RuntimeError | OSError | sqlite3.Error)
    return known or _is_expected(error.__cause__ or error.__context__)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as a line of its own, without the place in the code."""
    if issubclass(category, UserWarning):
        sys.stderr.write(f"warning: {scrubbed(str(message))}\n")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="m3col",
        description="Hyperparameter search for multimodal learning: M3CoL and its baselines, compared honestly.",
        epilog="Example: m3col search digits        Help on one command: m3col search --help",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    found = {name: _command(commands, name) for name in _EXAMPLES}
    _add_train(found["train"])
    _add_search(found["search"])
    _add_submit(found["submit"])
    _add_jobs(found["jobs"])
    _add_folders(found["report"])
    found["report"].add_argument("study", help="name or folder of a study")
    _add_prediction(found["evaluate"], found["predict"])
    _add_analysis(found["analyse"])
    _add_data(found["data"])
    _add_folders(found["ui"], tracking=True)
    found["ui"].add_argument("--port", type=int, default=5000, help="default: 5000")
    found["ui"].add_argument("--no-browser", action="store_true", help="print the link, open nothing")
    _add_folders(found["sync"], tracking=True)
    found["sync"].add_argument("study", nargs="*", help="names or folders; default: all studies")
    _add_folders(found["runs"])
    found["runs"].add_argument("action", choices=("list", "rm"))
    found["runs"].add_argument("name", nargs="*", help="with rm: what to remove")
    found["runs"].add_argument("--yes", action="store_true", help="with rm: do not ask")
    return top


def _command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=_HELP[name], description=f"{_HELP[name][0].upper()}{_HELP[name][1:]}.",
        epilog=f"Example: {_EXAMPLES[name]}",
    )  # fmt: skip


def _add_folders(command: argparse.ArgumentParser, *, tracking: bool = False, data: bool = False) -> None:
    command.add_argument("--runs-dir", type=Path, default=None, help="default: $M3COL_RUNS or ./runs")
    if tracking:
        command.add_argument("--tracking-uri", help="MLflow; default: $MLFLOW_TRACKING_URI or SQLite in runs")
    if data:
        command.add_argument("--data-dir", type=Path, help="default: $M3COL_DATA, ./data or ../shared/data")


def _add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="?", help="shipped name, YAML file, or STUDY#17 for a trial of a study")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="such as objective.beta=0.2")
    command.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with a run that was cut off")
    command.add_argument("--workers", type=int, metavar="N", help="processes that share each batch; default: 1")
    command.add_argument(
        "--cpus-per-worker", type=float, metavar="C", help="with --workers; default: resources.threads"
    )
    command.add_argument(
        "--gpus-per-worker", type=float, metavar="G",
        help="with --workers; default: one where the cluster has so many GPUs and train.device is not cpu, else none",
    )  # fmt: skip
    command.add_argument(
        "--address", help="with --workers: Ray cluster to run on; default: $RAY_ADDRESS or a local one"
    )
    _add_folders(command, tracking=True, data=True)


def _add_search(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="?", help="shipped name or YAML file; not needed with --resume NAME")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="of the search or of its base run")
    command.add_argument("--name", help="of the study; default: <config>-<n>")
    command.add_argument(
        "--resume", nargs="?", const=True, metavar="NAME",
        help="go on with a study (default: the newest of this config; `auto`: begin it where there is none); "
        "`--resume trials=80` extends a finished one",
    )  # fmt: skip
    command.add_argument("--address", help="Ray cluster to run on; default: $RAY_ADDRESS or a local one")
    command.add_argument("--plain", action="store_true", help="lines instead of the live table")
    _add_folders(command, tracking=True, data=True)


_DASHBOARD = "the cluster's dashboard, http://HEAD:8265; default: $RAY_API_SERVER_ADDRESS or $RAY_ADDRESS"


def _add_submit(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="?", help="shipped name or YAML file; not needed with --resume NAME")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="of the search or of its base run")
    command.add_argument("--address", help=_DASHBOARD)
    command.add_argument("--name", help="of the study; default: <config>-<n>")
    command.add_argument("--resume", metavar="NAME", help="go on with a study of the cluster")
    command.add_argument("--follow", action="store_true", help="show the job's log and end with it")
    command.add_argument("--shared", action="store_true", help="the folders are mounted on every node")
    command.add_argument("--runs-dir", type=Path, help="on the cluster; default: $M3COL_RUNS there")
    command.add_argument("--tracking-uri", help="MLflow, as the cluster reaches it; default: SQLite in runs")
    command.add_argument("--data-dir", type=Path, help="on the cluster; default: $M3COL_DATA there")
    command.add_argument("--print-rayjob", action="store_true", help="print a KubeRay manifest, speak to no cluster")
    command.add_argument("--image", help="with --print-rayjob: Ray and m3col; default: as docs/cluster.md builds it")
    command.add_argument("--nodes", type=int, help="with --print-rayjob: pods with one trial each; default: 1")


def _add_jobs(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    described = {
        "list": "the searches that were submitted", "status": "one job", "logs": "its log",
        "stop": "ends it; what has finished stays", "resume": "goes on with its study, with the code as it is here",
    }  # fmt: skip
    for name, text in described.items():
        action = actions.add_parser(name, help=text, description=text)
        if name == "list":
            action.add_argument("--all", action="store_true", help="those of others as well")
        else:
            action.add_argument("id", help="as `m3col jobs list` shows it")
        if name == "resume":
            action.add_argument("overrides", nargs="*", metavar="key=value", help="such as trials=80")
            action.add_argument("--shared", action="store_true", help="the folders are mounted on every node")
        if name in ("logs", "resume"):
            action.add_argument("--follow", action="store_true", help="show the log as it grows, and end with the job")
        action.add_argument("--address", help=_DASHBOARD)


def _add_prediction(evaluate: argparse.ArgumentParser, predict: argparse.ArgumentParser) -> None:
    for command in (evaluate, predict):
        command.add_argument("checkpoint", nargs="+" if command is evaluate else None, help="model checkpoint folder")
        _add_import(command)
    evaluate.add_argument("--data", help="name of the data set; default: the one it was trained on")
    _add_folders(evaluate, data=True)
    predict.add_argument("inputs", nargs="*", metavar="modality=file.csv", help="one file per modality")
    predict.add_argument("--csv", type=Path, help="one file for all: paths of images, texts, numbers by column")
    predict.add_argument("--out", type=Path, help="CSV to write; default: standard output")


def _add_analysis(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, help="model checkpoint folder")
    command.add_argument("--data", help="name of the data set; default: the one it was trained on")
    command.add_argument("--out", type=Path, metavar="DIR", help="default: the folder `analysis` beside the checkpoint")
    command.add_argument("--words", metavar="A,B", help="to be found in images; default: the most frequent classes")
    command.add_argument(
        "--only", metavar="A,B", help="of errors, robustness, confidence, umap, heatmaps; default: all"
    )
    command.add_argument("--seed", type=int, default=0, help="of every draw; default: 0")
    _add_import(command)
    _add_folders(command, tracking=True, data=True)


def _add_import(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--import", dest="imports", action="append", metavar="MODULE", help="module of a method of your own"
    )


def _add_data(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the data sets that have a name, and whether they are here").add_argument(
        "--data-dir", type=Path
    )
    example = f"Example: {_EXAMPLES['data']}"
    check = actions.add_parser("check", help="judge a folder", epilog=example)
    check.add_argument("folder", type=Path)
    pairs = check.add_argument_group("images and texts")
    pairs.add_argument("--image", help="column with paths of images; default: image")
    pairs.add_argument(
        "--text", metavar="A,B", help="columns or field with texts; default: the data set's own, or text"
    )
    pairs.add_argument("--label", help="column with labels; default: label")
    pairs.add_argument("--tokenizer", help="name or folder: texts are counted in its tokens, not in words")
    pairs.add_argument("--max-length", type=int, default=512, help="tokens that would be read; default: 512")
    fetch = actions.add_parser("fetch", help="download a data set", epilog="Example: m3col data fetch rosmap --to data")
    fetch.add_argument("name")
    fetch.add_argument("--to", type=Path, required=True)
    fetch.add_argument("--base-url", help="another place that holds the files")


if __name__ == "__main__":
    sys.exit(main())
