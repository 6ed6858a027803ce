"""The record in a real S3 storage: the driver's machine dies at any write, another one goes on, and nothing is lost."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from m3col.errors import InputError
from m3col.storage import atomic_files, object_store
from m3col.storage.retry import RetryPolicy
from m3col.training import checkpoint
from tests.support.driving import coordinator, drive, prepare_study, small, trial_rows, values, work
from tests.support.table_training import training_of
from tests.tune.test_crashes import Fuse, Killed, write_after_the_verdict
from tune import checks
from tune.errors import StudyTakenOver
from tune.study import remote_copy, resume
from tune.study.directory import AUTO
from tune.study.driver_lock import DriverLock
from tune.study.record import StudyFolder
from tune.study.remote_copy import StorageCopy
from tune.study.run_messages import RunOutcome
from tune.study.run_spec import RunSpec

SHORT: dict[str, Any] = {"search__trials": 3, "search__confirm": None, "overrides__train.epochs": 6, "final__seeds": 1}


def machine(runs: Path, uri: str, *, stale_s: float = 0.5) -> tuple[StudyFolder, Any, StorageCopy]:
    """A driver starts on a machine with this runs folder. `stale_s`: silence after which another one counts as dead."""
    if not (runs / "study" / "study.json").exists():
        remote_copy.fetch_missing(f"{uri}/study", runs / "study")
    folder, ready = prepare_study(runs, small(**SHORT, storage__uri=uri))
    copy = StorageCopy(folder, f"{uri}/study", retry_policy=RetryPolicy(5), with_database=True, stale_s=stale_s)
    copy.claim()
    return folder, ready, copy


def die(copy: StorageCopy) -> None:
    """The machine is gone: no heartbeat any more, and its lock stays."""
    copy._lock._stop.set()
    copy.remote.write_text("driver.json", json.dumps({"token": "of a dead machine", "machine": "", "process": 1}))


@pytest.fixture(autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Tables in place of models, but for those tests that ask for "real" ones; a checkpoint after every epoch."""
    monkeypatch.setattr(checkpoint, "_WRITING_SHARE", float("inf"))
    kind = getattr(request, "param", "table")
    with training_of(kind):
        yield kind


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    @cache
    def found(kind: str) -> tuple[Any, Any]:
        folder, ready = prepare_study(tmp_path_factory.mktemp(kind), small(**SHORT))
        drive(coordinator(folder, ready), ready.dataset)
        return trial_rows(folder, ready), values(folder)

    return found


@pytest.mark.parametrize(
    "first, after, kind",
    [(5, True, "table"), (33, False, "table"), (61, True, "real"), (120, False, "table"), (205, True, "table")],
    indirect=["kind"],
)
def test_killed_at_any_write_it_goes_on_elsewhere_and_ends_like_the_unbroken_one(
    tmp_path, monkeypatch, unbroken, s3, first, after, kind
):
    expected, fuse = unbroken(kind), Fuse(monkeypatch)
    for name in ("put", "remove"):
        monkeypatch.setattr(object_store.Folder, name, fuse._wrap(getattr(object_store.Folder, name)))
    trained: Counter[str] = Counter()
    observe = lambda event: trained.update([event.name] if event.what == "complete" else [])  # noqa: E731
    fuse.set(-1, after=False)
    kills = 0
    while True:
        folder, ready, copy = machine(tmp_path / f"machine-{kills}", s3)
        fuse.set((first, 40)[kills] if kills < 2 else -1, after=after)
        try:
            copy.begin()
            drive(coordinator(folder, ready, observe=observe, mirror=copy), ready.dataset, uri=f"{s3}/study")
            copy.finished()
            break
        except Killed:
            fuse.set(-1, after=False)
            kills += 1
            die(copy)
            shutil.rmtree(folder.path.parent)  # the disk is gone with its machine
    copy.release()
    assert kills >= 1
    assert trial_rows(folder, ready) == expected[0]
    assert values(folder) == expected[1]
    assert max(trained.values()) == 1, "a finished run was run again"
    # A last machine sees all of it, and no training checkpoint stays anywhere.
    assert not [item.name for item in copy.remote.files() if "/epoch-" in item.name or "driver.json" in item.name]
    elsewhere = resume.find(tmp_path / "last", "study", ready.config.settings.storage)
    assert trial_rows(elsewhere, ready) == expected[0] and values(elsewhere) == expected[1]


