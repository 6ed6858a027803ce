"""Clusters that are gone, that never answer, or that cannot be joined: refused in time, with the address."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
import ray
from ray._private import services
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from m3col.errors import InputError
from tests.support.servers import free_port
from tune.engine import auth, join_cluster, ray_cluster, ray_tune


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for, and an environment that says nothing of a cluster."""
    for name, seconds in {"ANSWER_S": 0.4, "_CALL_S": 0.4, "_OVERHEAD_S": 0.6, "_PAUSE_S": 0.1}.items():
        monkeypatch.setattr(join_cluster, name, seconds)
    for name in (join_cluster.ADDRESS, auth.TOKEN, auth.TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(auth.MODE, "disabled")
    monkeypatch.setattr(services, "get_node_ip_address", lambda address=None: "127.0.0.1")


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """A server that accepts connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="module")
def loud() -> Iterator[str]:
    """A server of another kind."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                    connection.sendall(b"220 mail.example ESMTP\r\n")
                    connection.close()
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


class _Store(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):
    """A cluster's store: its version and nodes, or its refusal."""

    def __init__(self, *, version: str = ray.__version__, nodes: tuple[bytes, ...] = (), closed: bool = False) -> None:
        self._version, self._nodes, self._closed = version, nodes, closed

    def CheckAlive(self, request, context):
        if self._closed:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return gcs_service_pb2.CheckAliveReply(ray_version=self._version)

    def GetAllNodeInfo(self, request, context):
        reply = gcs_service_pb2.GetAllNodeInfoReply()
        for node in self._nodes:
            reply.node_info_list.add(node_id=node)
        return reply


@pytest.fixture
def cluster(monkeypatch):
    """Starts a store and gives its address; the node with the bytes 0xab runs on this machine."""
    monkeypatch.setattr(services, "find_node_ids", lambda: {"ab"})
    servers = []

    def start(**described) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(_Store(**described), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None)


def fault(address: str) -> str:
    before = time.monotonic()
    with pytest.raises(InputError) as caught:
        join_cluster.require_cluster("--address", address)
    assert time.monotonic() - before < 4
    (line,) = caught.value.faults
    assert f"--address {address}" in line
    return line


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:{free}", "Connection refused"),
        ("localhost:{free}", "no answer within"),
        ("no-such-host.invalid:6379", "no Ray cluster to join"),
        ("{silent}", "says nothing"),
        ("{loud}", "no Ray cluster to join"),
        ("head", "no Ray cluster to join"),
        ("head:", "no Ray cluster to join"),
        ("127.0.0.1:99999", "no Ray cluster to join"),
        ("ray://head:10001", "nearest valid: head:6379"),
        ("http://head:8265", "http://head:8265 is for m3col submit"),
        ("https://head/", "nearest valid: head:6379"),
    ],
)
def test_what_does_not_answer_is_refused_in_time(address, words, silent, loud):
    assert words in fault(address.format(free=free_port(), silent=silent, loud=loud))


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"version": "2.9.0"}, f"it runs Ray 2.9.0, and here is {ray.__version__}"),
        ({"nodes": (b"\xcd",)}, "this machine is no node of it"),
        ({"nodes": ()}, "this machine is no node of it"),
        ({"closed": True}, "the cluster asks for a token; set RAY_AUTH_TOKEN"),
    ],
)
def test_a_cluster_that_cannot_be_joined_says_why(cluster, tmp_path, monkeypatch, described, words):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert words in fault(cluster(**described))


def test_a_cluster_of_this_machine_is_joined(cluster):
    join_cluster.require_cluster("--address", cluster(nodes=(b"\xab",)))


def test_a_cluster_that_is_just_starting_is_waited_for(cluster, monkeypatch):
    monkeypatch.setattr(join_cluster, "ANSWER_S", 5.0)
    address, started = f"127.0.0.1:{free_port()}", []

    def start() -> None:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(_Store(nodes=(b"\xab",)), server)
        server.add_insecure_port(address)
        server.start()
        started.append(server)

    timer = threading.Timer(0.5, start)
    timer.start()
    join_cluster.require_cluster("--address", address)
    started[0].stop(None)


def test_a_name_whose_look_up_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda address: time.sleep(30))
    assert "no answer within 1 s" in fault("slow.example:6379")


def test_a_stale_file_of_a_cluster_is_named_behind_auto(monkeypatch, silent):
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: silent)
    assert silent in fault("auto")


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [
        (None, None, None),
        (None, "", None),
        ("local", "head:1", None),
        (None, "local", None),
        (None, "head:1", ("$RAY_ADDRESS", "head:1")),
        ("auto", "head:1", ("$RAY_ADDRESS", "head:1")),
        ("auto", None, ("--address", "auto")),
        ("head:2", "head:1", ("--address", "head:2")),
    ],
)
def test_which_cluster_is_meant(monkeypatch, given, variable, expected):
    if variable is not None:
        monkeypatch.setenv(join_cluster.ADDRESS, variable)
    assert join_cluster.requested(given) == expected


def test_ray_itself_is_not_asked_where_nobody_answers(monkeypatch, silent):
    """`ray.init` would wait for minutes, or end the process."""
    asked = []
    monkeypatch.setattr(ray_tune, "ray", SimpleNamespace(is_initialized=lambda: False, init=asked.append))
    monkeypatch.setenv(join_cluster.ADDRESS, silent)
    with pytest.raises(InputError, match=silent):
        ray_cluster.start_ray(address=None, threads=1)
    assert not asked
