"""Terminals and pipes of every kind: no line that cannot be shown ends a command or spoils what it did."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cli
from jobs.commands import dispatch
from jobs.terminal import streams
from jobs.terminal.console import print_metrics
from m3col.errors import InputError

_TEXT = "sd 0.5 ± 0.1 − 2 → 3… “x” 日本 ü 🙂 \udc8f"


def stream(encoding: str, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors, write_through=True)


def written(out: io.TextIOWrapper) -> str:
    assert isinstance(out.buffer, io.BytesIO)
    return out.buffer.getvalue().decode(out.encoding)


@pytest.mark.parametrize(
    ("encoding", "errors", "expected"),
    [
        ("ascii", "strict", 'sd 0.5 +/- 0.1 - 2 -> 3... "x" \\u65e5\\u672c \\xfc \\U0001f642 \\udc8f'),
        ("ascii", "surrogateescape", 'sd 0.5 +/- 0.1 - 2 -> 3... "x" \\u65e5\\u672c \\xfc \\U0001f642 \\udc8f'),
        ("latin-1", "strict", 'sd 0.5 ± 0.1 - 2 -> 3... "x" \\u65e5\\u672c ü \\U0001f642 \\udc8f'),
        ("cp1252", "strict", "sd 0.5 ± 0.1 - 2 -> 3… “x” \\u65e5\\u672c ü \\U0001f642 \\udc8f"),
        ("shift_jis", "strict", "sd 0.5 ± 0.1 − 2 → 3… “x” 日本 \\xfc \\U0001f642 \\udc8f"),
        ("utf-8", "strict", "sd 0.5 ± 0.1 − 2 → 3… “x” 日本 ü 🙂 \\udc8f"),
        ("utf-16", "strict", "sd 0.5 ± 0.1 − 2 → 3… “x” 日本 ü 🙂 \\udc8f"),
    ],
)
def test_every_line_can_be_written(monkeypatch, encoding, errors, expected):
    for name in ("stdout", "stderr"):
        out = stream(encoding, errors)
        monkeypatch.setattr(sys, name, out)
        streams.settle()
        getattr(sys, name).write(_TEXT)
        assert written(out) == expected


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r"])
def test_a_table_stays_legible(monkeypatch, encoding):
    out = stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    streams.settle()
    print_metrics({"test/accuracy": 0.5, "test/日本": 0.25})
    text = written(out)
    assert "| test/accuracy" in text and "0.5000 |" in text and "test/\\u65e5\\u672c" in text
    assert "\\u2500" not in text


@pytest.mark.parametrize("gone", ["none", "closed"])
def test_a_closed_stream_loses_what_is_written(monkeypatch, gone):
    out = None if gone == "none" else stream("utf-8")
    if out is not None:
        out.close()
    monkeypatch.setattr(sys, "stdout", out)
    streams.settle()
    sys.stdout.write("lost")
    sys.stdout.flush()


class _Full(io.StringIO):
    """A stream on a disk without room, or a pipe that nobody reads."""

    def __init__(self, error: type[OSError] = OSError) -> None:
        super().__init__()
        self.error = error

    def flush(self) -> None:
        raise self.error(28, "No space left on device")


@pytest.mark.parametrize(("error", "message"), [(OSError, "standard output cannot be written"), (BrokenPipeError, "")])
def test_a_command_whose_output_is_lost_has_failed(monkeypatch, capsys, error, message):
    monkeypatch.setitem(dispatch.COMMANDS, "runs", lambda arguments: sys.stdout.write("runs") - 4)
    monkeypatch.setattr(sys, "stdout", _Full(error))
    assert cli.main(["runs", "list"]) == 1
    assert message in capsys.readouterr().err


def test_a_fault_that_cannot_be_printed_is_still_a_fault(monkeypatch):
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    def refuse(arguments):
        raise InputError(["nothing"])

    monkeypatch.setitem(dispatch.COMMANDS, "runs", refuse)
    monkeypatch.setattr(sys, "stderr", Broken())
    assert cli.main(["runs", "list"]) == 2


def test_a_file_name_that_the_locale_cannot_hold_is_reported_in_one_line(monkeypatch, capsys):
    def fail(arguments):
        raise UnicodeEncodeError("ascii", "日本.csv", 0, 2, "ordinal not in range(128)")

    monkeypatch.setitem(dispatch.COMMANDS, "runs", fail)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    assert cli.main(["runs", "list"]) == 1
    assert capsys.readouterr().err == (
        "failed: file names are in ascii here, which cannot hold '\\u65e5\\u672c.csv'; set PYTHONUTF8=1, or LC_ALL to "
        "a UTF-8 locale such as C.UTF-8\n"
    )


_SHELL = {
    "latin-1": ({"PYTHONIOENCODING": "latin-1"}, ""),
    "locale C": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ""),
    "closed output": ({}, ">&-"),
    "all closed": ({}, "<&- >&- 2>&-"),
    "output nobody reads": ({}, "| true"),
}


@pytest.mark.parametrize("case", _SHELL)
def test_in_a_shell(tmp_path: Path, case):
    """A fault with a name in Japanese: the same exit code everywhere, and never a traceback."""
    folder = tmp_path / "日本"
    folder.mkdir()
    variables, redirected = _SHELL[case]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    command = f'"$0" -m jobs.cli runs rm nothing --yes --runs-dir "$1" {redirected}'
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, sys.executable, str(folder)], env=kept | variables, cwd=Path.cwd(),
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert b"Traceback" not in ended.stderr + ended.stdout and b"Exception ignored" not in ended.stderr
