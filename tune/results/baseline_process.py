"""Fits the baselines of a study beside its trials, in a process with a low priority.

The process gets the data through a pipe, and returns the predictions through another one. If anything goes wrong with
it, its study fits the baselines itself after its runs. What it computes is kept in memory alone: a search that is
resumed begins again.
"""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from m3col.data import modality_kinds
from m3col.data.dataset import Dataset
from m3col.data.splits import Fold, pool
from tune.config.schema import StudyConfig
from tune.results.baseline_rows import Baselines, Fitted, Part
from tune.study.partitions import CONFIRM_PARTITION, SEARCH_PARTITION

_PRIORITY = 19  # niceness; that of Ray's workers is 15, so that trials get two and a half times as much of a core

_CHEAP = {"linear"}  # families that are fitted faster than a process starts

_PARENT_CHECK_S = 1.0

_START = "import sys; sys.path[:] = {path!r}; from tune.results import baseline_process; baseline_process.main()"


class BaselineProcess:
    """Fits the baselines of one study in another process.

    Args:
        baselines: what is fitted.
        partition: the column of splits.csv with their folds.
    """

    def __init__(self, baselines: Baselines, partition: str) -> None:
        self._baselines, self._partition = baselines, partition
        self._result: tuple[Fitted, list[warnings.WarningMessage]] | None = None
        command = [sys.executable, "-c", _START.format(path=sys.path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
        self._thread = threading.Thread(target=self._exchange, name="baselines", daemon=True)
        self._thread.start()

    def _exchange(self) -> None:
        with contextlib.suppress(Exception):  # `result` then has nothing, and the study fits them itself
            with Connection(os.dup(self._process.stdin.fileno()), readable=False) as pipe:
                pipe.send(self._baselines)
            with Connection(os.dup(self._process.stdout.fileno()), writable=False) as pipe:
                self._result = pipe.recv()

    def result(self) -> dict[str, Fitted]:
        """Waits for the baselines. Returns them by the name of the partition; empty if the process failed."""
        self._thread.join()
        if self._result is None:
            return {}
        fitted, raised = self._result
        for item in raised:
            warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
        return {self._partition: fitted}

    def end(self) -> None:
        """Ends the process, whether it has returned something or not."""
        self._process.kill()
        self._process.wait()
        self._thread.join()


@contextlib.contextmanager
def beside(
    config: StudyConfig, dataset: Dataset, folds: Mapping[str, Sequence[Fold]]
) -> Iterator[Callable[[], dict[str, Fitted]]]:
    """Context manager: fits the baselines of a study while the block runs its trials, where that saves time.

    Nothing is started for baselines that are cheap, that this process has fitted already, or whose features come from
    the encoders of images and texts, which would compete with the trials for memory.

    Args:
        config: the study.
        dataset: its data.
        folds: by column of splits.csv.

    Yields:
        A function that waits for the baselines and returns them by partition, as `collect` takes them.
    """
    final, kind = config.settings.final, str(config.run.validation.kind)
    partition = SEARCH_PARTITION if config.settings.search.confirm is None else CONFIRM_PARTITION
    if final.baselines is False or partition not in folds or modality_kinds.media(set(dataset.kinds.values())):
        yield dict
        return
    baselines = Baselines(config.run, dataset, pool(dataset, kind), folds[partition], final.baselines)
    if set(baselines.families) <= _CHEAP or baselines.are_fitted:
        yield dict
        return
    process = BaselineProcess(baselines, partition)
    try:
        yield process.result
    finally:
        process.end()


_inherited: list[Baselines] = []  # what the processes of the pool, which are forked, fit


def _part(number: int) -> Part:
    return _inherited[0].part(number)


def main() -> None:
    """The process: reads `Baselines` from standard input and writes what they give to standard output."""
    os.nice(_PRIORITY)
    _end_with(os.getppid())
    with Connection(os.dup(1), readable=False) as answer:
        os.dup2(2, 1)  # a library may print
        with Connection(os.dup(0), writable=False) as pipe:
            _inherited.append(pipe.recv())
        with warnings.catch_warnings(record=True) as raised:
            fitted = _fit(_inherited[0])
        answer.send((fitted, [_plain(item) for item in raised]))


def _fit(baselines: Baselines) -> Fitted:
    """Fits them with as many processes as there are CPUs for the threads of each."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    processes = (os.cpu_count() or 1) // int(threads) if threads.isdigit() and int(threads) else 1
    if processes < 2:
        return baselines.fit()
    # Forked, because importing takes as long as a fold. No thread of OpenMP or BLAS has started in this process yet.
    # An executor and no pool: a pool waits for ever for the part of a worker that was killed.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(
        min(processes, baselines.parts), context, initializer=_end_with, initargs=(os.getpid(),)
    ) as workers:
        return baselines.fit(lambda function, numbers: workers.map(_part, numbers))


def _plain(item: Any) -> warnings.WarningMessage:
    """A warning without its source, which may be an object that cannot be sent."""
    return warnings.WarningMessage(item.message, item.category, item.filename, item.lineno)


def _end_with(parent: int) -> None:
    """Ends this process when its parent has ended, in whatever way."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
