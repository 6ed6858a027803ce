"""What a linear model sees: fitted on the training part, embedded where weights are trained, and made once."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from m3col.data import loading
from m3col.data.columns import MediaColumn
from m3col.data.formats.csv_columns import Layout
from m3col.data.images import decoding
from m3col.evaluation import linear_features
from m3col.inputs import base, fitting
from m3col.models import build as models_build
from m3col.models.text import TextEncoder
from tests.models.builders import VIT, image_config, image_encoder, text_folder
from tests.support import pairs
from tests.support.helpers import tiny_config, tiny_data
from tests.support.sequence_data import sequence_dataset

IMAGE, TEXT = "image", "text"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`data`, `texts`, `weights`: pairs, and the files of trained encoders whose width is 32."""
    folder = tmp_path_factory.mktemp("linear")
    save_file(image_encoder(image_config(), size=16, seed=5).model.state_dict(), folder / "weights.safetensors")
    return SimpleNamespace(
        data=pairs.folder(folder / "data"), texts=text_folder(folder / "bert"), weights=folder / "weights.safetensors"
    )


@pytest.fixture(scope="module")
def dataset(place):
    return loading.load("image_text", data_dir=place.data, layout=Layout(text=("caption",)))


def config(place, *trained, **changes):
    """`trained`: the kinds whose encoders begin with trained weights."""
    if IMAGE in trained:
        changes["model__image"] = {"name": "vit_tiny_patch16_224", "weights": str(place.weights), "options": VIT}
    if TEXT in trained:
        changes |= {"model__text": {"name": str(place.texts)}, "data__text__tokenizer": None}
    return pairs.config(place.data, **changes)


def view(place, dataset, name, *trained, frozen=False, **changes):
    views = linear_features.Views(config(place, *trained, **changes), dataset.features)
    return views.of(name, dataset.train, dataset.test, frozen=frozen)


def test_words_and_their_weights_are_those_of_the_training_part(place, dataset):
    train, rest = dataset.train.take(range(0, 24, 3)), dataset.train.take([1, 2])
    views = linear_features.Views(config(place), dataset.features)
    first, second = views.of(TEXT, train, rest)
    by_hand = TfidfVectorizer(sublinear_tf=True).fit(train.inputs[TEXT].values)
    assert "apple" in by_hand.vocabulary_ and "leaf" not in by_hand.vocabulary_
    for found, split in ((first, train), (second, rest)):
        assert sparse.issparse(found)
        assert np.array_equal(found.toarray(), by_hand.transform(split.inputs[TEXT].values).toarray())


def test_images_are_pixels_where_their_encoder_is_random(place, dataset):
    first, second = view(place, dataset, IMAGE, frozen=True)
    for found, split in ((first, dataset.train), (second, dataset.test)):
        assert found.shape == (len(split), 3 * 16 * 16)
        image = decoding.decode(split.inputs[IMAGE].values[4], 18)
        top, left = (image.shape[0] - 16) // 2, (image.shape[1] - 16) // 2
        square = image[top : top + 16, left : left + 16].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(found[4], square.ravel(), atol=1e-6)


@pytest.mark.parametrize("name", [IMAGE, TEXT])
def test_embeddings_are_the_trained_encoders_own_whatever_width_the_config_gives_them(place, dataset, name):
    run = config(place, name)
    (prepared,) = fitting.fit(run, dataset.train.select([name]), {name: dataset.features[name]}).values()
    source = prepared.source(dataset.train.inputs[name], base.Placement(torch.device("cpu"), torch.float32))
    batch = source.rows(slice(0, 24))
    encoder = models_build.build_encoder(prepared.spec, run.model).eval()
    with torch.no_grad():
        own = (
            encoder._run(batch)[:, 0] if isinstance(encoder, TextEncoder) else encoder.model(encoder._normalised(batch))
        )
    assert run.model.embedding_dim == 16 and own.shape == (24, 32)
    for width in (16, 32):
        for seed in (0, 1):
            found, _ = view(
                place, dataset, name, name, frozen=True, model__embedding_dim=width, train__seed=seed
            )  # fmt: skip
            np.testing.assert_allclose(found, own, atol=1e-5)


@pytest.mark.parametrize("trained", [(), (IMAGE,), (TEXT,), (IMAGE, TEXT)])
def test_only_a_trained_encoder_embeds(place, dataset, trained):
    run = config(place, *trained)
    views = linear_features.Views(run, dataset.features)
    for frozen in (False, True):
        image, _ = views.of(IMAGE, dataset.train, dataset.test, frozen=frozen)
        text, _ = views.of(TEXT, dataset.train, dataset.test, frozen=frozen)
        assert image.shape == (24, 32 if IMAGE in trained else 768)
        assert sparse.issparse(text) == (not (frozen and TEXT in trained))
    assert linear_features.frozen_differs(run, dataset.kinds.values()) == (TEXT in trained)


