"""Signs in the path of a runs folder that mean something in a URL: the databases lie in that folder all the same."""

import sqlite3
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from m3col.errors import InputError
from m3col.storage import sqlite_urls
from m3col.tracking import mlflow_store
from tune import checks
from tune.study import database

NAMES = [
    "plain", "wh?at", "ha#sh", "100%", "per%20cent", "%3F?", " a b", "quo'te\"", "{brace}", "{}", "ünï日本🙂",
    "x?uri=true&mode=ro", "back\\slash\nnew line",
]  # fmt: skip
HARMLESS = [
    "per%cent",
    "semi;colon",
    "at@colon:",
    "[br]",
    "$HOME",
    "~",
    "+plus",
    "-dash",
    "a&b=c",
    "<lt>|",
    "*",
    "com,ma",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_lies_in_its_folder(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    storage = database.open_storage(None, folder)
    optuna.create_study(study_name="s", storage=storage)
    assert {path.name for path in folder.iterdir()} == {database.FILE}
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [study.study_name for study in database.open_storage(None, folder).get_all_studies()] == ["s"]


@pytest.mark.parametrize("name", NAMES + HARMLESS)
def test_a_url_that_needs_no_change_stays_as_it_is(name):
    path = Path("/runs") / name / "mlflow.db"
    found = sqlite_urls.url(path)
    assert make_url(found).database == str(path) and not make_url(found).query
    if not set(name) & set("?%"):
        assert found == f"sqlite:///{path}"


def test_mlflow_lies_in_its_folder_with_its_files(tmp_path, monkeypatch):
    """One folder with all signs: making such a database takes seconds."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = tmp_path / "wh?at #1 100% per%20cent {x} '日本'" / "runs"
    tracker = mlflow_store.connect(None, runs)
    assert tracker is not None
    with tracker.running("digits", "run", tags={}, started=1.0) as run:
        tracker.artifacts(run, Path(__file__), "folder")
    assert (runs / "mlflow.db").exists() and len(list(runs.glob("mlartifacts/*/*/artifacts/folder/*.py"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [runs.parent.name]
    with sqlite3.connect(runs / "mlflow.db") as connection:
        assert connection.execute("select count(*) from runs").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("sqlite:////tmp/what?/x.db", "sqlite:////tmp/what%3F/x.db"),
        ("sqlite:////tmp/a?b=c/x.db", "sqlite:////tmp/a%3Fb%3Dc/x.db"),
        ("sqlite:////tmp/x?y.db", "sqlite:////tmp/x%3Fy.db"),
        ("sqlite:////tmp/what%3F?/x.db", "sqlite:////tmp/what%3F%3F/x.db"),
        ("sqlite:////tmp/per%cent/x.db", "sqlite:////tmp/per%25cent/x.db"),
        ("sqlite:////tmp/100%ff/x.db", "sqlite:////tmp/100%25ff/x.db"),
    ],
)
def test_a_url_that_names_another_file_than_it_reads_like_is_refused(tmp_path, monkeypatch, url, near):
    [line] = database.faults(url)
    assert line.startswith("storage.database ") and f"nearest valid: {near!r}" in line
    with pytest.raises(InputError) as caught:
        mlflow_store.connect(url, tmp_path / "runs")
    assert caught.value.faults[0].startswith("tracking.uri ") and near in caught.value.faults[0]
    assert not sqlite_urls.url_faults(near, "tracking.uri")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with pytest.raises(InputError, match="is written %"):
        mlflow_store.connect(None, tmp_path / "runs")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////tmp/x.db", "sqlite:////tmp/a%20b/x.db", "sqlite:////tmp/x.db?timeout=5",
        "sqlite:////tmp/x.db?uri=true&mode=rwc", "sqlite:////tmp/100%/x.db", "postgresql://host/a?b%ff",
    ],
)  # fmt: skip
def test_other_urls_are_left_alone(url):
    assert sqlite_urls.url_faults(url, "tracking.uri") == []


def test_a_library_that_cannot_name_the_file_is_told_before_anything_is_written(tmp_path, monkeypatch):
    """SQLAlchemy 2.0 reads no escapes in a path."""

    def plainly(text):
        path, _, rest = text.removeprefix("sqlite:///").partition("?")
        return sqlalchemy.engine.URL.create("sqlite", database=path, query={"x": rest} if rest else {})

    monkeypatch.setattr(sqlite_urls, "make_url", plainly)
    runs = tmp_path / "what?"
    with pytest.raises(InputError) as caught:
        checks.validate("digits", data=None, overrides={}, options=checks.Options(runs=runs))
    assert [line for line in caught.value.faults if line.startswith(f"{runs}: the path has '?'")]
    with pytest.raises(InputError, match=r"nearest valid: .*what-, or sqlalchemy>=2\.1"):
        sqlite_urls.url(runs / "mlflow.db")
    assert not runs.exists()
