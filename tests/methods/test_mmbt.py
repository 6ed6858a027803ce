"""MMBT against a twin of one sample and one token at a time, absent modalities, and what is refused."""

import pytest
import torch

import m3col
from m3col import tasks
from m3col.checks.resolve import check_against_data
from m3col.config import loading
from m3col.errors import InputError
from m3col.inputs.specs import ImageInput, Partial, TextInput
from m3col.methods import registry
from m3col.methods.batch import Batch
from m3col.methods.mmbt import part_means
from m3col.methods.supervised import FUSED
from tests.methods.test_contract import STEP, build
from tests.models import builders
from tests.support import pairs
from tests.support.helpers import tiny_config, tiny_data


def by_hand(method, images, texts, i: int, *, image: bool = True, text: bool = True) -> torch.Tensor:
    """The logits [C] of sample i alone, without padding, of the modalities that are named."""
    encoder = method.encoders["words"]
    bert, table = encoder.model, encoder.model.get_input_embeddings()
    ids = texts.ids[i, : int(texts.mask[i].sum())]
    cells = method.encoders["picture"].sequence(images[i : i + 1]).values[0]
    groups, size = [], len(cells) / 3
    for k in range(3):
        start, stop = int(k * size), -int(-(k + 1) * size // 1)
        groups.append(method.adapter(sum(cells[start:stop]) / (stop - start)))
    # (vector, segment, position)
    tokens = [(table(ids[0]), 0, 0)]
    tokens += [(group, 0, 1 + k) for k, group in enumerate(groups)] if image else []
    tokens += [(table(ids[-1]), 0, 4)]
    tokens += [(table(number), 1, at) for at, number in enumerate(ids[1:])] if text else []
    segments, places = (torch.tensor([[token[part] for token in tokens]]) for part in (1, 2))
    padding = getattr(bert.embeddings.position_embeddings, "padding_idx", None)
    places = places if padding is None else places + padding + 1
    segments = segments if bert.config.type_vocab_size > 1 else torch.zeros_like(segments)
    hidden = bert(
        inputs_embeds=torch.stack([token[0] for token in tokens])[None], token_type_ids=segments, position_ids=places
    ).last_hidden_state
    return method.head(hidden[:, 0])[0]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_the_logits_again_with_one_sample_at_a_time(kind):
    method, batch = build("mmbt", model__text__name=kind)
    images, texts = batch.inputs.values()
    logits = method.logits(batch.inputs)[FUSED]
    for i in range(9):
        expected = by_hand(method, images, texts, i)
        torch.testing.assert_close(logits[i], expected, rtol=1e-9, atol=1e-12)


def test_a_modality_that_a_sample_lacks_is_not_attended_to():
    method, batch = build("mmbt")
    images, texts = batch.inputs.values()
    has_image, has_text = torch.arange(9) != 2, torch.arange(9) != 5
    inputs = {"picture": Partial(images, has_image), "words": Partial(texts, has_text)}
    logits = method.logits(inputs)[FUSED]
    for i in range(9):
        expected = by_hand(method, images, texts, i, image=bool(has_image[i]), text=bool(has_text[i]))
        torch.testing.assert_close(logits[i], expected, rtol=1e-9, atol=1e-12)
    losses = method.losses(Batch.of(inputs, batch.labels), STEP)
    losses["loss"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters() if p.requires_grad)


def test_subsets_and_embeddings_of_single_modalities():
    method, batch = build("mmbt")
    both, words = method.subset_features(batch.inputs, [["picture", "words"], ["words"]])
    torch.testing.assert_close(method.head(both), method.logits(batch.inputs)[FUSED])
    alone = method.encode(batch.inputs)
    assert torch.equal(alone["words"], words) and [*alone] == ["picture", "words"]
    assert [*method.compared(batch.inputs)] == [FUSED, "picture", "words"]
    with pytest.raises(TypeError, match="has no outputs for embeddings of single modalities"):
        method.classify(alone)


def test_equal_parts_of_the_patches():
    assert part_means(4, 2).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    assert part_means(2, 3).tolist() == [[1, 0], [0.5, 0.5], [0, 1]]
    torch.testing.assert_close(part_means(17, 3).sum(dim=1), torch.ones(3))


def test_modalities_and_text_encoders_that_it_cannot_take_are_refused(tmp_path):
    raw = {"method": "mmbt", "data": {"name": "arrays"}, "validation": {"kind": "none"}}
    (line,) = check_against_data(loading.load(raw), data=tiny_data())[1]
    assert "takes one modality of each of image, text, but the data has view_0 (numeric), view_1 (numeric)" in line
    place = pairs.folder(tmp_path)
    assert check_against_data(pairs.config(place, method="mmbt"))[1] == []
    options = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    config = pairs.config(place, method="mmbt", model__text__name="modernbert", model__text__options=options)
    (line,) = check_against_data(config)[1]
    assert "model.text.name 'modernbert': 'modernbert' takes no positions of tokens; name an encoder such as" in line
    with pytest.raises(InputError, match="takes one modality of images and one of texts"):
        registry.load("mmbt")(tiny_config(method="mmbt"), features={"a": 3, "b": 4}, task=tasks.build(classes=2))
    with pytest.raises(InputError, match=r"model\.compile must be false"):
        pairs.config(place, method="mmbt", model__compile=True)


def test_it_is_trained_saved_and_predicts(tmp_path):
    place = pairs.folder(tmp_path / "data")
    config = pairs.config(place, method="mmbt", train__epochs=12, train__learning_rate=0.003)
    result = m3col.train(config, runs=tmp_path / "runs", tracking_uri="none")
    assert result.metrics["test/accuracy"] > 0.9
    predictor = m3col.load(result.checkpoint)
    assert predictor.classes and predictor.primary == FUSED


def test_a_rank_without_rows_has_a_gradient_for_every_weight():
    method, batch = build("mmbt")
    nothing = {name: rows[:0] for name, rows in batch.inputs.items()}
    logits = method.logits(nothing)[FUSED]
    assert logits.shape == (0, 3)
    logits.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in method.parameters() if p.requires_grad)


def test_the_image_encoder_may_give_a_map():
    config = tiny_config(
        method="mmbt", model__image__name="resnet10t", model__image__pretrained=False, model__text__name="bert",
        model__text__pretrained=False, model__text__options={**builders.SMALL, "intermediate_size": 32},
    )  # fmt: skip
    features = {"image": ImageInput(32), "text": TextInput(builders.VOCABULARY, 0, 40)}
    method = registry.load("mmbt")(config, features=features, task=tasks.build(classes=3))
    logits = method.logits({"image": torch.rand(4, 3, 32, 32), "text": builders.batch()})
    assert logits[FUSED].shape == (4, 3) and torch.isfinite(logits[FUSED]).all()
