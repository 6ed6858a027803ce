"""One contract for every method in the table: a new method is tested the moment it is named."""

import copy

import pytest
import torch

from m3col import tasks
from m3col.errors import InputError
from m3col.inputs.specs import ImageInput, Partial, TextInput, Tokens
from m3col.inputs.tables import TableSource
from m3col.methods import mixed_views, registry
from m3col.methods.base import Method
from m3col.methods.batch import CLEAN, Batch, Step
from m3col.methods.self_supervised import SelfSupervisedMethod
from m3col.methods.supervised import FUSED, SupervisedMethod
from tests.models import builders
from tests.support.helpers import allowed, tiny_config

STEP = Step(seed=0, fold=0, epoch=1, step=0)


ENCODERS = {
    "model__image__name": "vit_tiny_patch16_224", "model__image__pretrained": False,
    "model__image__options": builders.VIT, "model__text__name": "bert", "model__text__pretrained": False,
    "model__text__options": {
        **builders.SMALL, "intermediate_size": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    },
}  # fmt: skip


def build_pairs(name: str, **overrides) -> tuple[Method, Batch]:
    """A method of images and texts."""
    config = tiny_config(method=name, **{**ENCODERS, **overrides})
    features = {"picture": ImageInput(32), "words": TextInput(builders.VOCABULARY, 0, 40)}
    torch.manual_seed(0)
    method = registry.load(name)(config, features=features, task=tasks.build(classes=3)).double()
    images = torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    texts = builders.batch((3, 9, 5, 7, 2, 4, 6, 8, 3))
    return method, Batch.of({"picture": images, "words": texts}, torch.arange(9) % 3)


def build(name: str, **overrides) -> tuple[Method, Batch]:
    spec = registry.TABLE[name]
    if spec.kinds is not None:
        return build_pairs(name, **overrides)
    most = 1 if spec.one_modality else spec.most_modalities or 3
    features = dict([("a", 4), ("b", 3), ("c", 5)][:most])
    chosen = {"data__modalities": [*features]} if most < 3 else {}
    config = tiny_config(method=name, **chosen, **{**allowed(name), **overrides})
    torch.manual_seed(0)
    method = registry.load(name)(config, features=features, task=tasks.build(classes=3)).double()
    generator = torch.Generator().manual_seed(1)
    inputs = {m: torch.randn(9, count, generator=generator, dtype=torch.float64) for m, count in features.items()}
    method.fit_inputs({m: TableSource(x) for m, x in inputs.items()})
    views = {
        view: {
            m: x if view == CLEAN else x + 0.1 * torch.randn(x.shape, generator=generator) for m, x in inputs.items()
        }
        for view in method.views
    }
    return method, Batch(views, 9, torch.arange(9) % 3, config.train.shards or 1)


SUPERVISED = [name for name in registry.names() if issubclass(registry.load(name), SupervisedMethod)]
SELF_SUPERVISED = [name for name in registry.names() if issubclass(registry.load(name), SelfSupervisedMethod)]


