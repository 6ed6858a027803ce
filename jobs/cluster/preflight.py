"""Validates a submission on the cluster. Runs there as a small job, before the search is submitted.

Its answer is one line of its log: MARK and an `Answer` as JSON.
"""

import importlib
import json
import logging
import os
import platform
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from tune import checks
from tune.study import directory

if TYPE_CHECKING:
    from tune.checks import CheckedStudy
    from tune.config.schema import StudyConfig


MARK = "m3col-preflight "

REQUEST = "request.json"

_SEEN_WITHIN_S = 5.0  # a network file system may show a new file late

_NODES_S = 90.0


class Answer(TypedDict):
    """Lines about the submission, and facts about the study: its name, runs folder and storage.

    `name` is None for several studies, `storage` is None if only the runs folder is used.
    """

    faults: list[str]
    warnings: list[str]
    notes: list[str]
    name: str | None
    runs: str | None
    storage: str | None


def main() -> int:
    """Reads the request file, validates it, and prints the answer."""
    request = json.loads(Path(REQUEST).read_text(encoding="utf-8"))
    answer: Answer = {"faults": [], "warnings": [], "notes": [], "name": None, "runs": None, "storage": None}
    answer["faults"] += version_faults(request["versions"], here(), answer)
    if not answer["faults"]:
        # Only now: the imports below fail if a package is missing.
        _inspect(request, answer)
    print(MARK + json.dumps(answer), flush=True)
    return 0


