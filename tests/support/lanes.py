"""How the tests are divided among worker processes: what stays together, and what begins first."""

from typing import Any

# Folders whose tests share a fixture of the whole package.
_TOGETHER = ("tests/tune/engine/",)

# Files whose tests share nothing, each long: every test may go to another worker.
_EACH_ALONE = ("tests/project/test_benchmarks.py", "tests/tune/test_search_processes.py")

# Seconds, measured on two busy cores; what is not named takes less than ten. The longest begin first, so that no worker
# has a long one left when the others are done. An old number costs some seconds, nothing else.
_SECONDS = {
    "tests/tune/engine/": 450,
    "tests/jobs/test_cluster.py": 200,
    "tests/project/test_benchmarks.py": 110,
    "tests/tune/test_mirror.py": 55,
    "tests/training/test_image_text_training.py": 55,
    "tests/tune/test_outer_processes.py": 55,
    "tests/tune/test_search_processes.py": 50,
    "tests/jobs/test_cli.py": 40,
    "tests/tune/test_crashes.py": 35,
    "tests/tune/test_outer.py": 35,
    "tests/analysis/test_analyses.py": 35,
    "tests/project/test_benchmarks_gpu.py": 35,
    "tests/tune/test_endings.py": 30,
    "tests/training/test_sequence_training.py": 25,
    "tests/tune/test_variants.py": 30,
    "tests/training/test_distributed.py": 25,
    "tests/tune/test_sync.py": 25,
    "tests/tune/test_sync_command.py": 25,
    "tests/project/test_gpu_lane.py": 20,
    "tests/tracking/test_sequence_model.py": 15,
    "tests/data/test_sequence_files.py": 15,
    "tests/project/test_security.py": 20,
    "tests/runtime/test_notices.py": 20,
    "tests/tune/test_database.py": 15,
    "tests/tune/test_reasons.py": 15,
    "tests/storage/test_object_store.py": 15,
}


def group(nodeid: str) -> str:
    """What a test stays together with, in one worker and in order: a folder, its file, or itself alone."""
    file = nodeid.partition("::")[0]
    folder = next((name for name in _TOGETHER if file.startswith(name)), None)
    return folder or (nodeid if file in _EACH_ALONE else file)


def longest_first(items: list[Any]) -> None:
    """Sorts collected tests by the seconds of their group; the order within each group stays."""
    items.sort(key=lambda item: -_seconds(item.nodeid))


def _seconds(nodeid: str) -> float:
    return _SECONDS.get(group(nodeid).partition("::")[0], 0.0)


def scheduler(config: Any, log: Any) -> Any:
    """Hands each worker of pytest-xdist one group after another, in the order in which they were collected."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    config.option.loadscopereorder = False
    return Groups(config, log)
