"""Searches and trainings through Ray on one GPU: errors, memory, shares of the card, a training of one worker."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

import m3col
import tune
from m3col import devices
from m3col.config import loading
from m3col.errors import InputError
from tests.gpu.lane_method import FATAL, FOLDER, TOO_LARGE
from tests.support.driving import coordinator, prepare_study, small
from tune.config.resources import Request
from tune.engine import capacity, ray_cluster, ray_tune

pytestmark = pytest.mark.slow

RATES = [0.02, 0.021, 0.022, 0.023, 0.024, 0.025]
METHOD = "tests.gpu.lane_method:Watched"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lane")


@pytest.fixture(scope="module")
def cluster(device: torch.device, folder: Path) -> Iterator[str]:
    """A local Ray cluster of four CPUs and the GPU; its address."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(FOLDER, str(folder))
        assert ray_cluster.start_ray(address=None, threads=1, num_cpus=4, dashboard=True)
        assert ray.cluster_resources().get("GPU", 0) >= (device.type == "cuda")
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


class Searched:
    """A search that has ended: its trials by learning rate, and the events of their processes."""

    def __init__(self, name: str, root: Path, device: torch.device, *, rates: list[float], share: float,
                 together: int = 1, **changes: Any) -> None:  # fmt: skip
        events = root / "events.jsonl"
        events.unlink(missing_ok=True)
        config = small(
            search__sampler="grid", search__replicates=0, search__confirm=None, search__pruner="none",
            search__concurrency=together, search__trials=len(rates), final__seeds=1, final__baselines=False,
            resources__gpus_per_worker=share if device.type == "cuda" else 0.0,
        )  # fmt: skip
        config["overrides"] |= {"method": METHOD, "train.learning_rate": rates[0], "train.epochs": 6, **changes}
        config["space"] = {"train.learning_rate": {"choices": rates}}
        config["validation"] = {"kind": "holdout"}
        self.study, ready = prepare_study(root / "runs" / name, config)
        plan = coordinator(self.study, ready, concurrency=together)
        ray_tune.run(plan, ready.dataset, ready.config.request)
        self.trials = {t.params["train.learning_rate"]: t for t in coordinator(self.study, ready).trials.all()}
        self.events = [json.loads(line) for line in events.read_text().splitlines()]

    def of(self, rate: float, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.events if entry["rate"] == rate and entry["event"] == event]

    def log(self, rate: float) -> str:
        return (self.study.path / f"trials/{self.trials[rate].number}/log.txt").read_text()

    def failure(self, rate: float) -> str:
        outcome = self.study.run(f"trials/{self.trials[rate].number}").outcome()
        assert outcome is not None
        return str(outcome.failure)

    def values(self) -> dict[float, Any]:
        return {rate: (t.state.name, t.value, dict(t.intermediate_values)) for rate, t in self.trials.items()}


def test_after_a_failed_assertion_the_trial_and_those_after_it_complete(cluster, device, folder):
    """The first trial poisons its CUDA context; the process ends, and the trial resumes in another one."""
    had_context = torch.cuda.is_initialized()
    search = Searched("fatal", folder, device, rates=[FATAL, *RATES[:3]], share=1.0)
    assert {rate: trial.state.name for rate, trial in search.trials.items()} == dict.fromkeys(
        [FATAL, *RATES[:3]], "COMPLETE"
    )
    first, *others = search.of(FATAL, "start")
    assert others and first["pid"] not in {entry["pid"] for entry in [*others, *search.of(RATES[0], "start")]}
    assert re.search(r"resumes from epoch [12] ", search.log(FATAL))
    assert torch.cuda.is_initialized() == had_context, "the driver took memory of the card"


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_trial_that_is_too_large_leaves_the_card_to_the_next_ones(compiled, cluster, device, folder, report):
    """A tenth of a GPU; all trials in one process, which returns the memory of each."""
    rates = [TOO_LARGE, *RATES]
    changes = {"model.compile": compiled, "model.embedding_dim": 512}
    search = Searched(f"memory-{compiled}", folder, device, rates=rates, share=0.1, **changes)
    assert search.trials[TOO_LARGE].state.name == "FAIL"
    failure = search.failure(TOO_LARGE)
    assert failure.startswith("out of GPU memory, at train.batch_size null (all rows)") and "smaller" in failure
    assert "out of GPU memory, tried once more from the newest checkpoint" in search.log(TOO_LARGE)
    assert {search.trials[rate].state.name for rate in RATES} == {"COMPLETE"}
    assert len({entry["pid"] for entry in search.events}) == 1, "a new process hides what an old one keeps"
    # Without the two attempts of the first trial, and without the refit, which has more samples.
    starts = [entry["allocated"] for entry in search.events if entry["event"] == "start"][2 : 2 + len(RATES)]
    reserved = [entry["reserved"] for entry in search.events if entry["event"] == "last epoch"][: len(RATES)]
    report(f"bytes allocated at the start of each trial of a process, compiled {compiled}", starts)
    report(f"bytes reserved at the end of each, compiled {compiled}", reserved)
    assert len(starts) == len(reserved) == len(RATES) and max(starts) - min(starts) < 2**20
    assert reserved[-1] <= 1.2 * reserved[0]
    if device.type == "cuda":
        assert "0.1 GPU" in failure and {e["fraction"] for e in search.events if "fraction" in e} == {0.1}


