"""Image encoders: normalisation inside, patch tokens in the space of the embeddings, weights that fit or a fault."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils import parameters_to_vector

from m3col.errors import InputError
from m3col.models.image import create, load
from tests.models.builders import VIT, image_config, image_encoder

PARTNER = torch.tensor([1, 2, 0])
RESNET = {"name": "resnet10t", "options": {}}


def images(size: int = 32) -> torch.Tensor:
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(5))


def test_images_are_normalised_inside_with_the_models_own_values(tmp_path):
    x = images()
    plain = image_encoder(image_config()).eval()
    assert torch.equal(plain(x), plain.model((x - 0.5) / 0.5))
    # random weights: 0.5, whatever those of the name were trained with
    assert torch.equal(image_encoder(image_config(**RESNET)).mean, torch.full((3, 1, 1), 0.5))
    path = tmp_path / "weights.safetensors"
    save_file(image_encoder(image_config(**RESNET)).model.state_dict(), path)
    trained = image_encoder(image_config(**RESNET, pretrained=True, weights=str(path)), width=512, seed=9).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.equal(trained(x), trained.model((x - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)))
    assert {"mean", "std"} <= set(trained.state_dict())


def test_mixing_images_is_mixing_normalised_ones():
    encoder, x, lam = image_encoder(image_config()), images(), torch.tensor([0.2, 1.0, 0.0])
    mixed = encoder.mix(x, PARTNER, lam)
    inside = (x - encoder.mean) / encoder.std
    weight = lam.reshape(3, 1, 1, 1)
    wanted = weight * inside + (1 - weight) * inside[PARTNER]
    torch.testing.assert_close((mixed - encoder.mean) / encoder.std, wanted)
    assert torch.equal(mixed[1], x[1]) and torch.equal(mixed[2], x[0])


@pytest.mark.parametrize("pool", ["token", "avg", "map"])
@pytest.mark.parametrize("width", [32, 24])
def test_patch_tokens_lie_in_the_space_of_the_embeddings(pool, width):
    options = {**VIT, "global_pool": pool, **({} if pool == "token" else {"class_token": False})}
    encoder, x = image_encoder(image_config(options=options), width=width).eval(), images()
    with torch.no_grad():
        found, pooled = encoder.tokens(x), encoder(x)
        assert found.shape == (3, 16, width) and pooled.shape == (3, width)
        inside = encoder.model.forward_features((x - 0.5) / 0.5)
        if pool == "token":
            torch.testing.assert_close(found, encoder.projection(inside[:, 1:]))
            torch.testing.assert_close(pooled, encoder.projection(inside[:, 0]))
        else:
            # An image of equal patches: what each of them is, is what the pooling gives.
            encoder.model.forward_features = lambda *_, **__: inside[:, :1].expand(-1, 16, -1)
            torch.testing.assert_close(encoder.tokens(x)[:, 3], encoder(x), rtol=0, atol=1e-6)


def test_other_models():
    x = images()
    resnet = image_encoder(image_config(**RESNET), width=24).eval()
    assert torch.equal(resnet(x), resnet.projection(resnet.model((x - 0.5) / 0.5))) and resnet(x).shape == (3, 24)
    with pytest.raises(ValueError, match="ResNet has no patch tokens"):
        resnet.tokens(x)
    options = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
    swin = image_encoder(image_config(name="swin_tiny_patch4_window7_224", options=options), size=64, width=128).eval()
    tokens = swin.tokens(images(64))
    assert tokens.shape == (3, 4, 128)
    torch.testing.assert_close(tokens.mean(dim=1), swin(images(64)))


SMALL_MODELS = [
    ("hiera_tiny_224", {"embed_dim": 16, "stages": (1, 1, 1, 1), "num_heads": 1}, 64, 4),  # a norm in the head
    ("mambaout_femto", {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}, 64, 4),  # and a layer that changes the width
    ("deit_tiny_distilled_patch16_224", {"embed_dim": 32, "depth": 1, "num_heads": 4}, 32, 4),  # two tokens to drop
]


@pytest.mark.parametrize(("name", "options", "size", "count"), SMALL_MODELS)
def test_a_patch_is_pooled_as_a_image_of_equal_patches(name, options, size, count):
    encoder, x = image_encoder(image_config(name=name, options=options), size=size, width=24).eval(), images(size)
    with torch.no_grad():
        for module in encoder.model.modules():
            if isinstance(module, torch.nn.LayerNorm) and module.elementwise_affine:  # as it were after training
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
        found, features = encoder.tokens(x), encoder.model.forward_features((x - 0.5) / 0.5)
        assert found.shape == (3, count, 24)
        patches = features.flatten(1, -2)[:, -count:]
        for place in range(count):
            equal = patches[:, place].reshape(3, *[1] * (features.ndim - 2), -1).expand_as(features)
            encoder.model.forward_features = lambda *_, equal=equal, **__: equal
            torch.testing.assert_close(found[:, place], encoder(x), rtol=1e-4, atol=1e-5)


def test_models_without_a_square_of_patches_say_so():
    x = images(64)
    # A class token is no patch, and this model gives nothing else.
    pit = image_encoder(image_config(name="pit_ti_224", options={}), size=64).eval()
    with torch.no_grad(), pytest.raises(InputError, match="has no square of patch tokens, but 1 for an image"):
        pit.tokens(x)
    vit = image_encoder(image_config(), size=64).eval()
    vit.model.forward_head = lambda features: features.reshape(5, 7)
    with torch.no_grad(), pytest.raises(InputError, match="VisionTransformer does not pool a patch alone: shape"):
        vit.tokens(x)
    vit.model.forward_head = lambda features: features
    with torch.no_grad(), pytest.raises(InputError, match=r"alone: pooled features have the shape \[192, 2, 32\]"):
        vit.tokens(x)


@pytest.mark.parametrize("config", [image_config(), image_config(**RESNET), image_config(
    name="deit_tiny_distilled_patch16_224")])  # fmt: skip
def test_a_gradient_reaches_every_weight_that_asks_for_one(config):
    encoder = image_encoder(config, width=24)
    encoder(encoder.mix(images(), PARTNER, torch.full((3,), 0.4))).square().sum().backward()
    asking = {name: p.grad for name, p in encoder.named_parameters() if p.requires_grad}
    assert [name for name, gradient in asking.items() if gradient is None] == [] and len(asking) > 10


def test_a_weight_without_gradient_does_not_ask_for_one():
    encoder = image_encoder(image_config(name="efficientvim_m1", options={}), size=64)
    encoder(images(64)).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == ["model.weights"]
    assert [name for name, p in encoder.named_parameters() if not p.requires_grad] == ["model.weights"]


@pytest.mark.parametrize("config", [image_config(), image_config(**RESNET)])
def test_gradient_checkpointing_changes_nothing(config):
    found = []
    for checkpointing in (False, True):
        encoder = image_encoder(config, checkpointing=checkpointing, width=24).train()
        out = encoder(images())
        out.square().sum().backward()
        assert bool(encoder.model.grad_checkpointing) is checkpointing
        found.append([out, *(p.grad for p in encoder.parameters())])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-5, atol=1e-6)


def test_weights_are_a_function_of_the_seed():
    vectors = [parameters_to_vector(image_encoder(image_config(), width=24, seed=s).parameters()) for s in (1, 1, 2)]
    assert torch.equal(vectors[0], vectors[1]) and not torch.equal(vectors[0], vectors[2])
    assert isinstance(image_encoder(image_config()).projection, torch.nn.Identity)


@pytest.mark.parametrize("form", ["safetensors", "pth", "folder", "other size"])
def test_weights_from_a_file(tmp_path, form):
    source = image_encoder(image_config(), size=48 if form == "other size" else 32, seed=3)
    state = dict(source.model.state_dict())
    state |= {"head.weight": torch.zeros(7, 32), "head.bias": torch.zeros(7)}  # a classifier, which is left out
    path = tmp_path / ("model.pth" if form == "pth" else "model.safetensors")
    torch.save({"state_dict": state}, path) if form == "pth" else save_file(state, path)
    config = image_config(pretrained=True, weights=str(tmp_path if form == "folder" else path))
    encoder = image_encoder(config, seed=4).eval()
    if form == "other size":  # 36 places of patches for 16: timm resamples them
        assert encoder.model.pos_embed.shape == (1, 17, 32)
        assert torch.equal(encoder.model.norm.weight, source.model.norm.weight)
    else:
        assert torch.equal(encoder(images()), source.eval()(images()))
    blank = image_encoder(config, seed=4, load_weights=False)
    assert not torch.equal(blank.model.patch_embed.proj.weight, encoder.model.patch_embed.proj.weight)


def test_weights_that_do_not_fit_are_a_fault(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(image_encoder(image_config(**RESNET)).model.state_dict(), path)
    config = image_config(pretrained=True, weights=str(path))
    with pytest.raises(
        ValueError, match=r"does not fit 'vit_tiny_patch16_224': missing: cls_token, .*\(\d+ in all\); u"
    ):
        image_encoder(config)
    state = image_encoder(image_config()).model.state_dict()
    save_file({**state, "norm.weight": torch.ones(31)}, path)
    with pytest.raises(ValueError, match=r"shapes: norm.weight is \[31\] instead of \[32\]$"):
        image_encoder(config)
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"model\.image\.weights: .* cannot be read as weights"):
        image_encoder(config)


def test_nothing_is_unpickled(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    path = tmp_path / "model.pth"
    torch.save({"state_dict": {"x": Harmful()}}, path)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        image_encoder(image_config(pretrained=True, weights=str(path)))
    assert not (tmp_path / "ran").exists()


def test_checking_on_the_meta_device_copies_nothing(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(image_encoder(image_config()).model.state_dict(), path)
    config = image_config(pretrained=True, weights=str(path))
    with torch.device("meta"):
        model = create(config, 32)
        load(model, config)
    assert next(model.parameters()).device.type == "meta" and load_file(path)
