"""Vision & Touch: HDF5 files become images, sequences and tables; other files are refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import m3col
from jobs import cli
from m3col.data import loading
from m3col.data.checks.check_folder import check
from m3col.data.formats.csv_columns import Layout
from m3col.data.vision_touch import convert as vision_touch
from m3col.data.vision_touch import hdf5_files

CONTACT, POSITION = Layout(label="contact"), Layout(label=("x", "y", "z", "yaw"), form="number")
STEPS = 5


def arrays(seed: int, *, channels_first: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (STEPS, 8, 8, 3), dtype=np.uint8)
    contact = np.zeros((STEPS, 50))
    contact[1::2, 7] = 1
    return {
        "image": image.transpose(0, 3, 1, 2) if channels_first else image,
        "ee_forces_continuous": rng.normal(scale=3, size=(STEPS, 50, 6)),
        "proprio": rng.normal(size=(STEPS, 8)),
        "contact": contact,
        "action": rng.normal(size=(STEPS, 4)),
    }


def write(path: Path, content: dict[str, np.ndarray]) -> None:
    with h5py.File(path, "w") as file:
        for name, array in content.items():
            file.create_dataset(name, data=array)


@pytest.fixture
def files(tmp_path) -> Path:
    """Two recordings of five pieces each."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(10):
        name = f"2018-08-1{number // 5}_10-00-00_triangle_a_journal_0_{number // 5}_{number % 5}_1000.h5"
        write(folder / name, arrays(number, channels_first=number == 3))
    return folder


def test_a_sample_has_the_inputs_of_a_step_and_the_targets_of_the_next(files, tmp_path):
    vision_touch.convert(files, tmp_path / "vision_touch")
    everything = ["image", "force", "proprio"]
    dataset = loading.load("vision_touch", data_dir=tmp_path, layout=POSITION, modalities=everything)
    touched = loading.load("vision_touch", data_dir=tmp_path, layout=CONTACT)
    assert dataset.kinds == {"force": "sequence", "image": "image", "proprio": "numeric"}
    assert touched.modalities == ("force", "image")
    assert (len(dataset.train), len(dataset.test)) == (8 * (STEPS - 1), 2 * (STEPS - 1))
    train = range(2, 10)  # seed 42 draws the first two files of these ten for the test
    at = 0
    for number in train:
        source = arrays(number)
        for step in range(STEPS - 1):
            force = np.tanh(source["ee_forces_continuous"][step, 18:].astype(np.float32))
            assert np.array_equal(dataset.train.inputs["force"].sequence(at), force)
            pixels = np.asarray(Image.open(dataset.train.inputs["image"].values[at]))
            assert np.array_equal(pixels, source["image"][step])
            assert np.asarray(dataset.train.inputs["proprio"])[at] == pytest.approx(source["proprio"][step])
            assert dataset.train.labels[at] == pytest.approx(source["proprio"][step + 1, :4])
            assert touched.train.labels[at] == int((source["contact"][step + 1] > 0).any())
            at += 1


def test_a_split_of_recordings_keeps_their_pieces_together(files, tmp_path):
    together = vision_touch.convert(files, tmp_path / "a")
    assert any("recordings have pieces in the training and in the test split" in line for line in together)
    apart = vision_touch.convert(files, tmp_path / "b", split="recording")
    assert any("whole recordings are in the test split" in line for line in apart)
    members = vision_touch.drawn(sorted(files.glob("*.h5")), "recording")
    by_recording = {hdf5_files.recording_of(path): split for path, split in members.items()}
    assert all(by_recording[hdf5_files.recording_of(path)] == split for path, split in members.items())
    assert set(by_recording.values()) == {"train", "test"}
    with pytest.raises(m3col.InputError, match="has one recording alone; at least two are needed"):
        vision_touch.drawn(sorted(files.glob("*.h5"))[:3], "recording")
    report = check(tmp_path / "a", layout=CONTACT)
    assert not report.faults and any("validates on its test split" in line for line in report.warnings)


def test_a_training_runs_on_all_three_modalities(files, tmp_path):
    vision_touch.convert(files, tmp_path / "vision_touch", split="recording")
    run = m3col.train(
        "vision_touch_contact",
        overrides={
            "data.dir": str(tmp_path), "data.modalities": ["image", "force", "proprio"], "train.epochs": 1,
            "data.image.size": 16, "data.image.short_side": 16, "model.embedding_dim": 8, "model.classifier_dim": 8,
            "model.sequence.width": 8, "model.sequence.widths": [8] * 4, "model.image.name": "test_byobnet",
            "objective.projector_hidden": 8, "objective.projector_dim": 4, "objective.evaluations": 1,
            "validation.kind": "none", "metric": None, "data.image.augment": "flip",
        },
        runs=tmp_path / "runs", tracking_uri="none",
    )  # fmt: skip
    assert 0 <= run.metrics["test/balanced_accuracy"] <= 1


