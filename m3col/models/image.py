"""The encoder of images: any timm model that returns pooled features.

Letters: n images, S side in pixels, P patches, D embedding width.
Paper: Kumar et al., arXiv 2409.17777, section 4 (ViT-B/16 of ImageNet-21k); images are mixed at the input (Eq. 2).
Differs: a linear projection to D follows where the model has another width; in the paper both are 768.
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
from m3col.models import alexnet  # noqa: F401 - registers the model with timm
from m3col.models.dry_run import DryRun, dry_run
from m3col.models.frozen import FrozenModel
from m3col.models.mlp import check_widths, linear
from m3col.models.token_sequence import TokenSequence

# Options that this class sets itself, or that would load weights without its checks.
_RESERVED = frozenset(
    ("model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir",
     "num_classes", "in_chans", "img_size", "features_only", "device", "dtype")
)  # fmt: skip
# Arguments that timm's builder consumes, so that the model never gets them.
_OF_BUILDER = frozenset(inspect.signature(build_model_with_cfg).parameters) | {"feature_cls", "out_indices"}
_UNKNOWN = re.compile(r"unexpected keyword argument(?:\(s\): \[)? ?'([^']+)'")
_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")
_SHOWN = 5  # names of weights that a message lists
_FEWEST_PATCHES = 4  # of an image: the smallest map of patches is 2 x 2


class ImageEncoder(FrozenModel):
    """Images [n, 3, S, S] in [0, 1] to embeddings [n, D], not normalised.

    Images are normalised here, by the model's mean and standard deviation per colour, which are buffers and so part of
    checkpoints; with random weights, and for a model that names none, both are 0.5. Mixing images in [0, 1] equals
    mixing normalised images, because the weights of a mixture add up to 1. Weights without a gradient are frozen,
    because DDP would wait for their gradients.

    Args:
        config: the config section `model.image:`.
        input: the description of the images.
        embedding_dim: D.
        checkpointing: whether to save memory by recomputing activations in the backward pass.
        load_weights: whether to load pretrained weights. False for a model whose weights are then loaded from a
            checkpoint.

    Raises:
        InputError: timm does not accept the name, an option or the size; or weights are missing or do not fit.
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
        self._config, self._size = config, input.size
        self.model = create(config, input.size)
        colours: Any = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        if config.pretrained:
            colours = getattr(self.model, "pretrained_cfg", None) or colours
            if load_weights:
                load(self.model, config)
        self.register_buffer("mean", torch.tensor(colours["mean"]).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(colours["std"]).reshape(3, 1, 1))
        probe = inspect_model(config, input.size)
        for name in probe.unused:
            self.model.get_parameter(name).requires_grad_(False)
        self.projection = nn.Identity() if probe.width == embedding_dim else linear(probe.width, embedding_dim)
        if checkpointing:
            checkpoint(self.model, config)
        if config.frozen:
            self.freeze()

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.projection(self.model(self._normalised(x)))
        return embedding

    def tokens(self, x: Tensor) -> Tensor:
        """Patch tokens in the space of the embeddings.

        Each patch token is pooled and projected as if all patches of the image were equal to it, so that the norms and
        the pooling of the model apply to it.

        Args:
            x: images [n, 3, S, S] in [0, 1].

        Returns:
            Tokens [n, P, D], row by row from the upper left corner.

        Raises:
            InputError: the model has no patch tokens, or they do not form a square.
        """
        model: Any = self.model
        name, prefix = type(model).__name__, getattr(model, "num_prefix_tokens", 0)
        features = model.forward_features(self._normalised(x))
        if isinstance(features, Tensor) and features.ndim == 4 and str(getattr(model, "output_fmt", "")) == "NHWC":
            patches = features.flatten(1, 2)
            single = patches.reshape(-1, 1, 1, patches.shape[-1])
        elif isinstance(features, Tensor) and features.ndim == 3:
            patches = features[:, prefix:]
            # The patch also replaces the class token, which some models pool.
            single = patches.flatten(0, 1).unsqueeze(1).expand(-1, prefix + 1, -1)
        else:
            raise InputError([f"{name} has no patch tokens; a vision transformer has"])
        count = patches.shape[1]
        if count < _FEWEST_PATCHES or math.isqrt(count) ** 2 != count:
            raise InputError([f"{name} has no square of patch tokens, but {count} for an image"])
        try:
            pooled = model.forward_head(single)
            if pooled.ndim != 2:
                raise ValueError(f"pooled features have the shape {list(pooled.shape)}")
            tokens: Tensor = self.projection(pooled).unflatten(0, (len(x), count))
        except Exception as error:  # heads that need whole images raise errors of any type
            text = reason_of(error)
            raise InputError([f"{name} does not pool a patch alone: {text}"]) from error
        return tokens

    def sequence(self, x: Tensor) -> TokenSequence:
        """All tokens of the model, or the cells of its feature map, without pooling and projection.

        Args:
            x: images [n, 3, S, S] in [0, 1].
        """
        return image_sequence(self.model, self._normalised(x))

    def without_pooling(self) -> None:
        """Removes the projection of pooled embeddings and freezes weights that only pooling uses, for methods that use
        `sequence` alone."""
        self.projection = nn.Identity()
        for name in self._sequence_run.unused:
            self.model.get_parameter(name).requires_grad_(False)

    @property
    def sequence_width(self) -> int:
        """The width of the tokens of `sequence`."""
        return self._sequence_run.width

    @functools.cached_property
    def _sequence_run(self) -> DryRun:
        size = self._size
        return dry_run(
            lambda: _create(self._config, size),
            lambda model: image_sequence(model, torch.zeros(1, 3, size, size)).values.mean(dim=1),
        )

    def mix(self, x: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
        """Eq. 2 for images [n, 3, S, S]: lam x + (1 - lam) x[permutation]."""
        return sample_mixing.mix(x, permutation, lam)

    def stored(self) -> dict[str, Any]:
        """Empty: the name and options in the config describe the model."""
        return {}

    def _normalised(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def image_sequence(model: Any, x: Tensor) -> TokenSequence:
    """The output of a timm model before pooling: tokens with those of classes, or the cells of a map, row by row.

    Raises:
        InputError: the output is neither.
    """
    features = model.forward_features(x)
    if isinstance(features, Tensor) and features.ndim == 3:
        return TokenSequence(features)
    if isinstance(features, Tensor) and features.ndim == 4:
        if str(getattr(model, "output_fmt", "")) != "NHWC":
            features = features.permute(0, 2, 3, 1)
        return TokenSequence(features.flatten(1, 2), grid=(features.shape[1], features.shape[2]))
    raise InputError([f"{type(model).__name__} gives neither tokens nor a feature map, which a fusion needs"])


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
    hint = nearest(name, timm.list_models())
    return hint if "did you mean" in hint else "; timm.list_models() gives all names"


def create(config: ImageModelConfig, size: int) -> nn.Module:
    """Creates the timm model without classifier and with random weights. Raises InputError.

    Args:
        config: the config section `model.image:`.
        size: side of the images in pixels.
    """
    check_name(config.name)
    reserved = sorted(_RESERVED & set(config.options))
    if reserved:
        raise InputError([f"model.image.options.{name} cannot be set: it follows from the rest" for name in reserved])
    try:
        model = _create(config, size)
    except Exception as error:  # layers of timm raise errors of any type
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
    """One line for each option that the timm model does not have. The other options may still be invalid together."""
    reserved = sorted((_RESERVED | _OF_BUILDER) & set(config.options))
    faults = [f"model.image.options.{name} cannot be set: it follows from the rest" for name in reserved]
    options = {name: value for name, value in config.options.items() if name not in reserved}
    while options:
        try:
            with torch.device("meta"):
                _create(config.model_copy(update={"options": options}), size)
        except Exception as error:  # the caller reports other errors
            unknown = _UNKNOWN.search(str(error))
            if unknown is None or unknown[1] not in options:
                return faults
            faults.append(_no_option(config, unknown[1]))
            del options[unknown[1]]
        else:
            return faults
    return faults


def _no_option(config: ImageModelConfig, option: str) -> str:
    """The message for an option that the timm model does not have."""
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
    """Creates the timm model. Raises whatever timm raises."""
    try:
        model: nn.Module = timm.create_model(config.name, num_classes=0, img_size=size, **config.options)
    except TypeError as error:  # models without patches accept any size and have no such argument
        if "img_size" not in str(error):
            raise
        model = timm.create_model(config.name, num_classes=0, **config.options)
    return model


def _creation_fault(config: ImageModelConfig, size: int, error: Exception) -> str:
    """The message for an error of timm: an unknown option, options that do not work, or a size that does not."""
    text = reason_of(error, limit=None)
    unknown = _UNKNOWN.search(text)
    if unknown and unknown[1] in config.options:
        return _no_option(config, unknown[1])
    if config.options:
        return f"model.image.options {config.options!r} do not work with {config.name!r} at size {size}: {text}"
    return f"data.image.size {size} does not work with {config.name!r}: {text}"


def inspect_model(config: ImageModelConfig, size: int) -> DryRun:
    """The model's width and its unused weights. Raises InputError where it does not accept images of that size."""
    try:
        return dry_run(lambda: _create(config, size), lambda model: model(torch.zeros(1, 3, size, size)))
    except Exception as error:  # layers raise errors of any type where an image is too small
        raise InputError([_creation_fault(config, size, error)]) from error


def load(model: nn.Module, config: ImageModelConfig) -> None:
    """Loads pretrained weights into the model, without those of a classifier.

    All weights of the model must be in the file. timm itself would leave missing ones random without an error. A model
    on the meta device is validated only.

    Args:
        model: the model, as `create` returns it.
        config: the config section `model.image:`.

    Raises:
        InputError: the file is missing or unreadable, or weights are missing or have other shapes.
    """
    path = pretrained.image_file(config)
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
        state = _filter(config, model)(state)
    except Exception as error:  # an unreadable file, or one of another model, for which timm's filters raise any error
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


def misfit(**weights: list[str]) -> str:
    """Lists weights that do not fit, at most five of each kind: `missing: a, b; unexpected: c, ... (9 in all)`."""
    parts = [
        f"{kind}: {', '.join(names[:_SHOWN])}{f', ... ({len(names)} in all)' if len(names) > _SHOWN else ''}"
        for kind, names in weights.items()
        if names
    ]
    return "; ".join(parts)


def _key(config: ImageModelConfig) -> str:
    """The config key that names the weights."""
    return "model.image.name" if config.weights is None else "model.image.weights"


def _filter(config: ImageModelConfig, model: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """timm's function that adapts stored weights to a model: it renames them and resizes position embeddings."""
    entry = timm.models.model_entrypoint(config.name.partition(".")[0])
    modules = [sys.modules[entry.__module__], sys.modules[type(model).__module__]]
    filters = [getattr(module, name) for module in modules for name in _FILTERS if hasattr(module, name)]
    if not filters:
        return lambda state: state
    parameters = inspect.signature(filters[0]).parameters
    options: dict[str, Any] = {"adapt_layer_scale": True} if "adapt_layer_scale" in parameters else {}
    if len([name for name, p in parameters.items() if p.default is p.empty]) > 1:
        return functools.partial(_call, filters[0], model, options)
    return functools.partial(filters[0], **options)


def _call(
    function: Callable[..., dict[str, Tensor]], model: nn.Module, options: dict[str, Any], state: dict[str, Tensor]
) -> dict[str, Tensor]:
    return function(state, model, **options)


def checkpoint(model: Any, config: ImageModelConfig) -> None:
    """Switches on gradient checkpointing: activations are recomputed, which saves memory. Raises InputError."""
    text = f"model.gradient_checkpointing: {config.name!r} has no gradient checkpointing"
    if not hasattr(model, "set_grad_checkpointing"):
        raise InputError([text])
    try:
        model.set_grad_checkpointing(True)
    except Exception as error:  # models without it raise an AssertionError
        raise InputError([text]) from error
