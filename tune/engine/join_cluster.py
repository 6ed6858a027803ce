"""Whether a Ray cluster answers, before `ray.init` asks it: that call waits for minutes and may end the process."""

import os
import time
from typing import Any

import grpc
import ray
from ray._private import services
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from m3col.errors import InputError, reason_of
from m3col.runtime import deadline
from m3col.storage.redaction import redacted
from tune.engine import auth

ADDRESS = "RAY_ADDRESS"

ANSWER_S = 10.0  # for a cluster that is just being started

_CALL_S = 5.0

_OVERHEAD_S = 5.0  # of looking a name up, beyond the limit of the calls

_PAUSE_S = 0.5

_NEAR = "HOST:6379, as `ray start --head` names it; http://HOST:8265 is for m3col submit"

_QUESTIONS: Any = gcs_service_pb2  # of any type for the type checker: its classes are made when it is imported

# As Ray's own connection to a cluster: no proxy. And no memory of an attempt that failed a moment ago.
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


def wanted(given: str | None) -> tuple[str, str] | None:
    """The address of the cluster to join and where it was said; None where a local one is to be started.

    `given`: the argument of a call. Without one, and for "auto", $RAY_ADDRESS counts, as for Ray.
    """
    known = os.environ.get(ADDRESS)
    place, address = ("--address", given) if given and not (given == "auto" and known) else (f"${ADDRESS}", known)
    return None if not address or address == "local" else (place, address)


def reach(place: str, address: str) -> None:
    """Returns where a cluster that this machine is part of answers at `address`. Raises InputError within 15 s where it
    does not. `place`: where the address was said, for the message."""
    said = f"{place} {redacted(address)}"
    if "://" in address:
        raise InputError(
            [f"{said}: a search or training cannot join a cluster this way; nearest valid: {_near(address)}"]
        )
    faults = auth.token_faults()
    if faults:
        raise InputError(faults)
    fault: str | None
    try:
        fault = deadline.within(ANSWER_S + _OVERHEAD_S, lambda: _fault(address, said))
    except Exception as error:  # no answer, or whatever Ray raises where an address has no meaning
        fault = f"{said}: no Ray cluster to join ({_words(str(error))}); nearest valid: {_NEAR}"
    if fault is not None:
        raise InputError([fault])


def _near(address: str) -> str:
    host = address.partition("://")[2].rpartition("@")[2].partition("/")[0].partition(":")[0] or "HOST"
    return f"{host}:6379, as `ray start --head` names it; http://{host}:8265 is for m3col submit"


def _fault(address: str, said: str) -> str | None:
    """Why the cluster cannot be joined, as a line; None where it can."""
    found = services.canonicalize_bootstrap_address(address)
    if found is None:  # Ray itself would start a cluster
        return f"{said}: no Ray cluster to join; nearest valid: {_NEAR}"
    asked = f"{found}: " if address == "auto" else ""
    until = time.monotonic() + ANSWER_S
    while True:
        try:
            reason = _said_by(found, until)
            return None if reason is None else f"{said}: this cluster cannot be joined ({asked}{reason})"
        except grpc.RpcError as error:
            code, words = error.code(), _words(str(error.details()))
        if code is grpc.StatusCode.UNAUTHENTICATED:
            return auth.refused(said, words)
        if code is grpc.StatusCode.UNAVAILABLE and time.monotonic() < until:
            time.sleep(_PAUSE_S)
            continue
        reason = {
            grpc.StatusCode.UNAVAILABLE: f"no answer within {ANSWER_S:g} s: {words}",
            grpc.StatusCode.DEADLINE_EXCEEDED: f"something listens there, but says nothing within {_CALL_S:g} s",
        }.get(code, f"something else than Ray answers: {words}")
        return f"{said}: no Ray cluster to join ({asked}{reason}); nearest valid: {_NEAR}"


def _words(text: str) -> str:
    return reason_of(text, limit=None)[-200:]


def _said_by(address: str, until: float) -> str | None:
    """What the cluster's store says of itself. Raises grpc.RpcError where it says nothing."""
    channel = init_grpc_channel(address, options=_OPTIONS)
    try:
        store = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        alive = store.CheckAlive(_QUESTIONS.CheckAliveRequest(), timeout=_CALL_S)
        if alive.ray_version and alive.ray_version != ray.__version__:
            return f"it runs Ray {alive.ray_version}, and here is {ray.__version__}; install the same version"
        while True:
            nodes = store.GetAllNodeInfo(_QUESTIONS.GetAllNodeInfoRequest(), timeout=_CALL_S)
            if {node.node_id.hex() for node in nodes.node_info_list} & services.find_node_ids():
                return None
            if time.monotonic() > until:
                return (
                    "this machine is no node of it: run `ray start --address` here first, or start m3col on a machine "
                    "of the cluster"
                )
            time.sleep(_PAUSE_S)
    finally:
        channel.close()
