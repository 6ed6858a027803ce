"""TABLE of methods: each owns its model, its views of the batch, its losses and the config keys it reads.

A new method is one file with a `Method` subclass (`m3col.methods.base`) and one entry here; the contract tests
run over this table. Entries name their class as text, so that checking a config does not import torch.
"""

from dataclasses import dataclass

# Keys that only some methods read; every other config key applies to all methods.
OWN_KEYS = frozenset(
    {f"objective.{key}" for key in ("alpha", "beta", "temperature", "softclip_temperature", "switch_point")}
    | {"objective.unimodal_supervision", "mix.level", "mix.probability"}
)


@dataclass(frozen=True)
class Entry:
    """`target` is "module:class"; `keys` are those of OWN_KEYS that the method reads."""

    target: str
    keys: frozenset[str]
    summary: str
    one_modality: bool = False


TABLE: dict[str, Entry] = {
    "m3col": Entry(
        "m3col.methods.m3col:M3CoL", OWN_KEYS, "mixup contrast, then soft-clip contrast, with supervised heads (Eq. 16)"
    ),
    "mixup": Entry(
        "m3col.methods.mixup:Mixup",
        frozenset({"objective.alpha", "objective.unimodal_supervision", "mix.level", "mix.probability"}),
        "inputs and targets mixed with one permutation for all modalities, no contrast",
    ),
    "concat": Entry(
        "m3col.methods.concat:Concat",
        frozenset({"objective.unimodal_supervision"}),
        "concatenated embeddings and supervised heads, no contrast (beta = 0)",
    ),
    "single": Entry("m3col.methods.unimodal:Single", frozenset(), "one modality alone", one_modality=True),
}


def names() -> tuple[str, ...]:
    return tuple(TABLE)


def ignored_keys(name: str) -> frozenset[str]:
    """Config keys that method `name` does not have."""
    return OWN_KEYS - TABLE[name].keys
