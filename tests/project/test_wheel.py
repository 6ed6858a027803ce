"""The wheel: everything that is needed, from another directory, without the checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = target.glob("*.whl")
    return path


def test_it_carries_the_packages_the_configs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    described = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"m3col", "tune", "jobs", described}
    packed = {name.removeprefix("m3col/") for name in names if name.startswith("m3col/configs/")}
    assert packed == {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "configs").rglob("*.yaml")}
    files = [path for package in ("m3col", "tune", "jobs") for path in (REPOSITORY / package).rglob("*.py")]
    assert {name for name in names if name.endswith(".py")} == {str(path.relative_to(REPOSITORY)) for path in files}


# An editable install of the checkout may stand beside the dependencies: its finder and its paths are taken away.
_WITHOUT_CHECKOUT = """
import sys
from pathlib import Path
installed, checkout = Path(sys.argv.pop(1)), Path(sys.argv.pop(1))
sys.path[:] = [str(installed)] + [p for p in sys.path if p and Path(p).resolve() != checkout]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import jobs.cli, m3col, tune
for package in (m3col, tune, jobs):
    assert Path(package.__file__).is_relative_to(installed), package.__file__
from m3col.config import loading
assert loading.folder() == installed / "m3col" / "configs"
sys.exit(jobs.cli.main(sys.argv[1:]))
"""


def test_installed_it_trains_digits_from_another_directory(wheel, tmp_path):
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run(pip, check=True, timeout=300)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = ["train", "digits", "train.epochs=3", "--tracking-uri", "none"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _WITHOUT_CHECKOUT, str(installed), str(REPOSITORY), *words],
        cwd=elsewhere, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "epoch 3/3" in done.stdout and "test/accuracy" in done.stdout
    assert (elsewhere / "runs" / "train" / "digits-m3col-1" / "model" / "checkpoint.json").exists()
    script = (installed / "bin" / "m3col").read_text(encoding="utf-8")
    assert "from jobs.cli import main" in script


def test_make_help_lists_the_targets():
    done = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    assert {line.split()[1] for line in done.stdout.splitlines()} >= {"search", "test", "lint", "ui", "help", "install"}


def test_what_has_to_pass_is_test_and_lint():
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK) and subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    run = script.read_text(encoding="utf-8")
    assert re.findall(r"\bmake (\w+) *(?:2>&1|\|\||$)", run, flags=re.MULTILINE) == ["install", "lint", "test"]


@pytest.mark.parametrize(("fails", "code"), [("none", 0), ("test", 2), ("lint", 1), ("install", 2)])
def test_one_that_fails_fails_the_whole_and_the_tests_say_the_last_word(tmp_path, fails, code):
    """The script with another `make`, which says its target and fails where it is told to."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(REPOSITORY / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "make").write_text(
        f'#!/bin/sh\n[ "$1" != test ] || sleep 1\necho "$1 ran"\n[ "$1" != {fails} ] || exit 2\n'
    )
    (tmp_path / "make").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", ".ci/run"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )  # fmt: skip
    assert done.returncode == code
    lines = [line for line in done.stdout.splitlines() if line.endswith(" ran")]
    assert lines == (["install ran"] if fails == "install" else ["install ran", "lint ran", "test ran"])
