"""The `m3col` command. Exit codes: 0 done, 1 failed, 2 invalid input, 130 or 143 interrupted."""

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

from jobs.terminal import cluster_arguments, streams
from m3col.errors import InputError
from m3col.storage.redaction import scrubbed

_EXAMPLES = {
    "train": "m3col train digits objective.beta=0.2",
    "search": "m3col search configs/search/rosmap.yaml search.trials=40",
    "submit": "m3col submit configs/search/rosmap.yaml --address http://HEAD:8265 --follow",
    "jobs": "m3col jobs list --address http://HEAD:8265",
    "report": "m3col report digits-1",
    "leaderboard": "m3col leaderboard digits-1 emoji-1 rosmap-1 --out board",
    "evaluate": "m3col evaluate runs/digits-1/results/model --data digits",
    "analyse": "m3col analyse runs/digits-1/results/model --only errors,umap",
    "predict": "m3col predict runs/digits-1/results/model pixels=p.csv fourier=f.csv gradients=g.csv --out labels.csv",
    "data": "m3col data check data/my_folder",
    "ui": "m3col ui",
    "sync": "m3col sync digits-1",
    "runs": "m3col runs list",
}
_HELP = {
    "train": "train one configuration and score it on the test split once",
    "search": "search hyperparameters: trials, confirmation, refits, one test, report",
    "submit": "run a search as a job of a Ray cluster",
    "jobs": "list, inspect, stop or resume the jobs of a Ray cluster",
    "report": "write a study's tables and plots again from its stored files, without training",
    "leaderboard": "compare trees on one data set split by split, or studies over several data sets by ranks",
    "evaluate": "score a checkpoint on the test split of a data set",
    "analyse": "write figures and tables that explain what a trained model has learnt",
    "predict": "predict labels and probabilities for new samples",
    "data": "list, check, fetch or convert data sets",
    "ui": "browse the runs in MLflow",
    "sync": "send the missing parts of a study to MLflow",
    "runs": "list or remove studies and training runs",
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. An expected failure is one line on standard error, no traceback."""
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
        sys.stderr.write(scrubbed(_failure_text(error)))
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


def _failure_text(error: Exception) -> str:
    if _is_expected(error):
        return f"failed: {error}\n"
    encoding = sys.getfilesystemencoding()
    if isinstance(error, UnicodeEncodeError) and encoding.lower().replace("-", "") != "utf8":
        name, remedy = ascii(error.object), "set PYTHONUTF8=1, or LC_ALL to a UTF-8 locale such as C.UTF-8"
        return f"failed: file names are in {encoding} here, which cannot hold {name}; {remedy}\n"
    return traceback.format_exc()  # unexpected: a bug in this program


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parses the arguments. argparse rejects `key=value` words after an option; they are added to the others here."""
    top = parser()
    arguments, unparsed = top.parse_known_args(words)
    target = next((getattr(arguments, name) for name in ("overrides", "inputs") if hasattr(arguments, name)), None)
    unknown = [word for word in unparsed if word.startswith("-") or "=" not in word or target is None]
    if unknown:
        top.error(f"unrecognized arguments: {' '.join(unknown)}")
    if target is not None:
        target.extend(unparsed)
    return arguments


def _is_expected(error: BaseException | None) -> bool:
    """Whether the cause is outside this program (a disk, a database, a training), so that no traceback is needed."""
    if error is None:
        return False
    if isinstance(error, RuntimeError | OSError | sqlite3.Error):
        return True
    return _is_expected(error.__cause__ or error.__context__)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints a warning as one line, without file name and line number."""
    if issubclass(category, UserWarning):
        sys.stderr.write(f"warning: {scrubbed(str(message))}\n")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="m3col",
        description="Hyperparameter search for multimodal classifiers: M3CoL and simpler baselines.",
        epilog="Example: m3col search digits        Help on one command: m3col search --help",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    subparsers = {name: _command(commands, name) for name in _EXAMPLES}
    _add_train(subparsers["train"])
    _add_search(subparsers["search"])
    cluster_arguments.add_submit(subparsers["submit"])
    cluster_arguments.add_jobs(subparsers["jobs"])
    _add_folders(subparsers["report"])
    subparsers["report"].add_argument("study", help="name or folder of a study, or of a tree of studies")
    _add_leaderboard(subparsers["leaderboard"])
    _add_prediction(subparsers["evaluate"], subparsers["predict"])
    _add_analysis(subparsers["analyse"])
    _add_data(subparsers["data"])
    _add_folders(subparsers["ui"], tracking=True)
    subparsers["ui"].add_argument("--port", type=int, default=5000, help="port of the local server; default: 5000")
    subparsers["ui"].add_argument("--no-browser", action="store_true", help="print the link without opening a browser")
    _add_folders(subparsers["sync"], tracking=True)
    subparsers["sync"].add_argument("study", nargs="*", help="names or folders; default: all studies")
    _add_folders(subparsers["runs"])
    subparsers["runs"].add_argument("action", choices=("list", "rm"))
    subparsers["runs"].add_argument("name", nargs="*", help="with rm: names of studies or training runs")
    subparsers["runs"].add_argument("--yes", action="store_true", help="with rm: remove without asking")
    return top


def _command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=_HELP[name], description=f"{_HELP[name][0].upper()}{_HELP[name][1:]}.",
        epilog=f"Example: {_EXAMPLES[name]}",
    )  # fmt: skip


def _add_folders(command: argparse.ArgumentParser, *, tracking: bool = False, data: bool = False) -> None:
    command.add_argument(
        "--runs-dir", type=Path, default=None, help="folder of all runs; default: $M3COL_RUNS or ./runs"
    )
    if tracking:
        command.add_argument(
            "--tracking-uri", help="MLflow URI; default: $MLFLOW_TRACKING_URI, else a SQLite file in the runs folder"
        )
    if data:
        command.add_argument(
            "--data-dir", type=Path, help="folder of the data; default: $M3COL_DATA, ./data or ../shared/data"
        )


def _add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="?", help="shipped name, YAML file, or STUDY#17 for a trial of a study")
    command.add_argument(
        "overrides", nargs="*", metavar="key=value", help="change a key of the config, such as objective.beta=0.2"
    )
    command.add_argument("--resume", type=Path, metavar="FOLDER", help="continue an interrupted run")
    command.add_argument(
        "--workers", type=int, metavar="N", help="number of processes (DDP) that share each batch; default: 1"
    )
    command.add_argument(
        "--cpus-per-worker", type=float, metavar="C", help="CPUs of each worker; default: resources.threads"
    )
    command.add_argument(
        "--gpus-per-worker", type=float, metavar="G",
        help="GPUs of each worker; default: 1 if the cluster has enough GPUs and train.device is not cpu, else 0",
    )  # fmt: skip
    command.add_argument(
        "--address", help="with --workers: Ray cluster to run on; default: $RAY_ADDRESS or a local one"
    )
    _add_folders(command, tracking=True, data=True)


def _add_search(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="?", help="shipped name or YAML file; not needed with --resume NAME")
    command.add_argument(
        "overrides", nargs="*", metavar="key=value", help="change a key of the search or of its base config"
    )
    command.add_argument("--name", help="name of the study; default: <config>-<n>")
    command.add_argument(
        "--resume", nargs="?", const=True, metavar="NAME",
        help="resume a study (default: the newest of this config; `auto`: start one if there is none); "
        "`--resume trials=80` extends a finished one",
    )  # fmt: skip
    command.add_argument("--address", help="Ray cluster to run on; default: $RAY_ADDRESS or a local one")
    command.add_argument("--plain", action="store_true", help="print lines instead of a live table")
    _add_folders(command, tracking=True, data=True)


def _add_leaderboard(command: argparse.ArgumentParser) -> None:
    _add_folders(command)
    command.add_argument("study", nargs="+", help="names or folders of studies or trees")
    command.add_argument(
        "--reference", metavar="TREE", help="on one data set: compare with this tree; default: the first"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="folder for the table, and the figure of ranks")


_CHECKPOINT = "folder of a model checkpoint"

_CHECKPOINTS = f"{_CHECKPOINT}; the predictions of several are averaged"


def _add_prediction(evaluate: argparse.ArgumentParser, predict: argparse.ArgumentParser) -> None:
    for command in (evaluate, predict):
        command.add_argument(
            "checkpoint",
            nargs="+" if command is evaluate else None,
            help=_CHECKPOINTS if command is evaluate else _CHECKPOINT,
        )
        _add_import(command)
        _add_device(command)
    evaluate.add_argument("--data", help="name of the data set; default: the one it was trained on")
    _add_folders(evaluate, data=True)
    predict.add_argument("inputs", nargs="*", metavar="modality=file.csv", help="one file of numbers per modality")
    predict.add_argument(
        "--csv", type=Path, help="one file for all modalities: image paths, texts and numbers in columns"
    )
    predict.add_argument("--out", type=Path, help="CSV to write; default: standard output")


def _add_analysis(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, help=_CHECKPOINT)
    command.add_argument("--data", help="name of the data set; default: the one it was trained on")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="output folder; default: `analysis` beside the checkpoint"
    )
    command.add_argument(
        "--words", metavar="A,B", help="words to locate in the images (heat maps); default: the most frequent classes"
    )
    command.add_argument(
        "--only", metavar="A,B", help="parts to run: errors, robustness, confidence, umap, heatmaps; default: all"
    )
    command.add_argument("--seed", type=int, default=0, help="random seed; default: 0")
    _add_import(command)
    _add_device(command)
    _add_folders(command, tracking=True, data=True)


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the model computes; default: auto, the first GPU where there is one",
    )


def _add_import(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--import",
        dest="imports",
        action="append",
        metavar="MODULE",
        help="module to import that defines your own method",
    )


def _add_data(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="list the named data sets and where they are stored").add_argument(
        "--data-dir", type=Path, help="folder of the data; default: $M3COL_DATA, ./data or ../shared/data"
    )
    example = f"Example: {_EXAMPLES['data']}"
    check = actions.add_parser("check", help="check the data in a folder", epilog=example)
    check.add_argument("folder", type=Path, help="folder of tables, or of images and texts")
    check.add_argument(
        "--task",
        default="single_label",
        help="what the labels are for: single_label (default), multi_label, regression",
    )
    pairs = check.add_argument_group("images and texts")
    pairs.add_argument("--image", help="column with paths of images; default: image")
    pairs.add_argument(
        "--text", metavar="A,B", help="columns or field with texts; default: the data set's own, or text"
    )
    pairs.add_argument(
        "--label", metavar="A,B",
        help="column with labels, or several for multi_label and regression; default: label, or all label:<name>",
    )  # fmt: skip
    pairs.add_argument(
        "--tokenizer", help="name or folder of a tokenizer: count text lengths in its tokens, not in words"
    )
    pairs.add_argument(
        "--max-length", type=int, default=512, help="with --tokenizer: report the share of longer texts; default: 512"
    )
    fetch = actions.add_parser("fetch", help="download a data set", epilog="Example: m3col data fetch rosmap --to data")
    fetch.add_argument("name", help="rosmap or brca")
    fetch.add_argument("--to", type=Path, required=True, metavar="DIR", help="the data set becomes a folder in DIR")
    fetch.add_argument("--base-url", help="download from another server; default: the MOGONET repository")
    convert = actions.add_parser(
        "convert",
        help="convert published files: pickles of MultiBench (without unpickling), HDF5 files of Vision & Touch",
        epilog="Example: m3col data convert multibench sarcasm.pkl --to data/mustard",
    )
    convert.add_argument("source", choices=["multibench", "vision_touch"], help="what is converted")
    convert.add_argument(
        "file",
        type=Path,
        help="mosi_data.pkl, humor.pkl, sarcasm.pkl or im.pk; of vision_touch the folder of .h5 files",
    )
    convert.add_argument("--to", type=Path, required=True, metavar="DIR", help="the new folder")
    drawn = "vision_touch: what is drawn for the test split; default: file, as published"
    convert.add_argument("--split", choices=["file", "recording"], default="file", help=drawn)


if __name__ == "__main__":
    sys.exit(main())
