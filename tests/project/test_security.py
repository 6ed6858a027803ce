"""Input from others is read as data and never run; secrets are not stored or shown.

That what we start listens on the loopback address alone: tests/tune/engine/test_ray_train.py and tests/jobs/test_ui.py.
"""

import ast
import itertools
import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import m3col
from m3col import tasks
from m3col.config import loading, yaml_files
from m3col.data import loading as data_loading
from m3col.data.arrays import from_arrays
from m3col.data.splits import draw
from m3col.errors import InputError
from m3col.storage import redaction
from m3col.tracking import mlflow_names, mlflow_store
from m3col.training import checkpoint
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.conftest import REPOSITORY
from tests.data.builders import write_folder
from tests.support.helpers import tiny_config, tiny_data
from tests.support.servers import free_port
from tune.config.schema import slug
from tune.study import directory
from tune.study.record import StudyFolder
from tune.study.run_folder import RunFolder

SECRET = "h0rse-staple"

# ---------------------------------------------------------------- what is read is not run


class Bomb:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self):
        return Path.touch, (self._target,)


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[bytes]:
    target = tmp_path / "exploded"
    yield pickle.dumps(Bomb(target))
    assert not target.exists()


def test_the_bomb_works(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset, run = tiny_data(), tiny_config()
    folds = draw(dataset, kind="none")
    training = LockstepTrainer(
        run, TrainingJob(pool=dataset.train, folds=folds, features=dataset.features, task=tasks.build(classes=2))
    )
    training.advance(1)
    folder = tmp_path_factory.mktemp("model") / "model"
    checkpoint.write_model(
        folder, training.trainers, config=run.to_dict(), classes=dataset.classes, features=dataset.features
    )
    return folder


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    target = tmp_path / "model"
    target.mkdir()
    for path in model.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def described(folder: Path) -> dict:
    return json.loads((folder / checkpoint.DESCRIPTION).read_text())


def describe(folder: Path, content: dict) -> None:
    (folder / checkpoint.DESCRIPTION).write_text(json.dumps(content))


def test_a_pickle_in_place_of_weights_is_refused(copy, bomb):
    (copy / "member-0.safetensors").write_bytes(bomb)
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        m3col.load(copy)


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,  # a header of 2^64 bytes
        (10**9).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,1000000]}}',  # beyond the end of the file
        b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}',  # the size overflows
        b'{"a":{"dtype":"PICKLE","shape":[1],"data_offsets":[0,4]}}',
        b"[" * 100_000,
    ],
    ids=["endless", "long", "list", "beyond", "overflow", "dtype", "nested"],
)
def test_weights_with_a_hostile_header_are_refused(copy, header):
    whole = header if header[:1] in (b"\xff", b"\x00", b"\x02") else len(header).to_bytes(8, "little") + header
    (copy / "member-0.safetensors").write_bytes(whole + b"\0" * 16)
    with pytest.raises(InputError, match=r"member-0\.safetensors"):
        m3col.load(copy)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "..", "", ".hidden.safetensors", "x.pt", 7])
def test_a_checkpoint_cannot_name_files_outside_of_its_folder(copy, name):
    (copy.parent / "secret.safetensors").write_bytes((copy / "member-0.safetensors").read_bytes())
    content = described(copy)
    content["members"][0]["file"] = name
    describe(copy, content)
    with pytest.raises(InputError, match=r"must lie in this folder.*nearest valid: 'member-0\.safetensors'"):
        m3col.load(copy)
    with pytest.raises(InputError, match="must lie in this folder"):
        checkpoint.join_models(copy.parent / "joined", [copy])
    assert not (copy.parent / "joined").exists()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "\x80\x04cos\nsystem\n(S'id'\ntR."])
def test_a_description_that_is_no_json_is_refused(copy, text):
    (copy / checkpoint.DESCRIPTION).write_text(text)
    with pytest.raises(InputError, match="not readable as JSON"):
        m3col.load(copy)


def test_a_step_of_preprocessing_is_a_name_in_a_table(copy):
    content = described(copy)
    content["config"]["data"]["preprocess"] = ["os.system"]
    describe(copy, content)
    with pytest.raises(InputError, match=r"os\.system"):
        m3col.load(copy)


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:pathlib.Path.touch [{target}]",
        "a: !!python/name:os.system",
        "!!python/object/new:type [x]",
        "a: !!python/module:os",
        "a: !include /etc/passwd",
    ],
)
def test_yaml_tags_construct_nothing(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text.replace("{target}", str(tmp_path / "exploded")))
    for read in (yaml_files.read, loading.load):
        with pytest.raises(InputError, match="not valid YAML"):
            read(path)
    assert not (tmp_path / "exploded").exists()


def test_overrides_are_values(tmp_path):
    target = tmp_path / "exploded"
    for word in (f"train.epochs=!!python/object/apply:pathlib.Path.touch [{target}]", "train.epochs=__import__('os')"):
        with pytest.raises(InputError):
            loading.load("digits", overrides=dict([loading.parse_override(word)]))
    assert not target.exists()


def test_aliases_of_yaml_do_not_fill_the_memory(tmp_path):
    names = "abcdefghij"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]" for p, n in itertools.pairwise(names)]
    (tmp_path / "run.yaml").write_text("\n".join(lines))
    start = time.monotonic()
    with pytest.raises(InputError, match="unknown key"):
        loading.load(tmp_path / "run.yaml")
    assert time.monotonic() - start < 5


