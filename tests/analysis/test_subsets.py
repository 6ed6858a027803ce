"""Analyses of subsets of the modalities: slow twins with loops over samples, and models whose answers are known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import m3col
from m3col import randomness
from m3col.analysis import alignment, linear_subsets, missing_modalities, runner, subset_scores, umap_plot
from m3col.analysis.context import AnalysisContext, Options
from m3col.data.dataset import Split
from m3col.data.splits import draw
from m3col.errors import InputError
from m3col.inputs.specs import Partial
from m3col.methods.supervised import FUSED
from tests.support.helpers import TINY, tiny_data

METHODS = {"comm": 3, "fusion_transformer": 2, "cross": 2, "factorcl": 2, "cmc": 3, "simclr": 1}

NARROW = {
    "comm": {"objective.projector_dim": 4, "objective.projector_hidden": 8, "objective.fusion_heads": 2},
    "fusion_transformer": {"objective.fusion_heads": 2}, "cross": {"objective.projector_dim": 4},
    "factorcl": {"objective.critic_hidden": 8}, "cmc": {"objective.projector_dim": 4},
    "simclr": {"data.modalities": ["view_0"], "objective.projector_dim": 4, "objective.projector_hidden": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """By method a trained model and its data; numeric tables are augmented with noise."""
    trained = {}
    for method, count in METHODS.items():
        dataset = tiny_data(classes=3, modalities=count, samples=45, test=24)
        overrides = {
            "method": method, "train.epochs": 2, "validation.kind": "holdout", "data.numeric.augment": "noise",
            **NARROW[method], **({} if method == "fusion_transformer" else {"objective.evaluations": 1}),
        }  # fmt: skip
        result = m3col.train(
            TINY, data=dataset, overrides=overrides, runs=tmp_path_factory.mktemp(method), tracking_uri="none"
        )
        trained[method] = SimpleNamespace(predictor=result.predictor, dataset=dataset)
    return trained


def case_of(model) -> AnalysisContext:
    return AnalysisContext(model.predictor, model.dataset, Options(seed=3))


@pytest.fixture
def case(models, request):
    return case_of(models[request.param])


MANY = pytest.mark.parametrize("case", ["comm", "fusion_transformer", "cross", "factorcl", "cmc"], indirect=True)


def test_alignment_and_uniformity_are_loops_over_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 4)), rng.normal(size=(9, 4))
    a[5] = 0  # it has no direction
    u, v = ([row / max(np.sqrt(sum(x * x for x in row)), 1e-300) for row in rows] for rows in (a, b))
    squared = [sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) for p, q in zip(u, v, strict=True)]
    assert alignment.alignment(a, b) == pytest.approx(np.mean(squared), rel=1e-9)
    assert alignment.alignment(a, b, alpha=1) == pytest.approx(np.mean(np.sqrt(squared)), rel=1e-9)
    for t, block in ((2.0, 1024), (3.0, 4)):
        monkeypatch.setattr(alignment, "_BLOCK", block)
        kernel = [
            np.exp(-t * sum((x - y) ** 2 for x, y in zip(u[i], u[j], strict=True))) for i in range(9) for j in range(i)
        ]
        assert alignment.uniformity(a, t=t) == pytest.approx(np.log(np.mean(kernel)), rel=1e-9)
    assert alignment.uniformity(np.ones((5, 2))) == pytest.approx(0, abs=1e-12)


def by_hand(method, name: str, inputs) -> torch.Tensor:
    """What the loss of a method compares, of one modality or of all: from its parts."""
    if hasattr(method, "transformer"):
        names = method.modalities if name == FUSED else [name]
        rows = method.transformer({m: method.tokens(m, inputs[m]) for m in names}, [names])[0]
        return method.projector(rows) if hasattr(method, "projector") else rows
    rows = method.encoders[name](inputs[name])
    return method.projections[name](rows) if method.config.method in ("cross", "cmc") else rows


@MANY
def test_the_embeddings_that_are_compared_are_those_of_the_loss(case):
    member = case.predictor.members[0]
    sources = member.sources(case.test.inputs)
    inputs = {name: source.rows(slice(None)) for name, source in sources.items()}
    compared = member.compared(sources)
    joint = {FUSED} if member.method.sequences else set()
    assert compared.keys() == {*case.modalities, *joint}
    with torch.no_grad():
        for name, rows in compared.items():
            np.testing.assert_allclose(rows, by_hand(member.method, name, inputs).double().numpy(), atol=1e-5)
    table = alignment.measures(case)
    pairs = table[(table["measure"] == "alignment") & ~table["first"].str.contains("view a")]
    assert len(pairs) == len(compared) * (len(compared) - 1) / 2
    for line in pairs.to_dict("records"):
        assert line["value"] == alignment.alignment(compared[line["first"]], compared[line["second"]])


def test_views_are_two_augmentations_of_a_sample(models):
    case = case_of(models["simclr"])
    (name,) = case.modalities
    member = case.predictor.members[0]
    inputs = {name: case.test.inputs[name]}
    clean, one, other, again = (
        source[name].rows(slice(2, 6))
        for source in (
            member.sources(inputs), member.augmented_sources(inputs, seed=3, view="a"),
            member.augmented_sources(inputs, seed=3, view="b"), member.augmented_sources(inputs, seed=3, view="a"),
        )
    )  # fmt: skip
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one, clean)
    table = alignment.measures(case).set_index("first")
    first, second = (member.compared(member.augmented_sources(inputs, seed=3, view=view))[name] for view in "ab")
    assert table.loc[f"{name} (view a)", "value"] == alignment.alignment(first, second) > 0
    assert "No modality is augmented" not in alignment.run(case).shown


@MANY
def test_linear_evaluation_is_fitted_to_the_training_fold_alone(case):
    method = case.predictor.members[0].method
    train, validation = subset_scores.folds(case)
    (fold,) = draw(case.dataset, kind="holdout", seed=method.config.validation.seed, task=case.task)
    assert train.ids.tolist() == case.dataset.train.ids[fold.train].tolist()
    assert validation.ids.tolist() == case.dataset.train.ids[fold.validation].tolist()
    table, fitted = linear_subsets.evaluations(case)
    assert fitted == len(train)
    chosen = subset_scores.subsets(case.modalities)
    member = case.predictor.members[0]
    for name, subset in chosen.items():
        rows = [member.subset_features(member.sources(s.inputs), [subset])[0] for s in (train, validation, case.test)]
        seed = randomness.torch_seed(seed=0, fold=0, epoch=0, purpose="evaluation")
        model = case.task.linear_model(rows[0], train.labels, weight=None, seed=seed)
        for split, x, labels in (("validation", rows[1], validation.labels), ("test", rows[2], case.labels)):
            line = table[(table["split"] == split) & (table["modalities"] == name)]
            right = [model.outputs(x[k : k + 1]).argmax() == labels[k] for k in range(len(x))]
            assert line["accuracy"].item() == pytest.approx(np.mean(right)) and line["cost"].item() == model.cost
    whole = table[table["modalities"] == "all"].set_index("split")["accuracy"]
    gains = table["split"].map(whole) - table["accuracy"]
    assert np.allclose(table["accuracy_gain"], gains) and len(table) == 2 * len(chosen)


@pytest.mark.parametrize(("samples", "fitted", "splits"), [(45, 45, {"test"}), (None, 36, {"test"})])
def test_no_sample_validates_that_may_have_been_trained_on(models, monkeypatch, samples, fitted, splits):
    """Of a model of the whole training split, and of one whose checkpoint does not say how many samples it saw."""
    case = case_of(models["cross"])
    assert case.predictor.members[0].samples == 36 and len(case.dataset.train) == 45
    monkeypatch.setattr(case.predictor.members[0], "samples", samples)
    assert linear_subsets.obstacle(case) is None
    table, count = linear_subsets.evaluations(case)
    assert count == fitted and {*table["split"]} == splits
    with_validation = replace(case.dataset, validation=case.dataset.train.take(range(9)))
    monkeypatch.setattr(case, "dataset", with_validation)
    assert (subset_scores.folds(case)[1] is with_validation.validation) == (samples == 45)


def test_a_training_split_of_another_size_is_not_that_of_the_training(models, monkeypatch):
    case = case_of(models["cross"])
    monkeypatch.setattr(case.predictor.members[0], "samples", 40)
    text = linear_subsets.obstacle(case)
    assert (
        text is not None and "trained on 40 samples, but arrays has 45 for training, of which its fold has 36" in text
    )


@pytest.mark.parametrize("case", ["comm", "cross", "factorcl", "cmc"], indirect=True)
def test_the_classifier_of_the_training_follows_from_the_same_rows_and_fold(case):
    member = case.predictor.members[0]
    train, _ = subset_scores.folds(case)
    (rows,) = member.subset_features(member.sources(train.inputs), [case.modalities])
    seed = randomness.torch_seed(seed=0, fold=0, epoch=0, purpose="evaluation")
    model = case.task.linear_model(rows, train.labels, weight=None, seed=seed)
    np.testing.assert_allclose(member.method.evaluation_weight, model.weight, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(member.method.evaluation_bias, model.bias, rtol=1e-3, atol=1e-4)
    table, _ = linear_subsets.evaluations(case)
    whole = table[(table["modalities"] == "all") & (table["split"] == "test")]
    assert whole["accuracy"].item() == pytest.approx(case.right[FUSED].mean())  # what the page says of the model


@MANY
def test_rows_of_a_subset_do_not_depend_on_other_modalities(case):
    member = case.predictor.members[0]
    chosen = subset_scores.subsets(case.modalities)
    before = dict(
        zip(chosen, member.subset_features(member.sources(case.test.inputs), [*chosen.values()]), strict=True)
    )
    for name in case.modalities:
        changed = {**case.test.inputs, name: case.test.inputs[name] + 5}
        sources = member.sources(changed)
        after = dict(zip(chosen, member.subset_features(sources, [*chosen.values()]), strict=True))
        for subset, names in chosen.items():
            assert np.allclose(before[subset], after[subset], atol=1e-6) == (name not in names), (name, subset)


def test_scores_have_intervals_of_the_protocol(models):
    case = case_of(models["cross"])
    labels, predictions = case.labels, case.votes[FUSED]
    row = subset_scores.scores(case, labels, predictions)
    recalls = [np.mean(predictions[labels == k].argmax(axis=1) == k) for k in range(3)]
    assert row["balanced_accuracy"] == pytest.approx(np.mean(recalls)) and row["samples"] == len(labels)
    assert row["balanced_accuracy_low"] <= row["balanced_accuracy"] <= row["balanced_accuracy_high"]
    assert np.isnan(subset_scores.scores(case, labels[:1], predictions[:1])["accuracy_low"])


@pytest.mark.parametrize("parts", [(0.3, 0, 0, 0), (0, 0.2, 0.1, 0), (0, 0, 0, 0.4), (0.1, 0.2, 0.05, 0.15)])
def test_ranges_are_all_parts_that_agree_with_the_scores(parts):
    """Every way to divide the scores into parts of 0 or more, on a fine grid; the true one is among them."""
    alone, both = (parts[0] + parts[1], parts[0] + parts[2]), sum(parts)
    ways = []
    for redundant in np.arange(0, 0.6, 0.01):
        way = (redundant, alone[0] - redundant, alone[1] - redundant, both - alone[0] - alone[1] + redundant)
        if min(way) > -1e-9:
            ways.append(way)
    ranges = [*linear_subsets.ranges(alone, both).values()]
    np.testing.assert_allclose(ranges, np.stack([np.min(ways, axis=0), np.max(ways, axis=0)], axis=1), atol=1e-9)
    assert all(low - 1e-12 <= part <= high + 1e-12 for part, (low, high) in zip(parts, ranges, strict=True))


def test_a_score_below_chance_or_below_that_of_a_part_gives_no_negative_part():
    for alone, both in (((-0.1, 0.2), 0.1), ((0.3, 0.3), 0.2), ((-0.1, -0.1), -0.2)):
        assert all(0 <= low <= high for low, high in linear_subsets.ranges(alone, both).values())


@MANY
def test_a_missing_modality_is_one_that_a_sample_lacks(case):
    """Leaving it out equals samples that lack it; what it holds makes no difference."""
    table = missing_modalities.missing(case).set_index("modalities")
    assert table.loc["all", "accuracy"] == pytest.approx(case.right[FUSED].mean())
    member, gone = case.predictor.members[0], case.modalities[0]
    left = tuple(name for name in case.modalities if name != gone)
    found = missing_modalities.outputs(member, case.test.inputs, left)[FUSED]
    noise = {**case.test.inputs, gone: case.test.inputs[gone] * 7 - 3}
    np.testing.assert_array_equal(found, missing_modalities.outputs(member, noise, left)[FUSED])
    method, sources = member.method, member.sources(case.test.inputs)
    rows = {name: source.rows(slice(None)) for name, source in sources.items()}
    with torch.no_grad():
        if method.sequences:  # the tokens are not even there
            fused = method.transformer({name: method.tokens(name, rows[name]) for name in left}, [left])[0]
            logits = method.evaluate(fused) if hasattr(method, "evaluate") else method.head(fused)
        else:
            absent = Partial(rows[gone], torch.zeros(len(case.test), dtype=torch.bool))
            logits = method.logits(rows | {gone: absent})[FUSED]
    np.testing.assert_allclose(found, case.task.link(logits.double().numpy()), atol=1e-5)
    right = (case.task.decide(found) == case.labels).mean()
    assert table.loc[f"without {gone}", "accuracy"] == pytest.approx(right)
    assert table.loc[f"without {gone}", "accuracy_loss"] == pytest.approx(case.right[FUSED].mean() - right)


def test_one_modality_has_no_subsets(models):
    case = case_of(models["simclr"])
    for module in (linear_subsets, missing_modalities):
        assert module.obstacle(case) == "needs two or more modalities, but the model has one"
    assert alignment.obstacle(case) is None
    with pytest.raises(InputError, match="missing: needs two or more modalities"):
        runner.analyse(models["simclr"].predictor, models["simclr"].dataset, "/nowhere", only=["missing"])


def lacking(split, rows) -> Split:
    """The split, where the samples at `rows` lack the first modality."""
    first = next(iter(split.present))
    mask = np.ones(len(split), dtype=bool)
    mask[rows] = False
    return replace(split, present={**split.present, first: mask})


@pytest.mark.parametrize(
    ("method", "modalities", "terms", "said"),
    [
        ("comm", 2, "all", "tokens, and the loss of the training has each modality alone."),
        ("comm", 2, "masked", "tokens, and the loss of the training has each modality alone."),
        ("comm", 2, "full", "tokens, which the model has not seen unless training samples lacked it."),
        ("fusion_transformer", 2, None, "tokens, which the model has not seen unless training samples lacked it."),
    ],
)
def test_what_the_training_has_seen_of_a_missing_modality(models, monkeypatch, method, modalities, terms, said):
    case = case_of(models[method])
    monkeypatch.setattr(type(case), "modalities", case.modalities[:modalities])
    if terms is not None:
        own = case.predictor.members[0].method
        monkeypatch.setattr(own, "settings", own.settings.model_copy(update={"terms": terms}))
    assert f"{missing_modalities._how(case)}.".endswith(said)


@pytest.mark.parametrize("part", ["test", "train"])
def test_without_a_sample_that_has_all_modalities_the_reason_is_said(models, tmp_path, part):
    model, names = models["cross"], ["linear", "missing"] if part == "test" else ["linear"]
    dataset = replace(model.dataset, **{part: lacking(getattr(model.dataset, part), slice(None))})
    with pytest.raises(InputError) as caught:
        runner.analyse(model.predictor, dataset, tmp_path, only=names)
    called = {"test": "a test sample", "train": "a training sample"}[part]
    assert [line.partition(", but")[0] for line in caught.value.faults] == [
        f"{name}: needs {called} that has all modalities" for name in names
    ]


def test_samples_that_lack_a_modality_are_no_part_of_the_subsample(models):
    model = models["cross"]
    dataset = replace(model.dataset, test=lacking(model.dataset.test, slice(0, 20)))
    case = AnalysisContext(model.predictor, dataset, Options(samples=3))
    assert missing_modalities.missing(case)["samples"].tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ((0.9, 0.5, 0.8), ["-10.0 points", "sees less in"]),
        ((0.5, 0.5, 0.9), ["+40.0 points", "synergistic (in neither alone): "]),
    ],
)
def test_a_gain_in_words(models, scores, words):
    case = case_of(models["cross"])
    names = [*subset_scores.subsets(case.modalities)]
    text = linear_subsets.in_words(case, pd.DataFrame({"modalities": names, "balanced_accuracy": scores}))
    assert all(word in text for word in words) and ("sees less in" in text) == ("sees less in" in words)


def test_what_the_page_says_of_the_modalities(models, tmp_path):
    model = models["cross"]
    runner.analyse(model.predictor, model.dataset, tmp_path, only=["linear", "missing", "alignment"])
    page = (tmp_path / "README.md").read_text()
    assert "a gain of" in page and "synergistic (in neither alone)" in page and "unique to view_0" in page
    assert page.count("is what the tables of CoMM's paper call accuracy") == 2
    assert "an embedding of zeros is put in its place" in page
    comm = case_of(models["comm"])
    assert "leaves out its tokens, and the loss of the training has each modality alone, but not" in (
        missing_modalities.run(comm).shown
    )
    assert "All modalities score above all but one" in linear_subsets.run(comm).shown


def test_the_joint_projection_of_a_model_that_fuses_is_that_of_its_fused_embedding(models, monkeypatch):
    case, projected = case_of(models["comm"]), {}
    monkeypatch.setattr(umap_plot, "project", lambda rows, seed: projected.setdefault(len(projected), rows)[:, :2])
    table = umap_plot.run(case).table
    assert [*dict.fromkeys(table["embedding"])] == [*case.modalities, "joint"]
    member = case.predictor.members[0]
    inputs = {name: source.rows(slice(None)) for name, source in member.sources(case.test.inputs).items()}
    with torch.no_grad():
        fused = member.method.features(inputs).double().numpy()
        alone = member.method.fuse(inputs, [[case.modalities[0]]])[0].double().numpy()
    np.testing.assert_array_equal(projected[3], fused)
    np.testing.assert_allclose(projected[0], alone, atol=1e-6)