def test_every_fault_of_every_file_is_reported_at_once(files, tmp_path):
    paths = sorted(files.glob("*.h5"))
    lacking, damaged, strange = arrays(0), arrays(1), arrays(2)
    del lacking["proprio"]
    damaged["ee_forces_continuous"][0, 0, 0] = np.nan
    strange["image"] = strange["image"].astype(float)
    for path, content in zip(paths, (lacking, damaged, strange), strict=False):
        write(path, content)
    paths[3].write_bytes(paths[3].read_bytes()[:2000])
    paths[4].write_bytes(b"no HDF5")
    with pytest.raises(m3col.InputError) as caught:
        vision_touch.convert(files, tmp_path / "out")
    text = str(caught.value)
    for path, reason in zip(paths, ("has no array 'proprio' of its own", "must have finite numbers of float32",
                                    "'image' must be uint8", "cannot be read as HDF5", "cannot be read as HDF5"),
                            strict=False):  # fmt: skip
        assert any(str(path) in line and reason in line for line in text.splitlines())
    assert not (tmp_path / "out").exists() and [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_links_to_other_files_are_not_followed(files, tmp_path):
    first, second, third = sorted(files.glob("*.h5"))[:3]
    content = arrays(0)
    del content["proprio"]
    write(first, content)
    with h5py.File(first, "a") as file:
        file["proprio"] = h5py.ExternalLink(second.name, "proprio")
    write(third, content)
    (tmp_path / "secret").write_bytes(np.zeros((STEPS, 8)).tobytes())
    with h5py.File(third, "a") as file:
        file.create_dataset("proprio", (STEPS, 8), "f8", external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])
    for path in (first, third):
        faults: list[str] = []
        assert hdf5_files.read(path, faults) is None
        assert "has no array 'proprio' of its own" in faults[0]


def test_the_command_converts_and_the_raw_folder_names_it(files, tmp_path, capsys):
    assert cli.main(["data", "convert", "vision_touch", str(files), "--to", str(tmp_path / "vision_touch")]) == 0
    assert "vision_touch is in" in capsys.readouterr().out
    assert cli.main(["data", "convert", "vision_touch", str(tmp_path), "--to", str(tmp_path / "x")]) == 2
    assert "is not a folder with .h5 files" in capsys.readouterr().err
    files.rename(tmp_path / "other")
    (tmp_path / "d").mkdir()
    (tmp_path / "other").rename(tmp_path / "d" / "vision_touch")
    with pytest.raises(m3col.InputError, match=r"m3col data convert vision_touch .* --to"):
        loading.load("vision_touch", data_dir=tmp_path / "d", layout=CONTACT)


def test_files_are_compared_with_each_other(files, tmp_path):
    paths = sorted(files.glob("*.h5"))
    wide, small, none, large = arrays(4), arrays(5), arrays(6), arrays(7)
    wide["proprio"] = np.ones((STEPS, 9))
    small["image"] = small["image"][:, :4]
    none["contact"] = np.zeros((STEPS, 0))
    large["proprio"][0, 0] = 1e40
    for path, content in zip(paths[4:], (wide, small, none, large), strict=False):
        write(path, content)
    with h5py.File(paths[8], "a") as file:
        del file["image"]
        file.create_dataset("image", (10**6, 10**4, 10**4, 3), "u1")
    with h5py.File(paths[9], "a") as file:
        del file["contact"]
        file["contact"] = h5py.Empty("f8")
    with pytest.raises(m3col.InputError) as caught:
        vision_touch.convert(files, tmp_path / "out")
    lines = str(caught.value).splitlines()
    for path, reason in zip(paths[4:], ("9 numbers of proprioception, but the files before", "has images [4, 8, 3]",
                                        "'contact' must have finite", "'proprio' must have finite numbers of float32",
                                        "GB; at most 2 are read", "'contact' must be numbers in 2 dimensions"),
                            strict=False):  # fmt: skip
        assert any(str(path) in line and reason in line for line in lines), reason


def test_recordings_are_not_guessed_from_other_names(files, tmp_path):
    for number, path in enumerate(sorted(files.glob("*.h5"))):
        path.rename(files / f"{chr(97 + number)}.h5")
    with pytest.raises(m3col.InputError, match=r"'a\.h5' and 9 more has no number of a piece in its name"):
        vision_touch.convert(files, tmp_path / "out", split="recording")
    remarks = vision_touch.convert(files, tmp_path / "out")
    assert any("is a group of its own" in line for line in remarks)
    with pytest.raises(m3col.InputError, match=r"--split: 'files' is unknown; did you mean 'file'\?"):
        vision_touch.convert(files, tmp_path / "other", split="files")
