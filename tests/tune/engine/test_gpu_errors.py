"""What becomes of trials whose GPU fails, on a machine without one: exceptions of the same classes play the part."""

import re
from collections import defaultdict
from typing import Any

import pytest
import torch

from m3col.config import loading
from m3col.errors import InputError
from tests.support.driving import coordinator, prepare_study, small, trials_alone
from tune.config.resources import Request
from tune.engine import capacity, ray_train, ray_tune

pytestmark = pytest.mark.slow

FATAL, FULL_ONCE, FULL, GOOD, HOPELESS = 0.01, 0.011, 0.012, 0.013, 0.014  # learning rates tell the trials apart

METHOD = """
import os
from pathlib import Path

import torch

from m3col.methods.concat import Concat
from tune.engine import trials

FOLDER = Path({folder!r})


class Failing(Concat):
    def __init__(self, config, **given):
        super().__init__(config, **given)
        self.rate = config.train.learning_rate
        with (FOLDER / "processes").open("a") as file:
            file.write(f"{{self.rate}} {{os.getpid()}}\\n")

    def losses(self, batch, step):
        trials._MEMORY_WAIT_S = 0.1  # in the actor alone
        marker = FOLDER / f"failed-{{self.rate}}"
        again = self.rate in ({full}, {hopeless})
        if step.epoch == 3 and self.rate != {good} and (again or not marker.exists()):
            marker.touch()
            if self.rate in ({fatal}, {hopeless}):
                raise torch.AcceleratorError("CUDA error: device-side assert triggered")
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().losses(batch, step)
"""


@pytest.fixture(scope="module")
def searched(cluster, tmp_path_factory) -> tuple[Any, Any, dict[float, set[str]]]:
    """A search of five trials, one at a time; the study, its trials, and the processes of each learning rate."""
    folder = tmp_path_factory.mktemp("failing")
    names = {"fatal": FATAL, "full": FULL, "good": GOOD, "hopeless": HOPELESS}
    (folder / "failing_method.py").write_text(METHOD.format(folder=str(folder), **names))
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        config = small(
            search__sampler="grid", search__replicates=0, search__confirm=None, search__pruner="none",
            search__concurrency=1,
        )  # fmt: skip
        config["overrides"] |= {"method": "failing_method:Failing", "train.learning_rate": FATAL}
        config["space"] = {"train.learning_rate": {"choices": [FATAL, FULL_ONCE, FULL, HOPELESS, GOOD]}}
        config["search"]["trials"] = 5
        study, ready = prepare_study(folder / "runs", config)
        patched.setattr(ray_tune, "_ACTOR_DEATHS", 1)
        cluster.run(trials_alone(coordinator(study, ready)), ready.dataset, ready.config.request)
    processes: dict[float, set[str]] = defaultdict(set)
    for line in (folder / "processes").read_text().splitlines():
        rate, process = line.split()
        processes[float(rate)].add(process)
    trials = {trial.params["train.learning_rate"]: trial for trial in coordinator(study, ready).trials.all()}
    return study, trials, processes


def log_of(study: Any, trial: Any) -> str:
    return (study.path / f"trials/{trial.number}/log.txt").read_text()


def test_a_fatal_cuda_error_ends_the_process_and_the_trial_resumes_in_another(searched):
    study, trials, processes = searched
    assert trials[FATAL].state.name == "COMPLETE"
    assert re.search(r"resumes from epoch [12] ", log_of(study, trials[FATAL]))
    assert len(processes[FATAL]) >= 2, "the process that had the error went on with it"


def test_out_of_memory_is_tried_once_more_from_the_checkpoint(searched):
    study, trials, _ = searched
    assert trials[FULL_ONCE].state.name == "COMPLETE"
    log = log_of(study, trials[FULL_ONCE])
    assert "out of GPU memory, tried once more from the newest checkpoint" in log
    assert re.search(r"resumes from epoch [12] ", log)


