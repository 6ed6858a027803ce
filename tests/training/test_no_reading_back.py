"""No training step reads a value from its device: a GPU would have to finish all queued work first.

The device of these trainings is "meta", whose tensors have shapes and no values: reading any of them raises.
"""

import os

import numpy as np
import pytest
import torch

from m3col import tasks
from m3col.checks.resolve import resolve
from m3col.config.schema import RunConfig
from m3col.data.dataset import Dataset
from m3col.data.splits import pool
from m3col.distributed import RankContext
from m3col.inputs.batches import PartialSource
from m3col.training.fold_trainer import FoldTrainer
from tests.support import pairs
from tests.support.helpers import tiny_config, tiny_data

META = torch.device("meta")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    before = os.environ.get("M3COL_CACHE")
    os.environ["M3COL_CACHE"] = str(folder / "cache")
    yield pairs.folder(folder / "data")
    os.environ.pop("M3COL_CACHE")
    if before is not None:
        os.environ["M3COL_CACHE"] = before


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """Lengths of the lists that are read from the device, instead of an error. Adam and autocast lack "meta"."""
    adam, autocast, lengths = torch.optim.Adam, torch.autocast, list[int]()
    monkeypatch.setattr(torch.optim, "Adam", lambda *args, **named: adam(*args, **{**named, "fused": False}))
    monkeypatch.setattr(
        torch, "autocast", lambda kind, **named: autocast("cpu" if kind == "meta" else kind, **named)
    )  # fmt: skip
    tolist = torch.Tensor.tolist

    def counted(tensor):
        if tensor.device != META:
            return tolist(tensor)
        lengths.append(len(tensor))
        return [0.0] * len(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    return lengths


def epoch(config: RunConfig, dataset: Dataset, *, absent: bool = False) -> list[str]:
    """Trains an epoch on the meta device. Returns the names of the losses."""
    trainer = FoldTrainer(
        config, pool(dataset, "none"), features=dataset.features, task=tasks.build(classes=dataset.classes),
        ranks=RankContext(device=META),
    )  # fmt: skip
    if absent:
        present = torch.arange(len(trainer)) % 3 > 0
        trainer._inputs = {name: PartialSource(source, present, META) for name, source in trainer._inputs.items()}
    return list(trainer._train_steps(1))


PAIRS = {
    "M3Co": {},
    "MultiSClip": {"objective__switch_point": 0.0},
    "class weights over a step of two batches": {"objective__class_weight": "balanced", "train__accumulate": 2},
    "classes of similar length": {"model__text__length_classes": 2},
    "mixed embeddings": {"mix__level": "embedding"},
    "mixup": {"method": "mixup"},
    "views of augmented images": {"data__image__augment": "crop_flip"},
}


CASES = [(name, False) for name in PAIRS] + [(name, True) for name in list(PAIRS)[:3]]


@pytest.mark.parametrize(("name", "absent"), CASES)
def test_images_and_texts(place, reads, name, absent):
    changes = PAIRS[name]
    found = resolve(pairs.config(place, **changes))
    names = epoch(found.config, found.dataset, absent=absent)
    assert reads == [len(names)], "the losses, once an epoch"


TABLES = {
    "all rows": {},
    "batches": {"train__batch_size": 8},
    "class weights over a step of two batches": {
        "train__batch_size": 8, "train__accumulate": 2, "objective__class_weight": "balanced",
    },
}  # fmt: skip


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("changes", TABLES.values(), ids=TABLES)
def test_tables(reads, changes, absent):
    names = epoch(tiny_config(**changes), tiny_data(), absent=absent)
    assert reads == [len(names)]


def test_the_meta_device_refuses_to_be_read():
    with pytest.raises(RuntimeError, match="meta"):
        torch.zeros(2, device=META).sum().item()
    with pytest.raises(NotImplementedError, match="meta"):
        torch.zeros(2, device=META).cpu()
    with pytest.raises(TypeError, match="meta"):
        np.asarray(torch.zeros(2, device=META))
