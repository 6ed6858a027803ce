"""Checks that a Ray cluster answers before `ray.init`, which may wait for minutes or end the process."""

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

ANSWER_S = 10.0  # how long a cluster that is starting may take to answer

_CALL_S = 5.0  # limit of one gRPC call

_OVERHEAD_S = 5.0  # for the name lookup, in addition to the limit of the calls

_PAUSE_S = 0.5

_NEAR = "HOST:6379, as `ray start --head` names it; http://HOST:8265 is for m3col submit"

_GCS: Any = gcs_service_pb2  # Any: its classes are created at import, so the type checker does not see them

# No proxy, as in Ray's own connection. A local pool, so that a failed attempt is not reused.
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


def requested(argument: str | None) -> tuple[str, str] | None:
    """Returns (source, address) of the cluster to join, None to start a local one.

    Args:
        argument: the address that the caller passed. Without one, and for "auto", $RAY_ADDRESS is used, as Ray does.
    """
    variable = os.environ.get(ADDRESS)
    is_argument = argument and not (argument == "auto" and variable)
    source, address = ("--address", argument) if is_argument else (f"${ADDRESS}", variable)
    return None if not address or address == "local" else (source, address)


def require_cluster(source: str, address: str) -> None:
    """Returns if a cluster with this machine as a node answers at `address`.

    Args:
        source: the option or variable that holds the address, for the message.
        address: as for `ray.init`.

    Raises:
        InputError: no such cluster answers within 15 s.
    """
    subject = f"{source} {redacted(address)}"
    if "://" in address:
        raise InputError(
            [f"{subject}: a search or training cannot join a cluster this way; nearest valid: {_near(address)}"]
        )
    faults = auth.token_faults()
    if faults:
        raise InputError(faults)
    fault: str | None
    try:
        fault = deadline.within(ANSWER_S + _OVERHEAD_S, lambda: _fault(address, subject))
    except Exception as error:  # no answer, or whatever Ray raises for an invalid address
        fault = f"{subject}: no Ray cluster to join ({_end_of(str(error))}); nearest valid: {_NEAR}"
    if fault is not None:
        raise InputError([fault])


def _near(address: str) -> str:
    """Returns the nearest valid address to one with a scheme."""
    host = address.partition("://")[2].rpartition("@")[2].partition("/")[0].partition(":")[0] or "HOST"
    return f"{host}:6379, as `ray start --head` names it; http://{host}:8265 is for m3col submit"


def _fault(address: str, subject: str) -> str | None:
    """Returns why the cluster cannot be joined, as a line that begins with `subject`; None if it can."""
    resolved = services.canonicalize_bootstrap_address(address)
    if resolved is None:  # Ray itself would start a cluster
        return f"{subject}: no Ray cluster to join; nearest valid: {_NEAR}"
    prefix = f"{resolved}: " if address == "auto" else ""
    until = time.monotonic() + ANSWER_S
    while True:
        try:
            reason = _refusal(resolved, until)
            return None if reason is None else f"{subject}: this cluster cannot be joined ({prefix}{reason})"
        except grpc.RpcError as error:
            code, details = error.code(), _end_of(str(error.details()))
        if code is grpc.StatusCode.UNAUTHENTICATED:
            return auth.refused(subject, details)
        if code is grpc.StatusCode.UNAVAILABLE and time.monotonic() < until:
            time.sleep(_PAUSE_S)
            continue
        reason = {
            grpc.StatusCode.UNAVAILABLE: f"no answer within {ANSWER_S:g} s: {details}",
            grpc.StatusCode.DEADLINE_EXCEEDED: f"something listens there, but says nothing within {_CALL_S:g} s",
        }.get(code, f"something else than Ray answers: {details}")
        return f"{subject}: no Ray cluster to join ({prefix}{reason}); nearest valid: {_NEAR}"


def _end_of(text: str) -> str:
    """Returns the last 200 characters of a reason, on one line."""
    return reason_of(text, limit=None)[-200:]


def _refusal(address: str, until: float) -> str | None:
    """Asks the GCS why this machine cannot join; None if it can. Raises grpc.RpcError if there is no answer."""
    channel = init_grpc_channel(address, options=_OPTIONS)
    try:
        service = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        alive = service.CheckAlive(_GCS.CheckAliveRequest(), timeout=_CALL_S)
        if alive.ray_version and alive.ray_version != ray.__version__:
            return f"it runs Ray {alive.ray_version}, and here is {ray.__version__}; install the same version"
        while True:
            nodes = service.GetAllNodeInfo(_GCS.GetAllNodeInfoRequest(), timeout=_CALL_S)
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