@pytest.fixture(params=registry.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_method_is_of_one_of_the_two_kinds():
    assert sorted([*SUPERVISED, *SELF_SUPERVISED]) == sorted(registry.names()) and len(SELF_SUPERVISED) > 6


def test_its_entry_says_what_its_class_says(name):
    assert registry._of_class(f"{name} again", registry.TABLE[name].target, display_name=name) == registry.TABLE[name]


def test_losses_are_finite_and_their_parts_are_named(name):
    method, batch = build(name)
    parts = method.losses(batch, STEP)
    assert all(value.ndim == 0 and torch.isfinite(value) for value in parts.values())
    assert (parts["loss"] > 0 or name.startswith("factorcl")) and (f"ce_{FUSED}" in parts) == (name in SUPERVISED)
    assert tuple(parts) == method.loss_names(method.config, method.modalities)[: len(parts)]


def test_every_trainable_parameter_gets_a_gradient(name):
    method, batch = build(name)
    method.losses(batch, STEP)["loss"].backward()
    missing = [p for p, value in method.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert missing == []


def test_same_key_same_loss_other_key_other_loss_where_there_is_chance(name):
    method, batch = build(name)
    first, again = method.losses(batch, STEP)["loss"], method.losses(batch, STEP)["loss"]
    assert torch.equal(first, again)
    if "objective.alpha" in registry.TABLE[name].keys:
        assert not torch.equal(first, method.losses(batch, Step(0, 0, 1, 1))["loss"])


def test_leaves_the_batch_untouched(name):
    method, batch = build(name)
    before = copy.deepcopy(batch)
    method.losses(batch, STEP)
    for now, then in ((batch.inputs[m], before.inputs[m]) for m in before.inputs):
        assert torch.equal(now.ids, then.ids) if isinstance(now, Tokens) else torch.equal(now, then)
    assert torch.equal(batch.labels, before.labels)


def test_weights_survive_saving_and_loading(name):
    method, batch = build(name)
    other, _ = build(name)
    with torch.no_grad():
        for value in other.parameters():
            value.add_(1.0)
    other.load_state_dict(method.state_dict())
    assert torch.equal(method.logits(batch.inputs)[FUSED], other.logits(batch.inputs)[FUSED])


def test_only_its_own_keys_change_its_loss(name):
    """A key that the table gives to a method does something; all others it cannot even be given."""
    base = float(build(name)[0].losses(build(name)[1], STEP)["loss"])
    changes = {
        "objective.alpha": 3.0, "objective.beta": 0.7, "objective.temperature": 0.9, "objective.switch_point": 0.0,
        "objective.unimodal_supervision": name == "gmu", "mix.level": "embedding", "mix.probability": 0.3,
        "objective.self_weight": 0.2, "objective.clip_temperature": 0.5, "objective.terms": "full",
        "objective.fusion_layers": 2, "objective.fusion_heads": 2, "objective.projector_dim": 5,
        "objective.projector_hidden": 6, "objective.form": "paper", "objective.critic_hidden": 7,
        "objective.fused_weight": 0.5, "objective.kl_share": 0.7, "objective.kl_weight": 0.3,
        "objective.sparsity": 0.2, "objective.confidence": 0.2, "objective.bounded_confidence": True,
        "objective.width": 7, "objective.contrast_weight": 0.7, "objective.activation": "softmax",
        "objective.hidden": 5, "objective.unimodal_weight": 0.3, "objective.evidence": "exp",
        "objective.pseudo_view": True, "objective.image_tokens": 2, "objective.neighbours": 5,
        "objective.graph_width": 7,
    }  # fmt: skip
    for key, value in changes.items():
        if key in registry.TABLE[name].keys:
            method, batch = build(name, **{key.replace(".", "__"): value})
            assert float(method.losses(batch, STEP)["loss"]) != base, key


@pytest.mark.parametrize("name", SUPERVISED)
def test_class_weights_change_the_loss(name):
    method, batch = build(name)
    plain = method.losses(batch, STEP)["loss"]
    method.class_weight = torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64)
    assert not torch.isclose(plain, method.losses(batch, STEP)["loss"])


@pytest.mark.parametrize("name", SUPERVISED)
def test_a_batch_of_a_class_that_does_not_count_has_no_loss_of_classes(name):
    method, batch = build(name)
    method.class_weight = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    nothing = Batch.of(batch.inputs, torch.zeros_like(batch.targets), batch.shards)
    parts = method.losses(nothing, STEP)
    assert {key: float(value) for key, value in parts.items() if key.startswith("ce_")} == {
        key: 0.0 for key in parts if key.startswith("ce_")
    }
    assert torch.isfinite(parts["loss"])


@pytest.mark.parametrize("name", SELF_SUPERVISED)
def test_predictions_of_a_method_without_labels_are_those_of_its_linear_classifier(name):
    method, batch = build(name)
    method.eval()
    features = method.features(batch.inputs)
    draw = torch.Generator().manual_seed(2)
    weight, bias = (torch.randn(size, generator=draw).double() for size in ((3, features.shape[1]), (3,)))
    method.set_evaluation(weight, bias)
    torch.testing.assert_close(method.logits(batch.inputs)[FUSED], features @ weight.T + bias)
    epochs = method.evaluation_epochs(method.config)
    assert epochs and max(epochs) == method.config.train.epochs and min(epochs) >= 1
    assert not any(value.requires_grad for value in (method.evaluation_weight, method.evaluation_bias))


def test_m3col_switches_from_m3co_to_softclip():
    method, batch = build("m3col", train__epochs=10, objective__switch_point=0.33)
    names = ["m3co" if "m3co" in method.losses(batch, Step(0, 0, epoch, 0)) else "softclip" for epoch in range(1, 11)]
    assert names == ["m3co"] * 3 + ["softclip"] * 7


def test_total_is_the_weighted_sum_of_the_parts():
    method, batch = build("m3col", objective__beta=0.25)
    parts = method.losses(batch, STEP)
    supervised = sum(value for key, value in parts.items() if key.startswith("ce_"))
    assert torch.isclose(parts["loss"], supervised + 0.25 * parts["m3co"], rtol=1e-12)


def test_without_unimodal_supervision_those_heads_are_not_built():
    method, batch = build("m3col", objective__unimodal_supervision=False)
    assert len(method.heads) == 0
    assert set(method.logits(batch.inputs)) == {FUSED}


def test_mixup_uses_one_permutation_and_the_mixed_target():
    """The whole loss again, written with loops over samples and classes."""
    method, batch = build("mixup", mix__level="input")
    mixing = mixed_views.draw(method, batch, STEP, alpha=method.settings.alpha, shared_permutation=True)
    partner = mixing.permutations["a"]
    assert all(torch.equal(partner, mixing.permutations[m]) for m in ("b", "c"))
    mixed = {
        m: torch.stack([mixing.lam[i] * x[i] + (1 - mixing.lam[i]) * x[partner[i]] for i in range(9)])
        for m, x in batch.inputs.items()
    }
    expected = 0.0
    for logits in method.logits(mixed).values():
        for i in range(9):
            log_p = logits[i] - torch.logsumexp(logits[i], 0)
            own, other = int(batch.labels[i]), int(batch.labels[partner[i]])
            expected -= float(mixing.lam[i] * log_p[own] + (1 - mixing.lam[i]) * log_p[other]) / 9
    assert float(method.losses(batch, STEP)["loss"]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_shards_keep_mixing_inside_their_groups(shards):
    method, batch = build("m3col", train__shards=shards)
    groups = torch.tensor_split(torch.arange(9), shards)
    for permutation in mixed_views.draw(method, batch, STEP, alpha=method.settings.alpha).permutations.values():
        for group in groups:
            assert set(permutation[group].tolist()) == set(group.tolist())


def test_m3col_can_decide_by_the_mean_of_its_heads():
    (plain, batch), (mean, _) = build("m3col"), build("m3col", objective__decision="mean_of_heads")
    assert torch.equal(plain.losses(batch, STEP)["loss"], mean.losses(batch, STEP)["loss"])
    heads, decided = plain.eval().logits(batch.inputs), mean.eval().predicted(batch.inputs)
    expected = torch.stack([value.softmax(dim=1) for value in heads.values()]).mean(dim=0)
    torch.testing.assert_close(decided[FUSED].softmax(dim=1), expected)
    assert all(torch.equal(decided[name], heads[name]) for name in mean.modalities)
    embeddings = mean.encode(batch.inputs)
    torch.testing.assert_close(mean.predicted_from(embeddings)[FUSED], decided[FUSED])
    partial = {**batch.inputs, "a": Partial(batch.inputs["a"], torch.arange(9) > 0)}
    gaps = plain.logits(partial)
    without = torch.stack([value[0].softmax(dim=0) for name, value in gaps.items() if name != "a"]).mean(dim=0)
    torch.testing.assert_close(mean.predicted(partial)[FUSED][0].softmax(dim=0), without)


def test_a_mean_of_heads_needs_heads():
    with pytest.raises(InputError, match=r"objective\.decision 'mean_of_heads' needs a head per modality"):
        tiny_config(method="m3col", objective__decision="mean_of_heads", objective__unimodal_supervision=False)