def test_a_pickle_in_place_of_a_table_is_refused(tmp_path, bomb):
    folder = write_folder(tmp_path / "rosmap", modalities=3)
    for name in ("1_tr.csv", "labels_tr.csv"):
        (folder / name).write_bytes(bomb)
    with pytest.raises(InputError, match=r"1_tr\.csv"):
        data_loading.load("rosmap", data_dir=folder)


def test_arrays_of_objects_are_refused(tmp_path):
    inputs = np.array([[Bomb(tmp_path / "exploded"), 1.0]] * 4, dtype=object)
    with pytest.raises(InputError):
        from_arrays({"view": inputs}, [0, 1, 0, 1])
    assert not (tmp_path / "exploded").exists()


# ---------------------------------------------------------------- names that become paths


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "..", ".", "a/b", "a\0b", ".hidden", "-x"])
def test_the_name_of_a_study_is_a_plain_name(tmp_path, name):
    runs = tmp_path / "runs"
    runs.mkdir()

    class Named:
        name = "digits"

    with pytest.raises(InputError, match="nearest valid"):
        directory.new_name(runs, name, Named())


@pytest.mark.parametrize("name", ["..", ".", "../..", "/", "a/../../b", ""])
def test_the_name_of_a_row_or_an_experiment_stays_below_its_folder(name):
    for place in (slug(name), mlflow_names.folder(name)):
        assert Path(place).name == place and place not in ("", ".", "..")


# ---------------------------------------------------------------- secrets


def test_an_unreachable_store_is_named_without_its_password(tmp_path):
    uri = f"http://ann:{SECRET}@127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=r"http://\*\*\*@127\.0\.0\.1") as caught:
        mlflow_store.connect(uri, tmp_path)
    assert SECRET not in str(caught.value)


def test_a_tracker_shows_its_address_without_a_password(tmp_path):
    tracker = mlflow_store.Tracker(None, uri=f"postgresql://ann:{SECRET}@db/mlflow", artifacts=None)  # type: ignore[arg-type]
    assert tracker.shown == "postgresql://ann:***@db/mlflow"


def test_a_thread_that_cannot_write_to_mlflow_keeps_the_password_to_itself(tmp_path, monkeypatch):
    from tune.tracking import live_sync, study_to_mlflow

    uri = f"http://ann:{SECRET}@mlflow:5000"

    class Broken:
        shown = redaction.redacted(uri)

    def refuse(*arguments, **named):
        raise ConnectionError(f"API request to {uri}/api/2.0 failed")

    monkeypatch.setattr(study_to_mlflow, "StudyToMlflow", refuse)
    lines: list[str] = []
    with live_sync.Background(StudyFolder(tmp_path), Broken(), every_s=0.01, limit_s=1, warn=lines.append):  # type: ignore[arg-type]
        time.sleep(0.1)
    assert len(lines) == 2 and SECRET not in "".join(lines) and "http://***@mlflow:5000" in lines[0]


def test_a_runs_log_has_no_passwords(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    run = RunFolder(tmp_path)
    run.log(f"Traceback: cannot write with {SECRET}, see postgresql://ann:{SECRET}@db/optuna")
    text = (tmp_path / "log.txt").read_text()
    assert SECRET not in text and "postgresql://ann:***@db/optuna" in text


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("tracking.uri", f"http://ann:{SECRET}@mlflow:5000"),
        ("storage.database", f"postgresql://ann:{SECRET}@db/optuna"),
        ("storage.uri", f"s3://AKIA:{SECRET}@bucket/prefix"),
    ],
)
def test_a_password_in_a_search_config_is_refused_and_not_repeated(key, url):
    from tune.config import loading as search_config

    with pytest.raises(InputError, match=key) as caught:
        search_config.load("digits", overrides={key: url})
    assert SECRET not in str(caught.value)


# ---------------------------------------------------------------- the code itself

PACKAGES = ("m3col", "tune", "jobs")
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "np.load", "numpy.load", "pd.read_pickle", "pd.eval",
    "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all", "os.system", "os.popen", "jsonpickle.decode",
}  # fmt: skip


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def dangers(text: str) -> list[str]:
    """Calls and imports of a source file that would run or unpickle foreign content."""
    uses = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            uses += [name for name in names if name.partition(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            uses += [name] if name in FORBIDDEN_CALLS else []
            keywords = {word.arg: word.value for word in node.keywords}
            for switch in ("shell", "allow_pickle"):
                if isinstance(value := keywords.get(switch), ast.Constant) and value.value is True:
                    uses.append(f"{name}({switch}=True)")
            if name == "yaml.load" and dotted(keywords.get("Loader", ast.Constant(None))) != "_Loader":
                uses.append("yaml.load")
    return uses


def test_the_reader_of_code_sees_dangers():
    text = "import pickle\nfrom dill import x\neval(a)\nnp.load(b)\nf(shell=True)\nyaml.load(c, Loader=yaml.Loader)"
    assert dangers(text) == ["pickle", "dill", "eval", "np.load", "f(shell=True)", "yaml.load"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_unpickles_evaluates_or_calls_a_shell(package):
    uses = {
        str(path.relative_to(REPOSITORY)): lines
        for path in sorted((REPOSITORY / package).rglob("*.py"))
        if (lines := dangers(path.read_text(encoding="utf-8")))
    }
    assert uses == {}
