"""The layout: no import circle, no large file, few files at the top of a package, methods known in one folder only."""

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3col.methods import registry

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("m3col", "tune", "jobs")
AT_TOP = {"m3col": 12, "tune": 6, "jobs": 4}
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sources(*PACKAGES)
}


def imported(path: Path) -> Iterator[str]:
    """Every module of the project that a file imports, also inside functions and for type checking."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, in order; none: []."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for other in sorted(graph.get(module, ())):
            if modules := walk(other, [*path, module]):
                return modules
        done.add(module)
        return []

    return next((modules for module in graph if (modules := walk(module, []))), [])


def test_the_search_for_circles_finds_one():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_module_imports_itself_on_the_way():
    graph = {name: {other for other in imported(path) if other in MODULES} - {name} for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 300  # else it reads nothing
    assert circle(graph) == []


@pytest.mark.parametrize(("package", "most"), AT_TOP.items())
def test_few_files_stand_at_the_top_of_a_package(package, most):
    assert len(list((REPOSITORY / package).glob("*.py"))) <= most


def test_files_and_functions_are_short():
    long = []
    for path in sources(*PACKAGES, "tests", "benchmarks", "examples"):
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > LONGEST_FILE:
            long.append(f"{path}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body  # a public docstring may be long
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path}:{node.lineno}: {node.name} has {lines} lines")
    assert long == []


def test_a_text_is_a_statement_only_as_a_docstring():
    """At the start of a module, class or function, or behind the assignment that it describes."""
    stray = []
    for path in sources(*PACKAGES, "benchmarks"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            body: list[ast.stmt] = getattr(node, "body", [])
            for before, statement in itertools.pairwise(body) if isinstance(body, list) else ():
                value = statement.value if isinstance(statement, ast.Expr) else None
                is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
                if is_text and not isinstance(before, ast.Assign | ast.AnnAssign):
                    stray.append(f"{path}:{statement.lineno}")
    assert stray == []


def test_no_other_folder_knows_a_method_by_name():
    """Except `m3col`, which is also the name of the package. The default method is in the registry."""
    occurrences = []
    for path in sources(*PACKAGES):
        if path.is_relative_to(REPOSITORY / "m3col" / "methods"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in set(registry.TABLE) - {"m3col"}:
                occurrences.append((str(path.relative_to(REPOSITORY)), node.value))
    # A recipe of augmentations, named after the paper that has it, a function of data sets, a data set, and a form of
    # baselines.
    assert set(occurrences) <= {
        ("m3col/augmentation/registry.py", "simclr"),
        ("m3col/data/__init__.py", "concat"),
        ("m3col/data/catalog.py", "n24news"),
        ("m3col/data/checks/image_text.py", "n24news"),
        ("m3col/evaluation/baseline_table.py", "late"),
    }
