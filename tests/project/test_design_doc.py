"""docs/design.md names files and functions that are there, and its walks are short."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "design.md").read_text(encoding="utf-8")
STEP = re.compile(r"^\d+\. `([\w/]+\.py)` `(\w+)`: ", re.MULTILINE)
LONGEST_WALK = 12


def test_every_file_that_is_named_is_there():
    named = re.findall(r"`((?:m3col|tune|jobs|tests|examples|benchmarks)/[\w/]*(?:\.py|/))`", PAGE)
    assert len(named) > 30 and [name for name in named if not (REPOSITORY / name).exists()] == []


def test_each_walk_goes_through_things_that_are_there_and_through_few_files():
    section = PAGE[PAGE.index("## Two walks") : PAGE.index("## How a search runs")]
    walks = re.split(r"\n\n(?=A sample)", section)
    assert len(walks) == 2
    for walk in walks:
        steps = STEP.findall(walk)
        assert 5 < len(steps) <= LONGEST_WALK
        for path, name in steps:
            tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
            assert name in {getattr(node, "name", None) for node in tree.body}, (path, name)


def test_every_folder_of_the_packages_is_in_a_table():
    for package in ("m3col", "tune"):
        folders = {path.parent.name for path in (REPOSITORY / package).glob("*/__init__.py")}
        assert [name for name in sorted(folders) if f"| `{name}/` |" not in PAGE] == []
