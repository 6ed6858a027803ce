"""What methods with a fusion transformer share: its weights, and embeddings from subsets of the modalities."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from m3col.inputs.base import Input
from m3col.inputs.specs import present_of
from m3col.methods.base import Method
from m3col.methods.settings import TransformerSettings
from m3col.methods.supervised import FUSED
from m3col.models.fusion import FusionTransformer
from m3col.tasks.base import Task


class WithTransformer(Method):
    """A method whose encoders give tokens to a fusion transformer.

    The weights have the same names in all of these methods, so that one can start from a checkpoint of another.

    Attributes:
        transformer: f, from the tokens of any modalities to an embedding.
    """

    sequences: ClassVar[bool] = True
    leaves_out: ClassVar[bool] = True

    settings: TransformerSettings

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        settings = self.settings
        encoders: dict[str, Any] = dict(self.encoders.items())
        widths = {name: int(encoder.sequence_width) for name, encoder in encoders.items()}
        self.transformer = FusionTransformer(
            widths, width=self.config.model.embedding_dim, layers=settings.fusion_layers, heads=settings.fusion_heads
        )

    def fuse(self, inputs: Mapping[str, Input], subsets: Sequence[Iterable[str]]) -> Tensor:
        """Embeddings [S, n, D] of the samples from S subsets of their modalities, in one pass.

        Args:
            inputs: n samples of the modalities that any subset names; others may be missing.
            subsets: S collections of names of modalities.
        """
        sequences = {name: self.tokens(name, inputs[name]) for name in self.modalities if name in inputs}
        fused: Tensor = self.transformer(sequences, [frozenset(subset) for subset in subsets], present_of(inputs))
        return fused

    def encode(self, inputs: Mapping[str, Input], modalities: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Embeddings f(x; S_k) [n, D] of each modality alone."""
        names = [*(self.modalities if modalities is None else modalities)]
        given = {name: inputs[name] for name in names}
        return dict(zip(names, self.fuse(given, [[name] for name in names]), strict=True))

    def subset_features(self, inputs: Mapping[str, Input], subsets: Sequence[Sequence[str]]) -> list[Tensor]:
        return [*self.fuse(inputs, subsets)]

    def compared(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """The embeddings f(x; S_0), as "fused", and f(x; S_k) of each modality alone."""
        names = {FUSED: self.modalities} | {name: (name,) for name in self.modalities}
        return dict(zip(names, self.fuse(inputs, [*names.values()]), strict=True))

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Not available: the embedding of all modalities does not follow from those of each alone."""
        raise TypeError(f"{type(self).__name__} has no outputs for embeddings of single modalities")
