"""The messages in docs/faq.md are those of the code: commands are run, other quotes are searched in the source."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from jobs import cli

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "faq.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def sessions() -> list[tuple[str, list[str]]]:
    """Each command of the page, with the lines that follow it."""
    parts = [part for block in blocks("console") for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part]
    return [(lines[0], lines[1:]) for lines in (part.splitlines() for part in parts)]


@pytest.fixture
def my_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The faulty folder of the page, in the current folder."""
    folder = tmp_path / "my_folder"
    folder.mkdir()
    (folder / "1_tr.csv").write_text("a,b\n1,2\n<0.05,3\n2,3\n", encoding="utf-8")
    (folder / "2_tr.csv").write_text("0.5,1\n2,0.1\n-7.5,4\n", encoding="utf-8")
    (folder / "labels_tr.csv").write_text("x\ny\nNA\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("command", "lines"), sessions(), ids=[command for command, _ in sessions()])
def test_a_command_gives_the_lines_below_it(command, lines, my_folder, tmp_path, capsys):
    program, *words = shlex.split(command)
    assert program == "m3col" and lines
    assert cli.main(words) == 2
    printed = capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert printed.splitlines() == lines


@pytest.fixture(scope="module")
def constants() -> list[str]:
    """Every text in the code, without its values."""
    paths = [path for package in ("m3col", "tune", "jobs") for path in (REPOSITORY / package).rglob("*.py")]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("quote", [block.strip() for block in blocks("text")])
def test_a_quoted_message_is_in_the_code(quote, constants):
    pieces = [piece for piece in quote.split("…") if piece.strip(" .;")]
    assert pieces and [piece for piece in pieces if not any(piece in text for text in constants)] == []
