"""Database URLs: every fault is a line with the way out, within seconds, and without a password in it."""

import socket
import time

import pytest

from m3col.faults import BadInput
from tune import config, database


def test_urls_that_cannot_be_used_are_faults() -> None:
    wrong = {
        "postgresql://me:hunter22@host/db": "must hold no password.*PGPASSWORD or ~/.pgpass.*postgresql://me:...@host/db",
        "postgresql://me@host/db?password=hunter22": "must hold no password",
        "nonsense": "must be an SQLAlchemy URL.*nearest valid: postgresql",
        "postgrex://me@host/db": "must be a kind of database.*nearest valid: postgresql",
        "postgresql+psycopg://me@host/db": "needs the package psycopg, which is not installed; pip install psycopg",
        "sqlite:///study.db": "must name an absolute path.*nearest valid: 'sqlite:////",
        "sqlite://": "must name a file",
    }
    for url, words in wrong.items():
        [line] = database.faults(url)
        assert line.startswith("storage.database ") and "hunter22" not in line
        assert __import__("re").search(words, line), line
    assert database.faults("sqlite:////tmp/study.db") == []


def test_a_config_with_several_bad_urls_names_them_all() -> None:
    overrides = {
        "storage.uri": "s3://key:hunter22@bucket/x", "storage.database": "nonsense", "search.trials": 0,
        "tracking.uri": "https://me:hunter22@host",
    }  # fmt: skip
    with pytest.raises(BadInput) as caught:
        config.load("digits", overrides=overrides)
    text = "\n".join(caught.value.faults)
    assert "hunter22" not in text
    for words in ("storage.uri must", "storage.database must", "tracking.uri must hold no password", "search.trials"):
        assert sum(words in line for line in caught.value.faults) == 1, (words, text)
    assert "MLFLOW_TRACKING_USERNAME" in text


def test_a_database_that_cannot_be_opened_is_a_fault(tmp_path) -> None:
    assert database.reach(f"sqlite:////{tmp_path}/ok.db") == []
    [line] = database.reach(f"sqlite:////{tmp_path}/no/such/folder/x.db")
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
        [line] = database.reach("postgresql://me@host/db")
        assert "no answer within 1 s" in line and time.monotonic() - start < 5
