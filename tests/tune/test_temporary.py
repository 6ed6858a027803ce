"""Folders for Ray's files: what is too long or cannot be written is gone around, or refused by name."""

import os
from pathlib import Path

import pytest
from ray._private.utils import validate_socket_filepath
from ray.dashboard.subprocesses.module import SubprocessModule

from m3col.errors import InputError
from tune.engine import temporary_folder


@pytest.fixture(autouse=True)
def short(tmp_path_factory, monkeypatch):
    """A short folder in place of /tmp, and no variable set."""
    place = Path(f"/tmp/t{os.getpid()}")
    place.mkdir()
    monkeypatch.setattr(temporary_folder, "_ELSEWHERE", (str(place / "missing"), str(place)))
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    yield place
    for path in sorted(place.rglob("*"), reverse=True):
        path.chmod(0o700) if path.is_dir() and not path.is_symlink() else None
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    place.rmdir()


def own(short: Path) -> str:
    return f"{short}/m3col-{os.getuid()}/ray"


@pytest.mark.parametrize("name", ["a", "with blanks", "ünï", "quo'te", "q?#%"])
def test_a_folder_that_will_do_is_left_to_ray(short, monkeypatch, name):
    (short / name).mkdir()
    for variable in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.setenv(variable, str(short / name))
        assert temporary_folder.folder() is None
        monkeypatch.delenv(variable)


def test_without_a_variable_it_is_left_to_ray():
    assert temporary_folder.folder() is None


@pytest.mark.parametrize("name", ["scratch_of_a_batch_system_" * 4, "ü" * 40, "job/" * 30])
def test_a_long_folder_is_gone_around(short, monkeypatch, name):
    monkeypatch.setenv("TMPDIR", f"/tmp/{name}")
    assert temporary_folder.folder() == own(short)
    assert (short / f"m3col-{os.getuid()}").stat().st_mode & 0o777 == 0o700


def test_what_is_no_folder_or_cannot_be_written_is_gone_around(short, monkeypatch):
    (short / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("TMPDIR", str(short / "file"))
    assert temporary_folder.folder() == own(short)
    monkeypatch.setenv("TMPDIR", str(short / "file" / "below"))
    assert temporary_folder.folder() == own(short)
    closed, allowed = short / "closed", os.access
    closed.mkdir()
    monkeypatch.setenv("TMPDIR", str(closed))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and allowed(path, mode))  # root may all
    assert temporary_folder.folder() == own(short)


@pytest.mark.parametrize("name", ["x" * 60, "file", "file/below"])
def test_a_folder_that_was_said_explicitly_is_refused_by_name(short, monkeypatch, name):
    (short / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("RAY_TMPDIR", str(short / name))
    with pytest.raises(InputError) as caught:
        temporary_folder.folder()
    (line,) = caught.value.faults
    assert line.startswith(f"RAY_TMPDIR {short / name}: ")


@pytest.mark.parametrize("made", ["link", "open", "file"])
def test_a_folder_of_somebody_else_is_not_taken(short, monkeypatch, made):
    """Whoever may write /tmp can put something of this name there."""
    path = short / f"m3col-{os.getuid()}"
    if made == "link":
        path.symlink_to("/tmp")
    elif made == "open":
        path.mkdir()
        path.chmod(0o777)
    else:
        path.write_text("", encoding="utf-8")
    monkeypatch.setenv("TMPDIR", "/tmp/" + "long/" * 30)
    with pytest.raises(InputError) as caught:
        temporary_folder.folder()
    (line,) = caught.value.faults
    assert line.startswith("TMPDIR /tmp/long") and "set RAY_TMPDIR to a folder of at most" in line


@pytest.mark.parametrize("dashboard", [False, True])
def test_the_room_is_what_rays_own_check_allows(dashboard):
    """The longest folder passes, one byte more does not."""
    session = f"session_2026-11-27_10-13-13_977048_{os.getpid()}"
    names = ["plasma_store", "raylet"]
    if dashboard:
        import ray.dashboard.utils as utils

        names += [f"dash_{module.__name__}" for module in utils.get_all_modules(SubprocessModule)]
    room = temporary_folder.longest_path(dashboard=dashboard)

    def longest(length: int) -> str:
        return max((f"/{'x' * (length - 1)}/{session}/sockets/{name}" for name in names), key=len)

    validate_socket_filepath(longest(room))
    with pytest.raises(OSError, match="AF_UNIX"):
        validate_socket_filepath(longest(room + 1))
