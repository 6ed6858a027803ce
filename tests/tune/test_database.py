"""Database URLs: every fault is a line with the way out, within seconds, and without a password in it."""

import re
import socket
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.engine import make_url

from m3col.errors import InputError
from tests.support.driving import coordinator, drive, prepare_study, small, trial_rows
from tests.support.servers import Postgres
from tune import checks
from tune.config import loading
from tune.study import database
from tune.study.record import StudyFolder
from tune.study.run_spec import RunSpec


def test_urls_that_cannot_be_used_are_faults() -> None:
    wrong = {
        "postgresql://me:hunter22@host/db": "must hold no password.*PGPASSWORD or ~/.pgpass.*postgresql://me:...@host/db",
        "postgresql://me@host/db?password=hunter22": "must hold no password",
        "postgresql://me:ab hunter22@host/db": "must hold no password.*postgresql://me:...@host/db",
        "postgresql://m#e:hunter22@host/db": "must hold no password.*leave it out of the URL$",
        "post_gres://me:hunter22@host/db": "must hold no password",
        "postgresql://me:hunter22@host:port/db": "must hold no password",
        "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dhunter22": "must hold no password.*odbc_connect=...'",
        "mssql+pyodbc:///?odbc_connect=UID=me;PWD={a;hunter22}": "must hold no password.*leave it out of the URL$",
        "me:hunter22@host/db": "must be an SQLAlchemy URL, but got a text that may contain a password",
        "postgresql://host:port/db": "must be an SQLAlchemy URL, but got 'postgresql://host:port/db'; nearest valid",
        "nonsense": "must be an SQLAlchemy URL.*nearest valid: postgresql",
        "postgrex://me@host/db": "must be a kind of database.*nearest valid: postgresql",
        "mysql+pymysql://me@host/db": "needs the package pymysql, which is not installed; pip install pymysql",
        "sqlite:///study.db": "must name an absolute path.*nearest valid: 'sqlite:////",
        "sqlite://": "must name a file",
    }
    for url, words in wrong.items():
        [line] = database.faults(url)
        assert line.startswith("storage.database ") and "hunter22" not in line
        assert re.search(words, line), line
    assert database.faults("sqlite:////tmp/study.db") == []


def test_a_config_with_several_bad_urls_names_them_all() -> None:
    overrides = {
        "storage.uri": "s3://key:hunter22@bucket/x", "storage.database": "nonsense", "search.trials": 0,
        "tracking.uri": "https://me:hunter22@host",
    }  # fmt: skip
    with pytest.raises(InputError) as caught:
        loading.load("digits", overrides=overrides)
    text = "\n".join(caught.value.faults)
    assert "hunter22" not in text
    for words in ("storage.uri must", "storage.database must", "tracking.uri must hold no password", "search.trials"):
        assert sum(words in line for line in caught.value.faults) == 1, (words, text)
    assert "MLFLOW_TRACKING_USERNAME" in text


def test_a_database_that_cannot_be_opened_is_a_fault(tmp_path) -> None:
    assert database.connection_faults(f"sqlite:////{tmp_path}/ok.db") == []
    [line] = database.connection_faults(f"sqlite:////{tmp_path}/no/such/folder/x.db")
    assert "the database does not answer" in line and "unable to open database file" in line


