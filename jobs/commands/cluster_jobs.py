"""`m3col submit` and `m3col jobs`: searches on a Ray cluster."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.table import Table

from jobs.cluster import client as clusters
from jobs.cluster.client import Cluster
from jobs.cluster.submission import Submission
from jobs.terminal.console import config_and_words, console
from m3col.errors import InputError

_STOP_S = 30.0


def submit(arguments: argparse.Namespace) -> int:
    config, words = config_and_words(arguments)
    submission = Submission(
        config, tuple(words), arguments.name, arguments.resume, _text(arguments.runs_dir), arguments.tracking_uri,
        _text(arguments.data_dir), arguments.shared,
    )  # fmt: skip
    if arguments.print_rayjob:
        from jobs.cluster import kuberay

        sys.stdout.write(
            kuberay.manifest(submission, image=arguments.image, nodes=1 if arguments.nodes is None else arguments.nodes)
        )
        return 0
    unused = [name for name, value in (("--image", arguments.image), ("--nodes", arguments.nodes)) if value is not None]
    if unused:
        raise InputError([f"{name}: belongs to --print-rayjob; leave it out" for name in unused])
    return _send(submission, arguments.address, follow=arguments.follow)


def _text(path: Any) -> str | None:
    return None if path is None else str(path)


def _send(submission: Submission, address: str | None, *, follow: bool) -> int:
    from jobs.cluster.submit import submit  # imported late: it needs torch and optuna

    cluster, id = submit(submission, address)
    print(f"job {id}", flush=True)
    if follow:
        return _follow(cluster, id)
    for action, option in (("logs", " --follow"), ("status", ""), ("stop", "")):
        print(f"  m3col {_job_command(cluster, action, id)}{option}")
    return 0


def _job_command(cluster: Cluster, action: str, id: str) -> str:
    return f"jobs {action} {shlex.quote(id)} --address {shlex.quote(cluster.address)}"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _follow(cluster: Cluster, id: str) -> int:
    """Shows a job's log until the job ends or Ctrl-C. Returns the exit code, 0 if the job succeeded."""
    try:
        state = cluster.follow(id, _write)
    except KeyboardInterrupt:
        print(
            f"\nNo longer following; the job continues:\n  m3col {_job_command(cluster, 'logs', id)} --follow\n"
            f"  m3col {_job_command(cluster, 'stop', id)}"
        )
        return 130
    print(f"job {id}: {state}")
    return 0 if state == "SUCCEEDED" else 1


def jobs(arguments: argparse.Namespace) -> int:
    cluster = clusters.connect(clusters.address_of(arguments.address))
    return _ACTIONS[arguments.action](cluster, arguments)


def _list(cluster: Cluster, arguments: argparse.Namespace) -> int:
    table = Table("job", "study", "state", "began", "minutes")
    table.columns[-1].justify = "right"
    for job in cluster.jobs(everybodys=arguments.all):
        study = (job.metadata or {}).get(clusters.STUDY, "")
        table.add_row(job.submission_id, study, job.status.value, _began(job), _minutes(job))
    console().print(table if table.row_count else f"no jobs on {cluster.address}", soft_wrap=True)
    return 0


def _began(job: Any) -> str:
    return "" if not job.start_time else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.start_time / 1000))


def _minutes(job: Any) -> str:
    if not job.start_time:
        return ""
    return f"{((job.end_time or time.time() * 1000) - job.start_time) / 60_000:.1f}"


def _status(cluster: Cluster, arguments: argparse.Namespace) -> int:
    job = cluster.job(arguments.id)
    tags = job.metadata or {}
    try:
        request = _request(job)
    except InputError:
        request = None  # of another version: the other lines can still be shown
    lines = {
        "job": job.submission_id, "state": job.status.value, "study": tags.get(clusters.STUDY),
        "began": _began(job), "minutes": _minutes(job), "runs": request.runs if request else None,
        "m3col": tags.get(clusters.VERSION), "command": job.entrypoint,
        "message": (job.message or "").partition("\n")[0].partition(", last available logs")[0],
    }  # fmt: skip
    for name, value in lines.items():
        if value:
            print(f"{name:<8} {value}")
    return 0


def _request(job: Any) -> Submission | None:
    """The job's submission; None if m3col did not submit it. Raises InputError if another version wrote it."""
    tags = job.metadata or {}
    try:
        return Submission.from_json(tags[clusters.REQUEST]) if tags.get(clusters.REQUEST) else None
    except InputError as error:
        version = tags.get(clusters.VERSION, "another version")
        raise InputError(
            [f"job {job.submission_id!r}: {line}; it was submitted by m3col {version}: resume it with that version, or "
             "by `m3col submit --resume STUDY`" for line in error.faults]
        ) from None  # fmt: skip


def _logs(cluster: Cluster, arguments: argparse.Namespace) -> int:
    cluster.job(arguments.id)
    if arguments.follow:
        return _follow(cluster, arguments.id)
    _write(cluster.log(arguments.id))
    return 0


def _stop(cluster: Cluster, arguments: argparse.Namespace) -> int:
    job = cluster.job(arguments.id)
    if job.status.value in clusters.ENDED:
        print(f"job {arguments.id} has ended already: {job.status.value}")
        return 0
    cluster.stop(arguments.id)
    state = cluster.wait(arguments.id, _STOP_S)
    print(f"job {arguments.id}: {state}; resume with\n  m3col {_job_command(cluster, 'resume', arguments.id)}")
    return 0 if state in clusters.ENDED else 1


def _resume(cluster: Cluster, arguments: argparse.Namespace) -> int:
    from tune.study.directory import AUTO

    job = cluster.job(arguments.id)
    request = _request(job)
    if request is None:
        raise InputError([f"job {arguments.id!r}: was not submitted by `m3col submit`, so there is no study to resume"])
    if job.status.value not in clusters.ENDED:
        raise InputError([f"job {arguments.id!r}: is still {job.status.value}; stop it first, or follow its log"])
    request = replace(request, shared=request.shared or arguments.shared)
    study, storage = job.metadata.get(clusters.STUDY), job.metadata.get(clusters.STORAGE)
    if study:
        # The study has stored its config. Only the new overrides and the address of its storage are sent.
        words = [*([f"storage.uri={storage}"] if storage else []), *arguments.overrides]
        request = replace(request, config=None, words=tuple(words), name=None, resume=study)
    else:
        request = replace(request, words=(*request.words, *arguments.overrides), resume=AUTO)
    return _send(request, cluster.address, follow=arguments.follow)


_ACTIONS: dict[str, Callable[[Cluster, argparse.Namespace], int]] = {
    "list": _list,
    "status": _status,
    "logs": _logs,
    "stop": _stop,
    "resume": _resume,
}
