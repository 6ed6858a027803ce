"""The arguments of `m3col submit` and `m3col jobs`."""

import argparse
from pathlib import Path

_SHARED = "the runs and data folders are mounted on every node (shared file system)"

_DASHBOARD = "the cluster's dashboard, http://HEAD:8265; default: $RAY_API_SERVER_ADDRESS or $RAY_ADDRESS"


def add_submit(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `m3col submit`."""
    command.add_argument("config", nargs="?", help="shipped name or YAML file; not needed with --resume NAME")
    command.add_argument(
        "overrides", nargs="*", metavar="key=value", help="change a key of the search or of its base config"
    )
    command.add_argument("--address", help=_DASHBOARD)
    command.add_argument("--name", help="name of the study; default: <config>-<n>")
    command.add_argument("--resume", metavar="NAME", help="resume a study of the cluster")
    command.add_argument("--follow", action="store_true", help="show the job's log until the job ends")
    command.add_argument("--shared", action="store_true", help=_SHARED)
    command.add_argument("--runs-dir", type=Path, help="absolute path on the cluster; default: $M3COL_RUNS there")
    command.add_argument(
        "--tracking-uri", help="MLflow URI as seen from the cluster; default: a SQLite file in the runs folder"
    )
    command.add_argument("--data-dir", type=Path, help="absolute path on the cluster; default: $M3COL_DATA there")
    command.add_argument("--print-rayjob", action="store_true", help="print a KubeRay manifest and contact no cluster")
    command.add_argument(
        "--image", help="with --print-rayjob: container image with Ray and m3col; default: the image of docs/cluster.md"
    )
    command.add_argument(
        "--nodes", type=int, help="with --print-rayjob: number of pods, each for one trial; default: 1"
    )


def add_jobs(command: argparse.ArgumentParser) -> None:
    """Adds the actions of `m3col jobs`."""
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    help_texts = {
        "list": "list the submitted searches", "status": "show one job", "logs": "print the log of a job",
        "stop": "stop a job; finished trials stay stored", "resume": "resume the study of a job, with the local code",
    }  # fmt: skip
    for name, text in help_texts.items():
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == "list":
            action.add_argument("--all", action="store_true", help="also jobs that m3col did not submit")
        else:
            action.add_argument("id", help="job id, as `m3col jobs list` shows it")
        if name == "resume":
            action.add_argument(
                "overrides", nargs="*", metavar="key=value", help="change a key of the study, such as trials=80"
            )
            action.add_argument("--shared", action="store_true", help=_SHARED)
        if name in ("logs", "resume"):
            action.add_argument("--follow", action="store_true", help="show the log until the job ends")
        action.add_argument("--address", help=_DASHBOARD)
