"""Two tiny models: of images and texts, and of numbers (an ensemble of two)."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import m3col
from m3col.data import loading
from m3col.data.formats.csv_columns import Layout
from tests.support import pairs
from tests.support.helpers import TINY, tiny_data


@pytest.fixture(scope="session")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`checkpoint`, `predictor`, `dataset`, `folder` of images and texts."""
    place = tmp_path_factory.mktemp("pairs")
    folder = pairs.folder(place / "data")
    result = m3col.train(pairs.config(folder), runs=place / "runs", tracking_uri="none")
    dataset = loading.load("image_text", data_dir=folder, layout=Layout(text=("caption",)))
    return SimpleNamespace(checkpoint=result.checkpoint, predictor=result.predictor, dataset=dataset, folder=folder)


@pytest.fixture(scope="session")
def numeric(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`checkpoint`, `predictor`, `dataset` of three views of numbers."""
    dataset = tiny_data(classes=3, modalities=3, samples=45, test=24)
    overrides = {"validation.kind": "kfold", "validation.folds": 2, "train.epochs": 2}
    place: Path = tmp_path_factory.mktemp("numeric")
    result = m3col.train(TINY, data=dataset, overrides=overrides, runs=place, tracking_uri="none")
    return SimpleNamespace(checkpoint=result.checkpoint, predictor=result.predictor, dataset=dataset)