def test_out_of_memory_again_fails_with_what_to_change(searched):
    study, trials, _ = searched
    assert trials[FULL].state.name == "FAIL"
    failure = study.run(f"trials/{trials[FULL].number}").outcome().failure
    assert failure.startswith("out of GPU memory, at train.batch_size null (all rows)") and "smaller" in failure


def test_a_fatal_error_that_comes_back_fails_the_trial_with_the_error(searched):
    study, trials, processes = searched
    assert trials[HOPELESS].state.name == "FAIL" and len(processes[HOPELESS]) == 2
    failure = study.run(f"trials/{trials[HOPELESS].number}").outcome().failure
    assert "got no further; its last error: " in failure and "CUDA error: device-side assert triggered" in failure


def test_the_trials_after_them_are_as_good_as_any(searched):
    _, trials, _ = searched
    assert trials[GOOD].state.name == "COMPLETE" and trials[GOOD].value > 0


def test_a_gpu_that_torch_cannot_use_is_refused_from_where_the_trials_would_run(cluster):
    import ray

    assert ray.is_initialized()
    run = loading.load({})
    with pytest.raises(InputError) as caught:
        check_with_a_promised_gpu(run)
    (line,) = caught.value.faults
    assert line.startswith("a GPU was requested for this training, but torch finds no GPU here: ")
    assert "nearest valid: resources.gpus_per_worker: 0" in line
    capacity.check_device(run, Request(1, 1.0, 0.0))  # none was asked for: nothing to check


def test_a_check_that_fails_itself_is_a_fault_with_its_reason(cluster, monkeypatch):
    def fail(config: Any, *, granted: bool) -> list[str]:
        raise RuntimeError("CUDA driver initialization failed")

    monkeypatch.setattr(capacity.devices, "device_faults", fail)
    with pytest.raises(InputError) as caught:
        check_with_a_promised_gpu(loading.load({}))
    (line,) = caught.value.faults
    assert line == "train.device: a process of the cluster cannot use its GPU (CUDA driver initialization failed)"


def check_with_a_promised_gpu(run: Any) -> None:
    """Ray has no GPU here: the probe asks for none, and is told that it has one."""
    import ray

    remote = ray.remote

    def without_gpus(**options: Any) -> Any:
        return remote(**{**options, "num_gpus": 0})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(capacity.ray, "remote", without_gpus)
        capacity.check_device(run, Request(1, 1.0, 1.0))


def _ends_of(monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> list[int]:
    """Makes trainings of several ranks end with these errors of rank 0, in turn; returns the list of the calls."""
    from ray.train.v2.api.exceptions import WorkerGroupError

    calls: list[int] = []

    def one(*args: Any, **named: Any) -> str:
        error = errors[len(calls)]
        calls.append(1)
        if error is not None:
            raise WorkerGroupError("failed", {0: error})
        return "trained"

    monkeypatch.setattr(ray_train, "_fit", one)
    return calls


def fit() -> Any:
    return ray_train.fit(lambda given: None, {}, Request(2), device="cpu", name="x", reached=lambda: None)


def test_several_ranks_start_anew_after_a_fatal_error_of_one(monkeypatch):
    calls = _ends_of(monkeypatch, torch.AcceleratorError("CUDA error: an illegal memory access"), None)
    assert fit() == "trained" and len(calls) == 2
    calls = _ends_of(monkeypatch, *[torch.AcceleratorError("CUDA error: ECC")] * 9)
    with pytest.raises(torch.AcceleratorError, match="ECC"):
        fit()
    assert len(calls) == 4  # as often as workers may die without a new checkpoint


def test_several_ranks_try_once_more_without_memory(monkeypatch):
    full = torch.OutOfMemoryError("CUDA out of memory")
    assert len(_ends_of(monkeypatch, full, None)) == 0 and fit() == "trained"
    calls = _ends_of(monkeypatch, full, full)
    with pytest.raises(torch.OutOfMemoryError):
        fit()
    assert len(calls) == 2
