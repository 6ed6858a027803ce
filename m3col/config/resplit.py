"""The section `data.resplit` of a run config: one of several outer divisions into training and test samples."""

from typing import Annotated, Literal

from pydantic import Field

from m3col.config.keys import Strict


class ResplitConfig(Strict):
    """One outer split: all labelled samples are pooled and divided anew into training and test samples.

    Attributes:
        kind: "resplit": a random division with the data set's own share of test samples; without labelled test samples
            the share is 1 / `folds`. "kfold": cross-validation, repeated with new folds every `folds` splits.
            "everything": all samples are training samples, and there is no test.
        folds: number of folds of "kfold".
        seed: seed of all divisions.
        index: which division, from 0. Of "kfold": fold `index % folds` of repeat `index // folds`.
        groups: a column of a numeric table, by name or as "modality.column". Samples with the same value are kept
            together, here and in the folds for validation. None: the groups of the data set, if it has any.
    """

    kind: Literal["resplit", "kfold", "everything"] = "resplit"
    folds: Annotated[int, Field(ge=2)] = 5
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    index: Annotated[int, Field(ge=0)] = 0
    groups: str | None = None
