"""Each analysis against a slow twin: loops over samples, dot products by hand, noise that is the sample itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from m3col import analysis
from m3col.analysis import confidence, heatmaps, modality_errors, modality_noise, robustness, umap_plot
from m3col.analysis.context import AnalysisContext, Options
from m3col.data.columns import MediaColumn
from m3col.errors import InputError
from m3col.inputs.specs import Tokens


@pytest.fixture(params=["paired", "numeric"])
def case(request):
    model = request.getfixturevalue(request.param)
    return AnalysisContext(model.predictor, model.dataset, Options(repeats=2))


def test_the_error_table_is_a_plain_loop_over_the_samples(case):
    table = modality_errors.count(case)
    counted: dict[tuple[bool, ...], int] = {}
    for row in range(len(case.test)):
        key = tuple(case.votes[head][row].argmax() == case.labels[row] for head in (*case.modalities, "fused"))
        counted[key] = counted.get(key, 0) + 1
    joint = table[table["heads"] == "all"]
    assert len(joint) == 2 ** len(case.modalities)
    for line in joint.to_dict("records"):
        pattern = tuple(line[name] == "right" for name in case.modalities)
        assert line["fused_right"] == counted.get((*pattern, True), 0)
        assert line["fused_wrong"] == counted.get((*pattern, False), 0)
    assert joint[["share_right", "share_wrong"]].to_numpy().sum() == pytest.approx(1)
    for place, name in enumerate(case.modalities):
        some = table[(table["heads"] == name) & (table[name] == "wrong")].iloc[0]
        assert some["fused_right"] == sum(n for key, n in counted.items() if not key[place] and key[-1])


def test_without_heads_of_their_own_there_is_no_error_table(numeric):
    case = AnalysisContext(numeric.predictor, numeric.dataset)
    case.__dict__["votes"] = {"fused": case.votes["fused"]}
    assert "unimodal_supervision" in modality_errors.obstacle(case)


def one(case, member, row):
    """A sample alone: its inputs and, as the model takes them, its values."""
    inputs = case.test.take([row]).inputs
    values = {}
    for name, source in member.sources(inputs).items():
        batch = source.rows(slice(0, 1))
        values[name] = (
            member.method.encoders[name].embed(batch).embeddings[0] if isinstance(batch, Tokens) else batch[0]
        )
    return inputs, values


def test_noise_without_spread_around_the_sample_changes_nothing(case):
    member = case.predictor.members[0]
    for row in (0, 5):
        inputs, values = one(case, member, row)
        spoilt = robustness.NoisyMember.of(member, inputs, case.dataset.train.inputs)
        itself = {name: modality_noise.Moments(v.detach().double().numpy(), np.zeros(1)) for name, v in values.items()}
        spoilt = replace(spoilt, moments=itself)
        expected = member.probabilities(inputs)
        found = spoilt.votes(case.modalities, modality_noise.Draw(0, 0))
        assert found.keys() == expected.keys()
        assert all(np.allclose(found[head], expected[head], atol=1e-6) for head in expected)
        moved = replace(
            spoilt, moments={name: replace(m, std=np.ones(1)) for name, m in itself.items()}
        )  # fmt: skip
        assert not np.allclose(
            moved.votes(case.modalities, modality_noise.Draw(0, 0))["fused"], expected["fused"], atol=1e-4
        )


def test_only_what_is_replaced_changes(case):
    spoilt = robustness.noisy_members(case, np.arange(len(case.test)))
    for name in case.modalities:
        votes = robustness.mean_votes(spoilt, (name,), modality_noise.Draw(0, 1))
        for head in case.heads:
            assert np.allclose(votes[head], case.votes[head], atol=1e-6) == (head != name)
        assert not np.allclose(votes["fused"], case.votes["fused"], atol=1e-6)


def test_moments_are_those_of_the_training_split(case):
    member, inputs = case.predictor.members[0], case.dataset.train.inputs
    found = modality_noise.moments(member, inputs)
    for name, source in member.sources(inputs).items():
        rows = []
        for row in range(len(source)):
            batch = source.rows(slice(row, row + 1))
            if isinstance(batch, Tokens):
                rows += [*member.method.encoders[name].embed(batch).embeddings[0].detach().double().numpy()]
            elif batch.ndim == 4:
                rows += [*batch[0].permute(1, 2, 0).reshape(-1, 3).double().numpy()]
            else:
                rows.append(batch[0].double().numpy())
        assert np.allclose(found[name].mean.ravel(), np.mean(rows, axis=0), atol=1e-7)
        assert np.allclose(found[name].std.ravel(), np.std(rows, axis=0), atol=1e-6)


def test_noise_has_these_moments_and_depends_on_nothing_but_its_key(case):
    member, inputs = case.predictor.members[0], case.test.inputs
    moments = modality_noise.moments(member, case.dataset.train.inputs)
    for name, source in member.sources(inputs).items():
        made = modality_noise.replaced(source, name, moments[name], modality_noise.Draw(0, 0), member.dtype)
        whole = made.rows(slice(0, 8))
        pieces = [made.rows(slice(row, row + 1)) for row in range(8)]
        other = modality_noise.replaced(source, name, moments[name], modality_noise.Draw(0, 1), member.dtype).rows(
            slice(0, 8)
        )
        if isinstance(whole, Tokens):
            assert torch.equal(whole.mask, source.rows(slice(0, 8)).mask)
            values = whole.embeddings[whole.mask]
            assert torch.equal(values, torch.cat([piece.embeddings[piece.mask] for piece in pieces]))
            assert not torch.equal(values, other.embeddings[whole.mask])
            width = values.reshape(-1, values.shape[-1])
        else:
            assert torch.equal(whole, torch.cat(pieces)) and not torch.equal(whole, other)
            width = whole.transpose(0, 1).reshape(whole.shape[1], -1).T if whole.ndim == 4 else whole
        error = (width.double().numpy().mean(axis=0) - moments[name].mean.ravel()) / moments[name].std.ravel().clip(
            1e-9
        )
        assert np.abs(error).mean() < 1.6 / np.sqrt(len(width))


def test_accuracies_are_a_loop_over_draws(case):
    table = robustness.accuracies(case).set_index(["replaced", "head"])
    assert set(table.index.get_level_values(0)) == {"none", *case.modalities}
    for head in ("fused", *case.heads):
        assert table.loc[("none", head), "accuracy"] == pytest.approx(case.right[head].mean())
    spoilt, name = robustness.noisy_members(case, np.arange(len(case.test))), case.modalities[0]
    scores = [
        np.mean([
            votes.argmax() == k
            for votes, k in zip(
                robustness.mean_votes(spoilt, (name,), modality_noise.Draw(0, r))["fused"], case.labels, strict=True
            )
        ])
        for r in (0, 1)
    ]  # fmt: skip
    assert table.loc[(name, "fused"), "accuracy"] == pytest.approx(np.mean(scores))
    assert table.loc[(name, "fused"), "sd"] == pytest.approx(np.std(scores, ddof=1))
    assert table["draws"].tolist() == [1 if replaced == "none" else 2 for replaced, _ in table.index]


def test_quantiles_of_the_largest_probabilities(case):
    found = confidence.confidences(case)
    assert np.allclose(np.sort(found["test"]), np.sort(case.predictor.predict_proba(case.test.inputs).max(axis=1)))
    assert len(found["random"]) == len(case.test) and found["random"].min() >= 1 / case.dataset.num_classes
    table = confidence.quantiles(found).set_index("inputs")
    assert table.loc["random", "q50"] == pytest.approx(np.median(found["random"]))
    assert table.loc["test", "q95"] == pytest.approx(np.quantile(found["test"], 0.95))


def test_similarities_are_dot_products_by_hand(paired):
    case = AnalysisContext(paired.predictor, paired.dataset)
    member = paired.predictor.members[0]
    other, found = heatmaps.similarities(case, ["a longer word", "red"], np.array([3, 0]))
    assert not np.allclose(other, found)
    with torch.no_grad():
        word = member.method.encoders["text"](
            member.sources({"text": MediaColumn.of("text", ["red"])})["text"].rows(slice(1))
        )
        for place, row in enumerate((3, 0)):
            image = member.sources({"image": case.test.inputs["image"]})["image"].rows(slice(row, row + 1))
            tokens = member.method.encoders["image"].tokens(image)[0]
            for patch in range(len(tokens)):
                by_hand = sum(float(a) * float(b) for a, b in zip(tokens[patch], word[0], strict=True))
                assert found[place, patch // 2, patch % 2] == pytest.approx(by_hand, rel=1e-4, abs=1e-5)


def test_images_are_of_the_class_or_those_that_agree_most(paired):
    case = AnalysisContext(paired.predictor, paired.dataset)
    found = heatmaps.word_maps(case, ["RED", "frog", "whale"])
    at, maps = found["RED"]
    assert set(case.labels[at]) == {case.dataset.classes.index("red")} and len(at) == 4
    np.testing.assert_allclose(maps, heatmaps.similarities(case, ["RED"], at)[0], rtol=1e-5, atol=1e-6)
    for word in ("frog", "whale"):
        at, maps = found[word]
        every = heatmaps.similarities(case, [word], np.arange(len(case.test)))[0]
        assert at.tolist() == np.argsort(-every.mean(axis=(1, 2)))[: heatmaps.IMAGES].tolist()
        np.testing.assert_allclose(maps, every[at], rtol=1e-5, atol=1e-6)


def test_a_class_without_test_samples_is_looked_for_everywhere(paired):
    red = paired.dataset.classes.index("red")
    test = paired.dataset.test
    case = AnalysisContext(
        paired.predictor, replace(paired.dataset, test=test.take(np.flatnonzero(test.labels != red)))
    )
    at, maps = heatmaps.word_maps(case, ["red"])["red"]
    assert len(at) == len(maps) == heatmaps.IMAGES


def test_images_are_encoded_once_for_all_words_and_few_at_a_time(paired, monkeypatch):
    case = AnalysisContext(paired.predictor, paired.dataset, Options(words=("frog", "whale", "red", "blue")))
    expected = heatmaps.run(case).table
    encoder, sizes = paired.predictor.members[0].method.encoders["image"], []
    monkeypatch.setattr(heatmaps, "_BATCH", 5)
    tokens = encoder.tokens
    monkeypatch.setattr(encoder, "tokens", lambda batch: sizes.append(len(batch)) or tokens(batch), raising=False)
    found = heatmaps.run(case).table
    assert sizes == [5, 5, 2] and len(case.test) == 12
    assert found["sample"].tolist() == expected["sample"].tolist()
    np.testing.assert_allclose(found["similarity"], expected["similarity"], rtol=1e-5, atol=1e-6)


def test_heat_maps_have_a_row_per_patch_and_a_file_per_word(paired):
    case = AnalysisContext(paired.predictor, paired.dataset, Options(words=("red", "a b", "a/b")))
    found = heatmaps.run(case)
    assert list(found.figures) == ["heatmaps_red", "heatmaps_a_b", "heatmaps_a_b_2"]
    red = found.table[found.table["word"] == "red"]
    assert len(red) == 4 * 4 and set(red["class"]) == {"red"} and set(found.table["member"]) == {1}
    at, maps = heatmaps.word_maps(case, case.options.words)["red"]
    line = red[(red["sample"] == case.test.ids[at[1]]) & (red["row"] == 1) & (red["column"] == 0)]
    assert line["similarity"].item() == maps[1, 1, 0]


def test_a_model_whose_patches_cannot_be_read_is_told_to_have_no_heat_maps(paired, monkeypatch):
    def forward_head(_):
        raise RuntimeError("shapes cannot be multiplied")

    model = paired.predictor.members[0].method.encoders["image"].model
    monkeypatch.setattr(model, "forward_head", forward_head, raising=False)
    case = AnalysisContext(paired.predictor, paired.dataset)
    assert "does not pool a patch alone: shapes cannot be multiplied" in heatmaps.obstacle(case)


def test_what_differs_from_the_paper_stands_on_the_page(paired, numeric):
    for model, has_texts in ((paired, True), (numeric, False)):
        case = AnalysisContext(model.predictor, model.dataset, Options(repeats=1))
        for found in (robustness.run(case), confidence.run(case)):
            assert "In the paper several models are compared; this page is about one." in found.shown
            assert ("in place of the word embeddings" in found.shown) == has_texts


def test_embeddings_are_those_of_the_first_member(numeric):
    found = numeric.predictor.embeddings(numeric.dataset.test.inputs)
    first = numeric.predictor.members[0]
    for name, source in first.sources(numeric.dataset.test.inputs).items():
        assert np.array_equal(found[name], first.method.encoders[name](source.rows(slice(None))).detach().numpy())
    assert "first of 2 members" in AnalysisContext(numeric.predictor, numeric.dataset).member_note()


@pytest.mark.dear(
    "UMAP compiles itself for half a minute; test_words.py and test_subsets.py have all but its projection"
)
def test_umap_is_seeded_and_names_every_sample(paired):
    case = AnalysisContext(paired.predictor, paired.dataset)
    found = umap_plot.run(case)
    assert set(found.table["embedding"]) == {"image", "text", "joint"} and len(found.table) == 3 * len(case.test)
    joint = found.table[found.table["embedding"] == "joint"]
    assert joint["sample"].tolist() == case.test.ids.tolist() and np.isfinite(joint[["x", "y"]]).all(axis=None)
    embeddings = paired.predictor.embeddings(case.test.inputs)
    both = np.concatenate([embeddings["image"], embeddings["text"]], axis=1)
    assert np.array_equal(umap_plot.project(both, 0), joint[["x", "y"]].to_numpy())
    texts = [text.get_text() for text in found.figures["umap"].legends[0].get_texts()]
    assert sorted(texts) == sorted(case.dataset.classes)


def test_umap_says_what_is_missing(paired, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(InputError, match=r"pip install 'm3col\[analysis\]'"):
        umap_plot.project(np.zeros((20, 3)), 0)


def test_samples_are_drawn_once_and_the_frequent_classes_are_those_of_the_test_split(numeric):
    case = AnalysisContext(numeric.predictor, numeric.dataset, Options(samples=10))
    at = case.subsample("umap")
    assert len(at) == 10 and (np.diff(at) > 0).all() and at.tolist() == case.subsample("umap").tolist()
    assert at.tolist() != case.subsample("other").tolist()
    assert case.frequent(2) == [0, 1]


def test_every_entry_of_the_table_has_a_description():
    assert all(entry.description and entry.name == name for name, entry in analysis.TABLE.items())
