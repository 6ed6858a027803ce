"""The code file of a logged model: MLflow runs it when it loads the model, and nothing is unpickled.

Input: a DataFrame with one column `<modality>.<feature>` per feature, in any order, and one column of a modality's name
for pictures (paths or contents of files) or texts. Output: one column of probabilities per class, exactly those of
`m3col.load(checkpoint).predict_proba`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from m3col import predictor, tracked, tracking


def load(checkpoint: Path) -> Callable[[pd.DataFrame], pd.DataFrame]:
    model = predictor.load(checkpoint)
    kinds = model.kinds
    columns = tracked.model_columns(model.features, kinds)

    def predict(table: pd.DataFrame) -> pd.DataFrame:
        inputs = {
            # Row by row in memory, as arrays usually are: the order of sums, hence the last bits, depends on it.
            name: np.ascontiguousarray(table[group], dtype=np.float64)
            if kinds[name] == "numeric"
            else table[name].tolist()
            for name, group in columns.items()
        }
        return pd.DataFrame(model.predict_proba(inputs), columns=list(model.classes), index=table.index)

    return predict


tracking.serve(load)
