"""Above 8,192 samples the losses work in blocks: the same values and gradients, and memory that grows with N alone."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from m3col.losses import chunks, clip_loss, comm_loss, m3co_loss, multi_softclip_loss, nt_xent, supcon_loss


def arguments(n: int, modalities: int, *, width: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Leaves that need a gradient: 2 M embeddings, and weights in 0..1."""
    draw = torch.Generator().manual_seed(n)
    rows = [torch.randn(n, width, generator=draw, dtype=dtype) * (0.1 + m) for m in range(2 * modalities)]
    return [leaf.requires_grad_() for leaf in [*rows, torch.rand(n, generator=draw, dtype=dtype)]]


def m3co(leaves: list[Tensor], temperature: float) -> Tensor:
    count, n = len(leaves) // 2, len(leaves[0])
    permutations = [torch.arange(n).roll(shift) for shift in range(count)]  # the first one: all fixed points
    permutations[1][:2] = 0  # the function takes any indices
    clean, mixed = leaves[:count], leaves[count : 2 * count]
    return m3co_loss(clean, mixed, permutations, leaves[-1], temperature=temperature, check_values=False)


def softclip(leaves: list[Tensor], temperature: float) -> Tensor:
    return multi_softclip_loss(leaves[: len(leaves) // 2], temperature=temperature)


def pair(leaves: list[Tensor], temperature: float) -> Tensor:
    return nt_xent(leaves[0], leaves[1], temperature=temperature)


def comm(leaves: list[Tensor], temperature: float, form: str = "code") -> Tensor:
    """All embeddings but the last, used twice, so that there are M + 1 in each view."""
    count = len(leaves) // 2
    views = leaves[: count + 1], leaves[count - 1 : 2 * count]
    return comm_loss(*views, temperature=temperature, form=form)


def comm_paper(leaves: list[Tensor], temperature: float) -> Tensor:
    return comm(leaves, temperature, "paper")


def clip(leaves: list[Tensor], temperature: float) -> Tensor:
    wide = leaves[-1].to(torch.promote_types(leaves[-1].dtype, torch.float32))
    scale = (1 + wide.mean()) / temperature  # a scale with a gradient
    return clip_loss(leaves[0], leaves[1], scale=scale, check_values=False)


def supcon(leaves: list[Tensor], temperature: float) -> Tensor:
    labels = torch.arange(len(leaves[0])) // 3 % 4
    return supcon_loss(leaves[0], labels, temperature=temperature, normalize=True)


LOSSES = (m3co, softclip, pair, comm, comm_paper, clip, supcon)


def value_and_gradients(loss: Callable[..., Tensor], leaves: list[Tensor], temperature: float) -> list[Tensor]:
    value = loss(leaves, temperature)
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    return [value, *(gradient for gradient in gradients if gradient is not None)]


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    def change(whole_up_to: int, rows: int) -> None:
        monkeypatch.setattr(chunks, "WHOLE_UP_TO", whole_up_to)
        monkeypatch.setattr(chunks, "CHUNK_ROWS", rows)

    return change


@pytest.mark.parametrize("temperature", [0.05, 1.0])
@pytest.mark.parametrize("rows", [1, 3, 11, 50])  # one row, a last block that is smaller, one block
@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_blocks_give_the_values_and_gradients_of_whole_matrices(in_blocks, loss, modalities, rows, temperature):
    leaves = arguments(11, modalities)
    whole = value_and_gradients(loss, leaves, temperature)
    in_blocks(10, rows)
    for ours, expected in zip(value_and_gradients(loss, leaves, temperature), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_limit_is_the_last_batch_with_whole_matrices(in_blocks, monkeypatch, loss):
    called: list[str] = []

    def counted(name: str) -> Callable[..., object]:
        original = getattr(chunks, name)

        def call(*args: object, **kwargs: object) -> object:
            called.append(name)
            return original(*args, **kwargs)

        return call

    for name in ("log_normalizers", "checkpoint"):
        monkeypatch.setattr(chunks, name, counted(name))
    in_blocks(6, 4)
    loss(arguments(6, 2), 0.1)
    assert called == []
    loss(arguments(7, 2), 0.1)
    assert called


@pytest.mark.parametrize("loss", LOSSES)
def test_a_small_temperature_and_a_row_of_zeros_stay_finite(in_blocks, loss):
    leaves = arguments(9, 2, dtype=torch.float32)
    with torch.no_grad():
        leaves[0][3] = 0.0
        leaves[1] *= 1e15
    whole = value_and_gradients(loss, leaves, 1e-3)
    in_blocks(8, 4)
    for ours, expected in zip(value_and_gradients(loss, leaves, 1e-3), whole, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_and_autocast_are_computed_in_float32(in_blocks, loss):
    leaves = [leaf.detach().bfloat16().requires_grad_() for leaf in arguments(9, 2)]
    in_blocks(8, 4)
    expected = value_and_gradients(loss, [leaf.detach().float().requires_grad_() for leaf in leaves], 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(leaves, 0.1)
    assert value.dtype == torch.float32 and torch.equal(value, expected[0])
    value.backward()  # also blocks that are computed again
    used = [leaf for leaf in leaves if leaf.grad is not None]
    for leaf, gradient in zip(used, expected[1:], strict=True):
        torch.testing.assert_close(
            leaf.grad.float(), gradient, rtol=0, atol=0.01 * gradient.abs().max().item()
        )  # 8 bits


class Memory(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak, self.largest = 0, 0, 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(results):
            if isinstance(tensor, Tensor):
                self.count(tensor.untyped_storage())
        self.peak = max(self.peak, self.alive)
        return results

    def count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.alive += size
            self.largest = max(self.largest, size)
            weakref.finalize(storage, self.forget, key, size)

    def forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size


def memory_of_a_step(loss: Callable[..., Tensor], n: int) -> Memory:
    with FakeTensorMode(), Memory() as memory:  # nothing is computed: tensors have sizes alone
        leaves = [torch.empty(n, 4, requires_grad=True) for _ in range(4)]
        value_and_gradients(loss, [*leaves, torch.empty(n, requires_grad=True)], 0.1)
    return memory


@pytest.mark.parametrize("loss", LOSSES)
def test_twelve_thousand_samples_need_no_matrix_of_their_square(loss):
    n, block = 12_000, 4 * chunks.CHUNK_ROWS * 12_000
    memory = memory_of_a_step(loss, n)
    assert memory.largest == block  # 49 MB; the matrix has 576 MB
    assert memory.peak < 6 * block < 4 * n * n / 1.9
    whole = memory_of_a_step(loss, chunks.WHOLE_UP_TO)
    assert whole.largest == 4 * chunks.WHOLE_UP_TO**2 < whole.peak
