"""Texts of a batch encoded in classes of similar length, so that fewer tokens of padding are computed.

The samples of a batch, and with them the contrast, stay the same: each text is encoded by itself, and padding changes
no embedding beyond rounding.

Letters: n texts, L tokens of the longest one, D embedding width.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col import devices
from m3col.inputs.specs import Tokens


def split(lengths: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Splits texts into at most `count` classes so that the fewest tokens are computed, padding included.

    A class of k texts costs k times the length of its longest text. Classes are contiguous in the order of lengths,
    which is optimal; the borders are found by dynamic programming.

    Args:
        lengths: [n] number of tokens of each text, n >= 1.
        count: largest number of classes.

    Returns:
        Positions of the texts of each class, shortest class first, ascending within a class. No class is empty.

    Example:
        >>> import numpy as np
        >>> [rows.tolist() for rows in split(np.array([9, 3, 8, 3]), 2)]
        [[1, 3], [0, 2]]
    """
    order = np.argsort(lengths, kind="stable")
    ends = np.arange(1, len(order) + 1)
    # cost[i, j - 1]: a class of the texts i..j-1 in the order of lengths.
    cost = np.where(ends > np.arange(len(order))[:, None], (ends - np.arange(len(order))[:, None]) * 1.0, np.inf)
    cost = cost * np.maximum(lengths[order], 1)
    best, starts = cost[0], [np.zeros(len(order), dtype=np.int64)]
    while len(starts) < min(count, len(order)):
        # The class that ends with text j-1 begins at i >= 1, and the texts before it are in the classes so far.
        total = best[:-1, None] + cost[1:]
        begin = total.argmin(axis=0)
        better = total[begin, np.arange(len(order))] < best
        starts.append(np.where(better, begin + 1, -1))
        best = np.where(better, total[begin, np.arange(len(order))], best)
    borders, end = [len(order)], len(order)
    for start in reversed(starts):
        begin_at = int(start[end - 1])
        if begin_at >= 0:  # -1: one class less costs no more
            end = begin_at
            borders.append(end)
    borders.reverse()
    return [np.sort(order[low:high]) for low, high in itertools.pairwise(borders)]


def encode(tokens: Tokens, count: int, encoder: Callable[[Tokens], Tensor]) -> Tensor:
    """The embeddings of texts, encoded class by class.

    Args:
        tokens: n texts, with `lengths`.
        count: largest number of classes.
        encoder: from texts to embeddings.

    Returns:
        Embeddings [n, D] in the order of `tokens`.
    """
    lengths, device = tokens.lengths, tokens.mask.device
    assert lengths is not None, "texts without their lengths on the host"
    classes = split(lengths, count)
    if len(classes) == 1:
        return encoder(tokens)
    pieces = []
    for rows in classes:
        longest, shortest = int(lengths[rows].max()), int(lengths[rows].min())
        part = tokens[devices.moved(torch.from_numpy(rows), device)].shortened(max(longest, 1))
        if tokens.ids is not None:  # of mixed texts `lengths` are upper bounds
            part = replace(part, padded=shortest < longest)
        pieces.append(encoder(part))
    inverse = np.argsort(np.concatenate(classes))
    return torch.cat(pieces)[devices.moved(torch.from_numpy(inverse), device)]
