"""Drivers that begin the same new study at the same time: one has it, and every other one says who."""

import contextlib
import os
import threading
from pathlib import Path

from m3col.errors import InputError
from tests.support.driving import small
from tune import checks, study_run
from tune.study import resume

AT_ONCE, ROUNDS = 6, 6


class Race:
    """All have been judged before any begins, as jobs that are submitted together."""

    def __init__(self, runs: Path) -> None:
        self.runs, self.held, self.told = runs, contextlib.ExitStack(), []
        self._barrier = threading.Barrier(AT_ONCE)
        options = checks.Options(name="study", resume="auto", runs=runs)
        (self._ready,) = checks.validate(small(), data=None, overrides={}, options=options)
        self.winners: list[str] = []

    def run(self) -> None:
        threads = [threading.Thread(target=self._begin) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _begin(self) -> None:
        self._barrier.wait()
        try:
            folder = study_run.create(self._ready, self.runs, "study", "search", locked=True)
            resume.acquire(folder, self._ready.config, self.held, warn=lambda line: None)
            self.winners.append(folder.name)
        except InputError as error:
            self.told += error.faults


def test_of_several_that_begin_one_study_at_once_one_has_it_and_all_others_say_who(tmp_path):
    for number in range(ROUNDS):
        race = Race(tmp_path / str(number))
        race.run()
        with race.held:
            assert race.winners == ["study"], race.told
            assert len(race.told) == AT_ONCE - 1
            assert all(f"in use by process {os.getpid()} on " in line for line in race.told), race.told


def test_a_study_that_nobody_drives_is_only_said_to_be_there(tmp_path):
    race = Race(tmp_path)
    race.run()
    race.held.close()
    second = Race.__new__(Race)
    second.__dict__ |= {**race.__dict__, "told": [], "winners": [], "_barrier": threading.Barrier(1)}
    second._begin()
    (line,) = second.told
    assert "a study of this name exists; resume it with --resume study" in line and "in use" not in line
