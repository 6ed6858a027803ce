"""The encoder of images: any model of timm that gives pooled features.

Letters: n images, S side in pixels, P patches, D embedding width.
Paper: Kumar et al., arXiv 2409.17777, section 4 (ViT-B/16 of ImageNet-21k); images are mixed at the input (Eq. 2).
Differs: a linear projection to D follows where the model's own width is another; the paper's widths agree (768).
"""

import dataclasses
import functools
import inspect
import math
import re
import sys
from collections.abc import Callable
from typing import Any, get_args

import timm
import torch
from timm.models import build_model_with_cfg
from torch import Tensor, nn

from m3col import pretrained
from m3col.augmentation import sample_mixing
from m3col.config.modality_sections import ImageModelConfig
from m3col.errors import InputError, nearest, reason_of
from m3col.inputs.specs import ImageInput
from m3col.models.dry_run import DryRun, dry_run
from m3col.models.mlp import check_widths, linear

# Given by this class, or a way past the rules on weights.
_RESERVED = frozenset(
    ("model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir",
     "num_classes", "in_chans", "img_size", "features_only", "device", "dtype")
)  # fmt: skip
# Arguments of timm's builder, which never reach the model.
_OF_BUILDER = frozenset(inspect.signature(build_model_with_cfg).parameters) | {"feature_cls", "out_indices"}
_UNKNOWN = re.compile(r"unexpected keyword argument(?:\(s\): \[)? ?'([^']+)'")
_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")
_SHOWN = 5
_FEWEST_PATCHES = 4  # of an image; a single token is no map


class ImageEncoder(nn.Module):
    """Images [n, 3, S, S] in [0, 1] to embeddings [n, D], not normalised.

    The model's own mean and standard deviation per colour are buffers of this module: mixing images in [0, 1] is
    mixing normalised ones, because both are linear with weights that add up to 1, and a checkpoint holds them. With
    random weights they are 0.5. Weights that no gradient reaches do not ask for one, because DDP would wait for it.

    load_weights: False leaves pretrained weights out; they are about to come from a checkpoint. Raises InputError for a
    name, an option or a size that timm does not take, and for weights that are missing or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        config: ImageModelConfig,
        input: ImageInput,
        embedding_dim: int,
        *,
        checkpointing: bool = False,
        load_weights: bool = True,
    ) -> None:
        super().__init__()
        check_widths(embedding_dim=embedding_dim)
        self.model = create(config, input.size)
        colours: Any = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        if config.pretrained:
            colours = self.model.pretrained_cfg
            if load_weights:
                load(self.model, config)
        self.register_buffer("mean", torch.tensor(colours["mean"]).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(colours["std"]).reshape(3, 1, 1))
        found = look(config, input.size)
        for name in found.unused:
            self.model.get_parameter(name).requires_grad_(False)
        self.projection = nn.Identity() if found.width == embedding_dim else linear(found.width, embedding_dim)
        if checkpointing:
            checkpoint(self.model, config)

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.projection(self.model(self._normalised(x)))
        return embedding

    def tokens(self, x: Tensor) -> Tensor:
        """Patch tokens [n, P, D] in the space of the embeddings, row by row from the upper left corner: each one as the
        model pools an image of which every patch is this one, so that its norms and its pooling have their say.

        Raises InputError for models without patch tokens, or with patches that form no square.
        """
        model: Any = self.model
        name, prefix = type(model).__name__, getattr(model, "num_prefix_tokens", 0)
        features = model.forward_features(self._normalised(x))
        if isinstance(features, Tensor) and features.ndim == 4 and str(getattr(model, "output_fmt", "")) == "NHWC":
            patches = features.flatten(1, 2)
            alone = patches.reshape(-1, 1, 1, patches.shape[-1])
        elif isinstance(features, Tensor) and features.ndim == 3:
            patches = features[:, prefix:]
            alone = patches.flatten(0, 1).unsqueeze(1).expand(-1, prefix + 1, -1)  # also where the pooled token stands
        else:
            raise InputError([f"{name} has no patch tokens; a vision transformer has"])
        count = patches.shape[1]
        if count < _FEWEST_PATCHES or math.isqrt(count) ** 2 != count:
            raise InputError([f"{name} has no square of patch tokens, but {count} for an image"])
        try:
            pooled = model.forward_head(alone)
            if pooled.ndim != 2:
                raise ValueError(f"pooled features have the shape {list(pooled.shape)}")
            found: Tensor = self.projection(pooled).unflatten(0, (len(x), count))
        except Exception as error:  # a head that wants whole images, in its own words
            text = reason_of(error)
            raise InputError([f"{name} does not pool a patch alone: {text}"]) from error
        return found

    def mix(self, x: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
        """Eq. 2 for images [n, 3, S, S]: lam x + (1 - lam) x[permutation]."""
        return sample_mixing.mix(x, permutation, lam)

    def stored(self) -> dict[str, Any]:
        """Nothing: timm knows the model by its name and options."""
        return {}

    def _normalised(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def check_name(name: str) -> None:
    """Raises InputError for a name that timm does not know."""
    if any(sign in name for sign in "/\\:"):
        raise InputError(
            [f"model.image.name {name!r}: must be a name of timm, such as 'resnet50.a1_in1k'; a file or folder with "
             "weights for it goes into model.image.weights"]
        )  # fmt: skip
    kind, _, tag = name.partition(".")
    if not timm.is_model(kind):
        raise InputError([f"model.image.name {name!r} is unknown to timm{_close(name)}"])
    tags = timm.list_models(f"{kind}.*", pretrained=True)
    if tag and name not in tags:
        raise InputError([f"model.image.name {name!r}: timm has no such weights{nearest(name, tags)}"])


def _close(name: str) -> str:
    found = nearest(name, timm.list_models())
    return found if "did you mean" in found else "; timm.list_models() gives all names"


def create(config: ImageModelConfig, size: int) -> nn.Module:
    """timm's model without classifier, for images of that size, with random weights. Raises InputError."""
    check_name(config.name)
    reserved = sorted(_RESERVED & set(config.options))
    if reserved:
        raise InputError([f"model.image.options.{name} cannot be set: it follows from the rest" for name in reserved])
    try:
        model = _create(config, size)
    except Exception as error:  # timm raises what its layers raise
        raise InputError([_creation_fault(config, size, error)]) from error
    side = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    side = side[0] if isinstance(side, tuple) else side
    if isinstance(side, int) and size % side:
        close = max(side, round(size / side) * side)
        raise InputError(
            [f"data.image.size must be a multiple of the patch size {side} of {config.name!r}, but got {size}; the "
             f"nearest valid value is {close}"]
        )  # fmt: skip
    return model


