"""The device of a training: precision, determinism, memory, and which CUDA errors a process survives.

Everything here also runs without a GPU, where it does nothing or reports what is missing.
"""

import contextlib
import gc
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from m3col.config.schema import RunConfig
from m3col.data import modality_kinds
from m3col.errors import InputError, nearest

_OLDEST = (7, 5)  # compute capability; PyTorch's CUDA 13 packages have no kernels for older cards

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # read by cuBLAS when it starts; needed for deterministic products

_TOOL_S = 10.0  # time limit of nvidia-smi

LENGTHS = 32  # lengths of texts are rounded up to a multiple of it where encoders are compiled on a GPU

_COMPILATIONS = 64  # variants of one function before torch.compile falls back to eager


def device_of(config: RunConfig) -> torch.device:
    """The device that `train.device` names. `auto`: the first GPU where there is one, else the CPU."""
    return _named(config.train.device)


def _named(name: str) -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else torch.device(name)


def prediction_device(name: str) -> torch.device:
    """The device of a name: `auto` is the first GPU where there is one, else the CPU.

    Raises:
        InputError: another name, or "cuda" where torch finds no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError([f"device must be auto, cpu or cuda, but is {name!r}{nearest(name, ['auto', 'cpu', 'cuda'])}"])
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(["device is 'cuda', but torch finds no GPU here; nearest valid: auto, or cpu"])
    return _named(name)


def autocast(config: RunConfig, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The autocast context of a bfloat16 training, which does nothing for other precisions.

    Matrix products run in bfloat16; sums and losses stay in float32.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision_of(config, device) == "bfloat16")


def precision_of(config: RunConfig, device: torch.device) -> str:
    """The precision of a training on `device`: `auto` is bfloat16 on a GPU that computes in it, else float32."""
    precision = config.train.precision
    if precision != "auto":
        return precision
    return (
        "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    )


def is_deterministic(config: RunConfig, kinds: set[str]) -> bool:
    """Whether a training on a GPU uses deterministic algorithms alone.

    Args:
        config: of the run. `train.deterministic` decides where it is set.
        kinds: kinds of the modalities. Default: True for numeric tables alone. Deterministic attention and convolutions
            cost images and texts too much speed.
    """
    if config.train.deterministic is not None:
        return config.train.deterministic
    return not modality_kinds.media(kinds)


@contextlib.contextmanager
def settings(config: RunConfig, device: torch.device, kinds: set[str]) -> Iterator[None]:
    """What torch keeps per process, TF32 and determinism, as a training on a GPU needs it. The caller's is put back.

    Does nothing on the CPU. Matrix products and convolutions use TF32 only with `precision: tf32`; by default cuDNN
    would use it in convolutions, so that `float32` would differ from the CPU by 1e-3.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # also where the next training in this process needs it
    backends: Any = torch.backends
    products = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = [backend.fp32_precision for backend in products]
    was_exact, cudnn = (
        torch.are_deterministic_algorithms_enabled(),
        (backends.cudnn.deterministic, backends.cudnn.benchmark),
    )
    exact = is_deterministic(config, kinds)
    try:
        for backend in products:
            backend.fp32_precision = "tf32" if precision_of(config, device) == "tf32" else "ieee"
        torch.use_deterministic_algorithms(exact)
        backends.cudnn.deterministic, backends.cudnn.benchmark = exact, not exact and bool(modality_kinds.media(kinds))
        yield
    finally:
        for backend, precision in zip(products, before, strict=True):
            backend.fp32_precision = precision
        torch.use_deterministic_algorithms(was_exact)
        backends.cudnn.deterministic, backends.cudnn.benchmark = cudnn


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. A copy to a GPU does not wait for the work that it still has to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def compile_encoder(encoder: nn.Module) -> None:
    """Compiles an encoder in place, for all numbers of rows and lengths of texts."""
    import torch._dynamo.config as dynamo

    # All encoders, folds and trials of a process share one limit, and beyond it torch silently stops compiling.
    dynamo.recompile_limit = max(dynamo.recompile_limit, _COMPILATIONS)
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, 4 * _COMPILATIONS)
    dynamo.optimize_ddp = False  # would split an encoder inside DDP into a graph for each 25 MB of gradients
    encoder.compile(dynamic=True)


def compilations() -> int:
    """Graphs that torch.compile has compiled in this process so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def is_fatal(error: BaseException) -> bool:
    """Whether a CUDA error makes every later CUDA call of this process fail (illegal access, failed assert, ECC).

    Out of memory is not such an error. A library such as cuBLAS can be the first to notice one, and raises an error of
    another type, so CUDA itself is asked.
    """
    if isinstance(error, torch.AcceleratorError):
        return True
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return False
    return _is_broken()


def _is_broken() -> bool:
    """Whether CUDA answers each call of this process with an error."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except torch.AcceleratorError:
        return True
    return False


