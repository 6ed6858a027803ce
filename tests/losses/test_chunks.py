"""Above 8,192 samples the losses work in blocks: the same values and gradients, and memory that grows with N alone."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from m3col.losses import chunks, m3co_loss, multi_softclip_loss

LOSSES = ("m3co", "softclip")


def arguments(n: int, modalities: int, *, width: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Leaves that need a gradient: M clean and M mixed embeddings, and the weights."""
    draw = torch.Generator().manual_seed(n)
    rows = [torch.randn(n, width, generator=draw, dtype=dtype) * (0.1 + m) for m in range(2 * modalities)]
    return [leaf.requires_grad_() for leaf in [*rows, torch.rand(n, generator=draw, dtype=dtype)]]


def value_of(name: str, leaves: list[Tensor], temperature: float) -> Tensor:
    count = len(leaves) // 2
    if name == "softclip":
        return multi_softclip_loss(leaves[:count], temperature=temperature)
    n = len(leaves[0])
    permutations = [torch.arange(n).roll(shift) for shift in range(count)]  # the first one: all fixed points
    permutations[1][:2] = 0  # the function takes any indices
    clean, mixed = leaves[:count], leaves[count : 2 * count]
    return m3co_loss(clean, mixed, permutations, leaves[-1], temperature=temperature, check_values=False)


def value_and_gradients(name: str, leaves: list[Tensor], temperature: float) -> list[Tensor]:
    value = value_of(name, leaves, temperature)
    needed = leaves if name == "m3co" else leaves[: len(leaves) // 2]
    return [value, *torch.autograd.grad(value, needed)]


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    def change(whole_up_to: int, rows: int) -> None:
        monkeypatch.setattr(chunks, "WHOLE_UP_TO", whole_up_to)
        monkeypatch.setattr(chunks, "CHUNK_ROWS", rows)

    return change


@pytest.mark.parametrize("temperature", [0.05, 1.0])
@pytest.mark.parametrize("rows", [1, 3, 11, 50])  # one row, a last block that is smaller, one block
@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_blocks_give_the_values_and_gradients_of_whole_matrices(in_blocks, name, modalities, rows, temperature):
    leaves = arguments(11, modalities)
    whole = value_and_gradients(name, leaves, temperature)
    in_blocks(10, rows)
    for ours, expected in zip(value_and_gradients(name, leaves, temperature), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_the_limit_is_the_last_batch_with_whole_matrices(in_blocks, monkeypatch, name):
    made: list[int] = []
    original = chunks.log_normalizers

    def counted(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        made.append(len(x))
        return original(x, y)

    monkeypatch.setattr(chunks, "log_normalizers", counted)
    in_blocks(6, 4)
    value_of(name, arguments(6, 2), 0.1)
    assert made == []
    value_of(name, arguments(7, 2), 0.1)
    assert set(made) == {7}


@pytest.mark.parametrize("name", LOSSES)
def test_a_small_temperature_and_a_row_of_zeros_stay_finite(in_blocks, name):
    leaves = arguments(9, 2, dtype=torch.float32)
    with torch.no_grad():
        leaves[0][3] = 0.0
        leaves[1] *= 1e15
    whole = value_and_gradients(name, leaves, 1e-3)
    in_blocks(8, 4)
    for ours, expected in zip(value_and_gradients(name, leaves, 1e-3), whole, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_and_autocast_are_computed_in_float32(in_blocks, name):
    leaves = [leaf.detach().bfloat16().requires_grad_() for leaf in arguments(9, 2)]
    in_blocks(8, 4)
    expected = value_and_gradients(name, [leaf.detach().float().requires_grad_() for leaf in leaves], 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = value_of(name, leaves, 0.1)
    assert value.dtype == torch.float32 and torch.equal(value, expected[0])
    value.backward()  # also blocks that are computed again
    for leaf, gradient in zip(leaves, expected[1:], strict=False):
        assert torch.equal(leaf.grad, gradient.bfloat16())


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


def memory_of_a_step(name: str, n: int) -> Memory:
    with FakeTensorMode(), Memory() as memory:  # nothing is computed: tensors have sizes alone
        leaves = [torch.empty(n, 4, requires_grad=True) for _ in range(4)]
        value_and_gradients(name, [*leaves, torch.empty(n, requires_grad=True)], 0.1)
    return memory


@pytest.mark.parametrize("name", LOSSES)
def test_twelve_thousand_samples_need_no_matrix_of_their_square(name):
    n, block = 12_000, 4 * chunks.CHUNK_ROWS * 12_000
    memory = memory_of_a_step(name, n)
    assert memory.largest == block  # 49 MB; the matrix has 576 MB
    assert memory.peak < 5 * block < 4 * n * n / 2
    assert memory_of_a_step(name, 2 * n).peak < 2.1 * memory.peak
    whole = memory_of_a_step(name, chunks.WHOLE_UP_TO)
    assert whole.largest == 4 * chunks.WHOLE_UP_TO**2 and whole.peak > 3 * whole.largest
