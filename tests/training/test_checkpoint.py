"""Checkpoints: whole or not there, readable without running code, refused by name where they are not ours."""

import json
import shutil
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

import m3col
from m3col import tasks
from m3col.data.splits import draw
from m3col.errors import InputError
from m3col.training import checkpoint
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support.helpers import tiny_config, tiny_data

DATA = tiny_data()


def trained(epochs: int = 3, *, keep_best: bool = False, **overrides) -> LockstepTrainer:
    folds = draw(DATA, kind="kfold", folds=2, seed=0)
    task = TrainingJob(
        pool=DATA.train, folds=folds, features=DATA.features, task=tasks.build(classes=2), keep_best=keep_best
    )
    training = LockstepTrainer(tiny_config(validation__folds=2, **overrides), task)
    training.advance(epochs)
    return training


def write_model(folder, training: LockstepTrainer | None = None, **overrides):
    training = training or trained(**overrides)
    config = training.config.to_dict()
    checkpoint.write_model(folder, training.trainers, config=config, classes=DATA.classes, features=DATA.features)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def copy(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copy")


def change(folder, **changes) -> None:
    path = folder / "checkpoint.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({key: v for key, v in {**found, **changes}.items() if v is not ...}))


def refusal(folder) -> str:
    with pytest.raises(InputError) as caught:
        m3col.load(folder)
    (line,) = caught.value.faults
    assert "\n" not in line and str(folder) in line
    return line


def test_a_checkpoint_is_json_and_safetensors_only(model):
    assert sorted(path.name for path in model.iterdir()) == [
        "checkpoint.json", "member-0.safetensors", "member-1.safetensors",
    ]  # fmt: skip
    found = checkpoint.describe(model, "model")
    assert (found["made_by"], found["format"], found["kind"]) == ("m3col", 1, "model")
    assert found["classes"] == list(DATA.classes) and len(found["members"]) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, ("format 2 is newer", "(1)", "update")),
        ({"format": ...}, ("damaged", "'format'", "None")),
        ({"format": True}, ("damaged", "'format'")),
        ({"format": 0}, ("damaged", "'format'")),
        ({"made_by": "other"}, ("foreign",)),
        ({"kind": "training"}, ("must be a model checkpoint, but is a training",)),
        ({"members": ...}, ("damaged", "members")),
        ({"classes": 3, "features": ...}, ("damaged", "classes, features")),
        ({"members": [{"file": "member-0.safetensors"}]}, ("damaged", "preprocess")),
        ({"members": [{"file": "no.safetensors", "preprocess": {}}]}, ("no.safetensors", "cannot be read")),
        ({"members": [{"preprocess": {}}, 3]}, ("damaged", "file or preprocess of member 0", "of member 1")),
        ({"members": []}, ("damaged", "members")),
        ({"features": {"view_0": 3}}, ("damaged", "features")),
        ({"features": {"view_0": ["a", "b"]}}, ("damaged", "features of 'view_0'")),
        ({"encoders": {"view_0": 3}}, ("damaged", "encoders")),
        ({"config": {"method": "nonsense"}}, ("method 'nonsense' is unknown",)),
        ({"config": {}}, ("weights do not fit",)),
    ],
)
def test_newer_foreign_and_damaged_descriptions_are_refused_in_one_line(copy, changes, words):
    change(copy, **changes)
    line = refusal(copy)
    assert all(word in line for word in words), line


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe\x00", b"null"])
def test_what_is_no_description_is_refused(copy, content):
    (copy / "checkpoint.json").write_bytes(content)
    assert "checkpoint.json" in refusal(copy)


