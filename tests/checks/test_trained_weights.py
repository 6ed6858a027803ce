"""A training whose evaluated embeddings cannot change is refused: all of its encoders are frozen."""

import pytest
from safetensors.torch import save_file

from m3col.checks.resolve import check_against_data
from m3col.methods import registry
from tests.models.builders import image_config, image_encoder, text_folder
from tests.support import pairs
from tests.support.helpers import tiny_data

PROJECTING = ("cross", "slip", "factorcl", "comm")
EVALUATING_ENCODERS = ("simclr", "cross_self", "cmc", "supcon")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Config keys of pretrained encoders of width 32, both frozen, and of a folder of pairs."""
    place = tmp_path_factory.mktemp("pretrained")
    config = image_config()
    save_file(image_encoder(config, size=16).model.state_dict(), place / "image.safetensors")
    text = text_folder(place / "text")
    return {
        "place": pairs.folder(place / "data"), "model__embedding_dim": 32, "data__text__tokenizer": None,
        "model__image__options": config.options, "model__image__pretrained": True, "model__image__frozen": True,
        "model__image__weights": str(place / "image.safetensors"), "model__text__name": str(text),
        "model__text__pretrained": True, "model__text__frozen": True, "model__text__options": {},
    }  # fmt: skip


def faults(keys: dict, **changes) -> list[str]:
    return check_against_data(pairs.config(**{**keys, **changes}))[1]


@pytest.mark.parametrize("method", EVALUATING_ENCODERS)
def test_frozen_encoders_alone_are_refused(pretrained, method):
    alone = {"data__modalities": ["image"]} if registry.find(method).one_modality else {}
    (line,) = faults(pretrained, method=method, **alone)
    assert f"model.image.frozen: method {method!r} is evaluated by the embeddings of its encoders" in line
    assert "set model.image.frozen=false, or another model.embedding_dim than 32" in line
    assert faults(pretrained, method=method, model__image__frozen=False, **alone) == []
    assert faults(pretrained, method=method, model__embedding_dim=24, **alone) == []


@pytest.mark.parametrize("method", [*PROJECTING, "concat"])
def test_frozen_encoders_with_trained_weights_behind_them_are_accepted(pretrained, method):
    assert faults(pretrained, method=method) == []


def test_every_method_without_labels_is_in_one_of_the_two_lists():
    found = {name for name, spec in registry.TABLE.items() if "objective.evaluations" in spec.keys}
    assert found == {*PROJECTING, *EVALUATING_ENCODERS, "comm_supcon", "factorcl_sup"}


def test_other_kinds_of_modalities_are_always_trained(pretrained):
    config = pairs.config(**{**pretrained, "method": "cmc", "data__name": "arrays", "data__dir": None})
    assert check_against_data(config, data=tiny_data())[1] == []
