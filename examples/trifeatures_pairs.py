"""A figure of pairs of Trifeatures with their labels, as in docs/trifeatures.md:

python examples/trifeatures_pairs.py docs/trifeatures_pairs.png
"""

import sys

from m3col.data.trifeatures import images, pairs
from m3col.plots import style

SEED, SIZE, COLUMNS = 42, 224, 6


def draw(path: str) -> None:
    """Draws three pairs that do not obey the rule of synergy above three pairs that do."""
    train = pairs.images_of("train", seed=SEED)
    figure = style.figure(12.5, 4.4)
    grid = figure.subplots(2, COLUMNS)
    other = pairs.draw_pairs("train", COLUMNS // 2, seed=SEED)
    match = pairs.draw_pairs("train", COLUMNS // 2, biased=True, seed=SEED)
    for axes, rows in zip(grid, (other, match), strict=True):
        labels = {target: pairs.labels(train, rows, target, seed=SEED) for target in pairs.TARGETS}
        for pair, members in enumerate(rows):
            for place, position in enumerate(members):
                combination, copy = int(train.combination[position]), int(train.copy[position])
                shape, texture, colour = images.Features.of(combination).names
                ax = axes[2 * pair + place]
                ax.imshow(images.draw(combination, copy, size=SIZE, seed=SEED))
                style.bare(ax)
                holds = "match" if labels["synergy"][pair] else "other"
                left = f"R: {shape}    S: {holds}" if place == 0 else ""
                ax.set_title(left, loc="left", fontsize=9, color=style.INK)
                ax.set_xlabel(f"U{place + 1}: {texture}\n{colour}", fontsize=9, color=style.INK)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    draw(sys.argv[1])