def here() -> dict[str, str | None]:
    """Versions of Python and of installed packages in this process."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **{name: version(name) for name in ("ray", "torch", "m3col")}}


def version_faults(local: Mapping[str, Any], remote: Mapping[str, str | None], answer: Answer) -> list[str]:
    """Faults of the versions on the cluster. Harmless differences are added to the warnings and notes of `answer`."""
    faults = [
        different(title, remote[name], local[name])
        for name, title in (("python", "Python"), ("ray", "Ray"))
        if local[name] != remote[name]
    ]
    missing = [name for name in local["requires"] if not _installed(name)]
    if missing:
        faults.append(f"on the cluster these packages are missing: {', '.join(missing)}; install them on every node")
    if remote["torch"] is not None and remote["torch"] != local["torch"]:
        answer["warnings"].append(
            f"torch on the cluster is {remote['torch']}, here it is {local['torch']}: results may differ in their "
            "last digits"
        )
    if remote["m3col"] is not None:
        answer["notes"].append(f"m3col {remote['m3col']} is installed there; the job uses {local['m3col']} from here")
    answer["notes"].append(f"Python {remote['python']}, Ray {remote['ray']}, torch {remote['torch']} on the cluster")
    return faults


def different(title: str, remote: str | None, local: str | None) -> str:
    """The fault of a version that differs."""
    return f"{title} on the cluster is {remote}, here it is {local}; use the same version on both"


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _inspect(request: Mapping[str, Any], answer: Answer) -> None:
    """Validates the request with the data and on all nodes; adds the result to `answer`."""
    import ray

    from m3col.errors import InputError
    from m3col.storage.redaction import scrubbed

    ray.init(address="auto", logging_level=logging.ERROR, log_to_driver=False)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    answer["notes"].append(f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}")
    runs = request["runs"] or os.environ.get("M3COL_RUNS")
    if not runs or not os.path.isabs(runs):
        answer["faults"].append(
            "--runs-dir: name a folder of the cluster by its absolute path, such as /shared/runs, or set M3COL_RUNS "
            "there"
        )
        runs = None
    answer["runs"] = runs
    studies = _parsed(request)
    needed: set[str] = set()
    try:
        ready = _validated(request, runs, answer, several=len(studies) > 1)
    except InputError as error:
        answer["faults"] += error.faults
    else:
        studies = [item.config for item in ready]
        needed = set().union(*(needed_files(item) for item in ready))
    answer["faults"] += _capacity_faults(studies)
    answer["faults"] += _folder_faults(
        runs, nodes, {uri for study in studies if (uri := study.settings.storage.uri)}, shared=request["shared"],
        database=any(study.settings.storage.database for study in studies), needed=sorted(needed), answer=answer,
    )  # fmt: skip
    if runs is not None:
        answer["faults"] += _tracking_faults(request, studies, Path(runs), several=len(nodes) > 1, answer=answer)
    # Every user of the cluster can read the log.
    answer["faults"] = [scrubbed(line) for line in answer["faults"]]
    answer["warnings"] = [scrubbed(line) for line in answer["warnings"]]


def _overrides(request: Mapping[str, Any]) -> dict[str, Any]:
    from jobs.terminal.console import parse_overrides

    overrides, faults = parse_overrides(request["words"], Path(request["data_dir"]) if request["data_dir"] else None)
    assert not faults, faults  # the words have been read before they were sent
    return overrides


def _parsed(request: Mapping[str, Any]) -> "list[StudyConfig]":
    """The studies as parsed without data, so that other faults are reported even if the data cannot be read."""
    from tune.config import loading

    if request["config"] is None:
        return []
    partials, _ = loading.parse(request["config"], overrides=_overrides(request))
    return [partial.study for partial in partials]


def _validated(request: Mapping[str, Any], runs: str | None, answer: Answer, *, several: bool) -> "list[CheckedStudy]":
    """Validates the studies with the data and the disk of this node. Only the driver loads the data, and it runs on
    this node. Raises InputError."""
    from tune.study import resume

    # A job with several studies has no name: it resumes those of its configs that are unfinished.
    resumed = request["resume"] or (directory.AUTO if several else False)
    options = checks.Options(name=request["name"], resume=resumed, runs=runs)
    ready = checks.validate(request["config"], data=None, overrides=_overrides(request), options=options)
    if len(ready) == 1 and runs is not None:
        tree = ready[0].tree
        folder, config = (ready[0].folder if tree is None else tree.folder), ready[0].config
        answer["storage"] = config.settings.storage.uri
        elsewhere = resume.is_taken(config.settings.storage)
        answer["name"] = (
            folder.name if folder else directory.new_name(Path(runs), request["name"], config, elsewhere=elsewhere)
        )
    for item in ready:
        answer["warnings"] += item.warnings
    return ready


def needed_files(ready: "CheckedStudy") -> set[str]:
    """Paths that every node must be able to read: a sample of the images, local files of encoders and tokenizers."""
    from m3col.data.columns import MediaColumn

    paths: set[str] = set()
    for column in ready.dataset.train.inputs.values():
        if isinstance(column, MediaColumn) and column.kind == "image" and len(column.source):
            last = len(column.source) - 1
            paths |= {path for at in (0, last // 2, last) if isinstance(path := column.source[at], str)}
    for run in (ready.config.run, *ready.config.rows.values()):
        names = {run.model.image.weights, run.model.text.name, run.data.text.tokenizer} - {None}
        # A name without such a file is a name of the model hub.
        paths |= {str(name) for name in names if Path(str(name)).expanduser().exists()}
    return paths


def _capacity_faults(studies: "Sequence[StudyConfig]") -> list[str]:
    """Faults of studies of which one trial never fits onto the nodes."""
    from m3col.errors import InputError
    from tune.engine import capacity

    faults: list[str] = []
    for study in studies:
        try:
            capacity.check_device(study.run, capacity.fitting(study.request))
        except InputError as error:
            faults += error.faults
    return list(dict.fromkeys(faults))


def _folder_faults(
    runs: str | None, nodes: Sequence[Mapping[str, Any]], uris: set[str], *, shared: bool, database: bool,
    needed: Sequence[str] = (), answer: Answer,
) -> list[str]:  # fmt: skip
    """Faults of folders and storages that a node cannot reach, and of `needed` files that it cannot read."""
    remote = {uri for uri in uris if "://" in uri}
    local = sorted(uris - remote)
    several, faults = len(nodes) > 1, list[str]()
    folders = [*local, *([runs] if runs is not None and (shared or local) else [])] if several else []
    if runs is not None and not remote and not shared:
        if several:
            folders = []
            beside = "storage.database alone moves the Optuna study only; " if database else ""
            faults.append(
                f"--runs-dir {runs}: the cluster has {len(nodes)} nodes, and this is a folder of one of them; {beside}"
                "give --shared if it is mounted on all of them, or set storage.uri to s3://bucket/prefix"
            )
        else:
            answer["warnings"].append(
                f"{runs} is on the only node's own disk: a node that joins later and does not see it takes a trial, "
                "and the search then stops, with the command to resume; --shared says that it is mounted everywhere"
            )
    probes: dict[str, str] = {}
    for folder in folders:
        try:
            probes[folder] = _write_probe(folder)
        except OSError as error:
            faults.append(
                f"{folder}: the driver's node cannot write there ({error.strerror or error}); name a folder that is "
                "mounted on every node and that the cluster's user may write to"
            )
    needed = needed if several else ()
    if not (probes or remote or needed):
        return faults
    faults_by_node = _ask_nodes(nodes, probes, sorted(remote), needed)
    faults += dict.fromkeys(fault for lines in faults_by_node for fault in lines)
    wrote = [node for node, lines in zip(nodes, faults_by_node, strict=True) if not lines]
    for folder, probe in probes.items():
        faults += _read_back(folder, probe, wrote)
    return faults


def _write_probe(folder: str) -> str:
    """Writes a file with a unique name and returns the name. Raises OSError."""
    name = f".m3col-probe-{uuid.uuid4().hex}"
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, name).write_text(name, encoding="utf-8")
    return name


def _read_back(folder: str, probe: str, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Faults of nodes whose probe files are not visible on this node. Removes all probe files."""
    lost = []
    for node in nodes:
        if not _reads(Path(folder, f"{probe}-{node['NodeID']}"), probe):
            lost.append(node["NodeManagerAddress"])
    for path in Path(folder).glob(f"{probe}*"):
        path.unlink(missing_ok=True)
    return [
        f"{folder}: other nodes do not see what node {name} writes there; mount the same folder on all" for name in lost
    ]


