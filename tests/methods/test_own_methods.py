"""A method of the user's own: named in a config, trained, searched, saved and loaded, without an entry in our table."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import m3col
import tune
from jobs.cluster import staging
from m3col.config import loading
from m3col.errors import InputError
from m3col.methods import registry
from m3col.tasks import registry as tasks
from tests.support.helpers import tiny_data

DATA = tiny_data()
ARRAYS = {"train": (DATA.train.inputs, DATA.train.labels), "test": (DATA.test.inputs, DATA.test.labels)}

REPOSITORY = Path(__file__).resolve().parents[2]
OWN = "gated_sum:GatedSum"


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "examples"))
    registry._installed.cache_clear()
    yield
    registry._installed.cache_clear()


def faults(**raw) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        loading.load({"method": OWN, **raw})
    return caught.value.faults


def trained(runs: Path) -> m3col.TrainResult:
    wanted = {"method": OWN, "train.epochs": 3, "objective.smoothing": 0.3, "validation.kind": "holdout"}
    return m3col.train("digits", data=ARRAYS, overrides=wanted, runs=runs, tracking_uri="none")


def test_it_is_trained_and_its_outputs_are_reported(tmp_path):
    result = trained(tmp_path)
    assert result.config.objective.smoothing == 0.3 and result.config.mix is None
    assert {"val/accuracy_view_0", "val/ce_fused", "test/accuracy"} <= set(result.metrics)
    assert result.metrics["train/loss"] < result.history["train/loss"].iloc[0]


def test_its_checkpoint_is_loaded_where_its_module_was_imported_and_nowhere_else(tmp_path):
    result = trained(tmp_path)
    inputs = DATA.test.inputs
    np.savez(tmp_path / "inputs.npz", **inputs)
    code = (
        "import sys; import numpy as np; {0}; import m3col\n"
        "inputs = dict(np.load(sys.argv[2]))\n"
        "np.save(sys.argv[3], m3col.load(sys.argv[1]).predict_proba(inputs))"
    )
    words = [str(result.checkpoint), str(tmp_path / "inputs.npz"), str(tmp_path / "found.npy")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "examples")])}

    def ran(first: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code.format(first), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)

    refused = ran("pass")
    assert refused.returncode == 1 and "write `import gated_sum` first" in refused.stderr
    assert ran("import gated_sum").returncode == 0
    assert np.array_equal(np.load(tmp_path / "found.npy"), result.predict_proba(inputs))


def test_keys_of_other_methods_and_misspelt_ones_are_refused():
    (line,) = faults(objective={"alpha": 0.2})
    assert "objective.alpha is not a key of method 'gated_sum:GatedSum'" in line and "objective.smoothing" in line
    (line,) = faults(objective={"smothing": 0.2})
    assert "did you mean 'objective.smoothing'" in line
    (line,) = faults(mix={"level": "input"})
    assert "mix.level is not a key of method" in line
    (line,) = faults(objective={"smoothing": 1.5})
    assert "objective.smoothing must be <= 1, but got 1.5; the nearest valid value is 1" in line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gated_sum:GatedSun", "gated_sum has no 'GatedSun'; did you mean 'GatedSum'?"),
        ("gated_sum:Share", "Share is not a subclass of m3col.methods.base.Method"),
        ("no_such_module:GatedSum", "cannot import no_such_module"),
        ("gated_sum.GatedSum", "name a class of your own as my_package.my_module:MyMethod"),
        ("m3coll", "did you mean 'm3col'?"),
        ("single:view_0", "method 'single:view_0'"),
    ],
)
def test_a_class_that_is_none_is_a_fault_with_its_reason(name, words):
    with pytest.raises(InputError) as caught:
        loading.load({"method": name})
    assert len(caught.value.faults) == 1 and words in caught.value.faults[0]


def test_whatever_its_module_raises_is_a_fault_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_method.py").write_text("value = 1 / 0\n")
    (tmp_path / "torn_method.py").write_text("def (\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, words in (("broken_method", "division by zero"), ("torn_method", "invalid syntax")):
        with pytest.raises(InputError) as caught:
            loading.load({"method": f"{name}:Method"})
        (line,) = caught.value.faults
        assert f"importing {name} fails: " in line and words in line


def test_an_entry_of_a_search_is_a_method_and_a_modality():
    assert registry.split("single:rna.seq") == ("single", "rna.seq")
    assert registry.split("m3col") == ("m3col", "")
    assert registry.split(OWN) == (OWN, "")
    assert registry.split("gated_sum:GatedSum:rna") == (OWN, "rna")
    assert registry.split("singel:rna") == ("singel", "rna")


def test_an_installed_package_registers_its_methods(tmp_path, monkeypatch):
    package = tmp_path / "own_methods-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: own-methods\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[m3col.methods]\ngated = {OWN}\nm3col = {OWN}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._installed.cache_clear()
    assert registry.names() == (*registry.TABLE, "gated")  # no package replaces a method of ours
    assert loading.load({"method": "gated"}).to_dict()["objective"]["smoothing"] == 0.1
    assert registry.find("gated").display_name == "gated"


def test_the_command_finds_it_in_the_current_folder(tmp_path):
    shutil.copy(REPOSITORY / "examples" / "gated_sum.py", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def ran(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "jobs.cli", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    code, out = ran(
        "train", "digits", f"method={OWN}", "train.epochs=1", "--runs-dir", "runs", "--tracking-uri", "none"
    )
    assert code == 0, out
    model = out.split("checkpoint ")[1].strip()
    code, out = ran("evaluate", model, "--runs-dir", "runs")
    assert code == 2 and "write `import gated_sum` first" in out and "--import gated_sum" in out
    code, out = ran("evaluate", model, "--runs-dir", "runs", "--import", "gated_sum")
    assert code == 0 and "test/accuracy" in out, out
    code, out = ran("evaluate", model, "--import", "gated_sun")
    assert code == 2 and "--import gated_sun: No module named 'gated_sun'" in out


def test_a_job_of_a_cluster_takes_its_module_along(tmp_path):
    loading.load({"method": OWN})
    with staging.staged("digits", []) as stage:
        assert (stage.folder / "gated_sum.py").read_text() == (REPOSITORY / "examples" / "gated_sum.py").read_text()


@pytest.mark.slow
def test_it_is_searched_on_ray_with_its_own_key(tmp_path):
    found = tune.search(
        {
            "base": "digits", "methods": [OWN], "space": {"objective.smoothing": {"low": 0.0, "high": 0.5}},
            "search": {"trials": 2, "replicates": 0, "confirm": None, "concurrency": 1},
            "final": {"seeds": 1, "baselines": False},
        },
        data=ARRAYS, overrides={"train.epochs": 2, "model.embedding_dim": 8}, runs=tmp_path, tracking_uri="none",
    )  # fmt: skip
    assert found.best_config["method"] == OWN and len(found.trials) == 2
    assert found.trials["state"].tolist() == ["complete", "complete"]
    assert 0 <= found.best_config["objective"]["smoothing"] <= 0.5


def test_its_gradient_reaches_the_gates():
    config = loading.load({"method": OWN})
    torch.manual_seed(0)
    method = registry.load(OWN)(config, features={"a": 3, "b": 4}, task=tasks.build(classes=2))
    logits = method.logits({"a": torch.randn(5, 3), "b": torch.randn(5, 4)})
    logits["fused"].sum().backward()
    assert method.gates.grad.abs().sum() > 0 and not hasattr(method, "fusion")
