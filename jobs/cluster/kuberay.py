"""A KubeRay RayJob (ray.io/v1) that runs a search on a Ray cluster of its own in Kubernetes.

KubeRay restarts a failed job on a new cluster, so the search is called with `--resume auto`. The token is KubeRay's
own: with `authOptions.mode: token` it makes a secret and hands it to all pods and to itself. Other credentials come
from the secret `m3col`, which may be missing.
"""

import math
import platform
import re
import shlex
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

import m3col
from jobs.cluster import submit
from jobs.cluster.staging import GIVEN, config_files
from jobs.cluster.submission import Submission
from jobs.terminal.console import parse_overrides
from m3col.config import yaml_files
from m3col.errors import InputError
from tune.config import loading as search_config
from tune.config.loading import PartialStudy

SECRET = "m3col"

RUNS_CLAIM, DATA_CLAIM = "m3col-runs", "m3col-data"  # names of ReadWriteMany volume claims

_RUNS, _FILES = "/m3col/runs", "/m3col/files"

_RETRIES = 3

_MEMORY_GI = 4  # per m3col process: Python, torch and a small data set


def default_image() -> str:
    """The image that docs/cluster.md builds: rayproject/ray of the Ray and Python in use, and m3col."""
    major, minor, _ = platform.python_version_tuple()
    return f"m3col:{m3col.__version__}-ray{metadata.version('ray')}-py{major}{minor}"


def manifest(submission: Submission, *, image: str | None, nodes: int) -> str:
    """The manifest as YAML: a ConfigMap of the caller's own configs, if any, and the RayJob. Contacts no cluster.

    Raises InputError with all faults of options and config.
    """
    submission = submit.with_environment(submission)
    faults = submit.faults(submission)
    partials = _partial_studies(submission)
    uris = [partial.study.settings.storage.uri for partial in partials]
    shared = submission.shared or bool(uris and all(uri and "://" in uri for uri in uris))
    if submission.config is None:
        faults.append("--print-rayjob: name the config as well; the manifest requests the resources of its trials")
    if not shared:
        faults.append(
            "--print-rayjob: a pod's own disk is lost with the pod; give --shared for a runs folder on the volume "
            f"claim {RUNS_CLAIM!r}, or set storage.uri to s3://bucket/prefix"
        )
    if nodes < 1:
        faults.append(f"--nodes {nodes}: must be >= 1; nearest valid: 1")
    if len(partials) == 1 and submission.name is None and submission.resume is None:
        submission = replace(submission, name=partials[0].study.name)
    if faults:
        raise InputError(faults)
    submission = replace(submission, runs=submission.runs or _RUNS)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config, words = config_files(submission.config, submission.words, folder, seen_as=_FILES)
        own = {
            path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(folder.rglob("*.y*ml"))
        }
    command = submit.search_words(
        submission, config=config, words=words, name=submission.name, runs=str(submission.runs)
    )
    name = submission.name or partials[0].study.name
    documents = [_config_map(name, own)] if own else []
    documents.append(_job(submission, name, command, partials, image=image or default_image(), nodes=nodes, own=own))
    comment = "# kubectl apply -f FILE starts it; docs/cluster.md lists what it needs of the cluster\n"
    return comment + "---\n".join(yaml.dump(item, Dumper=_Dumper, sort_keys=False, width=120) for item in documents)


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, and no anchors, so that a manifest is readable."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _partial_studies(submission: Submission) -> list[PartialStudy]:
    overrides, _ = parse_overrides(submission.words, Path(submission.data_dir) if submission.data_dir else None)
    try:
        return search_config.parse(submission.config, overrides=overrides)[0] if submission.config else []
    except InputError:
        return []  # submit.faults reports them


def _key(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", path.removeprefix(f"{GIVEN}/").replace("/", "."))


def _config_map(name: str, own: dict[str, str]) -> dict[str, Any]:
    data = {_key(path): text for path, text in own.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _object_name(name)}, "data": data}


def _object_name(name: str) -> str:
    """A valid Kubernetes name. KubeRay appends to it, and the result may have at most 63 characters."""
    kept = "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")
    return f"m3col-{kept}"[:40].rstrip("-")


def _job(
    submission: Submission, name: str, command: list[str], partials: list[PartialStudy], *, image: str, nodes: int,
    own: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    requests = [partial.study.request for partial in partials]
    workers = max(request.workers for request in requests)
    cpus = workers * max(request.cpus for request in requests)
    # The cluster is unknown, so GPUs are requested only if the config names their number or train.device.
    gpus = math.ceil(workers * max(request.gpus or 0.0 for request in requests))
    pod = _Pod(submission, _object_name(name), image, own)
    driver = pod.template("ray-head", cpus=1, gpus=0, processes=2)
    worker = pod.template("ray-worker", cpus=math.ceil(cpus), gpus=gpus, processes=workers)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": _object_name(name), "labels": {"app.kubernetes.io/name": "m3col"}},
        "spec": {
            "entrypoint": shlex.join(command),
            "runtimeEnvYAML": yaml_files.dump({"env_vars": {"PYTHONUNBUFFERED": "1"}}),
            "submissionMode": "K8sJobMode",
            "backoffLimit": _RETRIES,
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": {
                "rayVersion": metadata.version("ray"),
                "authOptions": {"mode": "token"},
                # No trials on the head pod: it is sized for the driver alone.
                "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": driver},
                "workerGroupSpecs": [
                    {"groupName": "trials", "replicas": nodes, "minReplicas": nodes, "maxReplicas": nodes,
                     "rayStartParams": {}, "template": worker},
                ],
            },
        },
    }  # fmt: skip


class _Pod:
    def __init__(self, submission: Submission, config_map: str, image: str, own: dict[str, str]) -> None:
        self._image = image
        runs: dict[str, Any] = {"emptyDir": {}}
        if submission.shared:
            runs = {"persistentVolumeClaim": {"claimName": RUNS_CLAIM}}
        # A container's own /dev/shm has 64 MB: too little for Ray's object store, and for NCCL between GPUs.
        shared_memory: dict[str, Any] = {"name": "shared-memory", "emptyDir": {"medium": "Memory"}}
        self._volumes: list[dict[str, Any]] = [{"name": "runs", **runs}, shared_memory]
        self._mounts: list[dict[str, Any]] = [
            {"name": "runs", "mountPath": str(submission.runs)}, {"name": "shared-memory", "mountPath": "/dev/shm"}
        ]  # fmt: skip
        if submission.data_dir is not None:
            claim = {"claimName": DATA_CLAIM, "readOnly": True}
            self._volumes.append({"name": "data", "persistentVolumeClaim": claim})
            self._mounts.append({"name": "data", "mountPath": submission.data_dir, "readOnly": True})
        if own:
            items = [{"key": _key(path), "path": path} for path in own]
            self._volumes.append({"name": "files", "configMap": {"name": config_map, "items": items}})
            self._mounts.append({"name": "files", "mountPath": _FILES, "readOnly": True})

    def template(self, name: str, *, cpus: int, gpus: int, processes: int) -> dict[str, Any]:
        limits: dict[str, Any] = {"cpu": str(cpus), "memory": f"{_MEMORY_GI * processes}Gi"}
        if gpus:
            limits["nvidia.com/gpu"] = str(gpus)
        container = {
            "name": name,
            "image": self._image,
            "envFrom": [{"secretRef": {"name": SECRET, "optional": True}}],
            "resources": {"requests": limits, "limits": limits},
            "volumeMounts": self._mounts,
        }
        return {"spec": {"containers": [container], "volumes": self._volumes}}
