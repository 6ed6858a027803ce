"""Layers and tokens of numeric tables that a config describes: against plain loops, in methods, and the default."""

import numpy as np
import pytest
import torch

import m3col
from m3col import tasks
from m3col.checks.limits import parameter_count
from m3col.config import loading
from m3col.config.modality_sections import NumericModelConfig
from m3col.config.schema import ModelConfig
from m3col.models.build import build_encoder
from m3col.models.mlp import MLPEncoder
from m3col.models.table import TableEncoder
from m3col.training import initial_weights
from m3col.training.fold_trainer import FoldTrainer
from tests.support.helpers import TINY, tiny_config, tiny_data

F, D = 3, 6
MIMIC = {"model__numeric__widths": [5, 4], "model__numeric__tokens": "features"}


def encoder(**settings) -> TableEncoder:
    torch.manual_seed(0)
    built = TableEncoder(F, NumericModelConfig(**settings), D).double()
    for parameter in built.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter)
    return built


def layers_by_loops(built: TableEncoder, row: list[float], *, slope: float, last: bool) -> list[float]:
    for number, layer in enumerate(built.layers, start=1):
        weight, bias = layer.weight.tolist(), layer.bias.tolist()
        row = [sum(w * x for w, x in zip(ws, row, strict=True)) + b for ws, b in zip(weight, bias, strict=True)]
        if number < len(built.layers) or last:
            row = [x if x > 0 else slope * x for x in row]
    return row


@pytest.mark.parametrize("widths", [None, [], [4], [5, 2]])
@pytest.mark.parametrize(("activation", "slope"), [("relu", 0.0), ("leaky_relu", 0.1)])
@pytest.mark.parametrize("last", [False, True])
def test_layers_and_tokens_equal_plain_loops(widths, activation, slope, last):
    settings = {"widths": widths, "activation": activation, "last_activation": last}
    x = torch.randn(4, F, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pooled, row, features = encoder(**settings), encoder(**settings), encoder(**settings, tokens="features")
    row.without_pooling()
    features.without_pooling()
    features.double()
    for at in range(4):
        outputs = layers_by_loops(pooled, x[at].tolist(), slope=slope, last=last)
        expected = outputs
        if len(outputs) != D:
            weight, bias = pooled.projection.weight.tolist(), pooled.projection.bias.tolist()
            expected = [
                sum(w * v for w, v in zip(ws, outputs, strict=True)) + b for ws, b in zip(weight, bias, strict=True)
            ]
        assert pooled(x)[at].tolist() == pytest.approx(expected, abs=1e-9)
        outputs = layers_by_loops(row, x[at].tolist(), slope=slope, last=last)
        assert row.sequence(x).values[at].tolist() == [pytest.approx(outputs, abs=1e-9)]
        outputs = layers_by_loops(features, x[at].tolist(), slope=slope, last=last)
        weight, bias = (value.tolist() for value in (features.feature_tokens.weight, features.feature_tokens.bias))
        tokens = [
            [number * w + b for w, b in zip(ws, bs, strict=True)]
            for number, ws, bs in zip(outputs, weight, bias, strict=True)
        ]
        assert np.allclose(features.sequence(x).values[at].tolist(), tokens, rtol=0, atol=1e-9)
    assert row.sequence_width == len(outputs) and features.sequence_width == D


def test_tokens_of_features_start_from_a_standard_normal_distribution():
    built = encoder(widths=[400], tokens="features")
    built.without_pooling()
    for value in (built.feature_tokens.weight, built.feature_tokens.bias):
        assert value.mean().item() == pytest.approx(0, abs=0.1) and value.std().item() == pytest.approx(1, abs=0.1)


def test_the_default_is_the_encoder_and_the_config_of_older_versions():
    assert type(build_encoder(F, ModelConfig(embedding_dim=D))) is MLPEncoder
    stored = tiny_config().to_dict()["model"]
    assert "numeric" not in stored and "width" in stored["sequence"]
    assert not {"stride", "stride_at", "widths", "tokens"} & {*stored["sequence"]}
    changed = tiny_config(**MIMIC)
    assert changed.to_dict()["model"]["numeric"]["widths"] == [5, 4] and loading.load(changed.to_dict()) == changed
    assert type(build_encoder(F, changed.model)) is TableEncoder


@pytest.mark.parametrize("method", ["comm", "fusion_transformer", "concat", "m3col", "centralnet", "cmc"])
def test_every_weight_is_trained_and_counted(method):
    heads = {"objective__fusion_heads": 2} if method in ("comm", "fusion_transformer") else {}
    run, data = tiny_config(method=method, data__numeric__augment="noise", **MIMIC, **heads), tiny_data()
    trainer = FoldTrainer(run, data.train, features=data.features, task=tasks.build(classes=2))
    trainer.train_epoch(1, learning_rate=0.01)
    assert [name for name, value in trainer.method.named_parameters() if value.grad is None] == []
    if method in ("concat", "m3col"):
        features = {name: len(values) for name, values in data.features.items()}
        counted = parameter_count(run, features, 2)
        exact = sum(value.numel() for value in trainer.method.parameters())
        spare = sum(2 * 4 * 8 - (4 + 1) * 8 for _ in features)  # tokens have more weights than a projection
        assert counted == exact + spare


def test_a_training_with_tokens_of_features_is_predicted_and_continued(tmp_path):
    data = tiny_data(samples=30, classes=3)
    keys = {key.replace("__", "."): value for key, value in MIMIC.items()}
    overrides = {
        **keys, "method": "comm", "data.numeric.augment": "noise", "objective.fusion_heads": 2, "train.epochs": 1,
        "objective.projector_hidden": 8, "objective.projector_dim": 4, "objective.evaluations": 1,
        "validation.kind": "none",
    }  # fmt: skip
    first = m3col.train(TINY, data=data, overrides=overrides, runs=tmp_path, tracking_uri="none")
    assert first.predictor.predict_proba(data.test.inputs).shape == (20, 3)
    start = {**keys, "validation.kind": "none", "train.epochs": 1, "train.init": str(first.folder)}
    for method, more in (("fusion_transformer", {"objective.fusion_heads": 2}), ("concat", {})):
        overrides = {**start, "method": method, **more}
        m3col.train(TINY, data=data, overrides=overrides, runs=tmp_path, tracking_uri="none")
    config = loading.load(TINY, overrides={**start, "method": "concat", "model.numeric.activation": "leaky_relu"})
    assert "model.numeric is" in initial_weights.faults(config, data.features)[0]
