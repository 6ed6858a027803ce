"""The code file of a logged model: MLflow runs it when it loads the model, and nothing is unpickled.

Input: a DataFrame with one column `<modality>.<feature>` per feature, in any order. Output: one column of probabilities
per class, exactly those of `m3col.load(checkpoint).predict_proba`.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from m3col import predictor, tracking


def load(checkpoint: Path) -> Callable[[pd.DataFrame], pd.DataFrame]:
    model = predictor.load(checkpoint)
    columns = tracking.model_columns(model.features)

    def predict(table: pd.DataFrame) -> pd.DataFrame:
        inputs = {modality: table[names].to_numpy(dtype="float64") for modality, names in columns.items()}
        return pd.DataFrame(model.predict_proba(inputs), columns=list(model.classes), index=table.index)

    return predict


tracking.serve(load)
