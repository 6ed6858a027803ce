"""`tune.train`: one training run with several DDP workers, through Ray Train."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import m3col
from m3col.checks.resolve import ResolvedRun
from m3col.config.schema import RunConfig
from m3col.errors import InputError, TrainingFailed
from m3col.methods import registry
from m3col.runtime import notices
from m3col.train_result import TrainResult
from m3col.training import checkpoint, run
from m3col.training.run import Report
from tune.config.resources import Request, TrialResources, encoder_faults, request_for, resource_faults
from tune.engine import ray_cluster
from tune.engine.background_thread import repeated

_POLL_S = 0.2

_WARNINGS = "warnings.txt"  # warnings of the workers, repeated by the process that started them


def train(
    source: "str | Path | Mapping[str, Any] | RunConfig" = "digits",
    *,
    data: Any = None,
    overrides: Mapping[str, Any] | None = None,
    runs: str | Path = "runs",
    tracking_uri: str | None = None,
    resume: str | Path | None = None,
    report: Report | None = None,
    workers: int = 1,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    started: Callable[[Path], None] = lambda folder: None,
) -> TrainResult:
    """Trains one configuration with several DDP workers and tests it once.

    The result depends on `train.shards`, not on the number of workers. With one worker and no address it calls
    `m3col.train`.

    Args:
        source: as of `m3col.train`.
        data: as of `m3col.train`.
        overrides: as of `m3col.train`.
        runs: as of `m3col.train`. All nodes of the cluster must see this folder.
        tracking_uri: as of `m3col.train`.
        resume: as of `m3col.train`.
        report: as of `m3col.train`, called up to 0.2 s after an epoch.
        workers: number of processes, each of which computes a part of every batch.
        cpus_per_worker: CPUs of each worker. Default: `resources.threads`.
        gpus_per_worker: GPUs of each worker. Default: 1 if the cluster has one for each worker and
            `train.device` is not "cpu", else 0.
        address: Ray cluster to join. Default: $RAY_ADDRESS, else a local one that ends with the training, on which any
            number of workers may share the cores.
        started: called with the run's folder once Ray has started.

    Returns:
        Metrics, history, and the folder of the model.

    Raises:
        InputError: with every fault; also if the workers do not fit on the cluster.
        TrainingFailed: the loss or the watched metric is not finite, or a worker raised.

    Example:
        >>> import tempfile, tune
        >>> quick = {"train.epochs": 2}
        >>> result = tune.train("digits", workers=2, overrides=quick, runs=tempfile.mkdtemp(), tracking_uri="none")
        >>> len(result.history)
        2
    """
    common: dict[str, Any] = {
        "data": data, "overrides": overrides, "runs": runs, "tracking_uri": tracking_uri, "resume": resume,
        "report": report,
    }  # fmt: skip
    if workers == 1 and address is None and not gpus_per_worker:
        return m3col.train(source, **common)

    number_faults = _number_faults(cpus_per_worker, gpus_per_worker)
    if number_faults:
        raise InputError(number_faults)

    def execute(prepared: ResolvedRun, folder: Path, on_epoch: Report | None) -> None:
        gpus = None if gpus_per_worker is None else float(gpus_per_worker)
        resources = TrialResources(
            workers_per_trial=workers, gpus_per_worker=gpus, cpus_per_worker=cpus_per_worker and float(cpus_per_worker)
        )  # fmt: skip
        faults = [*resource_faults(resources, [prepared.config]), *encoder_faults(prepared, workers)]
        if faults:
            raise InputError(faults)
        _on_ray(prepared, folder, on_epoch, request_for(resources, prepared.config), address, started)

    return m3col.train(source, workers=workers, execute=execute, **common)


def _number_faults(cpus: float | None, gpus: float | None) -> list[str]:
    """The faults of CPUs and GPUs per worker that are not finite or too small."""
    numbers = {"cpus_per_worker": (cpus, 1), "gpus_per_worker": (gpus, 0)}
    return [
        f"{name} must be a number {'> 0' if near else '>= 0'}, but is {value!r}; nearest valid: {near}"
        for name, (value, near) in numbers.items()
        if value is not None and not (math.isfinite(value) and value >= 0 and (value or not near))
    ]


def _on_ray(
    prepared: ResolvedRun, folder: Path, on_epoch: Report | None, request: Request, address: str | None,
    ready: Callable[[Path], None],
) -> None:  # fmt: skip
    # Imported here: a faulty config should not have to wait for Ray.
    import ray

    from tune.engine import capacity
    from tune.engine.ray_train import fit

    # A local cluster gets as many CPUs as requested; the workers share the cores.
    cpus = math.ceil(request.workers * request.cpus)
    started = ray_cluster.start_ray(address=address, threads=prepared.config.resources.threads, num_cpus=cpus)
    ready(folder)
    try:
        request = capacity.fitting(request, wait_s=0.0 if started else ray_cluster.WAIT_FOR_NODES_S)
        capacity.check_device(prepared.config, request)
        # The test split stays here: it is scored once, at the end, from the checkpoint.
        shared = ResolvedRun(prepared.config, prepared.dataset.without_test())
        arguments = {"prepared": [ray.put(shared)], "folder": str(folder), "device": prepared.config.train.device,
                 "import_folders": registry.import_folders()}  # fmt: skip
        reporting: AbstractContextManager[None] = nullcontext()
        if on_epoch is not None:
            reporter = _EpochReporter(folder, prepared.config.train.epochs, on_epoch)
            reporting = repeated(reporter, every_s=_POLL_S, name="progress")
        with reporting:
            failure = fit(
                _loop, arguments, request, device=prepared.config.train.device, name=folder.name,
                reached=lambda: checkpoint.newest_training(folder),
            )  # fmt: skip
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"{folder}: the processes of this training died ({type(error).__name__})") from error
    finally:
        notices.repeat_from(folder / _WARNINGS)
        if started:
            ray_cluster.stop_ray()
    if failure is not None:
        raise TrainingFailed(failure)


def _loop(arguments: dict[str, Any]) -> str | None:
    """The training loop of each worker. Returns why the training failed, None if it did not.

    Errors detected on every rank (e.g. a non-finite loss) are returned. An error on one rank is raised, because the
    other ranks would block in a collective; Ray Train then stops them all.
    """
    import ray

    from tune.engine.ray_train import joined

    folder = Path(arguments["folder"])
    registry.add_import_folders(
        arguments["import_folders"]
    )  # before unpickling, which may import a user-defined method
    try:
        with notices.written_to(folder / _WARNINGS):
            run.run(ray.get(arguments["prepared"][0]), folder, ranks=joined(arguments["device"]))
    except TrainingFailed as error:
        return str(error)
    return None


class _EpochReporter:
    """Reports the epochs that appear in the run's history.

    Epochs that the history has at the start are not reported, even if they are trained again after a resume.
    """

    def __init__(self, folder: Path, epochs: int, report: Report) -> None:
        self._folder, self._epochs, self._report = folder, epochs, report
        self._last = max((record.epoch for record in run.records_of(folder)), default=0)

    def __call__(self) -> None:
        for record in run.records_of(self._folder):
            if record.epoch > self._last:
                self._last = record.epoch
                self._report(record, self._epochs, self._folder)
