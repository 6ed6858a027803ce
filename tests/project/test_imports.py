"""Arrows between the packages, and that all that is imported is named in pyproject.toml."""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("m3col", "tune", "jobs")


def files(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


@cache
def imported(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, also inside functions; relative imports as absolute names."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(REPOSITORY).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def users(package: str, *modules: str) -> set[str]:
    """Files of `package` that import one of `modules` or something inside."""
    return {
        str(path.relative_to(REPOSITORY))
        for path in files(package)
        if any(name == module or name.startswith(f"{module}.") for name in imported(path) for module in modules)
    }


def test_the_reader_of_imports_sees_them():
    assert users("tune", "ray") and "tune/scheduling/optuna_study.py" in users("tune", "optuna")
    assert "m3col/api.py" in users("m3col", "m3col.config")
    assert "tune/checks.py" in users("tune", "m3col.checks.resolve")


def test_m3col_knows_neither_ray_nor_optuna_nor_what_stands_above_it():
    assert users("m3col", "ray", "optuna", "tune", "jobs") == set()


def test_mlflow_is_in_one_file():
    assert users("m3col", "mlflow") == {"m3col/tracking/mlflow_store.py"}
    assert users("tune", "mlflow") == users("jobs", "mlflow") == set()


def test_tune_does_not_know_the_commands_and_writes_ray_tune_in_full():
    assert users("tune", "jobs") == set()
    for path in files("tune"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module == "ray" and any(alias.name == "tune" for alias in node.names)), path
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("ray") and alias.asname == "tune" for alias in node.names), path


def test_ray_is_in_the_engine_only():
    assert "tune/engine/ray_tune.py" in users("tune", "ray")
    assert [path for path in users("tune", "ray") if not path.startswith("tune/engine/")] == []


def names_of(requirements: list[str]) -> set[str]:
    separators = str.maketrans(dict.fromkeys("[>=<~!; ", "\n"))
    return {text.translate(separators).split("\n")[0].lower().replace("_", "-") for text in requirements}


def distributions(top_level: set[str]) -> dict[str, set[str]]:
    installed = by_module()
    return {name: {provider.lower().replace("_", "-") for provider in installed.get(name, [])} for name in top_level}


@cache
def by_module() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def outside(package: str) -> set[str]:
    heads = {name.partition(".")[0] for path in files(package) for name in imported(path)}
    own = {path.stem for path in files(package)}
    return heads - set(sys.stdlib_module_names) - {*PACKAGES, "tests", "benchmarks", ""} - own


def test_everything_imported_is_named_in_pyproject():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    runtime = names_of(project["dependencies"])
    development = runtime | names_of(extras["dev"])
    allowed_by_package = {**dict.fromkeys(PACKAGES, runtime), "tests": development, "benchmarks": development}
    allowed_by_package["m3col"] = runtime | names_of(extras["analysis"]) | names_of(extras["hdf5"])
    for package, allowed in allowed_by_package.items():
        for module, providers in distributions(outside(package)).items():
            assert providers & allowed, f"{package} imports {module} ({providers or 'not installed'}): name it"


def test_constraints_pin_every_named_distribution():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = names_of((REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines())
    assert names_of(project["dependencies"]) <= pinned


def run(code: str, *words: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False,
                          env=environment, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    import m3col

    runs = tmp_path_factory.mktemp("runs")
    return m3col.train("digits", overrides={"train.epochs": 1}, runs=runs, tracking_uri="none").checkpoint


def test_predicting_with_a_checkpoint_imports_neither_ray_nor_optuna_nor_mlflow(model):
    out = run(
        "import sys, m3col\nfrom m3col import data\npredictor = m3col.load(sys.argv[1])\n"
        "inputs = data.load('digits').test.inputs\nprint(predictor.predict_proba(inputs).shape)\n"
        "print([name for name in ('ray', 'optuna', 'mlflow', 'tune', 'jobs') if name in sys.modules])",
        model,
    )
    assert out.splitlines() == ["(1597, 10)", "[]"]


def test_importing_the_packages_waits_for_nothing():
    heavy = "('torch', 'numpy', 'pandas', 'sklearn', 'ray', 'optuna', 'mlflow')"
    out = run(f"import sys, m3col, tune, jobs.cli\nprint([name for name in {heavy} if name in sys.modules])")
    assert out.strip() == "[]"


def test_public_names_are_found():
    import m3col
    import tune

    for package in (m3col, tune):
        assert all(getattr(package, name) is not None for name in package.__all__)
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            _ = package.nonsense
    assert m3col.losses.m3co_loss and m3col.__version__ == metadata.version("m3col")
