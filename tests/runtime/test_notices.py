"""A warning reaches whoever started the work: from any thread, every time, and without ending it."""

import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from m3col.runtime import exit_hooks, notices
from m3col.storage.retry import RetryPolicy, StorageUnavailable
from tune import checks
from tune.engine import capacity
from tune.scheduling import coordinator
from tune.study import driver_lock, remote_copy
from tune.tracking import live_sync as backgrounds
from tune.tracking import sync as tracking_sync


def test_it_is_a_user_warning_that_names_the_callers_own_line() -> None:
    with pytest.warns(UserWarning, match="the data is odd") as caught:
        notices.warn("the data is odd")
    assert caught[0].filename == __file__


def test_the_same_line_is_told_again() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            notices.warn("the store is away")
    assert len(caught) == 3


def test_a_line_from_another_thread_arrives() -> None:
    with pytest.warns(UserWarning, match="from a thread"):
        thread = threading.Thread(target=notices.warn, args=("from a thread",))
        thread.start()
        thread.join()


def test_a_password_is_left_out() -> None:
    with pytest.warns(UserWarning, match=r"http://\*\*\*@host"):
        notices.warn("http://ann:secret@host is away")


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_where_warnings_are_errors_the_work_goes_on_and_the_line_is_logged(
    in_a_thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reached: list[bool] = []

    def work() -> None:
        notices.warn("the store is away")
        reached.append(True)

    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, logger="m3col"):
        warnings.simplefilter("error")
        if in_a_thread:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        else:
            work()
    assert reached == [True] and "the store is away" in caplog.text


def test_what_is_ignored_on_purpose_stays_ignored() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", message="not this")
        notices.warn("not this")
        notices.warn("but this")
    assert [str(item.message) for item in caught] == ["but this"]


def _default(function: Any, name: str) -> Any:
    import inspect

    return inspect.signature(function).parameters[name].default


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (checks.Options, "warn"), (coordinator.Coordinator, "warn"), (remote_copy.StorageCopy, "warn"),
        (driver_lock.DriverLock, "warn"), (backgrounds.Background, "warn"), (capacity.Watch, "warn"),
        (RetryPolicy, "warn"),
    ],
)  # fmt: skip
def test_nothing_that_warns_drops_the_line_by_default(function: Any, name: str) -> None:
    assert _default(function, name) is notices.warn


def test_the_engine_and_sync_warn_by_default() -> None:
    from tune.engine import ray_tune
    from tune.tracking import study_to_mlflow

    assert _default(ray_tune.run, "warn") is notices.warn
    assert _default(tracking_sync.sync, "warn") is notices.warn is _default(study_to_mlflow.StudyToMlflow, "warn")


def test_a_storage_that_refuses_does_not_end_a_search_by_its_warning() -> None:
    def refuse() -> None:
        raise OSError("disk full")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StorageUnavailable, match="disk full"):
            RetryPolicy(0.2).call(refuse)


def test_a_folder_without_room_for_a_checkpoint_warns_the_script(tmp_path: Path) -> None:
    code = (
        "import m3col\nfrom m3col.training import checkpoint\n"
        "def full(*given): raise OSError(28, 'No space left')\n"
        "checkpoint.Keeper.write = full\n"
        "m3col.train('digits', overrides={'train.epochs': 2, 'checkpoint.every_s': 0.0}, runs='runs',"
        " tracking_uri='none')\n"
    )
    (tmp_path / "script.py").write_text(code)
    found = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "script.py:5: UserWarning" in found.stderr and "no checkpoint at epoch 1" in found.stderr


def test_a_tracked_training_is_whole_where_warnings_are_errors(tmp_path: Path) -> None:
    code = "import m3col; print(m3col.train('digits', overrides={'train.epochs': 1}, runs='runs').mlflow_run_id)"
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
    )  # fmt: skip
    assert found.returncode == 0 and len(found.stdout.strip()) == 32, found.stderr
    assert "lacks" not in found.stderr


def test_what_workers_write_down_is_told_by_the_process_that_started_them(tmp_path: Path) -> None:
    path = tmp_path / "warnings.txt"
    with notices.written_to(path), warnings.catch_warnings():
        warnings.simplefilter("error")
        notices.warn("no checkpoint\nat epoch 3")
        notices.warn("second")
    with pytest.warns(UserWarning) as caught:
        notices.repeat_from(path)
    assert [str(item.message) for item in caught] == ["no checkpoint at epoch 3", "second"]
    assert not path.exists()
    notices.repeat_from(path)  # nothing was written


def test_workers_without_room_for_their_warnings_go_on(tmp_path: Path) -> None:
    with notices.written_to(tmp_path / "not" / "there"):
        notices.warn("nobody hears this")


def test_before_a_process_ends_all_that_is_open_is_closed_within_the_limit() -> None:
    done: list[str] = []

    def fail() -> None:
        raise ConnectionError("away")

    def hang() -> None:
        time.sleep(30)

    begun = time.monotonic()
    with (
        exit_hooks.before_exit(fail),
        exit_hooks.before_exit(hang),
        exit_hooks.before_exit(lambda: done.append("closed")),
    ):
        exit_hooks.run(0.5)
    assert done == ["closed"] and time.monotonic() - begun < 5
    exit_hooks.run(0.5)
    assert done == ["closed"], "what has ended is not called any more"
