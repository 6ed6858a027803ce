"""`m3col submit`: submits a search as a job of a Ray cluster, after it was validated locally and on the cluster."""

import json
import os
import re
import secrets
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import m3col
from jobs.cluster import client as clusters
from jobs.cluster import preflight
from jobs.cluster.client import Cluster
from jobs.cluster.staging import Staged, staged
from jobs.cluster.submission import Submission
from jobs.terminal.console import parse_overrides
from m3col.config import loading as run_config
from m3col.errors import InputError, reason_of
from m3col.storage.redaction import has_password, redacted, scrubbed
from m3col.tracking.mlflow_store import OFF
from tune.config import loading as search_config
from tune.config import urls
from tune.config.loading import PartialStudy
from tune.config.schema import slug
from tune.study import directory, provenance

_PREFLIGHT_S = 240.0

_TRACKING = "MLFLOW_TRACKING_URI"


def faults(submission: Submission) -> list[str]:
    """Faults that can be seen locally: of the options, and of the config as far as it needs no data."""
    all_faults = []
    for option, path in (("--runs-dir", submission.runs), ("--data-dir", submission.data_dir)):
        if path is not None and not os.path.isabs(path):
            all_faults.append(
                f"{option} {path}: is a folder of the cluster; give its absolute path, such as /shared/{path}"
            )
    if submission.name is not None and submission.resume is not None:
        all_faults.append(f"--name {submission.name}: a resumed study keeps its name; leave --name or --resume out")
    if submission.config is None and submission.resume is None:
        all_faults.append("submit: name a config, such as `m3col submit digits`, or resume a study with --resume NAME")
    all_faults += _tracking_faults(submission.tracking_uri, "--tracking-uri")
    overrides, word_faults = parse_overrides(
        submission.words, Path(submission.data_dir) if submission.data_dir else None
    )
    all_faults += word_faults
    all_faults += _password_faults(submission.words)
    partials: Sequence[PartialStudy] = ()
    try:
        if submission.config is not None:
            partials, config_faults = search_config.parse(submission.config, overrides=overrides)
            all_faults += config_faults
            for partial in partials if submission.tracking_uri is None else ():
                all_faults += _tracking_faults(partial.study.settings.tracking.uri, "tracking.uri")
        if submission.name is not None and len(partials) == 1:
            # Checks the form of the name; the cluster checks whether it is free.
            directory.new_name(Path(os.devnull), submission.name, partials[0].study)
    except InputError as error:
        all_faults += error.faults
    if submission.name is not None and len(partials) > 1:
        all_faults.append("--name: this search makes several studies; leave the name out")
    return list(dict.fromkeys(all_faults))


def _password_faults(words: Sequence[str]) -> list[str]:
    """Faults of overrides that contain a password, for any key. The config of a resumed study is on the cluster, so
    its overrides are validated there; a password must not be sent."""
    all_faults = []
    for word in words:
        key, sign, _ = word.partition("=")
        if sign and has_password(word):
            overrides, _ = parse_overrides([word], None)
            all_faults += urls.faults(run_config.join({}, overrides), lambda key: "overrides") or [
                f"overrides: {key} must hold no password, because everybody can read what a job is called with; leave "
                f"it out of {redacted(word)!r}"
            ]
    return all_faults


def _tracking_faults(uri: str | None, place: str) -> list[str]:
    if uri is None or uri == OFF:
        return []
    if has_password(uri):
        return [
            f"{place} {redacted(uri)}: must not hold a password, because everybody can read what a job is "
            "called with; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where the cluster is started"
        ]
    if uri.startswith("sqlite:") and not uri.startswith("sqlite:////"):
        return [
            f"{place} {uri}: the file would be in the job's temporary folder; "
            "nearest valid: 'sqlite:////shared/runs/mlflow.db', or leave it out: the default is in the runs folder"
        ]
    return []


def with_environment(submission: Submission) -> Submission:
    """Adds the tracking server that the local environment names, if the submission names none."""
    uri = os.environ.get(_TRACKING, "")
    if submission.tracking_uri is None and (uri == OFF or uri.startswith(("http://", "https://"))):
        return replace(submission, tracking_uri=uri)
    return submission


