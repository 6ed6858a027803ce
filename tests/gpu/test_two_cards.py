"""Two ranks on two GPUs compute what one does, through NCCL; and what becomes of a rank that dies."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

import tune
from m3col.distributed import RankContext
from tests.gpu.work import assert_close, pair_config, trainer_of
from tests.support import pairs
from tests.support.ranks import start_ranks
from tests.training.test_distributed import CASES, few, one_epoch

pytestmark = pytest.mark.gpu2

Values = dict[str, np.ndarray]

DEATH_S = 120.0  # within which the others of a dead rank must have ended and begun anew


def of_two_ranks(function: Callable[[RankContext, Path], Values], folder: Path, device: torch.device) -> list[Values]:
    """What `function(ranks, folder)` returns on each of two ranks, each in a process with a GPU of its own."""
    start_ranks(2, _rank, function, str(folder), device.type)
    return [dict(np.load(folder / f"{rank}.npz")) for rank in (0, 1)]


def _rank(rank: int, function: Callable[[RankContext, Path], Values], folder: str, kind: str) -> None:
    os.environ["M3COL_CACHE"] = f"{folder}/cache-{rank}"
    device = torch.device("cuda", rank) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    values = function(RankContext(rank, 2, device), Path(folder))
    np.savez(f"{folder}/{rank}.npz", **values)  # type: ignore[arg-type]
    dist.destroy_process_group()


def losses_and_gradients(ranks: RankContext, folder: Path) -> Values:
    """Of an epoch in which no weight moves, for every method; gradients are those of its last batch. Of 17 samples it
    leaves shards of the second rank empty, of 14 it is a whole one, unevenly divided."""
    return {
        f"{count} {case}|{name}": value for count in (17, 14) for case in CASES
        for name, value in one_epoch(case, ranks, count=count).items()
    }  # fmt: skip


def test_losses_and_gradients_of_two_ranks_equal_those_of_one(device, tmp_path: Path):
    """With uneven and with empty shards, through DDP, in float64."""
    alone = losses_and_gradients(RankContext(device=device), tmp_path)
    for values in of_two_ranks(losses_and_gradients, tmp_path, device):
        assert_close(values, alone, rel=1e-9, floor=1e-12)  # a bias in front of a BatchNorm has a gradient of 0


def gathered(ranks: RankContext, folder: Path) -> Values:
    """Rows of both ranks and their gradient, where the second rank has three rows or none."""
    values = {}
    for counts in ([2, 3], [3, 0]):
        draw = np.random.default_rng(1)
        rows, factors = (torch.as_tensor(draw.normal(size=(sum(counts), 4)), device=ranks.device) for _ in range(2))
        start = sum(counts[: ranks.rank])
        own = slice(start, start + counts[ranks.rank])
        part = rows[own].clone().requires_grad_()
        whole = ranks.gather(part, counts)
        # The ranks weigh the rows by 1 and by 2 times the factors, and the backward pass sums over the ranks.
        (whole * factors * (ranks.rank + 1)).sum().backward()
        assert part.grad is not None
        found = {"rows": whole.detach(), "all": rows, "gradient": part.grad, "expected": 3 * factors[own]}
        values |= {f"{counts} {name}": value.cpu().numpy() for name, value in found.items()}
    return values


def test_a_gather_returns_all_rows_and_sums_the_gradients(device, tmp_path: Path):
    for values in of_two_ranks(gathered, tmp_path, device):
        for counts in ("[2, 3]", "[3, 0]"):
            assert np.array_equal(values[f"{counts} rows"], values[f"{counts} all"])
            np.testing.assert_allclose(values[f"{counts} gradient"], values[f"{counts} expected"], rtol=1e-14)


def exchanged_in_bfloat16(ranks: RankContext, folder: Path) -> Values:
    part = torch.full((2 + ranks.rank, 3), 1.0 + ranks.rank, dtype=torch.bfloat16, device=ranks.device)
    part.requires_grad_()
    rows = ranks.gather(part, [2, 3])
    kinds = [rows.dtype]
    rows.register_hook(lambda gradient: kinds.append(gradient.dtype))
    (rows * (1 + 2**-9)).sum().backward()  # no bfloat16 between 1 and 1 + 2**-7
    assert part.grad is not None
    return {"kinds": np.array([str(kind) for kind in kinds]), "gradient": part.grad.float().cpu().numpy(),
            "rows": rows.detach().cpu().numpy()}  # fmt: skip


def test_embeddings_in_bfloat16_are_exchanged_in_float32(device, tmp_path: Path):
    for values in of_two_ranks(exchanged_in_bfloat16, tmp_path, device):
        assert values["kinds"].tolist() == ["torch.float32"] * 2
        assert values["rows"].tolist() == [[1.0] * 3] * 2 + [[2.0] * 3] * 3
        np.testing.assert_allclose(values["gradient"], 2.0, rtol=2**-7)


def few_logits(ranks: RankContext, folder: Path) -> Values:
    return {str(count): few(count, ranks) for count in (1, 2, 5)}


def test_logits_of_fewer_samples_than_ranks_equal_those_of_one(device, tmp_path: Path):
    alone = few_logits(RankContext(device=device), tmp_path)
    for values in of_two_ranks(few_logits, tmp_path, device):
        assert_close(values, alone, rel=1e-9)


def losses_of_pairs(ranks: RankContext, folder: Path) -> Values:
    """Of two epochs, one in each phase, with accumulated gradients; and the GPUs on which this process has a context.

    A thread prepares the batches, and would open one on the first GPU.
    """
    assert ranks.device is not None
    run = pair_config(
        folder / "data", ranks.device, train__shards=2, train__accumulate=2, train__batch_size=5,
        objective__switch_point=0.5, model__dropout=0.0,
    )  # fmt: skip
    trainer = trainer_of(run, ranks.device, ranks=ranks)
    values = {str(epoch): np.array([*trainer.train_epoch(epoch, learning_rate=1e-4).values()]) for epoch in (1, 2)}
    count = torch.cuda.device_count() if ranks.device.type == "cuda" else 0
    contexts = [number for number in range(count) if torch._C._cuda_hasPrimaryContext(number)]
    return {**values, "contexts": np.array(contexts, dtype=int)}


def test_a_training_of_pairs_on_two_ranks_is_near_that_of_one_and_each_rank_uses_its_own_card(device, tmp_path: Path):
    pairs.folder(tmp_path / "data")
    alone = losses_of_pairs(RankContext(device=device), tmp_path)
    del alone["contexts"]  # of this process, which runs all tests
    for rank, values in enumerate(of_two_ranks(losses_of_pairs, tmp_path, device)):
        assert values.pop("contexts").tolist() == ([rank] if device.type == "cuda" else [])
        assert_close(values, alone, rel=1e-3)


def test_a_training_whose_rank_is_killed_ends_as_the_undisturbed_one(device, report, tmp_path: Path, monkeypatch):
    """Through Ray Train; the other rank waits in a collective when it happens."""
    monkeypatch.setenv("M3COL_LANE_DEATH", str(tmp_path / "died"))
    results, seconds = [], []
    for name in ("killed", "undisturbed"):  # the second one finds that the death has been
        start = time.monotonic()
        results.append(
            tune.train(
                "digits", workers=2, gpus_per_worker=float(device.type == "cuda"), runs=tmp_path / name,
                tracking_uri="none",
                overrides={"method": "tests.gpu.dying_method:Dying", "train.epochs": 8, "checkpoint.every_s": 0.0,
                           "train.device": device.type, "train.precision": "float64"},
            )
        )  # fmt: skip
        seconds.append(time.monotonic() - start)
    assert json.loads((tmp_path / "died").read_text()) == {"rank": 1, "epoch": 4}
    killed, undisturbed = (result.history["train/loss"].tolist() for result in results)
    assert killed == pytest.approx(undisturbed, rel=1e-9) and len(killed) == 8
    report("seconds that the death of a rank costs", f"{seconds[0] - seconds[1]:.1f}")
    assert seconds[0] - seconds[1] < DEATH_S
