"""Tiny pairs of images and texts, and a config with tiny encoders, for tests."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from m3col.config.loading import load
from m3col.config.schema import RunConfig

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
_WORDS = {"red": "apple cherry rose", "green": "leaf grass frog", "blue": "sea sky whale"}
COUNTS = {"train": 24, "validation": 9, "test": 12}


def paint(path: Path, colour: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    noise = draw.integers(-40, 40, (20 + int(draw.integers(0, 9)), 24, 3))
    Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)).save(path)


def folder(place: Path) -> Path:
    """A folder in the layout of `image_text`."""
    (place / "imgs").mkdir(parents=True)
    for split, count in COUNTS.items():
        rows = ["image,caption,label"]
        for number in range(count):
            colour = list(COLOURS)[number % 3]
            name = f"imgs/{split}-{number}.png"
            paint(place / name, colour, seed=number + 1000 * len(split))
            words = _WORDS[colour].split()
            rows.append(f"{name},a {words[number % 3]} {'and more ' * (number % 4)}here,{colour}")
        file = "val" if split == "validation" else split
        (place / f"{file}.csv").write_text("\n".join(rows) + "\n")
    return place


def config(place: Path, **changes: Any) -> RunConfig:
    """Keys with double underscores are dotted paths."""
    raw: dict[str, Any] = {
        "data": {
            "name": "image_text", "dir": str(place), "image": {"size": 16},
            "text": {"columns": ["caption"], "tokenizer": "fitted", "vocabulary": 200, "max_length": 12},
        },
        "model": {
            "embedding_dim": 16, "classifier_dim": 8,
            "image": {
                "name": "vit_tiny_patch16_224", "pretrained": False,
                "options": {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4},
            },
            "text": {
                "name": "bert", "pretrained": False,
                "options": {
                    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
                    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
                },
            },
        },
        "train": {"epochs": 2, "batch_size": 8, "schedule": {"kind": "none"}},
    }  # fmt: skip
    return load(raw, overrides={key.replace("__", "."): value for key, value in changes.items()})
