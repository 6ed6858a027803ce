"""What is set, refused and said about GPUs; PyTorch's own answers are replaced where a card would be needed."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist

import m3col
from m3col import api, devices
from m3col.config import loading
from m3col.distributed import RankContext
from m3col.errors import InputError, TrainingFailed
from tests.support.ranks import start_ranks

CUDA = torch.device("cuda")


def config(**changes: Any) -> Any:
    return loading.load({}, overrides={key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture
def card(monkeypatch):
    """A GPU as PyTorch describes it."""

    def describe(*, capability: tuple[int, int] = (9, 0), bf16: bool = True, kernels: tuple[str, ...] = ()) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *given: "A Card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *given: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(kernels))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)

    return describe


def test_a_good_card_has_no_faults(card):
    card()
    for precision in ("float32", "tf32", "bfloat16", "float64", "auto"):
        assert devices.device_faults(config(train__precision=precision), granted=True) == []


def test_an_old_card_is_refused_with_its_name_and_all_faults_at_once(card):
    card(capability=(7, 0), bf16=False, kernels=("sm_75", "sm_90"))
    kernels, precision = devices.device_faults(config(train__precision="bfloat16"))
    assert "no kernels for A Card (compute capability 7.0)" in kernels and "train.device: cpu" in kernels
    assert "'bfloat16', which A Card" in precision and "nearest valid: tf32" in precision
    assert devices.device_faults(config(train__precision="bfloat16", train__device="cpu")) == []


def test_an_old_card_that_pytorch_was_built_for_is_used(card):
    card(capability=(7, 0), kernels=("sm_70",))
    assert devices.device_faults(config()) == []


def test_without_a_gpu_only_what_was_asked_for_is_a_fault(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.device_faults(config()) == []
    (asked,) = devices.device_faults(config(train__device="cuda"))
    assert asked.startswith("train.device is 'cuda', but torch finds no GPU here: ")
    monkeypatch.setattr(devices, "_driver_version", lambda: "470.1")
    (granted,) = devices.device_faults(config(), granted=True)
    assert "the NVIDIA driver is 470.1, and this PyTorch needs one for CUDA" in granted


def test_auto_precision_is_bfloat16_where_the_card_computes_in_it(card):
    run = config(train__precision="auto")
    assert devices.precision_of(run, torch.device("cpu")) == "float32"
    card(bf16=True)
    assert devices.precision_of(run, CUDA) == "bfloat16"
    card(bf16=False)
    assert devices.precision_of(run, CUDA) == "float32"


def test_determinism_is_for_tables_unless_it_is_set():
    assert devices.is_deterministic(config(), {"numeric"})
    assert not devices.is_deterministic(config(), {"numeric", "image"})
    assert devices.is_deterministic(config(train__deterministic=True), {"image"})
    assert not devices.is_deterministic(config(train__deterministic=False), {"numeric"})


def state_of_torch() -> tuple[object, ...]:
    backends: Any = torch.backends
    precisions = [item.fp32_precision for item in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)]
    return (
        *precisions,
        torch.are_deterministic_algorithms_enabled(),
        backends.cudnn.deterministic,
        backends.cudnn.benchmark,
    )


def test_precision_and_determinism_are_set_while_a_gpu_computes_and_put_back(card):
    card()
    before = state_of_torch()
    for precision, mode in (("tf32", "tf32"), ("float32", "ieee"), ("bfloat16", "ieee")):
        with devices.settings(config(train__precision=precision), CUDA, {"numeric"}):
            assert state_of_torch() == (mode, mode, mode, True, True, False)
        assert state_of_torch() == before
    with pytest.raises(KeyError), devices.settings(config(), CUDA, {"image"}):
        assert state_of_torch()[3:] == (False, False, True)
        raise KeyError
    assert state_of_torch() == before
    with devices.settings(config(train__precision="tf32"), torch.device("cpu"), {"numeric"}):
        assert state_of_torch() == before


def test_a_training_and_a_prediction_compute_with_these_settings(monkeypatch, tmp_path):
    entered: list[set[str]] = []

    @contextlib.contextmanager
    def settings(run: Any, device: torch.device, kinds: set[str]) -> Iterator[None]:
        entered.append(kinds)
        yield

    monkeypatch.setattr(devices, "settings", settings)
    result = m3col.train(
        "digits", overrides={"train.epochs": 1, "validation.kind": "none"}, runs=tmp_path, tracking_uri="none"
    )
    assert entered == [{"numeric"}] * 2  # an epoch, and the test of the model
    result.predictor.predict_proba(m3col.data.load("digits").test.inputs)
    assert len(entered) == 3


def test_a_model_of_a_cluster_is_tested_where_there_is_no_gpu(monkeypatch, tmp_path):
    """The ranks had GPUs; the process that started them has none."""

    def on_ranks(prepared: Any, folder: Any, report: Any) -> None:
        api.run(replace(prepared, config=loading.load({}, overrides=small)), folder, report)

    small = {"train.epochs": 1, "validation.kind": "none"}
    cuda = {**small, "train.device": "cuda"}
    result = m3col.train("digits", overrides=cuda, runs=tmp_path, tracking_uri="none", execute=on_ranks)
    assert result.metrics["test/accuracy"] > 0


def test_only_an_error_that_poisons_the_context_is_fatal():
    assert devices.is_fatal(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    assert not devices.is_fatal(torch.OutOfMemoryError("CUDA out of memory"))
    assert not devices.is_fatal(RuntimeError("shapes do not fit"))


def test_cuda_is_asked_whether_another_error_has_poisoned_the_context(monkeypatch):
    """cuBLAS notices a failed assertion before torch does, and raises a RuntimeError."""
    noticed = RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`")
    assert not devices.is_fatal(noticed), "CUDA was never used"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert not devices.is_fatal(noticed)

    def refuse() -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    assert devices.is_fatal(noticed)
    assert not devices.is_fatal(torch.OutOfMemoryError("CUDA out of memory")) and not devices.is_fatal(KeyError("x"))


def test_compiling_needs_a_compiler_where_the_training_runs(monkeypatch):
    assert devices.device_faults(config(model__compile=True)) == []
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    (line,) = devices.device_faults(config(model__compile=True, train__device="cpu"))
    assert line.startswith("model.compile: torch.compile needs a C compiler")
    assert devices.device_faults(config()) == []


def test_a_share_of_a_gpu_limits_the_memory_of_its_process(card, monkeypatch):
    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    devices.limit_memory(0.25)
    assert limits == [], "there is no card"
    card()
    for share in (0.25, 1.0, 0.0, 2.0):
        devices.limit_memory(share)
    assert limits == [0.25]


def test_the_text_about_memory_names_what_to_change():
    text = devices.out_of_memory_text(config(train__batch_size=32), 0.25)
    assert "at train.batch_size 32 and 0.25 GPU" in text
    assert all(key in text for key in ("train.accumulate", "model.gradient_checkpointing", "resources.gpus_per_worker"))
    text = devices.out_of_memory_text(config(model__gradient_checkpointing=True), 1.0)
    assert "gradient_checkpointing" not in text and "gpus_per_worker" not in text


def test_a_training_of_its_own_says_so_too(monkeypatch, tmp_path):
    def run(*given: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("m3col.api.run", run)
    with pytest.raises(TrainingFailed, match=r"out of GPU memory, at train.batch_size null"):
        m3col.train("digits", runs=tmp_path, tracking_uri="none")


def test_a_device_that_is_not_there_is_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(InputError, match=r"train.device is 'cuda', but torch finds no GPU here"):
        m3col.train("digits", overrides={"train.device": "cuda"}, runs=tmp_path / "runs", tracking_uri="none")
    assert not (tmp_path / "runs").exists()


def test_a_model_is_loaded_on_the_device_that_is_asked_for(tmp_path):
    result = m3col.train("digits", overrides={"train.epochs": 1}, runs=tmp_path, tracking_uri="none")
    assert m3col.load(result.checkpoint).members[0].device.type == "cpu"
    with pytest.raises(InputError, match="device is 'cuda', but torch finds no GPU here; nearest valid: auto, or cpu"):
        m3col.load(result.checkpoint, device="cuda")
    with pytest.raises(InputError, match="device must be auto, cpu or cuda, but is 'gpu'"):
        m3col.load(result.checkpoint, device="gpu")


def gathered(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    own = torch.full((2 + rank, 3), 1.0 + rank, dtype=torch.bfloat16, requires_grad=True)
    rows = RankContext(rank, 2).gather(own, [2, 3])
    (rows * (1 + 2**-9)).sum().backward()
    np.savez(f"{folder}/{rank}.npz", kind=str(rows.dtype), rows=rows.detach().numpy(), grad=own.grad.float().numpy())
    dist.destroy_process_group()


def test_gradients_of_half_precision_rows_are_summed_in_float32(tmp_path):
    """1 + 2**-9 has no bfloat16 between 1 and 1 + 2**-7; the sum of two ranks, 2 + 2**-8, rounds to 2 at the end."""
    start_ranks(2, gathered, str(tmp_path))
    for rank in (0, 1):
        found = np.load(tmp_path / f"{rank}.npz")
        assert str(found["kind"]) == "torch.float32"
        assert found["rows"].tolist() == [[1.0] * 3] * 2 + [[2.0] * 3] * 3
        assert np.allclose(found["grad"], 2.0, rtol=2**-7)
