"""Progress of a search: plain lines without a terminal, a table on a terminal."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from jobs.terminal import progress as terminal_progress
from jobs.terminal.progress import Progress
from tune.scheduling.coordinator import Event


def coordinator(*, target=10, budget=None, concurrency=2, maximize=True, trials=(), spent=0.0):
    settings = SimpleNamespace(search=SimpleNamespace(time_budget_s=budget))
    stored = SimpleNamespace(all=lambda: list(trials), maximize=maximize, seconds=lambda: spent)
    plan = SimpleNamespace(target=target, trials=stored, config=SimpleNamespace(settings=settings))
    return SimpleNamespace(trials=stored, plan=plan, concurrency=concurrency)


FOLDER = SimpleNamespace(name="digits-1", path="/runs/digits-1")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(terminal_progress.time, "monotonic", lambda: now[0])
    return now


def plain() -> tuple[Progress, io.StringIO]:
    stream = io.StringIO()
    return Progress(stream=stream), stream


class Terminal(io.StringIO):
    def isatty(self):
        return True


def event(what, number=0, **named) -> Event:
    return Event(what, f"trials/{number}", epochs=20, **named)


def drawn(progress: Progress) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(progress._view())
    return console.file.getvalue()


def test_plain_lines_say_each_start_and_end_but_no_progress():
    progress, stream = plain()
    with progress:
        progress.started(FOLDER, coordinator())
        progress.observe(event("started"))
        for epoch in (1, 2):
            progress.observe(event("progress", epoch=epoch, value=0.5))
        progress.observe(event("complete", value=0.81234))
        progress.observe(event("pruned", 1, value=0.4))
        progress.observe(event("failed", 2, detail="loss is nan"))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "study /runs/digits-1" and len(lines) == 5
    assert lines[1].split()[1:] == ["trials/0", "started"]
    assert lines[2].split()[1:] == ["trials/0", "complete", "0.8123", "best", "0.8123", "(trials/0)"]
    assert "pruned" in lines[3] and "best 0.8123 (trials/0)" in lines[3]
    assert "failed" in lines[4] and "loss is nan" in lines[4]
    assert "\x1b" not in stream.getvalue()


BRACKETS = "RuntimeError: [/pytorch/third_party/gloo/pair.cc:547] Connection closed by peer [127.0.0.1]:33 :x:"


def test_brackets_in_a_reason_or_a_path_are_shown_as_they_are():
    progress, stream = plain()
    with progress:
        progress.started(SimpleNamespace(name="a", path="/data/[/old]/runs/a"), coordinator())
        progress.observe(event("failed", detail=BRACKETS))
    first, second = stream.getvalue().splitlines()
    assert first == "study /data/[/old]/runs/a" and BRACKETS in second


def test_brackets_in_the_name_of_a_run_are_shown_as_they_are(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Progress(stream=stream) as progress:
        progress.started(SimpleNamespace(name="[/a]", path="/runs/[/a]"), coordinator())
        progress.observe(Event("started", "refits/[/b]/1", epochs=20))
    assert "study [/a]" in stream.getvalue() and "refits/[/b]/1" in stream.getvalue()


def test_the_table_shows_done_running_pruned_best_and_time_left(clock):
    progress, _ = plain()
    progress.started(FOLDER, coordinator(target=10, concurrency=2))
    for number, (what, value) in enumerate([("complete", 0.7), ("complete", 0.9), ("pruned", 0.95)]):
        progress.observe(event("started", number))
        clock[0] += 30
        progress.observe(event(what, number, value=value))
    progress.observe(event("started", 3))
    progress.observe(event("progress", 3, epoch=7, value=0.6))
    progress.observe(Event("started", "refits/default/1", epochs=20))
    text = drawn(progress)
    assert all(words in text for words in ("study digits-1", "trials/3", "7/20", "0.6000", "refits"))
    assert "2 done, 2 running, 1 pruned | best so far 0.9000 (trials/1)" in text
    assert "about 2 min left" in text  # 7 of 10 trials, 30 s each, two at a time


def test_the_time_left_ends_with_the_budget_and_needs_a_finished_trial(clock):
    progress, _ = plain()
    assert progress.time_left_s() is None
    progress.started(FOLDER, coordinator(budget=100.0, spent=90.0))
    assert progress.time_left_s() is None
    progress.observe(event("started"))
    clock[0] += 30
    progress.observe(event("complete", value=0.5))
    assert progress.time_left_s() == pytest.approx(10.0)
    assert "about 10 s left" in drawn(progress)


def test_a_metric_that_falls_has_its_best_at_the_bottom():
    progress, _ = plain()
    progress.started(FOLDER, coordinator(maximize=False))
    for number, value in enumerate((0.5, 0.3, 0.4)):
        progress.observe(event("complete", number, value=value))
    assert "best so far 0.3000 (trials/1)" in drawn(progress)


def test_only_trials_count_as_trials():
    progress, _ = plain()
    progress.started(FOLDER, coordinator())
    progress.observe(Event("complete", "replicates/0", value=0.99))
    assert "0 done, 0 running, 0 pruned" in drawn(progress) and "0.99" not in drawn(progress)


def test_a_resumed_study_begins_with_what_it_has():
    states = [("COMPLETE", 0.8), ("COMPLETE", 0.7), ("PRUNED", None), ("FAIL", None), ("RUNNING", None)]
    trials = [
        SimpleNamespace(number=n, state=SimpleNamespace(name=name), value=value)
        for n, (name, value) in enumerate(states)
    ]
    progress, _ = plain()
    progress.started(FOLDER, coordinator(trials=trials))
    assert "2 done, 0 running, 1 pruned, 1 failed | best so far 0.8000 (trials/0)" in drawn(progress)
    progress.started(FOLDER, coordinator())  # the next study of the same search starts from nothing
    assert "0 done, 0 running, 0 pruned" in drawn(progress) and "best" not in drawn(progress)


def test_on_a_terminal_the_table_is_live_and_lines_are_not_printed(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Progress(stream=stream) as progress:
        progress.started(FOLDER, coordinator())
        progress.observe(event("started"))
        progress.observe(event("complete", value=0.5))
    text = stream.getvalue()
    assert "study digits-1" in text and "1 done, 0 running" in text and "study /runs/digits-1" not in text
    forced = Terminal()
    with Progress(stream=forced, force_plain=True) as progress:
        progress.started(FOLDER, coordinator())
    assert forced.getvalue() == "study /runs/digits-1\n"