def release_memory() -> None:
    """Returns the memory of models that are no longer used to the GPU's driver, so that other processes get it.

    A compiled encoder refers to itself; only the garbage collector removes it.
    """
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def limit_memory(share: float) -> None:
    """Limits this process to a share of its GPU's memory, so that trials on one card cannot take each other's.

    Args:
        share: GPUs of the process; 1 or more, or 0, sets no limit.
    """
    if 0 < share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def memory_report() -> str:
    """What this process's GPU holds, as the end of a sentence; empty without a GPU."""
    if not torch.cuda.is_initialized():
        return ""
    free, total = torch.cuda.mem_get_info()
    return (
        f" ({torch.cuda.get_device_name()}: {total / 1e9:.1f} GB, {(total - free) / 1e9:.1f} GB of them in use; this "
        f"process used up to {torch.cuda.max_memory_allocated() / 1e9:.1f} GB)"
    )


def out_of_memory_text(config: RunConfig, share: float) -> str:
    """Why a training failed that ran out of GPU memory, and what to change.

    Args:
        config: of the run.
        share: GPUs that the trial was given; 0: unknown.
    """
    changes = ["a smaller train.batch_size (with train.accumulate for the same step)"]
    if not config.model.gradient_checkpointing:
        changes.append("model.gradient_checkpointing: true")
    if 0 < share < 1:
        changes.append("more GPU per trial (resources.gpus_per_worker)")
    given = f" and {share:g} GPU" if share else ""
    return (
        f"out of GPU memory, at train.batch_size {config.train.batch_size or 'null (all rows)'}{given}"
        f"{memory_report()}; use {', or '.join(changes)}"
    )


def device_faults(config: RunConfig, *, granted: bool = False) -> list[str]:
    """What this process cannot compute of what the config asks for. To be called where the training will run.

    Args:
        config: of the run.
        granted: whether the process was given a GPU, by Ray for example. Then one that torch cannot use is a fault.
    """
    faults = _compiler_faults(config)
    if config.train.device == "cpu":
        return faults
    if not torch.cuda.is_available():
        return faults + _without_gpu(config, granted=granted)
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    shown = f"{name} (compute capability {capability[0]}.{capability[1]})"
    if capability < _OLDEST and not _has_kernels(capability):
        faults.append(
            f"train.device: this PyTorch has no kernels for {shown}; use a card of capability "
            f"{_OLDEST[0]}.{_OLDEST[1]} or newer, a PyTorch built for an older CUDA, or train.device: cpu"
        )
    if config.train.precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        faults.append(
            f"train.precision is 'bfloat16', which {shown} does not compute in; nearest valid: tf32, float32 or auto"
        )
    return faults


def _compiler_faults(config: RunConfig) -> list[str]:
    compilers = [os.environ.get("CC") or "cc", "gcc", "clang", os.environ.get("CXX") or "c++", "g++"]
    if not config.model.compile or any(shutil.which(name) for name in compilers):
        return []
    return ["model.compile: torch.compile needs a C compiler, and this machine has none; install gcc, or use false"]


def _has_kernels(capability: tuple[int, int]) -> bool:
    return f"sm_{capability[0]}{capability[1]}" in torch.cuda.get_arch_list()


def _without_gpu(config: RunConfig, *, granted: bool) -> list[str]:
    if not granted and config.train.device == "auto":
        return []
    driver = _driver_version()
    if driver is None:
        cause = "no NVIDIA driver answers on this machine"
    else:
        cause = f"the NVIDIA driver is {driver}, and this PyTorch needs one for CUDA {torch.version.cuda}"
    if granted:
        asked, valid = "a GPU was requested for this training", "resources.gpus_per_worker: 0"
    else:
        asked, valid = "train.device is 'cuda'", "cpu, or auto"
    return [f"{asked}, but torch finds no GPU here: {cause}; nearest valid: {valid}"]


def gpu_memory() -> int | None:
    """Bytes of memory of the smallest GPU of this machine; None without a GPU.

    The driver's own tool is asked: through CUDA this process would take memory of a card that Ray has given to a trial.
    """
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=_TOOL_S, check=True)
        return min(int(line) for line in done.stdout.split()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _driver_version() -> str | None:
    """The version of the NVIDIA driver; None where there is none. Asks the kernel module, not CUDA."""
    with contextlib.suppress(OSError):
        with open("/proc/driver/nvidia/version", encoding="utf-8", errors="replace") as file:
            words = file.readline().split()
        return next((word for word in words if word[:1].isdigit() and "." in word), "of unknown version")
    return None
