"""Augmentations of images against plain loops and the standard library, and their shares and ranges."""

import colorsys
import math

import numpy as np
import pytest
import torch

from m3col.augmentation import images as augment
from m3col.augmentation.draws import Draws
from m3col.augmentation.registry import Blur, Grey, Jitter, ResizedCrop

N, S = 12, 6


def draws(n=N, **key):
    return Draws({"seed": 0, "fold": 0, "epoch": 1, "step": 0} | key, "image", "a", n, slice(0, n))


@pytest.fixture
def batch():
    return torch.rand((N, 3, S, S), dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def grey_of(pixel):
    return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def clamped(value):
    return min(max(value, 0.0), 1.0)


def changed_slowly(image, order, amounts):
    """Brightness, contrast, saturation and hue of one image [3, S, S] in the given order, pixel by pixel."""
    pixels = {(i, j): [float(image[c, i, j]) for c in range(3)] for i in range(S) for j in range(S)}
    for change in order:
        amount = amounts[change]
        mean = sum(map(grey_of, pixels.values())) / len(pixels)
        for at, pixel in pixels.items():
            if change == 0:
                pixels[at] = [clamped(value * amount) for value in pixel]
            elif change == 1:
                pixels[at] = [clamped(amount * value + (1 - amount) * mean) for value in pixel]
            elif change == 2:
                pixels[at] = [clamped(amount * value + (1 - amount) * grey_of(pixel)) for value in pixel]
            else:
                h, s, v = colorsys.rgb_to_hsv(*pixel)
                pixels[at] = list(colorsys.hsv_to_rgb((h + amount) % 1, s, v))
    return np.array([[[pixels[i, j][c] for j in range(S)] for i in range(S)] for c in range(3)])


def test_jitter_changes_each_image_in_an_order_of_its_own(batch):
    settings = Jitter(hue=0.3, p=0.7)
    before = batch.clone()
    made = augment.jitter(batch, settings, draws())
    chosen, numbers = draws().coin(0.7, "jitter"), draws().uniform(8, "jitter")
    assert 0 < chosen.sum() < N and torch.equal(batch, before)
    for row in range(N):
        if not chosen[row]:
            assert torch.equal(made[row], batch[row])
            continue
        order = sorted(range(4), key=lambda change: numbers[row, 4 + change])
        amounts = [1 + 0.4 * (2 * number - 1) for number in numbers[row, :3]] + [0.3 * (2 * numbers[row, 3] - 1)]
        assert made[row].numpy() == pytest.approx(changed_slowly(batch[row], order, amounts), abs=1e-9)


def test_hues_of_pure_and_grey_colours():
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0.4, 0.4, 0.4], [0, 0, 0]]).double()
    image = colours.T.reshape(1, 3, 1, 6)
    for shift in (0.0, 1 / 3, -0.25, 0.5):
        made = augment.hue(image, torch.tensor([shift], dtype=torch.float64))
        for column, colour in enumerate(colours.tolist()):
            h, s, v = colorsys.rgb_to_hsv(*colour)
            assert made[0, :, 0, column].tolist() == pytest.approx(colorsys.hsv_to_rgb((h + shift) % 1, s, v), abs=1e-9)


def test_blur_is_a_gaussian_mean_with_the_border_continued(batch):
    settings = Blur(radius=[0.3, 1.2], p=0.6)
    before = batch.clone()
    made = augment.blur(batch, settings, draws())
    chosen = draws().coin(0.6, "blur")
    sigmas = 0.3 + 0.9 * draws().uniform(1, "blur")[:, 0]
    reach = math.ceil(4 * 1.2)
    assert 0 < chosen.sum() < N and torch.equal(batch, before)
    for row in range(N):
        if not chosen[row]:
            assert torch.equal(made[row], batch[row])
            continue
        weights = [math.exp(-0.5 * (k / sigmas[row]) ** 2) for k in range(-reach, reach + 1)]
        for c in range(3):
            for i in range(S):
                for j in range(S):
                    expected = 0.0
                    for k in range(-reach, reach + 1):
                        for m in range(-reach, reach + 1):
                            pixel = batch[row, c, min(max(i + k, 0), S - 1), min(max(j + m, 0), S - 1)]
                            expected += weights[k + reach] * weights[m + reach] * float(pixel)
                    assert float(made[row, c, i, j]) == pytest.approx(expected / sum(weights) ** 2, abs=1e-9)