def option_faults(config: ImageModelConfig, size: int) -> list[str]:
    """Options that timm's model does not take, one line each; others may still not go together."""
    given = config.options
    follow = sorted((_RESERVED | _OF_BUILDER) & set(given))
    faults = [f"model.image.options.{name} cannot be set: it follows from the rest" for name in follow]
    rest = {name: value for name, value in given.items() if name not in follow}
    while rest:
        try:
            with torch.device("meta"):
                _create(config.model_copy(update={"options": rest}), size)
        except Exception as error:  # of other faults the caller speaks
            unknown = _UNKNOWN.search(str(error))
            if unknown is None or unknown[1] not in rest:
                return faults
            faults.append(_no_option(config, unknown[1]))
            del rest[unknown[1]]
        else:
            return faults
    return faults


def _no_option(config: ImageModelConfig, option: str) -> str:
    with torch.device("meta"):
        model = type(timm.create_model(config.name))
    known: list[str] = []
    for kind in model.__mro__[: model.__mro__.index(nn.Module)]:
        for name, parameter in inspect.signature(kind).parameters.items():
            known.append(name)
            # Some families describe a model by a dataclass, whose fields are options.
            for described in (parameter.annotation, *get_args(parameter.annotation)) if name == "cfg" else ():
                if dataclasses.is_dataclass(described):
                    known += [field.name for field in dataclasses.fields(described)]
    hidden = _RESERVED | _OF_BUILDER | {"cfg", "args", "kwargs"}
    known = [name for name in dict.fromkeys(known) if name not in hidden]
    return f"model.image.options.{option} is no option of {config.name!r}{nearest(option, known)}"


