"""`m3col submit`: a search as a job of a Ray cluster, after everything about it was judged here and there."""

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
from typing import Any

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


def faults(wanted: Submission) -> list[str]:
    """All that can be said against it here: options, and the config as far as it can be judged without its data."""
    found = []
    for option, path in (("--runs-dir", wanted.runs), ("--data-dir", wanted.data_dir)):
        if path is not None and not os.path.isabs(path):
            found.append(f"{option} {path}: is a folder of the cluster; give its absolute path, such as /shared/{path}")
    if wanted.name is not None and wanted.resume is not None:
        found.append(f"--name {wanted.name}: a resumed study keeps its name; leave --name or --resume out")
    if wanted.config is None and wanted.resume is None:
        found.append("submit: name a config, such as `m3col submit digits`, or go on with --resume NAME")
    found += _tracking_faults(wanted.tracking_uri, "--tracking-uri")
    overrides, more = parse_overrides(wanted.words, Path(wanted.data_dir) if wanted.data_dir else None)
    found += more
    found += _password_faults(wanted.words)
    partials: Sequence[PartialStudy] = ()
    try:
        if wanted.config is not None:
            partials, more = search_config.parse(wanted.config, overrides=overrides)
            found += more
            for partial in partials if wanted.tracking_uri is None else ():
                found += _tracking_faults(partial.study.settings.tracking.uri, "tracking.uri")
        if wanted.name is not None and len(partials) == 1:
            directory.new_name(Path(os.devnull), wanted.name, partials[0].study)  # whether it is free is seen there
    except InputError as error:
        found += error.faults
    if wanted.name is not None and len(partials) > 1:
        found.append("--name: this search makes several studies; leave the name out")
    return list(dict.fromkeys(found))


def _password_faults(words: Sequence[str]) -> list[str]:
    """Of overrides, whatever their key: a config is judged with them here, but that of a study that is gone on with
    only where the study is, and nothing secret is to be sent there."""
    found = []
    for word in words:
        key, sign, _ = word.partition("=")
        if sign and has_password(word):
            overrides, _ = parse_overrides([word], None)
            found += urls.faults(run_config.join({}, overrides), lambda key: "overrides") or [
                f"overrides: {key} must hold no password, because everybody can read what a job is called with; leave "
                f"it out of {redacted(word)!r}"
            ]
    return found


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
            f"{place} {uri}: the file would lie in the job's temporary folder; "
            "nearest valid: 'sqlite:////shared/runs/mlflow.db', or leave it out: the default lies in the runs folder"
        ]
    return []


def with_environment(wanted: Submission) -> Submission:
    """A tracking server that is named by this machine's environment is meant for the job as well."""
    uri = os.environ.get(_TRACKING, "")
    if wanted.tracking_uri is None and (uri == OFF or uri.startswith(("http://", "https://"))):
        return replace(wanted, tracking_uri=uri)
    return wanted


def submit(wanted: Submission, address: str | None, *, say: Callable[[str], None] = print) -> tuple[Cluster, str]:
    """Judges the submission here and on the cluster, and submits it; returns the cluster and the job's id.

    Raises InputError with all faults found here, the address' and token's among them, or else with all found there.
    """
    wanted = with_environment(wanted)
    found = faults(wanted)
    cluster: Cluster | None = None
    try:
        cluster = clusters.connect(clusters.address_of(address))
    except InputError as error:
        found = [*error.faults, *found]
    if found or cluster is None:
        raise InputError(found)
    with staged(wanted.config, wanted.words) as stage:
        answer = ask(cluster, stage, wanted)
        for line in answer["warnings"]:
            sys.stderr.write(f"warning: {scrubbed(line)}\n")
        say(f"checked on {cluster.address}: {'; '.join(answer['notes'])}")
        id = f"{answer['name'] or slug(Path(str(wanted.config)).stem)}-{secrets.token_hex(2)}"
        known = {
            clusters.KIND: clusters.SEARCH,
            clusters.STUDY: answer["name"] or "",
            clusters.STORAGE: answer["storage"] or "",
            clusters.REQUEST: replace(wanted, runs=answer["runs"]).to_json(),
            clusters.VERSION: m3col.__version__,
            clusters.GIT: _git(),
        }
        stage.ask(id, {})
        words = search_words(wanted, config=stage.config, words=stage.words, name=answer["name"], runs=answer["runs"])
        cluster.submit(shlex.join(words), folder=stage.folder, id=id, metadata=known)
    return cluster, id


def search_words(
    wanted: Submission, *, config: str | None, words: Sequence[str], name: str | None, runs: str
) -> list[str]:
    """The command of the job. With `--resume auto` a job that is started again goes on where it was."""
    command = ["python", "-m", "jobs.cli", "search", *([config] if config else []), *words]
    if wanted.resume is not None:
        command += ["--resume", wanted.resume]
    else:
        command += [*(["--name", name] if name else []), "--resume", directory.AUTO]
    command += ["--address", "auto", "--plain", "--runs-dir", runs]
    for option, value in (("--tracking-uri", wanted.tracking_uri), ("--data-dir", wanted.data_dir)):
        command += [option, value] if value else []
    return command


def ask(cluster: Cluster, stage: Staged, wanted: Submission) -> dict[str, Any]:
    """What the cluster's own machines say. Raises InputError with every fault found there."""
    here: dict[str, Any] = {**preflight.here(), "requires": _required()}
    here["m3col"] = m3col.__version__
    if cluster.ray_version() != here["ray"]:  # known at once; a job would only say so later
        raise InputError([preflight.different("Ray", cluster.ray_version(), here["ray"])])
    id = f"preflight-{secrets.token_hex(4)}"
    stage.ask(id, {**asdict(wanted), "config": stage.config, "words": stage.words, "versions": here})
    known = {clusters.KIND: clusters.PREFLIGHT}
    cluster.submit("python -m jobs.cluster.preflight", folder=stage.folder, id=id, metadata=known)
    try:
        state = cluster.wait(id, _PREFLIGHT_S)
        answer = _answer(cluster.log(id))
        if answer is None:
            raise InputError([_no_answer(cluster, id, state)])
    except (InputError, KeyboardInterrupt):
        cluster.stop(id)
        raise
    renamed = {stage.config: wanted.config} if stage.config != wanted.config else {}
    if answer["faults"]:
        raise InputError([_in_callers_names(line, renamed) for line in answer["faults"]])
    return answer


def _answer(log: str) -> dict[str, Any] | None:
    lines = [line for line in log.splitlines() if line.startswith(preflight.MARK)]
    return dict(json.loads(lines[-1].removeprefix(preflight.MARK))) if lines else None


def _no_answer(cluster: Cluster, id: str, state: str) -> str:
    message = str(cluster.job(id).message or "")
    last = next((line for line in reversed(cluster.log(id).splitlines()) if line.strip()), message)
    reason = reason_of(last, limit=300)
    if state not in clusters.ENDED:
        return (
            f"{cluster.address}: a first small job did not end within {_PREFLIGHT_S:.0f} s (state {state}: {reason}); "
            "see whether the cluster can start jobs at all"
        )
    return (
        f"{cluster.address}: a first small job ended as {state} ({reason}); `python` on the nodes must be the one that "
        "Ray runs in, with m3col's requirements installed"
    )


def _in_callers_names(line: str, renamed: dict[str | None, str | None]) -> str:
    for there, ours in renamed.items():
        if there and ours:
            line = line.replace(there, ours)
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
