"""`m3col sync`: for each study a line of what stands in the way, then the next; and names that MLflow does not take."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs import cli
from m3col.tracking import mlflow_names, mlflow_store
from m3col.tracking.mlflow_store import GIVEN, KIND, SHARED_VIEW, STUDY, Tracker
from tests.support import fake_study
from tests.support.driving import coordinator, drive, prepare_study
from tests.support.servers import Server
from tests.tune.test_endings import _half, _statuses
from tune.results import collect, report
from tune.study.record import StudyFolder
from tune.tracking import notes, study_to_mlflow, sync
from tune.tracking import sync as tracking_sync


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[StudyFolder, StudyFolder]]:
    yield tuple(_half(tmp_path, name) for name in ("first", "second"))  # type: ignore[misc]


def _sync(runs: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["sync", *words, "--runs-dir", str(runs)])
    found = capsys.readouterr()
    assert "Traceback" not in found.out + found.err
    return code, found.out, found.err


def _refuse_metrics(first: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    real = study_to_mlflow.StudyToMlflow._send_trial

    def refuse(self: study_to_mlflow.StudyToMlflow, number: int) -> None:
        if self.folder.name == first.name:
            raise LookupError("INVALID_PARAMETER_VALUE at http://ann:secret@host")
        real(self, number)

    monkeypatch.setattr(study_to_mlflow.StudyToMlflow, "_send_trial", refuse)


def _unreadable(first: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (first.path / "study.json").write_text("{")


def _newer(first: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = first.path / "study.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 99'))


def _lost_config(first: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (first.path / "trials/1/config.yaml").write_text("objective: [")


def _full(first: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_study.report(first, winner=0)
    monkeypatch.setattr(Tracker, "artifacts", lambda *given: (_ for _ in ()).throw(OSError(28, "No space left")))


def _no_lock(first: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (first.path / "lock").unlink()
    (first.path / "lock").mkdir()


STANDING_IN_THE_WAY = {
    "a name that MLflow refuses": (_refuse_metrics, ["first", "INVALID_PARAMETER_VALUE", "http://***@host"]),
    "an unreadable study": (_unreadable, ["first/study.json", "not readable"]),
    "a newer study": (_newer, ["first", "newer than this version"]),
    "a damaged trial": (_lost_config, ["first", "trial 1"]),
    "a full disk": (_full, ["first", "files", "No space left"]),
    "a folder that cannot be locked": (_no_lock, ["first/lock", "cannot be written"]),
}


@pytest.mark.parametrize("case", STANDING_IN_THE_WAY)
def test_sync_says_in_one_line_what_stands_in_the_way_and_goes_on(
    two: tuple[StudyFolder, StudyFolder], case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hinder, expected = STANDING_IN_THE_WAY[case]
    hinder(two[0], monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code, out, err = _sync(tmp_path, capsys)
    assert code == 1 and "second is in" in out and "first is in" not in out
    (line,) = [line for line in err.splitlines() if line.startswith("failed:")]
    assert all(words in line for words in expected) and "secret" not in line, line
    tracker = mlflow_store.connect(None, tmp_path)
    assert tracker is not None and _statuses(tracker, two[1]) == ("KILLED", ["FINISHED", "KILLED"])


@pytest.mark.parametrize("is_named", [False, True])
def test_sync_leaves_a_study_alone_that_is_driven(
    two: tuple[StudyFolder, StudyFolder], is_named: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two[0].lock()
    try:
        code, out, err = _sync(tmp_path, capsys, *(["first", "second"] if is_named else []))
    finally:
        two[0].unlock()
    assert code == is_named and "second is in" in out and "in use by process" in (err if is_named else out)


def test_sync_without_studies_and_without_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _sync(tmp_path, capsys)[:2] == (0, f"no studies in {tmp_path}\n")
    assert "nothing to write to" in _sync(tmp_path, capsys, "--tracking-uri", "none")[2]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, Tracker]:
    """A whole study, searched by the accuracy of a modality whose name MLflow does not take, and its store."""
    runs = tmp_path_factory.mktemp("odd")
    draw = np.random.default_rng(0)
    labels = np.arange(40) % 2
    views = {
        name: pd.DataFrame(draw.normal(size=(40, 3)) + labels[:, None], columns=["a", "b/c", "it's"])
        for name in ("CpG (450k)", "mi`RNA/")
    }
    test = ({name: view.iloc[:20] for name, view in views.items()}, labels[:20])
    config = {
        "base": "omics", "space": {"objective.beta": [0.1, 0.2]},
        "overrides": {
            "metric": "val/accuracy_CpG (450k)", "train.epochs": 2, "model.embedding_dim": 8, "model.classifier_dim": 8,
            "validation.kind": "holdout",
        },
        "search": {"trials": 2, "replicates": 0, "confirm": None},
        "final": {"seeds": 1, "baselines": False, "draws": 100},
        "tracking": {"experiment": "it's a \"test\" (1)"},
    }  # fmt: skip
    data = {"train": (views, labels), "test": test}
    folder, ready = prepare_study(runs, config, data=data, name="odd.name")
    drive(coordinator(folder, ready), ready.dataset)
    collect.collect(folder, ready.config, ready.dataset)
    report.write(folder)
    tracker = mlflow_store.connect(None, runs)
    assert tracker is not None
    tracking_sync.sync(folder, tracker, dataset=ready.dataset, warn=pytest.fail)
    return folder, tracker


def test_a_study_with_names_that_mlflow_does_not_take_is_whole_there(odd: tuple[StudyFolder, Tracker]) -> None:
    folder, tracker = odd
    experiment = tracker.experiment('it\'s a "test" (1)')
    key = f"{folder.name} {folder.described()['created']}"
    found = tracker.find(experiment, {STUDY: key})
    assert [run.status for run in found if run.tags[KIND] == "study"] == ["FINISHED"]
    children = [run for run in found if run.tags[KIND] == "trial"]
    curve = mlflow_names.key("val/accuracy_CpG (450k)")
    for child in children:
        assert curve in child.metrics and mlflow_names.key("val/accuracy_mi`RNA/") in child.metrics
        assert "val/accuracy_CpG (450k)" in [text for name, text in child.tags.items() if name.startswith(GIVEN)]
        assert tracker.last_step(child.id, "val/accuracy_CpG (450k)") == 2
    parent = next(run for run in found if run.tags[KIND] == "study")
    assert "m3col.model_uri" in parent.tags and "val/accuracy_CpG (450k)" in parent.tags[mlflow_store.NOTE]
    assert "val/accuracy_CpG (450k)" in (folder.results / "summary.md").read_text(encoding="utf-8")


def test_the_columns_of_its_table_are_the_names_that_mlflow_knows(odd: tuple[StudyFolder, Tracker]) -> None:
    folder, tracker = odd
    tags = tracker.client.get_experiment(tracker.experiment('it\'s a "test" (1)')).tags
    columns = json.loads(tags[f"{SHARED_VIEW}{notes.view_key(folder.name)}"])["selectedColumns"]
    assert all(column.count("`") == 2 for column in columns)
    names = [column.partition("`")[2].rstrip("`") for column in columns]
    assert all(mlflow_names.is_accepted(name) for name in names) and "objective.beta" in names
    assert mlflow_names.key("test/accuracy_CpG (450k)") in names
    assert tags[mlflow_store.LATEST_VIEW] == notes.view_key(folder.name)


def test_a_server_takes_it_as_well(odd: tuple[StudyFolder, Tracker], tmp_path: Path) -> None:
    folder, _ = odd
    server = Server(tmp_path)
    server.start()
    try:
        tracker = mlflow_store.connect(server.uri, folder.path.parent)
        assert tracker is not None
        for _ in range(2):
            sync.sync(folder, tracker, warn=pytest.fail)
        found = tracker.find(tracker.experiment('it\'s a "test" (1)'), {})
        assert len(found) == 3 and not [run for run in found if run.status == "RUNNING"]
        parent = next(run for run in found if run.tags[KIND] == "study")
        assert "m3col.model_uri" in parent.tags and not parent.tags.get(mlflow_store.LACKS)
        child = next(run for run in found if run.tags[KIND] == "trial")
        assert tracker.last_step(child.id, "val/accuracy_CpG (450k)") == 2
    finally:
        server.kill()


@pytest.mark.parametrize(("first", "second"), [("a.b", "a_b"), ("x" * 200, "x" * 201), ("a", "A"), ("n-1", "n.1")])
def test_views_of_two_studies_are_two(first: str, second: str) -> None:
    keys = [notes.view_key(name) for name in (first, second)]
    assert len(set(keys)) == 2 and all(len(f"{SHARED_VIEW}{key}") <= 250 for key in keys)
