"""Modalities may be called anything: training, checkpoint, prediction, resume, rates per modality and workers."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

import m3col
from m3col import tasks
from m3col.config import loading
from m3col.config.loading import with_overrides
from m3col.config.schema import RunConfig
from m3col.data.arrays import from_arrays
from m3col.data.splits import draw
from m3col.distributed import SINGLE_RANK, RankContext
from m3col.errors import InputError
from m3col.models.named_modules import NamedModules, safe_keys
from m3col.training import checkpoint
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from m3col.training.optimizer import parameter_groups
from tests.support.helpers import TINY
from tests.support.ranks import start_ranks

PAIRS = [
    ("rna.seq", "keys"),
    ("a", "a.0"),  # the second one's preprocessing would begin like the first one's
    ("a.b", "a%2Eb"),  # the safe key of the first is the second
    ("training", "%training"),
    (".", "%2E"),
    ("_modules", "_parameters"),
    ("items", "values"),
    ("type", "float"),
    ("pop", "state_dict"),
    ("CpG (450k)", "../../etc/passwd"),
    ("训练集", "miRNA\u00a0(hsa)"),
    ("bias", "encoders.bias.weight"),
    ("[rna]", "{0}%s"),
    ("weights.heads", "preprocess.rna"),
]


def data(names, *, samples: int = 24):
    draw = np.random.default_rng(0)
    labels = np.arange(samples) % 2
    return from_arrays({n: draw.normal(size=(samples, 4 + i)) + labels[:, None] for i, n in enumerate(names)}, labels)


def odd_config(names, **overrides) -> RunConfig:
    """Every setting that is given by modality, and steps with arrays of their own."""
    by_modality = {
        "data.preprocess": {name: ["impute", {"variance": 0}, "minmax"] for name in names},
        "mix.level": dict(zip(names, ("input", "embedding"), strict=True)),
        "train.encoder_learning_rate": {names[0]: 1e-3, names[1]: 1e-4},
    }
    return loading.load(TINY, overrides={**by_modality, "validation.folds": 2, **overrides})


def training(names, *, folds: int = 2, **overrides) -> LockstepTrainer:
    dataset = data(names)
    drawn = draw(dataset, kind="kfold", folds=folds, seed=0)
    return LockstepTrainer(
        odd_config(names, **overrides),
        TrainingJob(dataset.train, drawn, dataset.features, tasks.build(classes=dataset.classes)),
    )


@pytest.mark.parametrize("names", PAIRS, ids=str)
def test_what_was_trained_under_odd_names_predicts_from_its_checkpoint(names, tmp_path):
    trained = training(names)
    trained.advance(2)
    dataset = data(names)
    checkpoint.write_model(
        tmp_path / "model",
        trained.trainers,
        config=trained.config.to_dict(),
        classes=dataset.classes,
        features=dataset.features,
    )
    loaded = m3col.load(tmp_path / "model")
    assert loaded.modalities == names
    inputs = dataset.train.inputs
    expected = [trainer.logits(trainer.prepare(inputs)) for trainer in trained.trainers]
    votes = loaded.votes(inputs)
    assert set(votes) == {*names, "fused"} == set(expected[0])
    for head, value in votes.items():
        own = np.mean([torch.softmax(torch.tensor(logits[head]), 1).numpy() for logits in expected], axis=0)
        assert np.allclose(value, own, atol=1e-6)
    assert set(loaded.embeddings(inputs)) == set(names)


def test_a_modality_that_is_named_by_a_number_predicts_under_it(tmp_path):
    tables = data(("1", "2")).train.inputs
    dataset = from_arrays({1: tables["1"], 2: tables["2"]}, np.arange(24) % 2)
    drawn = draw(dataset, kind="kfold", folds=2, seed=0)
    job = TrainingJob(dataset.train, drawn, dataset.features, tasks.build(classes=2))
    run = LockstepTrainer(odd_config(("1", "2")), job)
    run.advance(1)
    checkpoint.write_model(tmp_path / "model", run.trainers, config=run.config.to_dict(), classes=dataset.classes,
                           features=dataset.features)  # fmt: skip
    loaded = m3col.load(tmp_path / "model")
    both = loaded.predict_proba(tables), loaded.predict_proba({1: tables["1"], 2: tables["2"]})
    assert np.array_equal(*both)
    for call in (
        lambda: from_arrays({1: tables["1"], "1": tables["2"]}, np.arange(24) % 2),
        lambda: loaded.predict_proba({1: tables["1"], "1": tables["1"], 2: tables["2"]}),
    ):
        with pytest.raises(InputError, match="modality '1' is given 2 times, as 1 and '1'"):
            call()


@pytest.mark.parametrize("names", PAIRS[:4], ids=str)
def test_a_training_under_odd_names_goes_on_as_if_never_stopped(names, tmp_path):
    whole, first, second = (training(names, **{"train.batch_size": 5}) for _ in range(3))
    whole.advance(4)
    first.advance(2)
    checkpoint.write_training(tmp_path / "epoch-2", first)
    checkpoint.restore_training(tmp_path / "epoch-2", second)
    second.advance(4)
    assert [record.metrics for record in whole.history] == [record.metrics for record in second.history]


@pytest.mark.parametrize("names", PAIRS, ids=str)
def test_rates_per_modality_reach_their_encoder(names):
    method = training(names).trainers[0].method
    scales = {
        id(parameter): group["scale"]
        for group in parameter_groups(odd_config(names), method)
        for parameter in group["params"]
    }
    rate = TINY["train"]["learning_rate"]
    for name, expected in zip(names, (1e-3, 1e-4), strict=True):
        assert {scales[id(p)] for p in method.encoders[name].parameters()} == {expected / rate}
        assert {scales[id(p)] for p in method.heads[name].parameters()} == {1.0}


def test_a_bias_in_the_name_of_a_modality_is_none():
    run = odd_config(("bias", "b.bias"), **{"train.decay": "weights"})
    method = training(("bias", "b.bias")).trainers[0].method
    decayed = {id(p) for group in parameter_groups(run, method) if group["weight_decay"] for p in group["params"]}
    assert all((id(p) in decayed) == (p.ndim > 1) for p in method.parameters())


def test_ordinary_names_are_their_own_keys_so_that_old_checkpoints_fit(tmp_path):
    names = ("view_0", "CpG (450k)")
    trained = training(names, folds=2)
    encoder = next(iter(trained.trainers[0].method.encoders.values()))
    plain = nn.ModuleDict({name: encoder for name in names})
    keys = [name for name, _ in trained.trainers[0].method.encoders.named_parameters(remove_duplicate=False)]
    assert keys == [name for name, _ in plain.named_parameters(remove_duplicate=False)]
    folder, dataset = tmp_path / "model", data(names)
    checkpoint.write_model(folder, trained.trainers, config=trained.config.to_dict(), classes=dataset.classes,
                           features=dataset.features)  # fmt: skip
    tensors = load_file(folder / "member-0.safetensors")
    assert {key.split(".")[1] for key in tensors if key.startswith("preprocess.")} == set(names)
    assert json.loads((folder / "checkpoint.json").read_text())["features"].keys() == set(names)


KEYS = [
    (["a", "b"], {"a": "a", "b": "b"}),
    (["a.b", "a%2Eb", "a%2Eb%"], {"a.b": "a%2Eb%%", "a%2Eb": "a%2Eb", "a%2Eb%": "a%2Eb%"}),
    (["", "%"], {"": "%%", "%": "%"}),
    (["training"], {"training": "%training"}),
    (["keys", "type"], {"keys": "keys", "type": "type"}),
    ([".", "..", "%2E"], {".": "%2E%", "..": "%2E%2E", "%2E": "%2E"}),
]


@pytest.mark.parametrize(("names", "keys"), KEYS)
def test_keys_have_no_dots_and_are_never_shared(names, keys):
    key_by_name = safe_keys(names)
    assert key_by_name == keys and [*key_by_name] == names
    assert len(set(key_by_name.values())) == len(names) and not any("." in key for key in key_by_name.values())


def test_named_modules_are_a_mapping_and_a_module():
    names = [*dir(nn.ModuleDict()), "a.b", "", "训练"]
    modules = NamedModules({name: nn.Linear(1, 1) for name in names})
    assert [*modules] == names == [*dict(modules.items())] and len(modules) == len(names) == len([*modules.values()])
    assert "a.b" in modules and "c" not in modules
    assert modules.split("a%2Eb.0.weight") == ("a.b", "0.weight")
    # Everything that torch does with a module reaches all of them.
    assert (
        len([*modules.parameters()]) == 2 * len(names) and modules.double().eval()["keys"].weight.dtype == torch.double
    )
    again = NamedModules({name: nn.Linear(1, 1) for name in names}).double()
    again.load_state_dict(modules.state_dict())
    assert all(torch.equal(modules[name].weight, again[name].weight) for name in names)
    assert not any(module.training for module in modules.values()) and modules.training is False


def whole_run(ranks: RankContext) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    names = ("rna.seq", "training")
    dataset = data(names)
    run = odd_config(names, **{"train.shards": 2, "train.precision": "float64", "train.batch_size": 8})
    trainer = FoldTrainer(run, dataset.train, features=dataset.features, task=tasks.build(classes=2), ranks=ranks)
    for epoch in (1, 2, 3):
        trainer.train_epoch(epoch, learning_rate=0.01)
    return trainer.logits(trainer.prepare(dataset.train.inputs))


def _worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    logits = whole_run(RankContext(rank, 2))
    torch.save({name: torch.tensor(value) for name, value in logits.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_compute_what_one_does(tmp_path):
    start_ranks(2, _worker, str(tmp_path))
    alone = whole_run(SINGLE_RANK)
    for rank in (0, 1):
        logits = torch.load(tmp_path / f"{rank}.pt")
        assert logits.keys() == alone.keys() == {"rna.seq", "training", "fused"}
        assert all(np.allclose(logits[name].numpy(), alone[name], atol=1e-10) for name in alone)


@pytest.mark.parametrize("names", PAIRS[:4], ids=str)
def test_a_config_keeps_the_names_of_modalities_whole(names):
    run = odd_config(names)
    assert loading.load(run.to_dict()) == run
    assert list(run.to_dict()["data"]["preprocess"]) == list(names)
    again = with_overrides(run, {f"mix.level.{names[0]}": "embedding", "train.epochs": 3})
    assert again.mix.level == dict.fromkeys(names, "embedding") and again.train.epochs == 3


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("mix.level", "imput", "mix.level.rna.seq must be one of input, embedding, but got 'imput'"),
        ("train.encoder_learning_rate", -1, "train.encoder_learning_rate.rna.seq must be > 0, but got -1"),
        ("train.encoder_learning_rate", None, "train.encoder_learning_rate.rna.seq must be a number, but got None"),
        ("data.preprocess", None, "data.preprocess.rna.seq: must be a list of steps"),
        ("data.preprocess", ["minmx"], "data.preprocess.rna.seq[0]: step 'minmx' is unknown"),
    ],
)
def test_a_fault_below_an_odd_name_says_the_whole_name(key, value, line):
    with pytest.raises(InputError) as caught:
        loading.load({}, overrides={key: {"rna.seq": value}})
    (fault,) = caught.value.faults
    assert fault.startswith(f"overrides: {line}")


@pytest.mark.parametrize("name", ["str", "float", "list[x]", "constrained-int", "dict[str,any]", "CpG [450k]"])
def test_a_modality_may_be_called_like_a_type(name):
    with pytest.raises(InputError) as caught:
        loading.load({}, overrides={"mix.level": {name: "x"}})
    assert list(caught.value.faults) == [
        f"overrides: mix.level.{name} must be one of input, embedding, but got 'x'"
    ]  # fmt: skip
