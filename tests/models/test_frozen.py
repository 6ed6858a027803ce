"""Frozen encoders: weights and dropout of the pretrained model stay as they are, what follows it is trained."""

import pytest
import torch

from m3col.config import loading
from tests.models.builders import batch, image_config, image_encoder, text_config, text_encoder


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_model_is_not_trained_and_has_no_dropout(kind, frozen):
    if kind == "image":
        options = {"name": "vit_tiny_patch16_224", "options": {"patch_size": 16, "embed_dim": 24, "depth": 1,
                                                              "num_heads": 2, "proj_drop_rate": 0.5}}  # fmt: skip
        encoder = image_encoder(image_config(frozen=frozen, **options), width=8)
        rows = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    else:
        options = {"hidden_size": 32, "hidden_dropout_prob": 0.5}
        encoder = text_encoder(text_config("bert", frozen=frozen, options=options), width=8)
        rows = batch(pad=0, types=True)
    encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    first, second = encoder(rows), encoder(rows)
    assert torch.equal(first, second) == frozen
    first.square().sum().backward()
    optimizer.step()
    after = encoder.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert {"projection.weight", "projection.bias"} <= changed
    assert any(name.startswith("model.") for name in changed) != frozen
    encoder.eval().train()
    assert encoder.model.training != frozen and encoder.projection.training


def test_random_weights_cannot_be_frozen():
    raw = {"model": {"image": {"pretrained": False, "frozen": True}, "text": {"frozen": True}}}
    (fault,) = loading.parse(raw).faults
    assert "model.image.frozen must be false with model.image.pretrained: false, whose weights are random" in fault