def test_files_that_are_cut_missing_or_foreign_are_refused(copy, tmp_path):
    member = copy / "member-1.safetensors"
    content = member.read_bytes()
    for broken in (content[:-10], content[:20], b"", b"PK\x03\x04 a pickle"):
        member.write_bytes(broken)
        assert "member-1.safetensors: cannot be read as safetensors" in refusal(copy)
    member.unlink()
    assert "member-1.safetensors" in refusal(copy)
    assert "not a checkpoint" in refusal(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    assert "not a checkpoint" in refusal(tmp_path / "file")


def test_tensors_of_another_model_are_refused(copy):
    member = copy / "member-0.safetensors"
    tensors = load_file(member)
    name = next(name for name in tensors if name.startswith("weights."))
    save_file({**tensors, name: torch.zeros(3)}, member)
    assert "weights do not fit the config" in refusal(copy)
    save_file({key: value for key, value in tensors.items() if not key.startswith("preprocess.")}, member)
    assert "preprocess" in refusal(copy)


def test_members_join_into_one_ensemble(model, tmp_path):
    joined = tmp_path / "joined"
    checkpoint.join_models(joined, [model, model])
    assert len(m3col.load(joined)) == 4
    inputs = DATA.test.inputs
    assert (m3col.load(joined).predict_proba(inputs) == m3col.load([model, model]).predict_proba(inputs)).all()


def test_a_damaged_member_does_not_join(copy, tmp_path):
    for members in ([{"preprocess": {}}], [3], []):
        change(copy, members=members)
        with pytest.raises(InputError, match="damaged"):
            checkpoint.join_models(tmp_path / "joined", [copy])
    assert not (tmp_path / "joined").exists()


def test_a_folder_is_whole_or_not_there(tmp_path, monkeypatch):
    training = trained()
    monkeypatch.setattr(checkpoint.atomic_files, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        checkpoint.write_training(tmp_path / "epoch-000003", training)
    assert list(tmp_path.iterdir()) == []


def test_the_keeper_keeps_two_and_clears_what_a_kill_left(tmp_path):
    keeper = checkpoint.Keeper(tmp_path / "state", every_s=0)
    (tmp_path / "state" / ".epoch-000001.torn").mkdir(parents=True)
    training = trained(epochs=1)
    for epoch in (2, 3, 4):
        training.advance(epoch)
        keeper.write(training)
    assert sorted(path.name for path in keeper.folder.iterdir()) == ["epoch-000003", "epoch-000004"]
    assert checkpoint.newest_training(tmp_path).name == "epoch-000004"
    keeper.clear()
    assert list(keeper.folder.iterdir()) == [] and checkpoint.newest_training(tmp_path) is None


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    training = trained(epochs=2)
    for epoch in (2, 3, 4, 5):
        training.advance(epoch)
        checkpoint.write_training(tmp_path / f"epoch-{epoch:06d}", training)
    (tmp_path / "epoch-000005" / "checkpoint.json").write_text("{")
    tensors = tmp_path / "epoch-000004" / "fold-1.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-8])
    assert checkpoint.newest_training(tmp_path).name == "epoch-000003"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: change(folder, best=...),
        lambda folder: change(folder, best={"epoch": 4}),
        lambda folder: change(folder, history=[{"epoch": 1}]),
        lambda folder: change(folder, history=[3]),
        lambda folder: (folder / "fold-0.safetensors").unlink(),
        lambda folder: (folder / "best-1.safetensors").unlink(),
        lambda folder: (folder / "probes.safetensors").unlink(),
    ],
    ids=["no best", "half a best", "half a record", "no record", "no fold", "no best weights", "no probes"],
)
def test_a_checkpoint_that_lacks_a_part_is_passed_over_for_the_one_before(tmp_path, spoil):
    training = trained(epochs=2, keep_best=True)
    for epoch in (3, 4):
        training.advance(epoch)
        checkpoint.write_training(tmp_path / f"epoch-{epoch:06d}", training)
    assert checkpoint.newest_training(tmp_path).name == "epoch-000004"
    spoil(tmp_path / "epoch-000004")
    assert checkpoint.newest_training(tmp_path).name == "epoch-000003"
    with pytest.raises(InputError):
        checkpoint.read_training(tmp_path / "epoch-000004", trained(epochs=0, keep_best=True))


def test_checkpoints_are_rarer_where_writing_is_slow(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    keeper = checkpoint.Keeper(None, every_s=60)
    assert not keeper.due()
    clock[0] += 60
    assert keeper.due()
    keeper.cost_s = 4.0  # a twentieth of 80 s
    assert not keeper.due()
    clock[0] += 20
    assert keeper.due()


_FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails, as on a full disk
from pathlib import Path
from m3col.training import checkpoint
from tests.training.test_checkpoint import trained
folder = Path(sys.argv[1])
training = trained(epochs=2)
keeper = checkpoint.Keeper(folder, every_s=0)
keeper.write(training)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
training.advance(4)
try:
    keeper.write(training)
except OSError as error:
    print("OSError:", error)
training.advance(6)
print(training.epoch, [path.name for path in folder.iterdir()])
"""


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    done = subprocess.run([sys.executable, "-c", _FULL_DISK, str(tmp_path / "state")], capture_output=True, text=True,
                          timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith("OSError:") and last == "6 ['epoch-000002']"
    training = trained(epochs=0)
    checkpoint.restore_training(checkpoint.newest_training(tmp_path), training)
    assert training.epoch == 2
