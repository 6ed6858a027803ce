"""Token mode is said explicitly, from the sources that Ray reads."""

import os
import subprocess
import sys

import pytest

from tune.engine import auth


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    for name in (auth.MODE, auth.TOKEN, auth.TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def settled(joining: bool) -> str:
    os.environ.pop(auth.MODE, None)
    auth.settle(joining)
    return os.environ[auth.MODE]


def test_without_a_token_it_is_off():
    assert not auth.token_found() and settled(True) == settled(False) == "disabled"


@pytest.mark.parametrize("source", ["variable", "path", "home"])
def test_each_source_of_a_token_turns_it_on_for_a_cluster_that_we_join(source, tmp_path, monkeypatch):
    file = tmp_path / (".ray/auth_token" if source == "home" else "token")
    file.parent.mkdir(exist_ok=True)
    file.write_text("s3cret\n")
    if source == "variable":
        monkeypatch.setenv(auth.TOKEN, "s3cret")
    elif source == "path":
        monkeypatch.setenv(auth.TOKEN_PATH, str(file))
    assert auth.token_found() and settled(True) == "token"
    assert settled(False) == "disabled"


def test_a_variable_that_names_no_file_or_an_empty_one_is_no_token(tmp_path, monkeypatch):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("s3cret")
    monkeypatch.setenv(auth.TOKEN_PATH, str(tmp_path / "nosuch"))
    assert not auth.token_found()
    (tmp_path / "empty").write_text(" \n")
    monkeypatch.setenv(auth.TOKEN_PATH, str(tmp_path / "empty"))
    assert not auth.token_found()


def test_a_token_that_is_said_to_be_there_and_is_not_is_a_fault(tmp_path, monkeypatch):
    assert auth.token_faults() == []
    monkeypatch.setenv(auth.MODE, "token")
    (line,) = auth.token_faults()
    assert line.startswith(f"RAY_AUTH_MODE=token: there is no token; set {auth.TOKEN}, or {auth.TOKEN_PATH}")
    monkeypatch.setenv(auth.TOKEN_PATH, str(tmp_path / "nosuch"))
    (line,) = auth.token_faults()
    assert line.startswith(f"{auth.TOKEN_PATH}: there is no token in {tmp_path / 'nosuch'}; name the file")
    monkeypatch.setenv(auth.TOKEN, "s3cret")
    assert auth.token_faults() == []


def test_what_is_set_already_stays(monkeypatch):
    monkeypatch.setenv(auth.TOKEN, "s3cret")
    for value in ("disabled", "token"):
        monkeypatch.setenv(auth.MODE, value)
        auth.settle(True)
        auth.settle(False)
        assert os.environ[auth.MODE] == value


@pytest.mark.parametrize("first", ["", "import ray._raylet, ray.tune\n"], ids=["before Ray", "after Ray"])
def test_ray_follows_it(first, monkeypatch):
    monkeypatch.setenv(auth.TOKEN, "s3cret")
    code = (
        f"{first}from tune.engine import auth\nauth.settle(True)\n"
        "from ray._private.authentication.authentication_utils import is_token_auth_enabled\n"
        "print(is_token_auth_enabled())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