def _create(config: ImageModelConfig, size: int) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(config.name, num_classes=0, img_size=size, **config.options)
    except TypeError as error:  # models without a grid of patches take any size
        if "img_size" not in str(error):
            raise
        model = timm.create_model(config.name, num_classes=0, **config.options)
    return model


def _creation_fault(config: ImageModelConfig, size: int, error: Exception) -> str:
    text = reason_of(error, limit=None)
    unknown = _UNKNOWN.search(text)
    if unknown and unknown[1] in config.options:
        return _no_option(config, unknown[1])
    if config.options:
        return f"model.image.options {config.options!r} do not work with {config.name!r} at size {size}: {text}"
    return f"data.image.size {size} does not work with {config.name!r}: {text}"


def look(config: ImageModelConfig, size: int) -> DryRun:
    """The model's width and the weights that take no part. Raises InputError where it cannot read such images."""
    try:
        return dry_run(lambda: _create(config, size), lambda model: model(torch.zeros(1, 3, size, size)))
    except Exception as error:  # layers that find the image too small, each in its own words
        raise InputError([_creation_fault(config, size, error)]) from error


def load(model: nn.Module, config: ImageModelConfig) -> None:
    """Gives the model the weights of its file; a classifier in it is left out. Raises InputError where weights are
    missing or have other shapes. timm itself would leave missing ones random where there is no classifier to fill.

    On the meta device nothing is copied, but everything is checked.
    """
    path = pretrained.image_file(config)
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
        state = _filter(config, model)(state)
    except Exception as error:  # unreadable, or another model's: filters stumble over what they do not know
        text = reason_of(error)
        raise InputError([f"{_key(config)}: {path} cannot be read as weights of {config.name!r}: {text}"]) from error
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    shapes = [
        f"{name} is {list(state[name].shape)} instead of {list(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if missing or shapes:
        unexpected = [name for name in state if name not in own]
        text = misfit(missing=missing, shapes=shapes, unexpected=unexpected)
        raise InputError([f"{_key(config)}: {path} does not fit {config.name!r}: {text}"])
    if next(model.parameters()).device.type != "meta":
        model.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)


def misfit(**found: list[str]) -> str:
    """What does not fit, at most five names of each kind: `missing: a, b; unexpected: c, ... (9 in all)`."""
    parts = [
        f"{kind}: {', '.join(names[:_SHOWN])}{f', ... ({len(names)} in all)' if len(names) > _SHOWN else ''}"
        for kind, names in found.items()
        if names
    ]
    return "; ".join(parts)


def _key(config: ImageModelConfig) -> str:
    return "model.image.name" if config.weights is None else "model.image.weights"


def _filter(config: ImageModelConfig, model: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """timm's own adaptation of stored weights: other names, position embeddings of another size."""
    entry = timm.models.model_entrypoint(config.name.partition(".")[0])
    modules = [sys.modules[entry.__module__], sys.modules[type(model).__module__]]
    found = [getattr(module, name) for module in modules for name in _FILTERS if hasattr(module, name)]
    if not found:
        return lambda state: state
    takes = inspect.signature(found[0]).parameters
    further: dict[str, Any] = {"adapt_layer_scale": True} if "adapt_layer_scale" in takes else {}
    if len([name for name, p in takes.items() if p.default is p.empty]) > 1:
        return functools.partial(_call, found[0], model, further)
    return functools.partial(found[0], **further)


def _call(
    function: Callable[..., dict[str, Tensor]], model: nn.Module, further: dict[str, Any], state: dict[str, Tensor]
) -> dict[str, Tensor]:
    return function(state, model, **further)


def checkpoint(model: Any, config: ImageModelConfig) -> None:
    """Lets the model keep less for the backward pass and compute it again. Raises InputError where it cannot."""
    text = f"model.gradient_checkpointing: {config.name!r} has no gradient checkpointing"
    if not hasattr(model, "set_grad_checkpointing"):
        raise InputError([text])
    try:
        model.set_grad_checkpointing(True)
    except Exception as error:  # models without it say so with an assertion
        raise InputError([text]) from error