def test_a_data_set_without_texts_has_nothing_more_to_freeze(place):
    assert not linear_features.frozen_differs(config(place, IMAGE, TEXT), ["image", "numeric"])


def test_nothing_passes_through_an_encoder_twice(place, dataset, monkeypatch):
    seen = {IMAGE: 0, TEXT: 0, "built": 0}
    build = models_build.build_encoder

    def counting(spec, settings):
        encoder = build(spec, settings)
        name = TEXT if isinstance(encoder, TextEncoder) else IMAGE
        seen["built"] += 1
        encoder.register_forward_hook(lambda _, inputs, __: seen.update({name: seen[name] + len(inputs[0])}))
        return encoder

    samples = dataset.train
    expected = {name: view(place, dataset, name, name, frozen=True)[0] for name in (IMAGE, TEXT)}
    monkeypatch.setattr(models_build, "build_encoder", counting)
    views = linear_features.Views(config(place, IMAGE, TEXT), dataset.features)
    for held in ([0, 5], [7, 1, 3]):
        rest = [row for row in range(len(samples)) if row not in held]
        for name in (IMAGE, TEXT):
            first, second = views.of(name, samples.take(rest), samples.take(held), frozen=True)
            np.testing.assert_allclose(first, expected[name][rest], atol=1e-6)
            np.testing.assert_allclose(second, expected[name][held], atol=1e-6)
    different = len(set(samples.inputs[TEXT].values))
    assert different < 24  # texts that are there twice
    assert seen == {IMAGE: 24, TEXT: different, "built": 2}


def test_embeddings_are_made_on_the_device_of_the_config(place, dataset, monkeypatch):
    asked = []
    monkeypatch.setattr(linear_features, "device_of", lambda run: asked.append(run.train.device) or torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # The workers have a GPU, the driver has none.
    assert view(place, dataset, IMAGE, IMAGE, train__device="cuda")[0].shape == (24, 32) and not asked
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    view(place, dataset, IMAGE, IMAGE, train__device="cuda")
    assert asked == ["cuda"]


def test_columns_beside_each_other_stay_sparse_where_one_part_is():
    words, numbers = sparse.csr_matrix(np.eye(3)), np.arange(6.0).reshape(3, 2)
    both = linear_features.concatenate([words, numbers])
    assert sparse.issparse(both) and np.array_equal(both.toarray(), np.concatenate([np.eye(3), numbers], axis=1))
    assert isinstance(linear_features.concatenate([numbers, numbers]), np.ndarray)


def test_numbers_are_preprocessed_by_the_training_part(place):
    dataset = tiny_data(classes=2, modalities=1, samples=20, test=8)
    run = pairs.config(place.data, data__preprocess=["standard"])
    (name,) = dataset.modalities
    first, second = linear_features.Views(run, dataset.features).of(name, dataset.train, dataset.test)
    train = dataset.train.inputs[name]
    np.testing.assert_allclose(first.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(second, (dataset.test.inputs[name] - train.mean(axis=0)) / train.std(axis=0), atol=1e-6)


def test_texts_without_a_word_are_compared_by_their_characters():
    train, apply = MediaColumn.of("text", ["\N{CAT}", "\N{DOG}", "1"]), MediaColumn.of("text", ["\N{DOG}", "x"])
    fitted, applied = linear_features._tfidf(train, apply)
    assert fitted.shape == (3, 3) and (applied[0] != fitted[1]).nnz == 0 and applied[1].nnz == 0


def test_sequences_become_mean_deviation_and_last_value_of_each_prepared_feature():
    data = sequence_dataset()
    series = data.train.inputs["series"]
    views = linear_features.Views(tiny_config(), data.features)
    train, test = views.of("series", data.train, data.test)
    steps = np.concatenate([series.sequence(row) for row in range(len(series))]).astype(np.float64)
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    for rows, features in ((data.train, train), (data.test, test)):
        assert features.shape == (len(rows), 9)
        for row in range(len(rows)):
            scaled = (rows.inputs["series"].sequence(row) - mean) / deviation
            wanted = np.concatenate([scaled.mean(axis=0), scaled.std(axis=0), scaled[-1]])
            assert np.allclose(features[row], wanted, rtol=0, atol=1e-6)