def _reads(path: Path, text: str) -> bool:
    """Whether the file has this content, within a few seconds."""
    deadline = time.monotonic() + _SEEN_WITHIN_S
    while True:
        try:
            if path.read_text(encoding="utf-8") == text:
                return True
        except OSError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _ask_nodes(
    nodes: Sequence[Mapping[str, Any]], probes: Mapping[str, str], remote: Sequence[str], needed: Sequence[str]
) -> list[list[str]]:
    """The faults of each node, in the order of `nodes`. The tasks request no CPU, so a busy cluster runs them too."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(node_faults)
    answers = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            node["NodeID"], node["NodeManagerAddress"], dict(probes), list(remote), list(needed)
        )
        for node in nodes
    ]
    ray.wait(answers, num_returns=len(answers), timeout=_NODES_S)
    faults_by_node = []
    for node, answer in zip(nodes, answers, strict=True):
        try:
            faults_by_node.append(ray.get(answer, timeout=0))
        except Exception as error:  # the node died, hangs, or cannot run this code
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            faults_by_node.append([f"node {node['NodeManagerAddress']}: cannot run a task ({reason})"])
    return faults_by_node


def node_faults(
    node: str, address: str, probes: Mapping[str, str], remote: Sequence[str], needed: Sequence[str]
) -> list[str]:
    """Faults of the node that this task runs on: unreadable files, folders that are not shared or not writable,
    storages that it cannot reach."""
    missing = [path for path in needed if not os.access(Path(path).expanduser(), os.R_OK)]
    faults = [
        f"{path}: node {address} cannot read it, but the driver's node can; trials read images and the files of "
        "encoders where they run, so mount or copy them to the same place on every node"
        for path in missing
    ]
    for folder, probe in probes.items():
        if not _reads(Path(folder, probe), probe):
            faults.append(
                f"{folder}: node {address} does not see what the driver's node writes there, so the folder is not "
                "shared; mount it on every node"
            )
            continue
        try:
            Path(folder, f"{probe}-{node}").write_text(probe, encoding="utf-8")
        except OSError as error:
            faults.append(f"{folder}: node {address} cannot write there ({error.strerror or error})")
    for uri in remote:
        try:
            importlib.import_module("m3col.storage.object_store").Folder(uri).check()
        except Exception as error:  # whatever the file system's library raises
            faults.append(f"storage.uri {uri}: node {address} does not reach it ({' '.join(str(error).split())[:200]})")
    return faults


def _tracking_faults(
    request: Mapping[str, Any], studies: "Sequence[StudyConfig]", runs: Path, *, several: bool, answer: Answer
) -> list[str]:
    """Faults of tracking stores that this node, the driver's, cannot reach. Only the driver connects to them."""
    from m3col.errors import InputError
    from m3col.tracking import mlflow_store

    named = {request["tracking_uri"]} if request["tracking_uri"] else {study.settings.tracking.uri for study in studies}
    faults: list[str] = []
    for uri in sorted(str(item or os.environ.get("MLFLOW_TRACKING_URI") or "") for item in named):
        if uri in ("", mlflow_store.OFF):
            continue
        if uri.startswith("sqlite:") and several and not request["shared"]:
            answer["warnings"].append(f"tracking {uri}: this file will be on the disk of the driver's node")
        try:
            mlflow_store.connect(uri, runs)
        except InputError as error:
            faults += [f"{line} (asked from the cluster)" for line in error.faults]
    return faults


if __name__ == "__main__":
    # Imported by its full name: functions of `__main__` could not be unpickled on other nodes.
    sys.exit(importlib.import_module("jobs.cluster.preflight").main())
