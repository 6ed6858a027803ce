"""Training in bfloat16: what stays in float32, how near the loss is, and batches of which a rank has no row."""

from pathlib import Path

import pytest
import torch

from m3col.devices import autocast
from m3col.inputs.specs import Tokens
from m3col.methods.batch import Batch, Step
from m3col.training.fold_trainer import FoldTrainer
from tests.gpu.work import pair_config, trainer_of
from tests.support import pairs

STEP = Step(seed=0, fold=0, epoch=1, step=0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return pairs.folder(tmp_path_factory.mktemp("pairs") / "data")


def first_batch(trainer: FoldTrainer) -> Batch:
    return next(batch for batch, _, _ in trainer._steps(1))


@pytest.mark.parametrize("projected", [True, False], ids=["projection", "layer norm"])
def test_losses_and_gradients_are_float32_whatever_the_embeddings_are(projected, device, place: Path, report):
    """Embeddings come out of a projection, or, where the width is the encoder's, of its last layer norm."""
    width = 128 if device.type == "cuda" else 32
    run = pair_config(
        place, device, train__precision="bfloat16", model__embedding_dim=width // 2 if projected else width
    )  # fmt: skip
    trainer = trainer_of(run, device)
    batch = first_batch(trainer)
    with autocast(run, device):
        embeddings = trainer.method.encode(batch.inputs)
        losses = trainer.method.losses(batch, STEP)
    kinds = {name: value.dtype for name, value in embeddings.items()}
    report(f"embeddings out of a {'projection' if projected else 'layer norm'}", kinds)
    if projected:
        assert set(kinds.values()) == {torch.bfloat16}, "the encoders did not compute in bfloat16"
    assert {value.dtype for value in losses.values()} == {torch.float32}
    losses["loss"].backward()
    for name, parameter in trainer.method.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32 and parameter.grad is not None, name
            assert parameter.grad.dtype == torch.float32 and bool(parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("class_weight", ["none", [1.0, 8.0, 0.2]], ids=["no weights", "class weights"])
def test_the_loss_of_an_epoch_is_within_3_percent_of_float32(class_weight, device, place: Path, report):
    near, exact = (
        trainer_of(
            pair_config(place, device, train__precision=precision, objective__class_weight=class_weight), device
        ).train_epoch(1, learning_rate=1e-4)
        for precision in ("bfloat16", "float32")
    )
    report(f"loss in bfloat16 / in float32, class weights {class_weight}", f"{near['loss'] / exact['loss']:.5f}")
    assert near["loss"] != exact["loss"], "it did not compute in bfloat16"
    assert near == pytest.approx(exact, rel=0.03)


def test_shards_without_a_row_change_nothing(device, place: Path):
    """The last batch has 3 samples for 4 shards."""
    run = pair_config(place, device, train__precision="bfloat16", train__batch_size=7, train__shards=4)
    losses = trainer_of(run, device).train_epoch(1, learning_rate=1e-4)
    assert all(torch.isfinite(torch.tensor(value)) for value in losses.values())


def test_a_rank_without_rows_gives_every_weight_a_gradient_of_zero(device, place: Path):
    run = pair_config(place, device, train__precision="bfloat16")
    trainer = trainer_of(run, device)
    rows = first_batch(trainer).inputs
    text = rows["text"]
    assert isinstance(text, Tokens)
    with autocast(run, device):
        empty = {name: trainer.method.embed(name, value[:0]) for name, value in rows.items()}
    assert {value.shape[0] for value in empty.values()} == {0}
    torch.cat([value.float() for value in empty.values()], dim=1).sum().backward()
    for name, parameter in trainer.method.encoders.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and not parameter.grad.any(), name
