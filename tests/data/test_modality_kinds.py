"""All kinds of modality satisfy one contract; a new kind needs one entry and the functions that it names."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from m3col import predictor
from m3col.data import modality_kinds
from m3col.data.columns import MediaColumn
from m3col.data.dataset import Dataset, build_split
from m3col.data.modality_kinds import ModalityKind
from m3col.data.splits import draw
from m3col.errors import InputError
from m3col.tasks import registry as tasks
from m3col.training import checkpoint
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support.helpers import tiny_config

HERE = "tests.data.test_modality_kinds:"
BITS = ModalityKind(
    "bits", is_media=True, given_as="strings of 0 and 1", user_values=f"{HERE}user_bits", fit=f"{HERE}fit_bits",
    restore=f"{HERE}restore_bits", encoder=f"{HERE}bits_encoder", linear=f"{HERE}unused", mlflow_type="string",
    record_faults=f"{HERE}bits_faults", digests=f"{HERE}bits_digests",
)  # fmt: skip


# A toy kind: strings of 0 and 1 of one length, averaged by position.


class BitSource:
    def __init__(self, values: Tensor) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def rows(self, index: Any, draws: Any = None) -> Tensor:
        return self._values[index]


@dataclass(frozen=True)
class BitSpec:
    length: int
    kind: ClassVar[str] = "bits"


@dataclass(frozen=True)
class BitTransform:
    length: int
    kind: ClassVar[str] = "bits"

    @property
    def spec(self) -> BitSpec:
        return BitSpec(self.length)

    def source(self, column: MediaColumn, place: Any) -> BitSource:
        rows = [[float(bit) for bit in text] for text in column.values]
        return BitSource(torch.tensor(rows, dtype=place.dtype))

    def state(self) -> Any:
        return {"kind": "bits", "length": self.length}, {}


class BitEncoder(nn.Module):
    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(length, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)

    def mix(self, x: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
        return lam[:, None] * x + (1 - lam[:, None]) * x[permutation]

    def stored(self) -> dict[str, Any]:
        return {}


def fit_bits(config: Any, modality: str, train: Any, features: Sequence[str]) -> BitTransform:
    return BitTransform(len(train.inputs[modality].values[0]))


def restore_bits(described: Mapping[str, Any], arrays: Any) -> BitTransform:
    return BitTransform(described["length"])


def bits_encoder(spec: BitSpec, config: Any, load_weights: bool, stored: Any) -> BitEncoder:
    return BitEncoder(spec.length, config.embedding_dim)


def user_bits(values: Any, columns: Any, *, where: str, may_miss: bool, precision: str) -> MediaColumn:
    return MediaColumn.of("bits", list(values))


def bits_faults(values: Sequence[str]) -> dict[int, str]:
    return {row: "is not a string of 0 and 1" for row, value in enumerate(values) if set(value) - set("01")}


def bits_digests(values: Sequence[str]) -> list[str]:
    return list(values)


@pytest.fixture
def bits(monkeypatch):
    monkeypatch.setitem(modality_kinds.TABLE, "bits", BITS)


def bits_dataset() -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    texts = ["".join("1" if rng.random() < (0.8 if label else 0.2) else "0" for _ in range(6)) for label in labels]
    inputs = {"code": MediaColumn.of("bits", texts), "table": rng.normal(size=(40, 3)) + labels[:, None]}
    train = build_split(inputs, labels, "train")
    return Dataset("toy", classes=("a", "b"), features={"code": ("code",), "table": ("x", "y", "z")}, train=train)


def test_a_new_kind_trains_predicts_and_comes_back_from_a_checkpoint(bits, tmp_path):
    dataset = bits_dataset()
    assert dataset.kinds == {"code": "bits", "table": "numeric"}
    config = tiny_config(train__epochs=2)
    job = TrainingJob(
        dataset.train, draw(dataset, kind="holdout", folds=2, seed=0), dataset.features, tasks.build(classes=["a", "b"])
    )
    run = LockstepTrainer(config, job)
    records = run.advance(2)
    assert records[1].metrics["train/loss"] < records[0].metrics["train/loss"]
    checkpoint.write_model(
        tmp_path / "model", run.trainers, config=config.to_dict(), classes=dataset.classes, features=dataset.features
    )
    model = predictor.load(tmp_path / "model")
    assert model.kinds == {"code": "bits", "table": "numeric"}
    inputs = {"code": ["111111", "000000"], "table": np.array([[1.0, 1, 1], [0, 0, 0]])}
    trainer = run.trainers[0]
    column = {"code": MediaColumn.of("bits", inputs["code"]), "table": inputs["table"]}
    wanted = torch.softmax(torch.as_tensor(trainer.logits(trainer.prepare(column))["fused"]), 1).numpy()
    assert np.allclose(model.predict_proba(inputs), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", modality_kinds.TABLE.values(), ids=lambda kind: kind.name)
def test_every_function_that_an_entry_names_is_there(kind):
    for field in fields(ModalityKind):
        target = getattr(kind, field.name)
        if isinstance(target, str) and target.startswith("m3col."):
            module, _, name = target.partition(":")
            assert callable(getattr(importlib.import_module(module), name)), target
    assert bool(kind.record_faults) == bool(kind.digests) == kind.is_media
    assert kind.name in modality_kinds.TABLE and modality_kinds.of(kind.name) is kind


def test_an_unknown_kind_is_refused_with_the_nearest_one():
    with pytest.raises(InputError, match="kind of modality 'imge' is unknown; did you mean 'image'"):
        modality_kinds.of("imge")


def test_few_places_compare_kinds_by_name():
    """Code for a single kind, such as heat maps, may name it; a distinction of all kinds belongs in the table."""
    repository = Path(__file__).resolve().parents[2]
    ladders = [
        str(path.relative_to(repository))
        for folder in ("m3col", "tune", "jobs")
        for path in (repository / folder).rglob("*.py")
        if '== "numeric"' in (text := path.read_text(encoding="utf-8")) or '{"numeric"}' in text
    ]
    assert ladders == []
