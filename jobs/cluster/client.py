"""Client of a Ray cluster's Jobs API. Validates address and token; every call has a time limit."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from m3col.errors import InputError, nearest, reason_of
from m3col.runtime import deadline
from m3col.storage.redaction import has_password, redacted
from tune.engine import auth

_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")

_FIRST_WORD_S = 15.0

_CALL_S = (5.0, 60.0)  # time limits: to connect, and between two pieces of an answer

_LOST_S = 120.0  # s without an answer of the cluster; then following a log ends

_SILENT_S = 30.0  # s without new log text; then the cluster is asked for the state of the job

_POLL_S = 1.0

_NOISY_LOGGERS = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)


# Keys of the metadata of a job.
KIND, STUDY, STORAGE, REQUEST = "m3col.kind", "m3col.study", "m3col.storage", "m3col.request"

VERSION, GIT = "m3col.version", "m3col.git"

SEARCH, PREFLIGHT = "search", "preflight"

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


def address_of(address: str | None) -> str:
    """The address of the dashboard: `address`, or $RAY_API_SERVER_ADDRESS or $RAY_ADDRESS if that is http(s).

    Raises InputError if there is none, or if it is not of the form http://HOST:PORT.
    """
    source = "--address"
    if address is None:
        environment = {name: os.environ.get(name, "") for name in _ADDRESSES}
        source = next((name for name in _ADDRESSES if environment[name].startswith(("http://", "https://"))), source)
        address = environment.get(source)
    if not address:
        raise InputError(["--address: name the cluster's dashboard, such as http://HEAD:8265"])
    if has_password(address):
        raise InputError(
            [
                f"{source} {redacted(address)}: must not hold a password; "
                f"nearest valid: the address alone, with the token in ${auth.TOKEN}"
            ]
        )
    if not _is_dashboard(address):
        host = address.rpartition("://")[2].partition("/")[0].partition(":")[0]
        raise InputError(
            [
                f"{source} {address!r}: must be the http address of the cluster's dashboard; "
                f"nearest valid: 'http://{host if host not in ('', 'auto') else 'HEAD'}:8265'"
            ]
        )
    return address.rstrip("/")


def _is_dashboard(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def connect(address: str) -> "Cluster":
    """Connects to the cluster at that address. Raises InputError within 15 s if it does not answer, is not a Ray
    cluster, or does not accept the token."""
    auth.settle(joining=True)
    faults = auth.token_faults()
    if faults:
        raise InputError(faults)
    # The client prefers this variable to its argument.
    os.environ[_ADDRESSES[0]] = address
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)

    class Client(JobSubmissionClient):
        def _do_request(self, *arguments: Any, **named: Any) -> Any:
            # Without a limit, a cluster that hangs would block this process for ever.
            return super()._do_request(*arguments, **{"timeout": _CALL_S, **named})

    try:
        return Cluster(deadline.within(_FIRST_WORD_S, lambda: Client(address)), address)
    except AuthenticationError as error:
        raise InputError([auth.refused(f"--address {address}", str(error))]) from None
    except Exception as error:  # whatever the client and the libraries below it raise
        raise InputError(
            [
                f"--address {address}: there is no Ray cluster that answers ({reason_of(error, limit=160)}); "
                "start it with its dashboard (`ray start --head`), or give the right address"
            ]
        ) from None


class Cluster:
    """The jobs of one cluster. Methods raise OSError or RuntimeError if it no longer answers."""

    def __init__(self, client: Any, address: str) -> None:
        self._client, self.address = client, address

    def ray_version(self) -> str:
        return str(self._client._server_ray_version or self._client.get_version())

    def submit(self, entrypoint: str, *, folder: Path, id: str, metadata: Mapping[str, str]) -> str:
        """Uploads a folder, starts a shell command in it, and returns the job's id."""
        return str(
            self._client.submit_job(
                entrypoint=entrypoint,
                runtime_env={"working_dir": str(folder), "env_vars": {"PYTHONUNBUFFERED": "1"}},
                submission_id=id,
                metadata=dict(metadata),
            )
        )

    def jobs(self, *, everybodys: bool = False) -> list[Any]:
        """Submitted jobs, the newest last: searches of m3col, or with `everybodys` all jobs."""
        submitted = [item for item in self._client.list_jobs() if item.submission_id]
        if not everybodys:
            submitted = [item for item in submitted if (item.metadata or {}).get(KIND) == SEARCH]
        return sorted(submitted, key=lambda item: item.start_time or 0)

    def job(self, id: str) -> Any:
        """Details of a job. Raises InputError with the nearest id if there is no such job."""
        jobs = {item.submission_id: item for item in self.jobs(everybodys=True)}
        if id not in jobs:
            searches = [item.submission_id for item in self.jobs()]
            raise InputError(
                [f"job {id!r}: {self.address} has none of this id{nearest(id, searches) if searches else ''}"]
            )
        return jobs[id]

    def state(self, id: str) -> str:
        return str(self._client.get_job_status(id).value)

    def log(self, id: str) -> str:
        return str(self._client.get_job_logs(id))

    def stop(self, id: str) -> None:
        self._client.stop_job(id)

    def wait(self, id: str, seconds: float) -> str:
        """Waits until the job has ended, at most `seconds`. Returns its state."""
        deadline = time.monotonic() + seconds
        while (state := self.state(id)) not in ENDED and time.monotonic() < deadline:
            time.sleep(_POLL_S / 2)
        return state

    async def _pieces(self, id: str) -> AsyncIterator[str]:
        """Yields pieces of a job's log until the job ends. After a silence it asks for the job's state, because a lost
        cluster does not close the connection; that raises, or yields an empty piece."""
        pieces = self._client.tail_job_logs(id)
        next_piece = asyncio.ensure_future(anext(pieces, None))
        try:
            while True:
                done, _ = await asyncio.wait([next_piece], timeout=_SILENT_S)
                if not done:
                    if self.state(id) in ENDED:
                        return
                    yield ""
                    continue
                text = next_piece.result()
                if text is None:
                    return
                yield text
                next_piece = asyncio.ensure_future(anext(pieces, None))
        finally:
            next_piece.cancel()

    def follow(self, id: str, write: Callable[[str], object]) -> str:
        """Passes new pieces of a job's log to `write` until the job has ended; returns its state.

        After a lost connection it continues where the log stopped. Raises RuntimeError after two minutes without one.
        """
        shown, heard = 0, time.monotonic()

        async def tail() -> None:
            nonlocal shown, heard
            position = 0
            async for text in self._pieces(id):
                fresh = text[max(0, shown - position) :]
                position += len(text)
                if fresh or not text:  # text that is repeated after a reconnection is no sign of life
                    heard = time.monotonic()
                if fresh:
                    shown = position
                    write(fresh)

        while True:
            error: Exception | None = None
            try:
                asyncio.run(tail())
                state = self.state(id)
                heard = time.monotonic()
            except Exception as broken:  # whatever the connection below raises
                error, state = broken, ""
            if state in ENDED:
                write(self.log(id)[shown:])
                return state
            if error is not None and time.monotonic() - heard > _LOST_S:
                raise RuntimeError(f"{self.address} answers no more ({reason_of(error, limit=160)})") from None
            time.sleep(_POLL_S)