def test_a_server_that_never_answers_is_a_fault_within_seconds(monkeypatch) -> None:
    import sqlalchemy

    monkeypatch.setattr(database, "_ANSWER_S", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        def connect(url: str) -> None:
            socket.create_connection(silent.getsockname()).recv(1)

        monkeypatch.setattr(sqlalchemy, "create_engine", connect)
        start = time.monotonic()
        [line] = database.connection_faults("postgresql://me@host/db")
        assert "no answer within 1 s" in line and time.monotonic() - start < 5


BRIEF: dict[str, Any] = {"search__trials": 2, "search__confirm": None, "search__replicates": 0, "final__seeds": 1}


def with_two_ended_trials(runs: Path, settings: dict[str, Any]) -> StudyFolder:
    folder, ready = prepare_study(runs, small(**settings))
    found = coordinator(folder, ready)
    for number in range(2):
        spec = found.next()
        assert isinstance(spec, RunSpec) and spec.name == f"trials/{number}"
        found.failed(spec.name, "not needed here")
    return folder


@pytest.mark.parametrize("lost", ["removed", "empty", "only a queue", "torn", "of a server", "copied to a storage"])
def test_a_study_that_lost_its_database_is_refused_before_anything_moves(tmp_path, lost) -> None:
    url, uri = f"sqlite:///{tmp_path}/shared.db", f"{tmp_path}/store"
    more = {"of a server": {"storage__database": url}, "copied to a storage": {"storage__uri": uri}}.get(lost, {})
    folder = with_two_ended_trials(tmp_path / "runs", {**BRIEF, **more})
    path = tmp_path / "shared.db" if lost == "of a server" else folder.path / database.FILE
    path.unlink()
    if lost in ("empty", "torn"):
        path.write_text("" if lost == "empty" else "no database " * 1000)
    if lost == "only a queue":
        optuna.create_study(storage=folder.storage(), study_name=folder.name, direction="maximize").enqueue_trial({})
    words = {
        "torn": r"study.db: cannot be read \(.*file is not a database.*\); put it back from a copy",
        "of a server": f"the database {url} knows none of them; put it back .* this study is called 'study test'",
        "copied to a storage": f"move the folder away, and fetch .* m3col search --resume study storage.uri={uri}",
    }.get(
        lost, r"2 trials have ended here, but the database .*/study.db knows none.*; put it back from a copy, or begin"
    )
    options = checks.Options(runs=tmp_path / "runs", resume="study")
    if lost == "copied to a storage":  # which may have a newer record
        checks.validate(small(**BRIEF, **more), data=None, overrides={}, options=options)
    else:
        with pytest.raises(InputError, match=words) as caught:
            checks.validate(small(**BRIEF, **more), data=None, overrides={}, options=options)
        assert len(caught.value.faults) == 1
    assert lost != "removed" or not path.exists(), "looking makes none"
    folder.lock()
    folder.unlock()
    if lost != "torn":  # a driver that lost it after it was judged
        with pytest.raises(InputError, match=words):
            coordinator(*prepare_study(tmp_path / "runs", small(**BRIEF, **more)))
    assert [name for name, _ in folder.runs()] == ["trials/0", "trials/1"] and not (folder.path / "aside").exists()


def test_a_study_whose_database_is_an_older_copy_goes_on_and_says_what_does_not_count(tmp_path) -> None:
    folder, ready = prepare_study(tmp_path, small(**BRIEF))
    found = coordinator(folder, ready)
    found.failed(found.next().name, "not needed here")
    older = (folder.path / database.FILE).read_bytes()
    found.failed(found.next().name, "not needed here")
    (folder.path / database.FILE).unlink()
    (folder.path / database.FILE).write_bytes(older)
    options = checks.Options(runs=tmp_path, resume="study")
    assert checks.validate(small(**BRIEF), data=None, overrides={}, options=options)[0].warnings == []
    told: list[str] = []
    drive(coordinator(folder, ready, warn=told.append), ready.dataset)
    assert [line.partition("does not know ")[2].partition(" ")[0] for line in told] == ["trials/1"]
    assert [path.name for path in (folder.path / "aside").iterdir()] == ["trials-1-1"]
    assert [row[0] for row in trial_rows(folder, ready)] == ["FAIL", "COMPLETE"]


def test_a_server_that_is_stopped_in_the_middle_is_given_up(tmp_path_factory, monkeypatch) -> None:
    """Its machine goes on, so that no limit of the network tells."""
    monkeypatch.setitem(database._LIBPQ, "connect_timeout", 2)
    server = Postgres(tmp_path_factory.mktemp("pg"))
    server.start()
    try:
        storage = database.open_storage(server.url, Path("unused"))
        optuna.create_study(study_name="s", storage=storage)
        storage.get_all_studies()
        monkeypatch.setattr(database, "_SILENT_S", 1.0)
        server.pause()
        for _ in range(2):  # with a connection that was used before, and with a new one
            start = time.monotonic()
            with pytest.raises(StorageInternalError):
                storage.get_all_studies()
            assert time.monotonic() - start < 8
        server.go_on()
        monkeypatch.setattr(database, "_SILENT_S", 30.0)
        assert [study.study_name for study in storage.get_all_studies()] == ["s"]
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////tmp/x.db", {"timeout": 60}),
        ("sqlite:////tmp/x.db?timeout=5", {}),
        ("postgresql+psycopg://me@host/db", {"connect_timeout": 10, "tcp_user_timeout": 120_000}),
        ("postgresql+psycopg://me@host/db?connect_timeout=3", {"tcp_user_timeout": 120_000}),
        ("postgresql+psycopg2://me@host/db", {"connect_timeout": 10}),
        ("mysql+pymysql://me@host/db", {"connect_timeout": 10, "read_timeout": 120}),
        ("mysql+mysqldb://me@host/db", {"write_timeout": 120}),
        ("oracle+oracledb://me@host/db", {}),
    ],
)
def test_waits_of_a_database_have_limits_in_its_drivers_words(url, expected) -> None:
    found = database._settings(url)["connect_args"]
    assert expected.items() <= found.items()
    assert not set(found) & set(make_url(url).query)
