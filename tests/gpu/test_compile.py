"""Compiled encoders compute what eager ones do, with few compilations, in both phases and for all lengths of texts."""

from pathlib import Path

import numpy as np
import pytest
import torch._dynamo.config

from m3col import devices
from m3col.config.loading import with_overrides
from m3col.config.schema import RunConfig
from m3col.inputs.specs import Tokens
from tests.gpu.work import pair_config, trainer_of
from tests.support import pairs

EPOCHS = 2  # M3Co in the first, MultiSClip in the second
BATCH = 8
_MOST = 6  # compilations of a trial
WORDS = (5, 40, 70, 100, 130, 160)  # of the texts of each batch: on a GPU padded to 32, 64, 96, 128, 160 and 192 tokens


def folder_of_lengths(place: Path) -> Path:
    """Pairs whose texts have six lengths; `group_by_length` puts equal ones into a batch."""
    (place / "imgs").mkdir(parents=True)
    draw, rows = np.random.default_rng(0), ["image,caption,label"]
    for number in range(BATCH * len(WORDS)):
        colour = list(pairs.COLOURS)[number % 3]
        pairs.paint(place / f"imgs/{number}.png", colour, seed=number)
        words = draw.choice(["red", "green", "blue", "sea", "leaf", "rose"], WORDS[number // BATCH])
        rows.append(f"imgs/{number}.png,{' '.join(words)},{colour}")
    (place / "train.csv").write_text("\n".join(rows) + "\n")
    return place


def config(place: Path, device: torch.device, *, compiled: bool, checkpointing: bool) -> RunConfig:
    return pair_config(
        place, device, model__compile=compiled, model__gradient_checkpointing=checkpointing, train__epochs=EPOCHS,
        train__precision="bfloat16", train__batch_size=BATCH, objective__switch_point=0.5, model__dropout=0.0,
        data__text__max_length=192, data__text__group_by_length=True, validation__kind="none",
    )  # fmt: skip


def losses(run: RunConfig, device: torch.device) -> list[dict[str, float]]:
    trainer = trainer_of(run, device)
    return [trainer.train_epoch(epoch, learning_rate=1e-4) for epoch in range(1, EPOCHS + 1)]


def with_dropout(run: RunConfig) -> RunConfig:
    """The config of another trial, whose text encoder has dropout."""
    options = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    return with_overrides(run, {"model.text.options": {**run.model.text.options, **options}})


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_compiled_encoders_compute_what_eager_ones_do(checkpointing, device, report, tmp_path: Path):
    torch.compiler.reset()
    place = folder_of_lengths(tmp_path / "data")
    run, plain = (config(place, device, compiled=flag, checkpointing=checkpointing) for flag in (True, False))
    batches = [batch.inputs["text"] for batch, _, _ in trainer_of(run, device)._steps(1)]
    assert len({text.mask.shape[1] for text in batches if isinstance(text, Tokens)}) == len(WORDS)
    expected = losses(plain, device)
    before = devices.compilations()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):  # by default torch goes on without compiling
        values = losses(run, device)
        first = devices.compilations() - before
        others = losses(with_dropout(run), device)
        second = devices.compilations() - before - first
    report(f"compilations of a trial, and of one with another dropout, checkpointing {checkpointing}", (first, second))
    for one, other in zip(values, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-2)
    assert np.isfinite([value for epoch in others for value in epoch.values()]).all()
    assert 0 < first <= _MOST and 0 < second <= _MOST
