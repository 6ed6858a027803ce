"""Large batches: what the losses need of an [N, N] matrix, from blocks of its rows, so that memory grows with N alone.

Letters: N samples in the batch, D embedding width, K columns of values.
Above `WHOLE_UP_TO` samples the losses use these functions; up to it they hold whole matrices, which is faster and whose
results are those of earlier versions to the last bit. Both forms are equal up to the order of sums. A block has
`CHUNK_ROWS` rows and N columns. The backward pass computes each block again instead of storing it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

WHOLE_UP_TO = 8192  # samples: four matrices of this size in float32 take 1 GiB
CHUNK_ROWS = 1024


def log_normalizers(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The log-sum-exp of the rows and of the columns of S = x y^T, which is never stored.

    Args:
        x: rows [N, D], with the temperature divided out.
        y: rows [N, D] of the same dtype.

    Returns:
        Two tensors [N]: log sum_j exp S[i, j] for each i, and log sum_i exp S[i, j] for each j. They can be
        differentiated once; a second derivative is an error.
    """
    rows, columns = _LogNormalizers.apply(x, y)
    return rows, columns


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Rowwise softmax of queries keys^T, times values.

    Args:
        queries: rows [N, D], with the temperature divided out.
        keys: rows [N, D].
        values: rows [N, K].

    Returns:
        Rows [N, K]: means of the rows of `values`, weighted by the softmax.
    """
    parts = [
        checkpoint(_attend, block, keys, values, use_reentrant=False, preserve_rng_state=False)
        for block in queries.split(CHUNK_ROWS)
    ]
    return torch.cat(parts)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(queries @ keys.T, dim=1) @ values


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
