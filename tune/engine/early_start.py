"""Starts a local Ray cluster while the data of a search are read and checked."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tune.config.schema import StudyConfig

_DELAY_S = 0.3  # most faults of data are found sooner


class EarlyStart:
    """A local cluster that starts in a thread of its own. The end of the block ends it.

    Where the search joins a cluster, is connected to one already, or has trials of several workers, nothing is started
    here: `ray_cluster.start_ray` does it when the checks have passed.

    Args:
        address: address of a Ray cluster, as for `ray_cluster.start_ray`.
        num_cpus: CPUs of the local cluster. Default: all.
    """

    def __init__(self, address: str | None, num_cpus: int | None) -> None:
        self._address, self._num_cpus = address, num_cpus
        self._cancelled, self._settled, self._over = threading.Event(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._is_running = False

    def __enter__(self) -> "EarlyStart":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        from tune.engine import ray_cluster

        self._cancelled.set()
        self._settled.wait()
        if self._is_running:
            ray_cluster.stop_ray()
        self._over.set()
        self._thread.join()

    def begin(self, studies: Sequence["StudyConfig"]) -> None:
        """Begins to start the cluster for these studies, and returns at once. Never raises."""
        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            return
        if any(study.request.workers > 1 for study in studies):
            return
        # Imported here and not by the thread: two threads that import one package may see it half imported.
        from tune.engine import join_cluster, ray_cluster, ready_workers

        if join_cluster.requested(self._address) is not None:
            return
        threads = max(study.run.resources.threads for study in studies)
        cpus = self._num_cpus or os.cpu_count() or 1
        processes = max(_processes(study, cpus) for study in studies)
        modules = ready_workers.PRELOADED if processes >= cpus / 2 and not _has_gpu() else ()

        def work() -> None:
            try:
                if not self._cancelled.wait(_DELAY_S):
                    self._is_running = ray_cluster.start_ray(
                        address=None, threads=threads, num_cpus=self._num_cpus, preloaded=modules
                    )
            except BaseException:  # the search starts it again when the checks have passed, and reports its error
                self._over.set()
                with contextlib.suppress(BaseException):
                    ray_cluster.stop_ray()
            finally:
                self._settled.set()
            self._over.wait()  # Linux ends the cluster's processes when the thread that started them ends

        self._thread = threading.Thread(target=work, name="ray", daemon=True)
        self._thread.start()

    def started(self) -> bool:
        """Waits for the cluster. Returns whether there is one; False where `begin` started none, or failed."""
        if self._thread is None:
            return False
        self._settled.wait()
        if (
            self._is_running
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):  # as Ray does where it starts in the main thread: the search is left in order
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        return self._is_running


def _processes(study: "StudyConfig", cpus: float) -> float:
    """How many trials, a process each, run at most at a time. Ray starts one process per CPU ahead."""
    search = study.settings.search
    return min(search.trials, search.concurrency or search.trials, cpus / study.request.cpus)


def _has_gpu() -> bool:
    """Whether this machine has a GPU. A process that imports torch before Ray gives it a GPU could see the others."""
    import torch

    return torch.cuda.device_count() > 0
