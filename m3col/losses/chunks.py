"""Large batches: what the losses need of an [N, N] matrix, from blocks of its rows, so that memory grows with N alone.

Letters: N samples in the batch, D embedding width, K columns of values, S = x y^T [N, N] similarities.
Above `WHOLE_UP_TO` samples the losses work in blocks; up to it they hold whole matrices, so that results of earlier
versions stay as they are. Both forms are equal up to the order of sums. A block has `CHUNK_ROWS` rows and N columns.
The backward pass computes each block again instead of storing it. The temperature has been divided out of `x`
everywhere in this file.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

WHOLE_UP_TO = 8192  # samples: four matrices of this size in float32 take 1 GiB
CHUNK_ROWS = 1024


def by_blocks(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """Concatenates the values of `function` for blocks of rows; up to `WHOLE_UP_TO` rows there is one block.

    Args:
        function: takes the number of its first row, and that block of each of `rows`; returns a tensor with as many
            rows. Other tensors that it reads get their gradient too.
        rows: tensors with N rows each.

    Returns:
        A tensor with N rows.
    """
    if len(rows[0]) <= WHOLE_UP_TO:
        return function(0, *rows)
    parts = []
    for start in range(0, len(rows[0]), CHUNK_ROWS):
        block = [part[start : start + CHUNK_ROWS] for part in rows]
        parts.append(checkpoint(function, start, *block, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(parts)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Rowwise softmax of queries keys^T, times values.

    Args:
        queries: rows [N, D].
        keys: rows [N, D].
        values: rows [N, K].

    Returns:
        Rows [N, K]: means of the rows of `values`, weighted by the softmax.
    """
    return by_blocks(lambda _, block: torch.softmax(block @ keys.T, dim=1) @ values, queries)


def log_normalizers(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The log-sum-exp of the rows and of the columns of S, which is never stored.

    Args:
        x: rows [N, D].
        y: rows [N, D] of the same dtype.

    Returns:
        Two tensors [N]: log sum_j exp S[i, j] for each i, and log sum_i exp S[i, j] for each j. They can be
        differentiated once; a second derivative is an error.
    """
    rows, columns = _LogNormalizers.apply(x, y)
    return rows, columns


def pairs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The diagonal of S and the log-sum-exp of its rows and columns.

    Args:
        x: rows [N, D].
        y: rows [N, D] of the same dtype.

    Returns:
        Three tensors [N].
    """
    if len(x) > WHOLE_UP_TO:
        return ((x * y).sum(1), *log_normalizers(x, y))
    similarity = x @ y.T
    return similarity.diagonal(), similarity.logsumexp(1), similarity.logsumexp(0)


def log_normalizers_of_others(x: Tensor, y: Tensor) -> Tensor:
    """The log-sum-exp of each row of S without its diagonal.

    Args:
        x: rows [N, D].
        y: rows [N, D], the same samples.

    Returns:
        log sum_{j != i} exp S[i, j] for each i [N]; for N = 1 the lowest number of the dtype.
    """

    def block(start: int, part: Tensor) -> Tensor:
        return without(diagonal(start, len(part), y), part @ y.T).logsumexp(1)

    return by_blocks(block, x)


def diagonal(start: int, rows: int, y: Tensor) -> Tensor:
    """Where the diagonal of S is in a block of rows.

    Args:
        start: number of the first row.
        rows: number of rows of the block.
        y: N rows.

    Returns:
        Booleans [rows, N].
    """
    columns = torch.arange(len(y), device=y.device)
    return torch.arange(start, start + rows, device=y.device)[:, None] == columns


def without(excluded: Tensor, similarity: Tensor) -> Tensor:
    """Similarities whose excluded entries have no weight in a log-sum-exp and no gradient.

    Not minus infinity: a row whose entries are all excluded would give NaN in the backward pass.

    Args:
        excluded: booleans of the shape of `similarity`.
        similarity: any floating tensor.

    Returns:
        A tensor of the same shape.
    """
    return similarity.masked_fill(excluded, torch.finfo(similarity.dtype).min)


class _LogNormalizers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = [], x.new_full((len(y),), -torch.inf)
        for block in x.split(CHUNK_ROWS):
            similarity = block @ y.T
            rows.append(similarity.logsumexp(1))
            columns = torch.logaddexp(columns, similarity.logsumexp(0))
        normalizers = torch.cat(rows), columns
        ctx.save_for_backward(x, y, *normalizers)
        return normalizers

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of S[i, j] is its share in row i times that row's gradient, plus the same for column j."""
        x, y, rows, columns = ctx.saved_tensors
        grad_rows, grad_columns = grads
        grad_x, grad_y = [], torch.zeros_like(y)
        for block, norm, grad in zip(*(part.split(CHUNK_ROWS) for part in (x, rows, grad_rows)), strict=True):
            similarity = block @ y.T
            share = (similarity - norm[:, None]).exp_().mul_(grad[:, None])
            share += similarity.sub_(columns).exp_().mul_(grad_columns)
            grad_x.append(share @ y)
            grad_y += share.T @ block
        return torch.cat(grad_x), grad_y
