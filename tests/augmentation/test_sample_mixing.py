"""Who is mixed with whom: permutations within shards, one weight per sample, keyed draws."""

import numpy as np
import pytest
import torch

from m3col.augmentation.sample_mixing import draw_mixing, mix

KEY = {"seed": 0, "fold": 1, "epoch": 2, "step": 3}
NAMES = ("mRNA", "methylation", "miRNA")


def draw(n: int = 20, modalities: tuple[str, ...] = NAMES, **change: object):
    return draw_mixing(n, modalities, **{"alpha": 0.4, "shards": 1, "key": KEY, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "shards"), [(20, 1), (20, 3), (5, 8), (1, 1)])
def test_permutations_stay_within_their_shard(n, shards):
    mixing = draw(n, shards=shards)
    for partner in mixing.permutations.values():
        assert partner.dtype == torch.int64
        for members in np.array_split(np.arange(n), shards):
            assert sorted(partner[members].tolist()) == members.tolist()


def test_each_modality_has_its_own_permutation_and_all_share_the_weights():
    mixing = draw()
    assert list(mixing.permutations) == list(NAMES)
    drawn = {tuple(partner.tolist()) for partner in mixing.permutations.values()}
    assert len(drawn) == 3
    assert mixing.lam.shape == (20,) and len(set(mixing.lam.tolist())) == 20


def test_one_permutation_for_all_modalities():
    first, second, third = draw(shared_permutation=True).permutations.values()
    assert torch.equal(first, second) and torch.equal(first, third)
    assert sorted(first.tolist()) == list(range(20)) and first.tolist() != list(range(20))


def test_a_modality_does_not_depend_on_the_others():
    every, one = draw(), draw(modalities=("miRNA",))
    assert torch.equal(every.permutations["miRNA"], one.permutations["miRNA"])
    assert torch.equal(every.lam, one.lam)


@pytest.mark.parametrize("name", KEY)
def test_every_part_of_the_key_changes_the_draw(name):
    other = draw(key={**KEY, name: KEY[name] + 1})
    assert not torch.equal(draw().lam, other.lam)
    assert not torch.equal(draw().permutations["mRNA"], other.permutations["mRNA"])


def test_the_same_key_gives_the_same_draw_whatever_torch_and_numpy_drew():
    expected = draw(shards=2)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 (the global generator is what must not matter)
    again = draw(shards=2)
    assert torch.equal(expected.lam, again.lam)
    assert all(torch.equal(expected.permutations[m], again.permutations[m]) for m in NAMES)


def test_shards_of_one_batch_do_not_share_their_draws():
    mixing = draw(20, shards=2)
    assert not torch.equal(mixing.lam[:10], mixing.lam[10:])
    assert not torch.equal(mixing.permutations["mRNA"][:10], mixing.permutations["mRNA"][10:] - 10)


@pytest.mark.parametrize("alpha", [0.15, 1.0, 4.0])
def test_weights_follow_the_beta_distribution_unfolded(alpha):
    lam = draw(20_000, alpha=alpha, dtype=torch.float64).lam
    assert lam.dtype == torch.float64
    assert lam.min() >= 0 and lam.max() <= 1
    assert lam.mean().item() == pytest.approx(0.5, abs=0.015)
    assert lam.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    assert (lam < 0.5).double().mean().item() == pytest.approx(0.5, abs=0.015)


def test_probability_leaves_samples_out_independently():
    every = draw(10_000, alpha=1.0).lam
    half = draw(10_000, alpha=1.0, probability=0.5).lam
    out = half == 1
    assert out.double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.equal(half[~out], every[~out])  # the others are as they were
    runs = (out[1:] != out[:-1]).double().mean().item()
    assert runs == pytest.approx(0.5, abs=0.02)
    assert (draw(probability=0.0).lam == 1).all()


def test_mix_is_the_convex_combination():
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 0.0]])
    lam = torch.tensor([0.25, 1.0, 0.0], dtype=torch.float64)
    before = x.clone()
    mixed = mix(x, torch.tensor([1, 2, 0]), lam)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, torch.tensor([[2.5, 5.0], [3.0, 6.0], [1.0, 2.0]]))
    assert torch.equal(x, before)


def test_mix_takes_any_rank_and_passes_gradients_to_both_sides():
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    lam = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    partner = torch.tensor([1, 2, 3, 0])
    mix(x, partner, lam).sum().backward()
    expected = lam + (1 - lam).roll(1)  # sample i is the partner of sample i - 1
    assert x.grad is not None and torch.allclose(x.grad, expected[:, None, None].expand(4, 2, 3))


BAD = [
    ({"n": 0}, r"n must be >= 1, but got 0"),
    ({"modalities": ()}, r"modalities must be one or more different names, but got \[\]"),
    ({"modalities": ("a", "a")}, r"modalities must be one or more different names"),
    ({"alpha": 0.0}, r"alpha must be a finite number > 0, but got 0.0"),
    ({"alpha": float("nan")}, r"alpha must be a finite number > 0, but got nan"),
    ({"shards": 0}, r"shards must be >= 1, but got 0"),
    ({"probability": 1.5}, r"probability must lie in \[0, 1\], but got 1.5"),
    ({"key": {"seed": 0}}, r"key must hold seed, fold, epoch and step, but got \['seed'\]"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        draw(**change)


def test_mix_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"lam must have shape \[3\] for x of shape \[3, 2\], but got \[2\]"):
        mix(torch.ones(3, 2), torch.arange(3), torch.ones(2))
    with pytest.raises(ValueError, match=r"permutation must have shape \[3\]"):
        mix(torch.ones(3, 2), torch.arange(4), torch.ones(3))
    with pytest.raises(ValueError, match="x must have a floating dtype"):
        mix(torch.arange(3), torch.arange(3), torch.ones(3))