def test_four_trials_on_one_card_have_the_results_of_one_at_a_time(cluster, device, folder):
    (folder / "together").write_text("4")
    try:
        shared = Searched("four", folder, device, rates=RATES[:4], share=0.25, together=4)
    finally:
        (folder / "together").unlink()
    single = Searched("one", folder, device, rates=RATES[:4], share=0.25)
    # The refit comes after the trials, in whichever process.
    begun = [[entry for entry in search.events if entry["event"] == "epoch 1"][:4] for search in (shared, single)]
    assert [len({entry["pid"] for entry in entries}) for entries in begun] == [4, 1]
    assert shared.values() == single.values()
    where = {(entry["device"], entry["visible"]) for entry in begun[0]}
    assert len(where) == 1, where
    if device.type == "cuda":
        ((place, visible),) = where
        assert place == "cuda:0" and visible.isdigit()


def test_a_training_of_one_worker_is_the_training_of_this_process(cluster, device, folder, monkeypatch, tmp_path):
    """Through Ray Train: process group, rendezvous by file, device."""
    monkeypatch.setenv(FOLDER, str(folder))
    (folder / "events.jsonl").unlink(missing_ok=True)
    common: dict[str, Any] = {
        "overrides": {"method": METHOD, "train.epochs": 4, "train.learning_rate": RATES[0],
                      "train.device": device.type},
        "tracking_uri": "none",
    }  # fmt: skip
    there = tune.train(
        "digits", runs=tmp_path / "there", address=cluster, gpus_per_worker=float(device.type == "cuda"), **common
    )
    (event,) = [entry for line in (folder / "events.jsonl").read_text().splitlines()
                if (entry := json.loads(line))["event"] == "epoch 1"]  # fmt: skip
    on_card = device.type == "cuda"
    assert (event["backend"], event["device"]) == (("nccl", "cuda:0") if on_card else ("gloo", "cpu"))
    here = m3col.train("digits", runs=tmp_path / "here", **common)
    assert there.history["train/loss"].tolist() == here.history["train/loss"].tolist()
    assert there.metrics == here.metrics


def check_on_worker(check: Callable[..., list[str]], config: Any, device: torch.device) -> str:
    """The fault that a process of the cluster, which was promised a GPU, finds with `check` for `device_faults`."""
    remote = ray.remote

    def without_gpus(**options: Any) -> Any:  # in a rehearsal Ray has none to give
        return remote(**{**options, "num_gpus": 0})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(capacity.devices, "device_faults", check)
        if device.type != "cuda":
            patched.setattr(capacity.ray, "remote", without_gpus)
        with pytest.raises(InputError) as caught:
            capacity.check_device(config, Request(1, 1.0, 1.0))
    (line,) = caught.value.faults
    return line


def test_a_granted_gpu_that_torch_cannot_see_is_refused(cluster, device):
    original = devices.device_faults

    def without_card(config: Any, *, granted: bool) -> list[str]:
        import os

        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before this process asks for a card
        return original(config, granted=granted)

    line = check_on_worker(without_card, loading.load({}), device)
    cause = "the NVIDIA driver is " if device.type == "cuda" else "no NVIDIA driver answers"
    assert line.startswith(f"a GPU was requested for this training, but torch finds no GPU here: {cause}")


def test_bfloat16_on_a_card_without_it_is_refused_where_the_work_would_run(cluster, device):
    original, has_card = devices.device_faults, device.type == "cuda"

    def on_turing(config: Any, *, granted: bool) -> list[str]:
        import torch

        if not has_card:
            torch.cuda.is_available = lambda: True
            torch.cuda.get_device_name = lambda *given: "A Card"
        torch.cuda.get_device_capability = lambda *given: (7, 5)
        torch.cuda.is_bf16_supported = lambda including_emulation=True: including_emulation
        return original(config, granted=granted)

    line = check_on_worker(on_turing, loading.load({}, overrides={"train.precision": "bfloat16"}), device)
    assert line.startswith("train.precision is 'bfloat16', which ") and "(compute capability 7.5)" in line