def test_a_study_that_went_on_elsewhere_is_fetched_by_the_machine_that_has_an_older_record(tmp_path, s3):
    folder, ready, copy = machine(tmp_path / "a", s3)
    copy.begin()
    die(copy)
    other, ready, second = machine(tmp_path / "b", s3)
    second.begin()
    drive(coordinator(other, ready, mirror=second), ready.dataset, uri=f"{s3}/study")
    second.finished()
    second.release()
    again, ready, third = machine(tmp_path / "a", s3)
    assert again.path == folder.path
    assert trial_rows(again, ready) == trial_rows(other, ready) and values(again) == values(other)
    # Its own record is newest now, so nothing is fetched the next time.
    (again.path / "trials/0/mark").write_text("")
    third.release()
    fourth = machine(tmp_path / "a", s3)[2]
    assert (again.path / "trials/0/mark").exists()
    fourth.release()


def test_who_only_looked_gets_the_newest_record_when_it_goes_on(tmp_path, s3):
    folder, _, copy = machine(tmp_path / "a", s3)
    copy.begin()
    with pytest.raises(InputError, match="in use by process"):
        machine(tmp_path / "b", s3, stale_s=60)  # ends with the first heartbeat it sees, also a late one
    assert (tmp_path / "b/study/study.json").exists(), "it has looked"
    (folder.path / "splits.csv").write_text("newer")
    copy.begin()
    copy.release()
    *_, second = machine(tmp_path / "b", s3)
    second.begin()
    assert (tmp_path / "b/study/splits.csv").read_text() == "newer"
    assert second.remote.read_text("splits.csv") == "newer"
    second.release()