def test_grey_has_three_equal_channels(batch):
    made = augment.grey(batch, Grey(p=0.5), draws())
    chosen = draws().coin(0.5, "grey")
    assert 0 < chosen.sum() < N
    for row in range(N):
        for i in range(S):
            for j in range(S):
                pixel = batch[row, :, i, j].tolist()
                expected = [grey_of(pixel)] * 3 if chosen[row] else pixel
                assert made[row, :, i, j].tolist() == pytest.approx(expected, abs=1e-12)


def test_a_probability_is_the_share_of_the_images_that_change():
    batch = torch.rand((2000, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    for change, settings, p in (
        (augment.jitter, Jitter(), 0.8), (augment.grey, Grey(), 0.2), (augment.blur, Blur(radius=[1, 2]), 0.5),
    ):  # fmt: skip
        made = change(batch, settings, draws(2000))
        share = (made != batch).flatten(1).any(1).double().mean()
        assert share == pytest.approx(p, abs=0.03)
        assert made.min() >= 0 and made.max() <= 1
        assert torch.equal(made, change(batch, settings, draws(2000)))


def test_a_random_part_has_the_area_and_the_aspect_of_the_settings():
    settings, numbers = ResizedCrop(area=[0.2, 0.6]), draws(3000).uniform(augment.CROP_DRAWS, "resized_crop")
    parts = np.array([augment.random_part(80, 100, settings, number) for number in numbers])
    top, left, height, width = parts.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 80).all() and (left + width <= 100).all()
    area, aspect = height * width / 8000, width / height
    assert area.min() == pytest.approx(0.2, abs=0.02) and area.max() == pytest.approx(0.6, abs=0.02)
    assert area.mean() == pytest.approx(0.4, abs=0.01)
    assert aspect.min() == pytest.approx(3 / 4, abs=0.03) and aspect.max() == pytest.approx(4 / 3, abs=0.05)
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.02)
    assert len(set(map(tuple, parts.tolist()))) > 2000


def test_the_aspect_is_width_over_height():
    settings = ResizedCrop(area=[0.2, 0.2], aspect=[2.0, 2.0])
    number = draws(1).uniform(augment.CROP_DRAWS, "resized_crop")[0]
    assert augment.random_part(100, 100, settings, number)[2:] == (32, 63)  # 0.2 * 100 * 100 = 2000


@pytest.mark.parametrize(("height", "width", "expected"), [
    (10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10)), (40, 40, (0, 0, 40, 40)),
])  # fmt: skip
def test_an_image_that_no_part_fits_into_gives_its_middle(height, width, expected):
    """As torchvision does: the largest part with an aspect of the settings."""
    never = np.tile([0.9, 0.5], augment.CROP_DRAWS // 2)
    assert augment.random_part(height, width, ResizedCrop(area=[1.0, 1.0]), never) == expected


def test_a_part_is_resized_with_a_triangle_filter():
    image = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    settings, number = ResizedCrop(area=[0.5, 1.0]), draws(1).uniform(augment.CROP_DRAWS, "resized_crop")[0]
    top, left, height, width = augment.random_part(9, 12, settings, number)
    part = image[top : top + height, left : left + width].astype(float)
    made = augment.resized_crop(image, settings, 5, number)
    for i in range(5):
        for j in range(5):
            total, weight = np.zeros(3), 0.0
            for y in range(height):
                for x in range(width):
                    scale_y, scale_x = max(1.0, height / 5), max(1.0, width / 5)
                    near_y = max(0.0, 1 - abs((y + 0.5) - (i + 0.5) * height / 5) / scale_y)
                    near_x = max(0.0, 1 - abs((x + 0.5) - (j + 0.5) * width / 5) / scale_x)
                    total, weight = total + near_y * near_x * part[y, x], weight + near_y * near_x
            assert made[i, j].astype(float) == pytest.approx(total / weight, abs=1.01)  # Pillow rounds twice
