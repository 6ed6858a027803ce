"""Processes without a home folder, without a user name, and files whose encoding the locale would choose."""

import ast
import getpass
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from m3col.runtime import home_folder

REPOSITORY = Path(__file__).resolve().parents[2]
_NAMES = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture
def unknown(monkeypatch, tmp_path):
    """A user id that the system knows nothing of."""
    for name in _NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back, whatever is set meanwhile
        monkeypatch.delenv(name)

    def lookup(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", lookup)
    monkeypatch.setattr(home_folder.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_an_unknown_user_gets_a_home_and_a_name(unknown):
    home_folder.settle()
    home = Path.home()
    assert home == unknown / f"m3col-home-{os.getuid()}" and home.stat().st_mode & 0o777 == 0o700
    assert getpass.getuser() == str(os.getuid())
    home_folder.settle()
    assert Path.home() == home


@pytest.mark.parametrize("name", ["LOGNAME", "USER", "LNAME", "USERNAME"])
def test_a_name_that_is_there_stays(unknown, monkeypatch, name):
    monkeypatch.setenv(name, "ada")
    home_folder.settle()
    assert getpass.getuser() == "ada"


@pytest.mark.parametrize("home", ["/", "/nonexistent", "/tmp", ""])
def test_a_home_that_is_said_stays(unknown, monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    home_folder.settle()
    assert os.environ["HOME"] == home and not list(unknown.iterdir())


@pytest.mark.parametrize("made", ["link", "open", "file"])
def test_a_folder_of_somebody_else_is_no_home(unknown, made):
    """Whoever may write the folder for temporary files can put something of this name there."""
    path = unknown / f"m3col-home-{os.getuid()}"
    if made == "link":
        path.symlink_to(unknown)
    elif made == "open":
        path.mkdir()
        path.chmod(0o777)
    else:
        path.write_text("", encoding="utf-8")
    home_folder.settle()
    assert Path.home() != path and Path.home().stat().st_mode & 0o777 == 0o700


def test_a_known_user_is_left_alone():
    before = dict(os.environ)
    home_folder.settle()
    assert dict(os.environ) == before


def test_it_is_settled_by_the_first_import(tmp_path):
    """As a user whose home and name nobody knows: `pwd` is made to know nobody."""
    code = (
        "import pwd; pwd.getpwuid = {}.__getitem__\n"
        "import m3col, pathlib, getpass, matplotlib\n"
        "home = pathlib.Path.home()\n"
        "print(home.name, getpass.getuser(), matplotlib.get_configdir().startswith(str(home)))"
    )
    kept = {name: value for name, value in os.environ.items() if name not in _NAMES and not name.startswith("XDG_")}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env={**kept, "TMPDIR": str(tmp_path)}, capture_output=True,
        encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert ended.stdout.split() == [f"m3col-home-{os.getuid()}", str(os.getuid()), "True"], ended.stderr


_OPENS = {"open": 1, "read_text": 0, "write_text": 1, "fdopen": 1, "NamedTemporaryFile": 0, "TemporaryFile": 0}
_RUNS = ("run", "Popen", "check_output", "check_call")
_NO_FILES = ("os", "webbrowser", "Image", "archive")  # whose `open` opens no text


def _names_no_encoding(call: ast.Call) -> bool:
    """Whether a call opens a text file, or reads what a process writes, in the encoding of the locale."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    named = {word.arg: word.value for word in call.keywords}
    if name == "open" and isinstance(function, ast.Attribute) and getattr(function.value, "id", "") in _NO_FILES:
        return False
    if name in _RUNS:
        return bool({"text", "universal_newlines"} & set(named)) and "encoding" not in named
    if name not in _OPENS or "encoding" in named or None in named:
        return False
    mode = named.get("mode")
    places = call.args[0:1] if name == "open" and isinstance(function, ast.Attribute) else call.args[1:2]
    if mode is None and name in ("open", "fdopen") and places:
        mode = places[0]
    if name in ("NamedTemporaryFile", "TemporaryFile"):
        mode = mode or (call.args[0] if call.args else ast.Constant("w+b"))
    if mode is not None and not isinstance(mode, ast.Constant):
        return True
    if name in ("read_text", "write_text"):
        return len(call.args) <= _OPENS[name]
    return mode is None or "b" not in mode.value


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("open(path)", True), ("open(path, 'w')", True), ("open(path, 'rb')", False), ("path.open()", True),
        ("path.open('a')", True), ("path.open('wb')", False), ("path.open(mode='rb')", False),
        ("path.read_text()", True), ("os.open(path, flags)", False),
        ("path.read_text('utf-8')", False), ("path.write_text(text)", True), ("path.write_text(text, 'utf-8')", False),
        ("os.fdopen(handle, 'w')", True), ("open(path, encoding='utf-8')", False), ("open(path, mode)", True),
        ("NamedTemporaryFile()", False), ("NamedTemporaryFile('w')", True), ("subprocess.run(c, text=True)", True),
        ("subprocess.run(c, text=True, encoding='utf-8')", False), ("subprocess.run(c)", False),
    ],
)  # fmt: skip
def test_the_search_for_encodings_sees_them(code, expected):
    (call,) = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    assert _names_no_encoding(call) is expected


@pytest.mark.parametrize("package", ["m3col", "tune", "jobs"])
def test_every_text_file_is_opened_with_its_encoding(package):
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}: {ast.unparse(node)[:90]}"
        for path in sorted((REPOSITORY / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _names_no_encoding(node)
    ]
    assert not wrong, "\n".join(wrong)
