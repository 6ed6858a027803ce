"""Which ends of a training of several ranks are tried again, and which cause is reported."""

from typing import Any

import pytest

from m3col.storage.retry import StorageUnavailable

pytestmark = pytest.mark.slow


def test_of_several_exceptions_the_cause_is_told():
    import ray
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    from tune.engine.ray_train import cause

    def failures(*errors: Exception) -> dict[int, Exception]:
        return dict(enumerate(errors))

    echo = RuntimeError("[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1234")
    own = ValueError("what went wrong")
    assert cause(failures(echo, own)) is own
    refused = StorageUnavailable("full")
    assert cause(failures(echo, own, refused)) is refused
    assert cause(failures(echo, echo)) is echo
    died = WorkerHealthCheckFailedError("died without a word", failure=ray.exceptions.ActorDiedError())
    assert cause(failures(died, echo)) is echo
    assert cause(failures(died, died)) is None


def test_deaths_are_counted_only_while_no_checkpoint_moves_on(monkeypatch):
    import ray
    from ray.train.v2.api.exceptions import WorkerGroupError

    from tune.config.resources import Request
    from tune.engine import ray_train

    died, reached = (
        WorkerGroupError("died", {0: ray.exceptions.ActorDiedError()}),
        iter(["1", "1", "2", "2", "2", "2", "2"]),
    )
    calls: list[int] = []

    def one(*args: Any, **named: Any) -> None:
        calls.append(1)
        raise died

    monkeypatch.setattr(ray_train, "_fit", one)
    with pytest.raises(RuntimeError, match="died"):
        ray_train.fit(lambda given: None, {}, Request(2), device="cpu", name="x", reached=lambda: next(reached))
    assert len(calls) == 5  # once at 1; then at 2 the first death and three more


def test_what_dies_while_workers_start_counts_as_a_death(monkeypatch):
    import ray
    from ray.train.v2.api.exceptions import ControllerError

    from tune.config.resources import Request
    from tune.engine import ray_train

    ends = iter([ControllerError(ray.exceptions.ActorDiedError()), ControllerError(RuntimeError("gloo")), None])

    def one(*args: Any, **named: Any) -> str:
        error = next(ends)
        if error is not None:
            raise error
        return "trained"

    monkeypatch.setattr(ray_train, "_fit", one)
    given: dict[str, Any] = {"device": "cpu", "name": "x", "reached": lambda: None}
    assert ray_train.fit(lambda given: None, {}, Request(2), **given) == "trained"
    ends = iter([ControllerError(ray.exceptions.ActorDiedError())] * 9)
    with pytest.raises(RuntimeError, match="controller error"):
        ray_train.fit(lambda given: None, {}, Request(2), **given)
