"""How many trainings fit on a cluster, and how that follows the nodes."""

from typing import Any

import pytest
import ray

from m3col.errors import InputError
from tune.config.resources import Request
from tune.engine import capacity
from tune.engine.capacity import Watch
from tune.errors import NoCapacity


def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    return nodes


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(capacity.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("nodes", "request_", "expected"),
    [
        ([node(4)], Request(1, 1.0), 4),
        ([node(4)], Request(1, 3.0), 1),
        ([node(4), node(2, alive=False)], Request(2, 1.0), 2),
        ([node(3), node(3)], Request(2, 2.0), 1),  # one worker of two CPUs on each node
        ([node(1), node(1), node(1)], Request(2, 1.0), 1),
        ([node(16, 4)], Request(1, 1.0, 0.5), 8),
        ([node(16, 4)], Request(1, 1.0, 0.4), 8),  # two on each GPU, not ten on four
        ([node(16, 4)], Request(1, 1.0, 0.7), 4),
        ([node(16, 4), node(16)], Request(2, 1.0, 1.0), 2),
        ([node(0.3)], Request(1, 0.1), 3),
    ],
)
def test_places_are_those_of_whole_trainings(cluster, nodes, request_, expected):
    cluster.extend(nodes)
    assert capacity.capacity(capacity.fitting(request_)) == expected


def test_what_never_fits_is_told_with_all_numbers(cluster):
    cluster.extend([node(2), node(4, 1)])
    with pytest.raises(InputError, match=r"2 workers with 3 CPUs and 1 GPUs.*has 2 CPUs and 0 GPUs; 4 CPUs and 1 GPUs"):
        capacity.fitting(Request(2, 3.0, 1.0))


def test_gpus_are_those_of_the_cluster_unless_the_request_says_how_many(cluster):
    cluster.extend([node(8), node(8, 2, alive=False)])
    assert capacity.with_gpus(Request(1, 1.0, None)).gpus == 0
    cluster.append(node(8, 2))
    assert capacity.with_gpus(Request(1, 1.0, None)) == Request(1, 1.0, 1.0)
    assert capacity.with_gpus(Request(1, 1.0, 0.5)).gpus == 0.5 and capacity.with_gpus(Request(1, 1.0, 0.0)).gpus == 0
    assert capacity.fitting(Request(1, 1.0, None)) == Request(1, 1.0, 1.0)
    assert capacity.with_gpus(Request(3, 1.0, None)) == Request(3, 1.0, 0.0), (
        "two GPUs are not enough for three workers"
    )


def test_nodes_that_are_on_their_way_are_waited_for(cluster, clock, monkeypatch):
    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] > 105:
            cluster.append(node(4, 2))

    monkeypatch.setattr(capacity.time, "sleep", sleep)
    cluster.append(node(1))
    assert capacity.fitting(Request(2, 2.0, None), wait_s=20) == Request(2, 2.0, 1.0), "the GPUs came with the node"
    assert clock[0] < 107
    cluster.clear()
    with pytest.raises(InputError, match="has no node"):
        capacity.fitting(Request(1, 1.0), wait_s=0)


def test_nodes_that_join_are_used_and_the_limit_holds(cluster, clock):
    cluster.append(node(2))
    watch, limited = Watch(Request(1, 1.0)), Watch(Request(1, 1.0), limit=3)
    assert (watch.places(), limited.places()) == (2, 2)
    cluster.append(node(2))
    clock[0] += 1
    assert watch.places() == 2  # not looked up again so soon
    clock[0] += 2
    assert (watch.places(), limited.places()) == (4, 3)


def test_without_any_room_it_waits_says_so_once_and_gives_up(cluster, clock):
    told: list[str] = []
    cluster.append(node(2))
    watch = Watch(Request(1, 2.0), warn=told.append)
    assert watch.places() == 1
    cluster[0]["Alive"] = False
    for _ in range(3):
        clock[0] += 3
        assert watch.places() == 0
    assert len(told) == 1 and "no trial fits" in told[0]
    cluster[0]["Alive"] = True
    clock[0] += 3
    assert watch.places() == 1
    cluster[0]["Alive"] = False
    clock[0] += 3
    assert watch.places() == 0
    clock[0] += 601
    with pytest.raises(NoCapacity, match="for 600 s no trial fitted on the cluster"):
        watch.places()
