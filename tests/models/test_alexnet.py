"""AlexNet beside the models of timm: its map, its width, and what is refused."""

import pytest
import torch
import torchvision

from m3col.checks import encoders
from m3col.config import loading
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
