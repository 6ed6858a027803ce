"""An actor that outlived its driver removes its older checkpoints while its successor looks for the newest one."""

import os
import shutil

import pytest
import safetensors.torch
import torch

from m3col.errors import InputError
from m3col.storage import atomic_files
from m3col.training import checkpoint


def leave(folder, epoch):
    path = folder / f"epoch-{epoch:06d}"
    path.mkdir(parents=True)
    for name in ("fold-0", "probes"):
        safetensors.torch.save_file({"w": torch.zeros(2)}, path / f"{name}.safetensors")
    head = {"made_by": "m3col", "format": checkpoint.FORMAT, "kind": "training"}
    record = {"epoch": epoch, "time": 1.0, "value": 0.5, "metrics": {}}
    atomic_files.write_json(
        path / "checkpoint.json", {**head, "epoch": epoch, "history": [record] * epoch, "best": None}
    )
    return path


def test_a_checkpoint_that_vanishes_while_it_is_looked_at_is_passed_over(tmp_path, monkeypatch):
    """safetensors has seen the file, and torch, which maps it, finds it no more: a RuntimeError."""
    older, newer = leave(tmp_path, 2), leave(tmp_path, 4)
    real = checkpoint.safe_open

    def vanishing(file, **named):
        if newer in file.parents:
            shutil.rmtree(newer, ignore_errors=True)
            raise RuntimeError(f"unable to open file <{file}> in read-only mode: No such file or directory (2)")
        return real(file, **named)

    monkeypatch.setattr(checkpoint, "safe_open", vanishing)
    assert checkpoint.newest_training(tmp_path) == older


def test_tensors_that_vanish_while_they_are_read_are_a_fault_and_no_crash(tmp_path, monkeypatch):
    def vanishing(file, **named):
        raise RuntimeError(f"unable to open file <{file}> in read-only mode: No such file or directory (2)")

    monkeypatch.setattr(checkpoint, "load_file", vanishing)
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        checkpoint.read_tensors(tmp_path / "fold-0.safetensors")


def test_a_folder_that_vanishes_while_it_is_searched_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "state").mkdir()
    real = os.scandir

    def vanishing(place=".", *rest):
        if "state" in os.fspath(place):
            raise FileNotFoundError(2, "No such file or directory", place)
        return real(place, *rest)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert checkpoint.newest_training(tmp_path) is None
