"""Methods without labels: CoMM again with plain loops, evaluation inside the protocol, resuming, starting weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import m3col
from m3col import tasks
from m3col.analysis import confidence, heatmaps, robustness
from m3col.analysis.context import AnalysisContext
from m3col.config import loading
from m3col.data.dataset import Dataset
from m3col.data.splits import draw
from m3col.errors import InputError, TrainingFailed
from m3col.evaluation.linear_evaluation import logistic
from m3col.inputs.specs import ImageInput, SequenceInput, Sequences, TextInput
from m3col.methods import registry
from m3col.methods.batch import Batch, Step
from m3col.methods.self_supervised import retrieval_accuracy
from m3col.methods.supervised import FUSED
from m3col.training import checkpoint, initial_weights
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from m3col.training.schedule import Schedule
from tests.models import builders
from tests.support.helpers import tiny_config, tiny_data

STEP = Step(seed=0, fold=0, epoch=1, step=0)
DATA = tiny_data(samples=60, classes=3, modalities=3)


def job(**changes) -> TrainingJob:
    folds = draw(DATA, kind="kfold", folds=2, seed=0)
    given = {"pool": DATA.train, "folds": folds, "features": DATA.features, "task": tasks.build(classes=3)}
    return TrainingJob(**(given | changes))


def small(method: str = "comm", **changes):
    return tiny_config(
        method=method, objective__projector_dim=4, objective__projector_hidden=8, objective__fusion_heads=2,
        objective__evaluations=2, **changes,
    )  # fmt: skip


def l_of(a: torch.Tensor, b: torch.Tensor, i: int, tau: float) -> float:
    """l(a_i; b_i): the positive pair against all other rows of both sets."""
    others = [float(a[i] @ b[j]) / tau for j in range(len(b))]
    others += [float(a[i] @ a[j]) / tau for j in range(len(a)) if j != i]
    return float(a[i] @ b[i]) / tau - float(np.log(np.sum(np.exp(others))))


@pytest.mark.parametrize("terms", ["all", "full", "masked"])
def test_the_loss_of_comm_again_with_a_pass_for_each_subset_and_loops_over_samples(terms):
    config = small(objective__terms=terms)
    torch.manual_seed(0)
    method = registry.load("comm")(config, features={"x": 4, "y": 3}, task=tasks.build(classes=3)).double()
    generator = torch.Generator().manual_seed(1)
    views = {
        view: {m: torch.randn(6, count, generator=generator, dtype=torch.float64) for m, count in (("x", 4), ("y", 3))}
        for view in ("a", "b")
    }
    tau, rows = 0.1, {}
    for view, inputs in views.items():
        for k, subset in enumerate((["x", "y"], ["x"], ["y"])):
            tokens = {name: method.tokens(name, inputs[name]) for name in subset}
            fused = method.transformer(tokens, [subset])[0]  # the tokens of others are not even there
            rows[view, k] = functional.normalize(method.projector(fused), dim=1)
    expected = []
    for k in range(3):
        both = []
        for one, other in ((rows["a", k], rows["b", 0]), (rows["b", k], rows["a", 0])):
            both.append(-sum(l_of(one, other, i, tau) + l_of(other, one, i, tau) for i in range(6)) / 12)
        expected.append(np.mean(both))
    weights = {"all": [1, 1, 1], "full": [1, 0, 0], "masked": [0, 1, 1]}[terms]
    found = float(method.losses(Batch(views, 6), STEP)["loss"].detach())
    assert found == pytest.approx(float(np.dot(weights, expected)) / 3, rel=1e-9)


def test_retrieval_is_the_share_of_rows_that_find_their_own():
    a = torch.eye(4)
    assert float(retrieval_accuracy(a, a)) == 1.0
    assert float(retrieval_accuracy(a, a[[1, 0, 2, 3]])) == 0.5


def test_validation_is_a_linear_classifier_fitted_to_the_training_fold_alone():
    training = LockstepTrainer(small(train__epochs=4), job())
    records = training.advance(4)
    assert [record.value is not None for record in records] == [False, True, False, True]
    assert all({"train/loss", "train/retrieval"} <= set(record.metrics) for record in records)
    assert not [name for name in records[0].metrics if name.startswith("val/")]
    trainer, fold = training.trainers[0], training.job.folds[0]
    trainer.method.eval()
    with torch.no_grad():
        inputs = [trainer.prepare(DATA.train.take(rows).inputs) for rows in (fold.train, fold.validation)]
        embedded = [
            trainer.method.features({name: source.rows(slice(None)) for name, source in part.items()}).double().numpy()
            for part in inputs
        ]
    seed = m3col.randomness.torch_seed(seed=0, fold=0, epoch=0, purpose="evaluation")
    expected = logistic(embedded[0], DATA.train.labels[fold.train], num_classes=3, seed=seed).outputs(embedded[1])
    np.testing.assert_allclose(trainer.logits(inputs[1])[FUSED], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["comm", "supcon"])
@pytest.mark.parametrize("cut", [1, 3])
def test_resuming_equals_never_having_stopped_bit_for_bit(tmp_path, method, cut):
    config = small(train__epochs=5, train__batch_size=9, train__optimizer="adamw") if method == "comm" else tiny_config(
        method=method, train__epochs=5, train__batch_size=9, objective__evaluations=2
    )  # fmt: skip
    whole = LockstepTrainer(config, job())
    whole.advance(5)
    first = LockstepTrainer(config, job())
    first.advance(cut)
    checkpoint.write_training(tmp_path / "cut", first)
    second = LockstepTrainer(config, job())
    checkpoint.restore_training(tmp_path / "cut", second)
    second.advance(5)
    assert [record.metrics for record in second.history] == [record.metrics for record in whole.history]
    ours, theirs = (t.trainers[1].method.state_dict() for t in (second, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_trained_model_is_saved_predicts_alone_and_starts_another_training(tmp_path):
    settings = {"train.epochs": 4, "model.embedding_dim": 8, "validation.kind": "none", "train.learning_rate": 0.01}
    sizes = {"objective.projector_dim": 4, "objective.projector_hidden": 8, "objective.fusion_heads": 2}
    first = m3col.train(
        {"method": "comm", "data": {"name": "arrays"}}, data=DATA, overrides=settings | sizes,
        runs=tmp_path, tracking_uri="none",
    )  # fmt: skip
    predictor = m3col.load(first.checkpoint)
    rows = {name: np.asarray(value) for name, value in DATA.test.inputs.items()}
    probabilities = predictor.predict_proba(rows)
    assert probabilities.shape == (20, 3) and np.allclose(probabilities.sum(axis=1), 1)
    assert set(predictor.embeddings(rows)) == set(DATA.features)
    case = AnalysisContext(predictor, DATA)
    for page in (confidence, heatmaps, robustness):  # these put embeddings of single modalities together
        assert "the model fuses their tokens" in page.obstacle(case)

    pretrained = checkpoint.read_tensors(first.folder / "model" / "member-0.safetensors")
    settings |= {"train.init": str(first.folder)}
    for method, parts, more in (
        ("fusion_transformer", ("encoders.", "transformer."), {"objective.fusion_heads": 2}),
        ("comm_supcon", ("encoders.", "transformer."), {"objective.fusion_heads": 2}),
        ("concat", ("encoders.",), {}),
    ):
        config = loading.load({"method": method, "data": {"name": "arrays"}}, overrides=settings | more)
        training = LockstepTrainer(config, job())
        before = training.trainers[0].method.state_dict()
        assert initial_weights.faults(config, DATA.features) == []
        initial_weights.load(training)
        after = training.trainers[1].method.state_dict()
        loaded = {
            name for name in after if torch.equal(after[name], pretrained.get(f"weights.{name}", after[name] + 1))
        }
        assert loaded == {name for name in before if name.startswith(parts)}


def test_samples_without_labels_train_the_method_and_labelled_ones_its_classifier():
    other = tiny_data(samples=33, classes=3, modalities=3, seed=5).train.without_labels()
    plain, pretrained = (
        LockstepTrainer(small(train__epochs=2), job(pretrain=split)).trainers[0] for split in (None, other)
    )
    assert (len(plain), len(pretrained)) == (30, 33)
    training = LockstepTrainer(small(train__epochs=2), job(pretrain=other))
    training.advance(2)
    # Trained on other samples: another embedding, and a classifier that knows the labels of the training fold.
    without = LockstepTrainer(small(train__epochs=2), job())
    without.advance(2)
    ours, theirs = (t.trainers[0].method.state_dict() for t in (training, without))
    assert not torch.equal(ours["projector.layers.0.weight"], theirs["projector.layers.0.weight"])
    assert ours["evaluation_weight"].abs().sum() > 0
    for method in ("supcon", "concat"):  # their losses need labels
        trainer = LockstepTrainer(tiny_config(method=method, train__epochs=2), job(pretrain=other)).trainers[0]
        assert len(trainer) == 30 and torch.isfinite(torch.tensor(trainer.train_epoch(1, learning_rate=0.01)["loss"]))


def start_from(
    run: m3col.TrainResult, tmp_path: Path, *, data: Dataset = DATA, method: str = "concat", **changes
) -> str:
    """The faults of a training that starts from the run."""
    overrides = {"model.embedding_dim": 8, "validation.kind": "none", "train.init": str(run.folder)}
    overrides |= {key.replace("__", "."): value for key, value in changes.items()}
    with pytest.raises(InputError) as caught:
        m3col.train(
            {"method": method, "data": {"name": "arrays"}}, data=data, runs=tmp_path, tracking_uri="none",
            overrides=overrides,
        )  # fmt: skip
    return "\n".join(caught.value.faults)


def test_weights_to_start_from_that_do_not_fit_are_refused_with_each_reason(tmp_path):
    def run(method: str, **changes) -> m3col.TrainResult:
        settings = {"train.epochs": 1, "model.embedding_dim": 8, "validation.kind": "none"} | changes
        return m3col.train(
            {"method": method, "data": {"name": "arrays"}}, data=DATA, runs=tmp_path, tracking_uri="none",
            overrides=settings,
        )  # fmt: skip

    whole = run("comm", **{"objective.evaluations": 1, "objective.fusion_heads": 2})
    other = tiny_data(samples=30, classes=3, modalities=4)
    assert "has no modality 'view_3'; it has view_0, view_1, view_2" in start_from(whole, tmp_path, data=other)
    renamed = replace(DATA, features={name: tuple(f"z_{c}" for c in names) for name, names in DATA.features.items()})
    assert "modality 'view_0' has other columns there (5: view_0_0," in start_from(whole, tmp_path, data=renamed)
    assert "model.embedding_dim is 8 there, but 16 here" in start_from(whole, tmp_path, model__embedding_dim=16)
    text = start_from(whole, tmp_path, method="fusion_transformer", objective__fusion_heads=4)
    assert "objective.fusion_heads is 2 there, but 4 here" in text
    text = start_from(whole, tmp_path, data__preprocess=["minmax", {"anova": 3}])
    assert "the step anova of data.preprocess may select other columns here than there" in text
    folds = run("concat", **{"validation.kind": "kfold", "validation.folds": 2})
    assert "has the models of several folds or seeds" in start_from(folds, tmp_path)
    with pytest.raises(InputError, match=r"train\.init 'nowhere': nowhere: not a checkpoint"):
        m3col.train(
            {"method": "concat", "data": {"name": "arrays"}, "train": {"init": "nowhere"}}, data=DATA, runs=tmp_path,
            tracking_uri="none",
        )  # fmt: skip


def test_tensors_that_do_not_fit_are_named(tmp_path):
    first, one = "encoders.a.first", torch.ones(1)
    wanted = {f"{first}.weight": torch.ones(2, 3), f"{first}.bias": torch.ones(2), "transformer.token": one}
    stored = {f"{first}.weight": torch.ones(4, 3), "transformer.token": one, "transformer.layers.1.x": one}
    stored |= dict.fromkeys(("encoders.a.projection.weight", "encoders.b.first.weight", "head.weight"), one)
    assert initial_weights._misfits("x", wanted, stored) == [
        "x: has no tensor encoders.a.first.bias",
        "x: tensor transformer.layers.1.x has no place in the model",
        "x: tensor encoders.a.first.weight has the shape [4, 3], but the model has [2, 3]",
    ]


def test_samples_that_lack_a_modality_and_weights_that_are_not_finite_are_refused():
    gaps = {name: mask.copy() for name, mask in DATA.train.present.items()}
    gaps["view_1"][3] = False
    with pytest.raises(InputError, match="method 'cmc' cannot be trained on samples that lack a modality"):
        LockstepTrainer(tiny_config(method="cmc", train__epochs=2), job(pool=replace(DATA.train, present=gaps)))
    training = LockstepTrainer(tiny_config(method="cmc", train__epochs=2), job())
    with torch.no_grad():
        next(training.trainers[1].method.encoders.parameters())[0, 0] = float("nan")
    with pytest.raises(TrainingFailed, match=r"not finite .*\(fold 1\)"):
        training.trainers[1].fit_evaluation()


def test_a_batch_of_one_and_compiled_tokens_are_refused():
    with pytest.raises(InputError) as caught:
        loading.load({"method": "comm", "train": {"batch_size": 1}, "model": {"compile": True}})
    assert [line.partition(" for method")[0] for line in caught.value.faults] == [
        "config: train.batch_size must be >= 2", "config: model.compile must be false"
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"objective\.temperature must be >= 0\.01"):
        loading.load({"method": "cross", "objective": {"temperature": 0.001}})


def test_numbers_of_modalities_that_a_method_does_not_take_are_refused():
    for method, line in (
        ("cross", "method 'cross' takes 2 modalities, but the data has 3 (view_0, view_1, view_2)"),
        ("simclr", "method 'simclr' needs data.modalities with exactly one modality"),
    ):
        with pytest.raises(InputError) as caught:
            m3col.train({"method": method, "data": {"name": "arrays"}}, data=DATA, tracking_uri="none")
        assert any(line in fault for fault in caught.value.faults)
    with pytest.raises(InputError) as caught:
        loading.load({"method": "slip", "data": {"modalities": ["a", "b", "c"]}})
    line = "config: method 'slip' needs data.modalities with 2 modalities, but got ['a', 'b', 'c']"
    assert caught.value.faults == (line,)
    with pytest.raises(InputError) as caught:
        loading.load({"method": "comm", "model": {"embedding_dim": 10}, "objective": {"fusion_heads": 4}})
    line = "config: objective.fusion_heads must divide model.embedding_dim (10), but is 4; nearest valid: 5"
    assert caught.value.faults == (line,)


def test_a_task_that_a_method_does_not_have_is_refused():
    for method in ("supcon", "factorcl_sup"):
        with pytest.raises(InputError) as caught:
            loading.load({"method": method, "task": "regression"})
        assert f"config: task 'regression' is not one of method {method!r}; it has single_label" in caught.value.faults


def test_the_rate_warms_up_and_falls_along_a_cosine():
    config = tiny_config(train__epochs=30, train__learning_rate=0.1).train
    schedule = config.schedule.model_copy(update={"kind": "warmup_cosine", "warmup": 10})
    rates = [Schedule(config.model_copy(update={"schedule": schedule})).rate(epoch) for epoch in range(1, 31)]
    for e, rate in enumerate(rates):
        if e < 10:
            expected = 1e-6 + e * (0.1 - 1e-6) / 9
        else:
            expected = 1e-6 + (0.1 - 1e-6) * (1 + np.cos(np.pi * (e - 10) / 20)) / 2
        assert rate == pytest.approx(expected, rel=1e-12)
    with pytest.raises(InputError, match=r"warmup must be < train\.epochs \(5\), but is 10; nearest valid: 4"):
        tiny_config(train__epochs=5, train__schedule={"kind": "warmup_cosine"})


@pytest.mark.parametrize(
    ("name", "empty"), [("vit_tiny_patch16_224", False), ("vit_tiny_patch16_224", True), ("resnet10t", False)]
)
def test_comm_fuses_images_texts_sequences_and_tables_and_trains_all_its_weights(name, empty):
    """`empty`: a rank without a row of the batch, whose gradients are zero but there: DDP waits for each."""
    options = builders.VIT if name.startswith("vit") else {}
    config = small(
        model__embedding_dim=8,
        model__image={"name": name, "pretrained": False, "options": options},
        model__text={"name": "bert", "pretrained": False, "options": {**builders.SMALL, "intermediate_size": 64}},
        model__sequence={"name": "gru", "width": 6},
    )  # fmt: skip
    torch.manual_seed(0)
    features = {
        "image": ImageInput(32),
        "text": TextInput(builders.VOCABULARY, 0, 40),
        "series": SequenceInput(3),
        "table": 4,
    }
    method = registry.load("comm")(config, features=features, task=tasks.build(classes=2))
    count = 0 if empty else 4
    steps = Sequences(torch.randn(count, 5, 3), torch.arange(5) < torch.tensor([5, 2, 1, 4])[:count, None])
    rows = {
        "image": torch.rand(count, 3, 32, 32),
        "text": builders.batch()[:count],
        "series": steps,
        "table": torch.randn(count, 4),
    }
    fused = method.fuse(rows, [method.modalities, ["series"]])
    assert list(fused.shape) == [2, count, 8]
    # As in a batch whose rows are all on other ranks: the projector runs on theirs.
    gathered = torch.cat([fused[0], torch.randn(3, 8)])
    method.projector(gathered).square().sum().backward()
    missing = [path for path, value in method.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []
