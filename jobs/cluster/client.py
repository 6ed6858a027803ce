"""A Ray cluster spoken to through its Jobs API: address and token judged, every call bounded in time."""

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

_CALL_S = (5.0, 60.0)  # to connect, and between two pieces of an answer

_LOST_S = 120.0  # without a word from the cluster, before following is given up

_SILENT_S = 30.0  # without a piece of a log, before the cluster is asked whether the job goes on

_LOOK_S = 1.0

_LOUD = ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")


# Keys of our metadata.
KIND, STUDY, STORAGE, REQUEST = "m3col.kind", "m3col.study", "m3col.storage", "m3col.request"

VERSION, GIT = "m3col.version", "m3col.git"

SEARCH, PREFLIGHT = "search", "preflight"

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


def address_of(given: str | None) -> str:
    """The address of the dashboard: `given`, or $RAY_API_SERVER_ADDRESS or $RAY_ADDRESS where that is http(s).

    Raises InputError where there is none, or where it is not of the form http://HOST:PORT.
    """
    place, address = "--address", given
    if address is None:
        known = {name: os.environ.get(name, "") for name in _ADDRESSES}
        place = next((name for name in _ADDRESSES if known[name].startswith(("http://", "https://"))), place)
        address = known.get(place)
    if not address:
        raise InputError(["--address: name the cluster's dashboard, such as http://HEAD:8265"])
    if has_password(address):
        raise InputError(
            [
                f"{place} {redacted(address)}: must not hold a password; "
                f"nearest valid: the address alone, with the token in ${auth.TOKEN}"
            ]
        )
    if not _is_dashboard(address):
        host = address.rpartition("://")[2].partition("/")[0].partition(":")[0]
        raise InputError(
            [
                f"{place} {address!r}: must be the http address of the cluster's dashboard; "
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
    """The cluster at that address, after a first word with it. Raises InputError within 15 s where it does not answer,
    is no Ray cluster, or does not accept our token."""
    auth.settle(joining=True)
    faults = auth.token_faults()
    if faults:
        raise InputError(faults)
    # The client prefers these to the address that it is given.
    os.environ[_ADDRESSES[0]] = address
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)

    class Client(JobSubmissionClient):
        def _do_request(self, *arguments: Any, **named: Any) -> Any:
            # Without a limit a cluster that hangs would hold us for ever.
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
    """The jobs of one cluster. Methods raise OSError or RuntimeError where it answers no more."""

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
        """Submitted jobs by time, the newest last: our searches, or all."""
        found = [item for item in self._client.list_jobs() if item.submission_id]
        if not everybodys:
            found = [item for item in found if (item.metadata or {}).get(KIND) == SEARCH]
        return sorted(found, key=lambda item: item.start_time or 0)

    def job(self, id: str) -> Any:
        """What the cluster knows of a job. Raises InputError with the nearest id where it knows none."""
        known = {item.submission_id: item for item in self.jobs(everybodys=True)}
        if id not in known:
            ours = [item.submission_id for item in self.jobs()]
            raise InputError([f"job {id!r}: {self.address} has none of this id{nearest(id, ours) if ours else ''}"])
        return known[id]

    def state(self, id: str) -> str:
        return str(self._client.get_job_status(id).value)

    def log(self, id: str) -> str:
        return str(self._client.get_job_logs(id))

    def stop(self, id: str) -> None:
        self._client.stop_job(id)

    def wait(self, id: str, seconds: float) -> str:
        """The state of a job when it has ended, or after that time."""
        deadline = time.monotonic() + seconds
        while (state := self.state(id)) not in ENDED and time.monotonic() < deadline:
            time.sleep(_LOOK_S / 2)
        return state

    async def _pieces(self, id: str) -> AsyncIterator[str]:
        """A job's log as it grows, to its end. A log that is silent may be that of a cluster that is gone, which no
        connection tells: then the cluster is asked, and that raises, or there is an empty piece."""
        pieces = self._client.tail_job_logs(id)
        coming = asyncio.ensure_future(anext(pieces, None))
        try:
            while True:
                done, _ = await asyncio.wait([coming], timeout=_SILENT_S)
                if not done:
                    if self.state(id) in ENDED:
                        return
                    yield ""
                    continue
                text = coming.result()
                if text is None:
                    return
                yield text
                coming = asyncio.ensure_future(anext(pieces, None))
        finally:
            coming.cancel()

    def follow(self, id: str, write: Callable[[str], object]) -> str:
        """Passes a job's log on as it grows, and returns its state once it has ended.

        A connection that breaks is taken up again where it broke. Raises RuntimeError after two minutes without one.
        """
        seen, heard = 0, time.monotonic()

        async def tail() -> None:
            nonlocal seen, heard
            place = 0
            async for text in self._pieces(id):
                fresh = text[max(0, seen - place) :]
                place += len(text)
                if fresh or not text:  # what was seen before says nothing of the job
                    heard = time.monotonic()
                if fresh:
                    seen = place
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
                write(self.log(id)[seen:])
                return state
            if error is not None and time.monotonic() - heard > _LOST_S:
                raise RuntimeError(f"{self.address} answers no more ({reason_of(error, limit=160)})") from None
            time.sleep(_LOOK_S)