def submit(submission: Submission, address: str | None, *, say: Callable[[str], None] = print) -> tuple[Cluster, str]:
    """Validates the submission locally and on the cluster, and submits it; returns the cluster and the job's id.

    Raises InputError with all local faults (also of address and token), or else with all that the cluster reports.
    """
    submission = with_environment(submission)
    all_faults = faults(submission)
    cluster: Cluster | None = None
    try:
        cluster = clusters.connect(clusters.address_of(address))
    except InputError as error:
        all_faults = [*error.faults, *all_faults]
    if all_faults or cluster is None:
        raise InputError(all_faults)
    with staged(submission.config, submission.words) as stage:
        answer = ask(cluster, stage, submission)
        for line in answer["warnings"]:
            sys.stderr.write(f"warning: {scrubbed(line)}\n")
        say(f"checked on {cluster.address}: {'; '.join(answer['notes'])}")
        id = f"{answer['name'] or slug(Path(str(submission.config)).stem)}-{secrets.token_hex(2)}"
        tags = {
            clusters.KIND: clusters.SEARCH,
            clusters.STUDY: answer["name"] or "",
            clusters.STORAGE: answer["storage"] or "",
            clusters.REQUEST: replace(submission, runs=answer["runs"]).to_json(),
            clusters.VERSION: m3col.__version__,
            clusters.GIT: _git(),
        }
        stage.ask(id, {})
        words = search_words(
            submission, config=stage.config, words=stage.words, name=answer["name"], runs=str(answer["runs"])
        )
        cluster.submit(shlex.join(words), folder=stage.folder, id=id, metadata=tags)
    return cluster, id


def search_words(
    submission: Submission, *, config: str | None, words: Sequence[str], name: str | None, runs: str
) -> list[str]:
    """The command of the job. With `--resume auto` a restarted job resumes its study."""
    command = ["python", "-m", "jobs.cli", "search", *([config] if config else []), *words]
    if submission.resume is not None:
        command += ["--resume", submission.resume]
    else:
        command += [*(["--name", name] if name else []), "--resume", directory.AUTO]
    command += ["--address", "auto", "--plain", "--runs-dir", runs]
    for option, value in (("--tracking-uri", submission.tracking_uri), ("--data-dir", submission.data_dir)):
        command += [option, value] if value else []
    return command


def ask(cluster: Cluster, stage: Staged, submission: Submission) -> preflight.Answer:
    """Runs the preflight job and returns its answer. Raises InputError with every fault it reports."""
    local: dict[str, Any] = {**preflight.here(), "requires": _required()}
    local["m3col"] = m3col.__version__
    if cluster.ray_version() != local["ray"]:  # known without the preflight job
        raise InputError([preflight.different("Ray", cluster.ray_version(), local["ray"])])
    id = f"preflight-{secrets.token_hex(4)}"
    stage.ask(id, {**asdict(submission), "config": stage.config, "words": stage.words, "versions": local})
    tags = {clusters.KIND: clusters.PREFLIGHT}
    cluster.submit("python -m jobs.cluster.preflight", folder=stage.folder, id=id, metadata=tags)
    try:
        state = cluster.wait(id, _PREFLIGHT_S)
        answer = _answer(cluster.log(id))
        if answer is None:
            raise InputError([_no_answer(cluster, id, state)])
    except (InputError, KeyboardInterrupt):
        cluster.stop(id)
        raise
    renamed = {stage.config: submission.config} if stage.config != submission.config else {}
    if answer["faults"]:
        raise InputError([_in_callers_names(line, renamed) for line in answer["faults"]])
    return answer


def _answer(log: str) -> preflight.Answer | None:
    lines = [line for line in log.splitlines() if line.startswith(preflight.MARK)]
    return cast("preflight.Answer", json.loads(lines[-1].removeprefix(preflight.MARK))) if lines else None


def _no_answer(cluster: Cluster, id: str, state: str) -> str:
    message = str(cluster.job(id).message or "")
    last = next((line for line in reversed(cluster.log(id).splitlines()) if line.strip()), message)
    reason = reason_of(last, limit=300)
    if state not in clusters.ENDED:
        return (
            f"{cluster.address}: the preflight job did not end within {_PREFLIGHT_S:.0f} s (state {state}: {reason}); "
            "check that the cluster can start jobs at all"
        )
    return (
        f"{cluster.address}: the preflight job ended as {state} ({reason}); `python` on the nodes must be the one that "
        "Ray runs in, with m3col's requirements installed"
    )


def _in_callers_names(line: str, renamed: dict[str | None, str | None]) -> str:
    """Replaces names of copied configs by the names that the user gave."""
    for staged_name, own_name in renamed.items():
        if staged_name and own_name:
            line = line.replace(staged_name, own_name)
    return line


def _required() -> list[str]:
    """The distributions that m3col needs at run time."""
    try:
        lines = metadata.requires("m3col") or []
    except metadata.PackageNotFoundError:
        return []
    return [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]


def _git() -> str:
    state = provenance.git_state()
    return "" if state["commit"] is None else f"{state['commit']}{'+changes' if state['dirty'] else ''}"
