"""The code file of a logged model: MLflow runs it when it loads the model, and nothing is unpickled.

Input: a DataFrame with one column `<modality>.<feature>` per feature, in any order. Output: one column of probabilities
per class, exactly those of `m3col.load(checkpoint).predict_proba`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from m3col import predictor, tracked, tracking


def load(checkpoint: Path) -> Callable[[pd.DataFrame], pd.DataFrame]:
    model = predictor.load(checkpoint)
    columns = tracked.model_columns(model.features)

    def predict(table: pd.DataFrame) -> pd.DataFrame:
        # Row by row in memory, as arrays usually are: the order of sums, hence the last bits, depends on it.
        inputs = {name: np.ascontiguousarray(table[group], dtype=np.float64) for name, group in columns.items()}
        return pd.DataFrame(model.predict_proba(inputs), columns=list(model.classes), index=table.index)

    return predict


tracking.serve(load)