def test_a_session_that_cannot_be_told_leaves_both_sides_as_they_were(tmp_path, monkeypatch, s3):
    folder, _, copy = machine(tmp_path / "a", s3)
    copy.begin()
    copy.release()
    (folder.path / "trials").mkdir()
    (folder.path / "trials/newer").write_text("")
    write = object_store.Folder._atomically

    def refuse(place: object_store.Folder, name: str, *rest: Any) -> None:
        if name == "session.json":
            raise OSError("no room")
        write(place, name, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(object_store.Folder, "_atomically", refuse)
        with pytest.raises(InputError, match="no room"):
            machine(tmp_path / "a", s3)
    *_, again = machine(tmp_path / "a", s3)
    assert (folder.path / "trials/newer").exists(), "nothing was newer there"
    again.release()


def test_a_database_that_is_older_than_the_runs_takes_up_no_foreign_checkpoint(tmp_path, s3):
    folder, ready, copy = machine(tmp_path / "a", s3)
    copy.begin()
    found = coordinator(folder, ready, mirror=copy)
    found.next()
    older = (folder.path / "study.db").read_bytes()
    found.failed("trials/0", "not needed here")
    spec = found.next()
    executor = work(folder, spec, ready.dataset.without_test(), uri=f"{s3}/study")
    for _ in range(3):
        assert not found.on_report(executor.step())
    (folder.path / "study.db").unlink()
    (folder.path / "study.db").write_bytes(older)
    told: list[str] = []
    back = coordinator(folder, ready, mirror=copy, warn=told.append)
    assert len(told) == 1 and "does not know trials/1 as it is here" in told[0] and "aside/trials-1-1" in told[0]
    assert [path.name for path in (folder.path / "aside").iterdir()] == ["trials-1-1"]
    assert [trial.number for trial in back.trials.all()] == [0] and not back.trials.running(), "its result is told"
    same = back.next()
    assert same.name == spec.name and same.config == spec.config, "the sampler is seeded by the number"
    assert work(folder, same, ready.dataset.without_test(), uri=f"{s3}/study").training.epoch > 0
    other = RunSpec(same.name, same.kind, {**same.config, "train": {**same.config["train"], "seed": 7}}, same.partition)
    assert work(folder, other, ready.dataset.without_test(), uri=f"{s3}/study").training.epoch == 0
    copy.release()


def test_auto_begins_goes_on_and_finds_what_only_the_storage_has(tmp_path, s3):
    folder, ready, copy = machine(tmp_path / "a", s3)
    config = ready.config
    assert resume.folder_for(tmp_path / "b", config, AUTO, "other") is None
    copy.begin()
    copy.release()
    assert resume.folder_for(tmp_path / "a", config, AUTO, "study").path == folder.path
    assert resume.folder_for(tmp_path / "b", config, AUTO, "study").path == tmp_path / "b" / "study"
    assert resume.folder_for(tmp_path / "c", config, AUTO, None).path == tmp_path / "c" / "study"
    (folder.results).mkdir()
    (folder.results / "summary.md").write_text("done")
    copy.claim()
    copy.remote.put(folder.results / "summary.md", "results/summary.md")
    copy.release()
    assert resume.folder_for(tmp_path / "d", config, AUTO, None) is None, "a finished study is not resumed"
    with pytest.raises(InputError, match=f"'stdy'.*not below {s3}"):
        resume.find(tmp_path / "e", "stdy", config.settings.storage)
    with pytest.raises(InputError, match="a study of this name exists; resume it with --resume study"):
        checks.validate(
            small(storage__uri=s3), data=None, overrides={}, options=checks.Options(runs=tmp_path / "f", name="study")
        )


def test_a_winner_that_changed_does_not_get_the_old_ones_refit_on_another_machine(tmp_path, s3):
    folder, ready, copy = machine(tmp_path / "a", s3)
    copy.begin()
    found = coordinator(folder, ready, mirror=copy)
    while not (spec := found.next()).name.startswith("refits/winner"):
        if spec.name == "trials/0":
            finish(found, folder, spec, ready, s3)
        else:
            found.failed(spec.name, "not needed here")
    finish(found, folder, spec, ready, s3)
    old = folder.run(spec.name).outcome()
    # More trials have changed the winner, and the driver's machine dies before its refit has got anywhere.
    changed = replace(spec, config={**spec.config, "objective": {**spec.config["objective"], "beta": 0.77}})
    found.plan._forget_other(changed)
    found.plan.refits = lambda: [changed]
    assert found.next().config == changed.config
    die(copy)
    shutil.rmtree(folder.path)
    other, ready, second = machine(tmp_path / "b", s3)
    second.begin()
    assert list(other.run(spec.name).path.glob("attempt-*/outcome.json")), "the storage has the old one"
    found = coordinator(other, ready, mirror=second)
    assert other.run(spec.name).config()["objective"]["beta"] == 0.77 and other.run(spec.name).outcome() is None
    found.plan.refits = lambda: [changed]
    while found.next().name != spec.name:
        found.failed("replicates/0", "not needed here")
    finish(found, other, changed, ready, s3)
    new = other.run(spec.name).outcome()
    assert new.attempt != old.attempt and new.metrics["train/loss"] != old.metrics["train/loss"]
    second.release()


def finish(found: Any, folder: StudyFolder, spec: RunSpec, ready: Any, uri: str) -> None:
    """Trains a run that has been started to its end."""
    test_inputs = ready.dataset.test.inputs if spec.name.startswith("refits/") else None
    executor = work(folder, spec, ready.dataset.without_test(), test_inputs=test_inputs, uri=f"{uri}/study")
    while not found.on_report(executor.step()):
        pass


def test_a_study_that_is_extended_and_dies_is_unfinished_elsewhere(tmp_path, s3):
    folder, ready, copy = machine(tmp_path / "a", s3)
    copy.begin()
    folder.results.mkdir()
    (folder.results / "summary.md").write_text("done")
    copy.finished()
    assert remote_copy.newest_unfinished(s3, ready.config.name) is None
    folder.reopen(ready.config)
    copy.begin()
    die(copy)
    assert remote_copy.newest_unfinished(s3, ready.config.name) == "study"
    found = resume.folder_for(tmp_path / "b", ready.config, AUTO, None)
    assert found is not None and not found.finished()


def test_what_another_driver_took_over_meanwhile_is_not_written_again(tmp_path, monkeypatch, s3):
    *_, copy = machine(tmp_path / "a", s3)
    copy.begin()
    second, put = DriverLock(copy.remote, stale_s=0.5), object_store.Folder.put
    tried: list[str] = []

    def refuse_once(place: object_store.Folder, path: Path, name: str) -> None:
        tried.append(name)
        if len(tried) == 1:
            copy._lock._stop.set()  # cut off from the storage: no heartbeat arrives any more
            second.claim()
            raise OSError("no network")
        put(place, path, name)

    monkeypatch.setattr(object_store.Folder, "put", refuse_once)
    with pytest.raises(StudyTakenOver, match="has taken over this study"):
        copy._put("study.json")
    assert tried == ["study.json"]
    copy.release()
    assert second._read()["token"] == second._token
    second.release()


def test_a_new_start_uploads_what_the_storage_may_lack_and_nothing_else(tmp_path, monkeypatch, s3):
    folder, _, copy = machine(tmp_path / "a", s3)
    for name in ("trials/0", "trials/1"):
        run = folder.run(name)
        run.create({"train": {"seed": 0}})
        run.append([{"epoch": 1, "value": 0.1}], restart=True)
    folder.run("trials/0").write_outcome(RunOutcome("complete"))
    copy.begin()
    # Of the same length: an upload that was refused leaves the older one.
    folder.run("trials/1").append([{"epoch": 1, "value": 0.2}], restart=True)
    atomic_files.write_text(folder.path / "trials/1/config.yaml", "train:\n  seed: 1\n")
    put, sent = object_store.Folder.put, []

    def note(place: object_store.Folder, path: Path, name: str) -> None:
        sent.append(name)
        put(place, path, name)

    monkeypatch.setattr(object_store.Folder, "put", note)
    copy.begin()
    for name in ("history.jsonl", "config.yaml"):
        assert copy.remote.read_text(f"trials/1/{name}") == (folder.path / "trials/1" / name).read_text()
    assert not [name for name in sent if name.startswith("trials/0")]
    copy.release()


def test_a_fetch_that_was_cut_short_is_begun_again(tmp_path, monkeypatch, s3):
    folder, ready, copy = machine(tmp_path / "a", s3)
    found = coordinator(folder, ready, mirror=copy)
    found.failed(found.next().name, "not needed here")
    copy.release()
    shutil.copytree(folder.path, tmp_path / "b/study")
    *_, copy = machine(tmp_path / "a", s3)  # a newer session than the copy has
    copy.begin()
    copy.release()
    there = StudyFolder(tmp_path / "b/study")
    fetch, result = object_store.Folder.fetch, "trials/0/result.json"

    def cut(place: object_store.Folder, name: str, local: Path) -> None:
        if name == "study.db":
            fetch(place, result, there.path / result)
            raise OSError("the network is gone")
        fetch(place, name, local)

    with monkeypatch.context() as patched:
        patched.setattr(object_store.Folder, "fetch", cut)
        with pytest.raises(InputError, match="the network is gone"):
            machine(tmp_path / "b", s3)
    assert not (there.path / "study.db").exists()
    options = checks.Options(runs=tmp_path / "b", resume="study")
    assert (
        checks.validate(small(**SHORT, storage__uri=s3), data=None, overrides={}, options=options)[0].folder is not None
    )
    *_, again = machine(tmp_path / "b", s3)
    assert (there.path / "study.db").exists() and (there.path / result).exists()
    again.release()


def test_a_folder_that_cannot_be_made_is_no_fault_of_the_storage(tmp_path, s3):
    *_, copy = machine(tmp_path / "a", s3)
    copy.begin()
    copy.release()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/study: cannot be written \(Not a directory\)"):
        remote_copy.fetch_missing(f"{s3}/study", tmp_path / "file/study")


def test_a_record_is_fetched_once_and_never_below_a_driver(tmp_path, monkeypatch, s3):
    *_, copy = machine(tmp_path / "a", s3)
    copy.begin()
    copy.release()
    fetch, held = object_store.Folder.fetch, []

    def look(place: object_store.Folder, name: str, local: Path) -> None:
        if not held:
            with pytest.raises(InputError) as caught:
                StudyFolder(tmp_path / "b/study").lock()
            held.append(str(caught.value))
        fetch(place, name, local)

    with monkeypatch.context() as patched:
        patched.setattr(object_store.Folder, "fetch", look)
        assert remote_copy.fetch_missing(f"{s3}/study", tmp_path / "b/study")
    assert "in use by process" in held[0], "locked while it is fetched"
    other = StudyFolder(tmp_path / "b/study")
    other.lock()
    (other.path / "trials/0").mkdir(parents=True)  # its driver has begun
    with pytest.raises(InputError, match="in use by process"):
        remote_copy.fetch_missing(f"{s3}/study", other.path)
    other.unlock()
    assert remote_copy.fetch_missing(f"{s3}/study", other.path)
    assert (other.path / "trials/0").exists(), "who looked before it was there finds it now"
    assert not remote_copy.fetch_missing(f"{s3}/nothing", tmp_path / "c/nothing") and not (tmp_path / "c").exists()


def test_what_a_run_uploads_after_its_verdict_is_dropped_at_the_end(tmp_path, monkeypatch, s3):
    folder, ready, copy = machine(tmp_path / "a", s3)
    copy.begin()
    found = coordinator(folder, ready, mirror=copy)
    write_after_the_verdict(found, folder, ready, monkeypatch, uri=f"{s3}/study")
    spec = found.next()
    assert not found.on_report(work(folder, spec, ready.dataset.without_test(), uri=f"{s3}/study").step())

    for kept in ({"trials/0", "trials/1", spec.name}, {spec.name}):  # what still runs keeps its own
        uploads = [item.name for item in copy.remote.files() if "/epoch-" in item.name]
        assert {name.partition("/attempt-")[0] for name in uploads} == kept
        found.tidy()
    copy.release()
