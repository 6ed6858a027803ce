"""AlexNet beside the models of timm: its map, its width, and what is refused."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from m3col.checks import encoders
from m3col.config import loading
from m3col.models.alexnet import AlexNet
from tests.models.builders import image_config, image_encoder

ALEXNET = {"name": "alexnet", "options": {}}


def test_the_features_are_those_of_torchvision_and_the_map_has_36_cells():
    encoder = image_encoder(image_config(**ALEXNET), size=224, width=8).eval()
    reference = torchvision.models.alexnet(weights=None)
    reference.features.load_state_dict(encoder.model.features.state_dict())
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cells = reference.features((x - 0.5) / 0.5)
        sequence = encoder.sequence(x)
        assert sequence.grid == (6, 6) and encoder.sequence_width == 256
        assert torch.equal(sequence.values, cells.permute(0, 2, 3, 1).flatten(1, 2))
        torch.testing.assert_close(encoder(x), encoder.projection(cells.mean(dim=(2, 3))))
    assert not any("classifier" in name for name in encoder.state_dict())


def test_a_file_of_torchvision_gives_its_weights_and_colours(tmp_path):
    torch.manual_seed(3)
    reference = torchvision.models.alexnet(weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "alexnet.pth")
    weights = {"pretrained": True, "weights": str(tmp_path / "alexnet.pth")}
    overrides = {f"model.image.{key}": value for key, value in {"name": "alexnet", **weights}.items()}
    config = loading.load({"method": "comm"}, overrides={**overrides, "data.image.size": 64})
    assert encoders.faults(config.model, config.data, {"image"}) == []
    encoder = image_encoder(image_config(**ALEXNET, **weights), size=64, width=256).eval()
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), reference.features((x - mean) / std).mean(dim=(2, 3)))


def test_a_model_that_names_no_colours_gets_those_of_random_weights(monkeypatch, tmp_path):
    """As a model that a user's own module has registered with timm may have none."""
    monkeypatch.delattr(AlexNet, "pretrained_cfg")
    save_file(AlexNet().state_dict(), tmp_path / "own.safetensors")
    weights = {"pretrained": True, "weights": str(tmp_path / "own.safetensors")}
    encoder = image_encoder(image_config(**ALEXNET, **weights), size=64, width=256)
    assert encoder.mean.flatten().tolist() == encoder.std.flatten().tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"model.image.pretrained": True}, "model.image.name 'alexnet': has no weights on the hub"),
        ({"model.image.options": {"depth": 3}}, "model.image.options.depth is no option of 'alexnet'"),
        ({"data.image.size": 32, "data.image.short_side": 32}, "data.image.size 32 does not work with 'alexnet'"),
        ({"model.image.name": "alexne"}, "'alexne' is unknown to timm; did you mean 'alexnet'?"),
    ],
)
def test_what_it_does_not_have_is_refused(settings, line):
    overrides = {"model.image.name": "alexnet", "model.image.pretrained": False, **settings}
    config = loading.load({"method": "comm"}, overrides=overrides)
    (fault,) = encoders.faults(config.model, config.data, {"image"})
    assert line in fault.text
