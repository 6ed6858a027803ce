"""What an encoder returns to a fusion transformer: a sequence of tokens for each sample.

Letters: n samples, L tokens of the longest sample of the batch, E width of the tokens.
"""

from typing import NamedTuple

from torch import Tensor


class TokenSequence(NamedTuple):
    """n samples of one modality as tokens.

    Attributes:
        values: [n, L, E].
        mask: [n, L] bool, False for padding; None: no sample has padding.
        grid: height and width of the map that the tokens come from, row by row, with height * width = L; None: the
            tokens are no map, or they have positions already.
    """

    values: Tensor
    mask: Tensor | None = None
    grid: tuple[int, int] | None = None
