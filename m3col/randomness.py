"""Keyed random draws: each draw depends on its key alone, not on what was drawn before.

A key is (seed, fold, epoch, step, shard, purpose). So there is no generator state to save, a resumed run equals an
uninterrupted one, and a result depends neither on the number of ranks nor on which process computes what.
"""

import zlib
from collections.abc import Mapping

import numpy as np

from m3col.errors import InputError


def generator(*, seed: int, fold: int, epoch: int, step: int = 0, shard: int = 0, purpose: str) -> np.random.Generator:
    """A new numpy generator for one key; the same key gives the same draws in every process.

    Raises InputError where a number of the key is not an integer in 0..2^64 - 1.
    """
    key = {"seed": seed, "fold": fold, "epoch": epoch, "step": step, "shard": shard}
    return np.random.default_rng(_sequence(key, purpose))


def torch_seed(*, seed: int, fold: int, epoch: int, purpose: str) -> int:
    """A seed for `torch.manual_seed`, for what torch itself draws (weights, dropout); in 0..2^63 - 1.

    Raises InputError where a number of the key is not an integer in 0..2^64 - 1.
    """
    state = _sequence({"seed": seed, "fold": fold, "epoch": epoch}, purpose).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def _sequence(key: Mapping[str, int], purpose: str) -> np.random.SeedSequence:
    """The seed sequence of a key. Each number is passed as two 32-bit words, because SeedSequence would take (2^32,)
    and (0, 1) for the same words."""
    faults = [
        f"{name} must be an integer in 0..2^64 - 1, but got {value!r}"
        for name, value in key.items()
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**64
    ]
    if faults:
        raise InputError(faults)
    words = [word for value in key.values() for word in (int(value) & 0xFFFFFFFF, int(value) >> 32)]
    # crc32, because hash() of a string differs between processes
    return np.random.SeedSequence([*words, zlib.crc32(purpose.encode())])
